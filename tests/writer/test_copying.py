"""Copies of a whole database: from any engine and model to any other, while messages arrive."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import attrs
import pytest
from typer.testing import CliRunner

import amqtt_db
from amqtt_db.cli import app
from amqtt_db.database.catalog import Catalog
from amqtt_db.database.engines import engine_for
from amqtt_db.errors import DatabaseError
from amqtt_db.journal import Journal, read_progress
from amqtt_db.message import CONNECT, DISCONNECT, PUBLISH, Batch, Message, flags
from amqtt_db.writer.catching_up import ChangedTopic
from amqtt_db.writer.copying import CopiedTopic, Copier
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.importing import Importer, Survey
from amqtt_db.writer.loop import Stop, WriterLoop
from amqtt_db.writer.redecoding import Redecoder
from amqtt_db.writer.renaming import Renamer
from amqtt_db.writer.replay import replay
from amqtt_db.writer.workshop import RewriteError
from amqtt_db.writer.writer import Writer
from tests.database.engines.servers import Site
from tests.values import same
from tests.workbench import Sent, Workbench, routes
from tests.writer.test_decoder_memory import TOTALS
from tests.writer.test_deletion import workshop

ROUTES: Final[tuple[dict[str, Any], ...]] = (
    {"topic": "wide/{room}", "raw": True, "latest": True},
    {"topic": "one/{room}", "model": {"wide": {"table": "everything"}}},
    {"topic": "eav/#", "model": "eav"},
    {"topic": "narrow/#", "model": "narrow"},
    {"topic": "document/#", "model": "document", "decode": "json"},
)
OTHERS: Final[tuple[dict[str, Any], ...]] = (
    {"topic": "{model}/#", "model": "document", "decode": "json", "raw": True},
)
VALUES: Final = (21.5, -0.0, True, "\x00", "text", 2**60, 2**70, [1, {"a": None}], {"open": True}, None)


MEMORIES: Final[tuple[dict[str, Any], ...]] = (
    *ROUTES,
    {"topic": "sum/#", "decode": TOTALS},
    {"topic": "changes/#", "only": "changes", "drop": ["n"]},
)
TOPICS: Final = ("wide/0", "one/1", "eav/2", "narrow/3", "sum/0", "changes/0")


def messages(count: int) -> list[Sent]:
    """Messages of all kinds on topics of all models; some are no JSON."""
    models = ("wide", "one", "eav", "narrow", "document")
    made = [
        Sent(f"{models[n % 5]}/{n % 3}", {"n": n, "v": VALUES[n % len(VALUES)], "x": {"y": n / 7}}, n % 3, n % 2 == 0)
        for n in range(count)
    ]
    return [*made, Sent("document/0", b"{"), Sent("nowhere", {})]


def copy(source: str, target: str, *entries: dict[str, Any]) -> list[CopiedTopic]:
    """Copy everything, as the command does."""
    copier = Copier(source, target, routes(*(entries or ROUTES), url=target))
    try:
        steps = list(copier.copy())
    finally:
        copier.close()
    changed = {one.topic: one.messages for one in steps if isinstance(one, ChangedTopic)}
    copied = [one for one in steps if isinstance(one, CopiedTopic)]
    return [attrs.evolve(one, changed=changed.get(one.topic, 0)) for one in copied]


def require_equal(one: str, other: str) -> None:
    """Both databases have the same records, to the last bit, and the same counters, dead letters and payloads."""
    for left, right in zip(amqtt_db.read(one), amqtt_db.read(other), strict=True):
        assert left.envelope() == right.envelope()
        assert same(left.data(), right.data())
        assert left.properties().keys() == right.properties().keys()
    for table in ("mqtt_counter", "mqtt_session", "mqtt_dead_letter", "mqtt_raw"):
        assert content(one, table) == content(other, table)


def content(url: str, table: str) -> list[Any]:
    """The rows of a system table, in any form that is the same on all engines."""
    catalog = getattr(Catalog(engine_for(url)), table.removeprefix("mqtt_"))
    database = engine_for(url).open(write=False)
    try:
        with database.begin() as connection:
            return sorted(map(repr, connection.execute(catalog.select())))
    finally:
        database.dispose()


@pytest.mark.slow
def test_there_and_back(tmp_path: Path, postgresql: Site, request: pytest.FixtureRequest) -> None:
    """SQLite → PostgreSQL → SQLite, with other models: nothing is lost; another copy has nothing to do."""
    count = request.config.getoption("--copied")
    bench = Workbench(tmp_path, *ROUTES)
    for start in range(0, count, 5000):
        bench.send(*messages(min(5000, count - start)))
    copied = copy(bench.url, postgresql.url)
    assert sum(one.new for one in copied) == len(bench.records()) >= count * 9 // 10
    require_equal(bench.url, postgresql.url)
    (tmp_path / "back").mkdir()
    back = f"sqlite:///{tmp_path / 'back' / 'mqtt.db'}"
    assert [one.checksum for one in copy(postgresql.url, back, *OTHERS)] == [one.checksum for one in copied]
    require_equal(bench.url, back)
    assert sum(one.records for one in copy(bench.url, postgresql.url)) == 0


@pytest.mark.slow
def test_to_mariadb(tmp_path: Path, mysql: Site) -> None:
    """The same, for what that cannot hold as it is."""
    bench = Workbench(tmp_path, *ROUTES)
    bench.send(*messages(200))
    copy(bench.url, mysql.url)
    require_equal(bench.url, mysql.url)


@pytest.mark.slow
def test_a_copy_that_was_stopped_goes_on(tmp_path: Path) -> None:
    """What it had copied is there, and is not copied again; a new message in between comes along."""
    bench = Workbench(tmp_path, *ROUTES)
    bench.send(*messages(100))
    target = f"sqlite:///{tmp_path / 'new.db'}"
    copier = Copier(bench.url, target, routes(*ROUTES))
    steps = copier.copy()
    for _ in range(4):
        next(steps)
    steps.close()
    copier.close()
    bench.send(("wide/0", {"late": True}))
    copied = copy(bench.url, target)
    assert sum(one.same for one in copied) > 0
    assert sum(one.records for one in copied) == len(bench.records())
    require_equal(bench.url, target)


@pytest.mark.slow
def test_a_second_copy_brings_what_was_changed_since_the_first(tmp_path: Path) -> None:
    """Messages that came, and what was replayed, imported, renamed and stored again meanwhile; the counters add up."""
    bench = Workbench(tmp_path, *ROUTES)
    target = f"sqlite:///{tmp_path / 'new.db'}"
    bench.send(*messages(20))
    assert len(copy(bench.url, target)) == len({record.topic for record in bench.records()})
    bench.send(*messages(20))
    text = {"topic": "document/#", "model": "document", "decode": "text"}
    now = ({**ROUTES[0], "entity": {"n": "int"}}, *ROUTES[1:4], text)
    assert [one.reason for one in replay(bench.url, routes(*now))].count(None) > 1
    imported = [attrs.evolve(bench.records("eav/1")[0], id=id_) for id_ in (7 << 40 | 1, 1 << 40 | 22)]  # 22: nowhere
    with workshop(bench, *now) as shop:
        list(Renamer(shop).rename("one/1", "one/renamed"))
        list(Renamer(shop).rename("narrow/0", "narrow/1"))
        redecoder = Redecoder(shop)
        assert list(redecoder.redecode(*redecoder.topics("wide/#")))
        importer = Importer(shop, lambda: iter(imported), Survey.of(imported, shop.routes, None))
        importer.check()
        assert [step.new for step in importer.store()] == [2]
    changed = {one.topic: one.changed for one in copy(bench.url, target, *now) if one.changed}
    assert changed.keys() == {"one/renamed", "narrow/1", "wide/0", "wide/1", "wide/2", "eav/1", "document/0"}
    require_equal(bench.url, target)
    assert not any(one.changed + one.records for one in copy(bench.url, target, *now))


def test_sessions_end_in_the_copy_when_they_have_ended(tmp_path: Path) -> None:
    """One that was open during the first copy, and that the old writer has seen the end of."""
    bench = Workbench(tmp_path)
    target = f"sqlite:///{tmp_path / 'new.db'}"
    bench.store(Batch.of("a", Message(1, 5, flags(CONNECT), 0, b"", b'{"client_id": "c"}')))
    copy(bench.url, target, {"topic": "#"})
    bench.store(Batch.of("a", Message(2, 9, flags(DISCONNECT), 1, b"", b"{}")))
    copy(bench.url, target, {"topic": "#"})
    require_equal(bench.url, target)
    assert "9" in content(target, "mqtt_session")[0]


def test_a_database_with_records_of_its_own_is_refused(tmp_path: Path) -> None:
    """They have the same ids; nothing is changed."""
    (tmp_path / "other").mkdir()
    one, other = Workbench(tmp_path, *ROUTES), Workbench(tmp_path / "other", *ROUTES, token="b")
    one.send(*messages(10))
    other.send(*messages(10))
    before = other.records()
    with pytest.raises(RewriteError, match="already has records of its own"):
        copy(one.url, other.url)
    assert other.records() == before


def test_a_topic_without_a_route_is_refused(tmp_path: Path) -> None:
    """Before anything is copied."""
    bench = Workbench(tmp_path, *ROUTES)
    bench.send(*messages(10))
    target = f"sqlite:///{tmp_path / 'new.db'}"
    with pytest.raises(RewriteError, match=r"no route stores topic 'document/"):
        copy(bench.url, target, *ROUTES[:2])
    assert not (tmp_path / "new.db").exists()


def test_the_command_says_what_is_wrong_in_a_line(tmp_path: Path) -> None:
    """A URL that names no database is a mistake on the command line, and its password is not shown."""
    Workbench(tmp_path, *ROUTES).send(*messages(5))
    url = f"sqlite:///{tmp_path}/mqtt.db"
    for arguments, code, told in (
        (("--to", "oracle://me:geheim@host/name"), 2, "unknown database 'oracle'"),
        (("--from", url, "--to", url), 1, "is the old database as well"),
        (("--from", f"{url}.nowhere", "--to", f"{url}.new"), 1, "does not exist yet"),
    ):
        result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["copy", *arguments])
        assert (result.exit_code, told in result.stderr, "geheim" in result.stderr) == (code, True, False), (
            result.output
        )


def test_the_command_says_what_is_there_after_an_earlier_copy(tmp_path: Path) -> None:
    """Also where there is nothing new."""
    Workbench(tmp_path, *ROUTES).send(*messages(5))
    url = f"sqlite:///{tmp_path}/mqtt.db"
    command = ["copy", "--from", url, "--to", f"{url}.new"]
    first, again = (CliRunner(env={"COLUMNS": "200"}).invoke(app, command).stdout.splitlines() for _ in range(2))
    topics = len(first) - 1
    assert [line.partition(";")[0] for line in again[:-1]] == [
        re.sub(r"(\d+) records? copied, 0 there", r"0 records copied, \1 there", line.partition(";")[0])
        for line in first[:-1]
    ]
    assert again[-1].endswith(f"new has 5 records of {topics} topics; those of earlier copies were compared then")


class Load:
    """A journal that is filled without a pause, and a writer that stores it in a database."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._journal = Journal.open(path, max_size=2**30, sync="never")
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._fill)
        self.sent = 0
        self._thread.start()

    def _fill(self) -> None:
        while not self._ends.wait(0.005):
            for _ in range(20):
                topic = TOPICS[self.sent % len(TOPICS)].encode()
                payload = (
                    b"%d" % self.sent if topic == b"sum/0" else b'{"n": %d, "m": %d}' % (self.sent, self.sent // 90)
                )
                self._journal.append(flags(PUBLISH, 1), 1_700_000_000_000_000 + self.sent, 0, topic, payload)
                self.sent += 1
            progress = read_progress(self._path)
            if progress is not None:
                self._journal.trim(progress)
            self._journal.commit()

    def close(self) -> None:
        """Stop filling."""
        if not self._ends.is_set():
            self._ends.set()
            self._thread.join()
            self._journal.close()

    @contextmanager
    def stored_in(self, url: str) -> Iterator[None]:
        """Run the writer on a database; at the end it stores what is there."""
        guard, stop = CrashGuard(self._path.with_name("attempt")), Stop()
        loop = WriterLoop(
            self._path, lambda tally: Writer(engine_for(url), routes(*MEMORIES), guard, tally=tally), guard, stop
        )
        thread = threading.Thread(target=loop.run)
        thread.start()
        try:
            yield
        finally:
            stop.request(60)
            thread.join()
            guard.close()


@pytest.mark.slow
def test_changing_over_while_messages_arrive(tmp_path: Path, postgresql: Site) -> None:
    """SQLite → PostgreSQL under load: copy, let the writer change over, copy the rest; each message is there once.

    Decoders remember, and values are compared, as if nothing had happened.
    """
    old, load = f"sqlite:///{tmp_path / 'mqtt.db'}", Load(tmp_path / "mqtt.journal")
    try:
        with load.stored_in(old):
            while not _has_records(old):
                pass
            copied = sum(one.new for one in copy(old, postgresql.url, *MEMORIES))
            threading.Event().wait(0.3)
        with load.stored_in(postgresql.url):
            rest = copy(old, postgresql.url, *MEMORIES)
            load.close()
    finally:
        load.close()
    every = range(load.sent)
    found = [int(record["n"]) for record in amqtt_db.read(postgresql.url) if record.topic in TOPICS[:4]]
    assert sorted(found) == [number for number in every if number % 6 < 4]
    sums = [int(record["total"]) for record in amqtt_db.read(postgresql.url, "sum/#")]
    assert sums == [*accumulate(number for number in every if number % 6 == 4)]
    changes = [int(record["m"]) for record in amqtt_db.read(postgresql.url, "changes/#")]
    assert changes == [*range(every[-1] // 90 + 1)] or changes == [*range(every[-1] // 90)]
    assert 0 < copied < copied + sum(one.new for one in rest) < sum(1 for _ in amqtt_db.read(postgresql.url))


def _has_records(url: str) -> bool:
    try:
        return next(amqtt_db.read(url, limit=1), None) is not None
    except DatabaseError:
        return False
