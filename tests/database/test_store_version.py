"""The version of the project's own tables: old databases open, read and continue; newer ones are refused in a line."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
import sqlalchemy as sa

from amqtt_db import tagged
from amqtt_db.config import load_section
from amqtt_db.database import store_version
from amqtt_db.database.catalog import Catalog
from amqtt_db.database.dead_letters import letter, letters, purge
from amqtt_db.database.engines import engine_for
from amqtt_db.database.snapshot import has_database
from amqtt_db.errors import DatabaseError
from amqtt_db.journal import JournalReader
from amqtt_db.reader import read
from amqtt_db.reader.topics import list_topics
from amqtt_db.record import Record, tag
from amqtt_db.testing.starting import execute
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.writer import Writer
from tests.database.engines.servers import Site
from tests.workbench import Workbench

FIXTURES: Final = Path(__file__).parent.parent / "fixtures" / "version_0"
EXPECTED: Final[dict[str, Any]] = json.loads((FIXTURES / "expected.json").read_text())


OLD_COUNTS: Final = ("stored", "dead", "ignored", "records", "dropped", "nulled")


@attrs.frozen
class Store:
    """A database of version 0, and the journal that feeds it."""

    url: str
    journal: Path

    def sql(self, query: str) -> list[list[Any]]:
        """Rows that a user sees."""
        database = engine_for(self.url).open(write=True)
        try:
            with database.begin() as connection:
                result = connection.execution_options(no_parameters=True).exec_driver_sql(query)
                return [list(row) for row in result] if result.returns_rows else []
        finally:
            database.dispose()

    def views(self) -> list[str]:
        """The names of all views."""
        database = engine_for(self.url).open(write=False)
        try:
            return sorted(sa.inspect(database).get_view_names())
        finally:
            database.dispose()

    def writer(self) -> Writer:
        """A writer that has not looked at the database yet."""
        routes = load_section({"database": self.url, "routes": EXPECTED["routes"]}).routes
        return Writer(engine_for(self.url), routes, CrashGuard(self.journal.with_name("attempt")))

    def upgrade(self) -> None:
        """Start a writer, and stop it."""
        writer = self.writer()
        try:
            writer.prepare()
        finally:
            writer.close()

    def go_on(self) -> None:
        """Store what is in the journal, as a writer does."""
        writer, reader = self.writer(), JournalReader(self.journal)
        try:
            writer.prepare()
            previous = None
            for generation in reader.generations():
                number, position = writer.register(generation.token, generation.first)
                while (batch := reader.read(generation.token, position)) is not None:
                    writer.store(number, previous, position, batch)
                    position = batch.end
                previous = number
        finally:
            reader.close()
            writer.close()

    def contents(self) -> dict[str, Any]:
        """Everything stored, as `expected.json` has it."""
        sums = ", ".join(f"CAST(sum(c.{name}) AS CHAR(9))" for name in OLD_COUNTS)
        counts = self.sql(f"SELECT c.filter, {sums} FROM mqtt_counter c GROUP BY c.filter")
        found = [letter(self.url, one.id) for one in letters(self.url)]
        return {
            "records": [_plain(record) for record in sorted(read(self.url, "#"), key=lambda one: (one.id, one.part))],
            "dead": [[one.id, one.filter, one.step, (one.payload or b"").decode()] for one in found if one],
            "counts": sorted([value.strip() for value in row] for row in counts),
            "sessions": self.sql("SELECT count(*), count(disconnected) FROM mqtt_session"),
            "views": self.views(),
        }


def _plain(record: Record) -> list[Any]:
    envelope = [record.id, record.part, record.time_us, record.topic, record.session, record.qos, record.retain]
    properties = sorted(record.properties().items())
    return [*envelope, {path: [kind, tagged.dumps(tag(kind, value))] for path, (kind, value) in properties}]


@pytest.fixture
def store(site: Site) -> Iterator[Store]:
    """The fixture's database on each engine in turn, with its journal."""
    journal = site.path / "journal.db"
    shutil.copy(FIXTURES / "journal.db", journal)
    if site.engine == "sqlite":
        shutil.copy(FIXTURES / "sqlite.db", site.path / "mqtt.db")
    else:
        script = (FIXTURES / f"{site.engine}.sql").read_text()
        execute(site.url, *(statement for statement in script.split(";\n") if statement.strip()))
    yield Store(site.url, journal)
    database = engine_for(site.url).open(write=True)
    with database.begin() as connection:  # other tests get the same database again, and know nothing of these names
        for view in sa.inspect(connection).get_view_names():
            connection.exec_driver_sql(f"DROP VIEW {view}")
    database.dispose()


@pytest.mark.slow
def test_an_old_database_reads_the_same_once_it_is_upgraded(store: Store) -> None:
    """Records of all models, dead letters in several segments, counters, sessions; a second start changes nothing."""
    for _ in range(2):
        store.upgrade()
        assert store.contents() == EXPECTED["before"]
        assert store.sql("SELECT m.name, m.value FROM mqtt_meta m") == [["version", str(store_version.STORE_VERSION)]]


@pytest.mark.slow
def test_the_writer_goes_on_where_the_old_one_stopped(store: Store) -> None:
    """Messages left in the journal are stored exactly once; stored ones are not stored again."""
    store.go_on()
    assert store.contents() == EXPECTED["after"]
    store.go_on()
    assert store.contents() == EXPECTED["after"]


def test_models_are_named_by_their_registered_names_from_then_on(store: Store) -> None:
    """The module of a class may move; a class that cannot be loaded keeps its name."""
    gone = '{"gone.Model": {}}'
    store.sql(f"UPDATE mqtt_placement SET model = '{gone}' WHERE topic = 'own/a'")
    store.upgrade()
    models = {json.loads(text).popitem()[0] for (text,) in store.sql("SELECT model FROM mqtt_assignment")}
    assert models == {"wide", "eav", "document", "narrow", "gone.Model"}


def test_views_of_an_old_database_answer_all_the_while(store: Store) -> None:
    """Views that name a renamed table, also a user's own, are created again before any message arrives."""
    store.sql("CREATE VIEW ours AS SELECT p.topic FROM mqtt_placement p WHERE p.state = 'current'")
    names, topics = store.views(), store.sql("SELECT topic FROM ours ORDER BY topic")
    counts = {name: store.sql(f"SELECT count(*) FROM {name}") for name in names}
    store.upgrade()
    assert store.views() == names
    assert {name: store.sql(f"SELECT count(*) FROM {name}") for name in names} == counts
    assert store.sql("SELECT topic FROM ours ORDER BY topic") == topics


def test_a_reader_says_that_a_database_is_old(store: Store) -> None:
    """In one line that says what to do; nothing is changed."""
    for look in (lambda: list(read(store.url)), lambda: list_topics(store.url), lambda: purge(store.url)):
        with pytest.raises(DatabaseError, match=r"^the database's tables have version 0.*start the writer once[^\n]*$"):
            look()
    assert store.sql("SELECT count(*) FROM mqtt_placement") != [[0]]


@pytest.mark.slow
@pytest.mark.parametrize("done", [1, 2])
def test_a_writer_that_was_killed_in_the_middle_is_followed_by_one_that_finishes(done: int, store: Store) -> None:
    """DDL may commit by itself, so the old writer may have died after any statement."""
    for old, new in (("mqtt_placement", "mqtt_assignment"), ("mqtt_dead_piece", "mqtt_dead_segment"))[:done]:
        store.sql(f"ALTER TABLE {old} RENAME TO {new}")
    with pytest.raises(DatabaseError, match="have version 0"):
        list(read(store.url))
    store.upgrade()
    assert store.contents() == EXPECTED["before"]


def test_a_broken_view_is_not_in_the_way(tmp_path: Path) -> None:
    """After a table was dropped by hand, SQLite would refuse to rename another one."""
    shutil.copy(FIXTURES / "sqlite.db", tmp_path / "mqtt.db")
    store = Store(f"sqlite:///{tmp_path / 'mqtt.db'}", tmp_path / "journal.db")
    store.sql("DROP TABLE plugs_0")
    store.upgrade()
    assert [record.topic for record in read(store.url, "meters/#")] == ["meters/main"] * 5


def test_a_newer_database_is_refused_in_one_line(site: Site) -> None:
    """By the writer and by readers: which version it has, which one this program knows, what to do."""
    bench = Workbench(site)
    bench.send(("a", {"v": 1}))
    bench.close()
    newer = str(store_version.STORE_VERSION + 1)
    bench.sql(f"UPDATE mqtt_meta SET value = '{newer}'")
    newest = store_version.STORE_VERSION
    wanted = rf"^the database's tables have version {newer}, .* knows only versions up to {newest}: [^\n]*$"
    with pytest.raises(DatabaseError, match=wanted):
        bench.open()
    with pytest.raises(DatabaseError, match=wanted):
        bench.records()
    assert bench.sql("SELECT v FROM a") == [(1.0,)]
    bench.sql(f"UPDATE mqtt_meta SET value = '{store_version.STORE_VERSION}'")


def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one transaction if DDL is transactional, and the error says that the upgrade failed."""
    shutil.copy(FIXTURES / "sqlite.db", tmp_path / "mqtt.db")
    store = Store(f"sqlite:///{tmp_path / 'mqtt.db'}", tmp_path / "journal.db")

    def fail(connection: sa.Connection, _: object) -> None:
        connection.exec_driver_sql("ALTER TABLE mqtt_placement RENAME TO mqtt_assignment")
        connection.exec_driver_sql("SELECT 1 FROM nowhere")

    monkeypatch.setattr(store_version, "_STEPS", {0: fail})
    with pytest.raises(
        DatabaseError,
        match=rf"have version 0 and cannot be upgraded to {store_version.STORE_VERSION}: .*no such table: nowhere",
    ):
        store.upgrade()
    with sqlite3.connect(tmp_path / "mqtt.db") as connection:
        assert connection.execute("SELECT count(*) > 0 FROM mqtt_placement").fetchall() == [(1,)]
    connection.close()


def test_a_database_whose_tables_are_just_being_created_is_not_there_yet(tmp_path: Path) -> None:
    """MariaDB shows each table to others at once: whatever is still missing, a reader says that nothing is there."""
    url = f"sqlite:///{tmp_path / 'mqtt.db'}"
    database = engine_for(url).open(write=True)
    catalog = Catalog(engine_for(url))
    for table in catalog.metadata.sorted_tables:
        if table is not catalog.meta:
            assert not has_database(url)
            with database.begin() as connection:
                table.create(connection)
    database.dispose()
