"""What only MariaDB and MySQL have: packets, DDL that commits, named locks."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml
from typer.testing import CliRunner

from amqtt_db.cli import app
from amqtt_db.database.engines import engine_for
from amqtt_db.database.engines.base import Engine
from amqtt_db.database.engines.mysql import _LOCK
from amqtt_db.database.engines.mysql_rows import _chunks
from amqtt_db.database.engines.views import view_sql
from amqtt_db.database.snapshot import require_database
from amqtt_db.errors import DatabaseError
from tests.database.engines.servers import Site
from tests.workbench import Sent, Workbench

MODELS = ("wide", "eav", "narrow", "document")


def test_a_message_becomes_a_typed_row(mysql: Site) -> None:
    """64 bits, doubles, microseconds in UTC, all of Unicode."""
    bench = Workbench(mysql)
    bench.send(("t", {"v": 21.5, "s": "🙂 'quoted' \\ back", "b": True, "l": [1]}))
    types = dict(
        bench.sql(
            "SELECT column_name, column_type FROM information_schema.columns "
            "WHERE table_name = 't' AND table_schema = DATABASE()"
        )
    )
    assert (types["time"], types["v"], types["s"], types["extra"]) == ("datetime(6)", "double", "longtext", "longtext")
    assert bench.sql("SELECT CAST(time AS CHAR), v, s, b, l FROM t") == [
        ("2023-11-14 22:13:20.000000", 21.5, "🙂 'quoted' \\ back", 1, "[1]")
    ]


def test_a_batch_beyond_a_packet(mysql: Site) -> None:
    """More bytes than fit into a packet are sent in several statements of one transaction."""
    bench = Workbench(mysql)
    most = bench.sql("SELECT @@max_allowed_packet")[0][0]
    size = most // 5
    bench.send(*(("t", {"n": number, "s": "x" * size}) for number in range(12)))
    assert bench.sql("SELECT count(*), min(length(s)), max(length(s)) FROM t") == [(12, size, size)]


def test_statements_hold_as_many_rows_as_fit() -> None:
    """At least one each, in order."""
    assert [list(some) for some in _chunks(["aa", "bb", "cc"], 100)] == [["aa", "bb", "cc"]]
    assert [list(some) for some in _chunks(["aa", "bb", "cc"], 10)] == [["aa", "bb"], ["cc"]]
    assert [list(some) for some in _chunks(["aa", "bb"], 1)] == [["aa"], ["bb"]]


@pytest.fixture
def small_packets(mysql: Site) -> Iterator[int]:
    """New connections accept packets of 1 MiB; yield the size."""
    bench = Workbench(mysql)
    before = bench.sql("SELECT @@GLOBAL.max_allowed_packet")[0][0]
    bench.sql("SET GLOBAL max_allowed_packet = 1048576")
    yield 1048576
    bench.sql(f"SET GLOBAL max_allowed_packet = {before}")


@pytest.mark.parametrize("model", MODELS)
def test_a_message_beyond_a_packet_is_a_dead_letter(model: str, small_packets: int, mysql: Site) -> None:
    """Its neighbours are stored; the letter keeps every byte, in pieces, and says what to do."""
    bench = Workbench(mysql, {"topic": "#", "model": model})
    payload = json.dumps({"s": random.Random(1).randbytes(small_packets).hex()}).encode()
    bench.send(("t", {"n": 1}), ("t", payload), ("t", {"n": 2}))
    assert bench.data() == [{"n": 1.0}, {"n": 2.0}]
    (letter,) = bench.dead()
    assert (letter.step, letter.size, letter.payload) == ("store", len(payload), payload)
    needed, room = re.findall(r"\d{6,}", letter.reason)
    assert "max_allowed_packet" in letter.reason
    assert int(needed) > len(payload) - 20 > int(room) > small_packets - 10_000
    assert bench.sql("SELECT count(*) > 3 FROM mqtt_dead_segment") == [(1,)]


def test_such_a_letter_is_listed_shown_replayed_and_purged(small_packets: int, mysql: Site, tmp_path: Path) -> None:
    """Whatever the commands do, they do with all its pieces."""
    config = tmp_path / "broker.yaml"
    config.write_text(yaml.safe_dump({"plugins": {"amqtt_db.Plugin": {"database": mysql.url}}}))

    def invoke(*arguments: str) -> str:
        return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["dead", *arguments]).output

    bench = Workbench(mysql)
    payload = b'{"s": "' + b"x" * (2 * small_packets) + b'"}'
    bench.send(("t", payload), ("t", payload), ("t", b"{"))
    first, second, _ = (str(letter.id) for letter in bench.dead())
    assert str(len(payload)) in invoke("list", str(config))
    assert "x" * 2 * small_packets in invoke("show", first, str(config))
    assert "0 stored, 3 dead letters left" in invoke("replay", str(config))
    assert "1 deleted" in invoke("purge", str(config), "--yes", "--id", second)
    bench.sql(f"SET GLOBAL max_allowed_packet = {8 * small_packets}")
    assert "1 stored, 1 dead letter left" in invoke("replay", str(config))
    assert bench.data() == [json.loads(payload)]
    assert "1 deleted" in invoke("purge", str(config), "--yes")
    assert bench.sql("SELECT (SELECT count(*) FROM mqtt_dead_letter) + (SELECT count(*) FROM mqtt_dead_segment)") == [
        (0,)
    ]


def test_a_large_payload_at_the_defaults(mysql: Site) -> None:
    """A message one byte too large for a packet becomes a dead letter; the writer goes on."""
    bench = Workbench(mysql, {"topic": "#", "decode": "bytes"})
    payload = random.Random(2).randbytes(bench.sql("SELECT @@max_allowed_packet")[0][0] + 1)
    bench.send(("t", b"before"), ("t", payload), ("t", b"after"))
    assert [list(data.values()) for data in bench.data()] == [[b"before"], [b"after"]]
    (letter,) = bench.dead()
    assert letter.payload == payload


def test_a_name_beyond_a_packet_keeps_nobody_waiting(mysql: Site) -> None:
    """Its message is a dead letter; what is noted for the views does not hold it, so all others are stored."""
    bench = Workbench(mysql)
    most = bench.sql("SELECT @@max_allowed_packet")[0][0]
    bench.send(("t", {"a": 1}), ("t", {"x" * most: 1}), ("t", {"b": 2}))
    assert bench.data() == [{"a": 1.0}, {"b": 2.0}]
    (letter,) = bench.dead()
    assert letter.reason.endswith("at most 65535 can be stored")


def test_topics_that_differ_in_spaces_at_the_end(mysql: Site) -> None:
    """MariaDB compares their keys as equal; each has its own table and view all the same."""
    bench = Workbench(mysql)
    bench.send(("t", {"a": 1}), ("t ", {"b": 1}))
    bench.send(("t", {"c": 1}))
    bench.writer.finish_views(lambda: False)
    views = [name for (name,) in bench.sql("SELECT name FROM mqtt_view ORDER BY LENGTH(`key`)")]
    assert [{"a", "b", "c"}.intersection(bench.columns(name)) for name in views] == [{"a", "c"}, {"b"}]


def test_a_column_that_was_added_to_a_lookup_is_told_of(mysql: Site) -> None:
    """If it must have a value, the error says what to do."""
    bench = Workbench(mysql, {"topic": "#", "model": "eav"})
    bench.send(("t", {"a": 1}))
    bench.sql("ALTER TABLE mqtt_property ADD COLUMN note INT NOT NULL")
    with pytest.raises(DatabaseError, match=r"column note of table mqtt_property was added by hand.*default"):
        bench.send(("t", {"b": 1}))


def test_packets_that_are_too_small_are_told_of(mysql: Site) -> None:
    """The longest names must fit."""
    bench = Workbench(mysql)
    before = bench.sql("SELECT @@GLOBAL.max_allowed_packet")[0][0]
    bench.sql("SET GLOBAL max_allowed_packet = 65536")
    engine = engine_for(mysql.url)
    database = engine.open(write=True)
    with database.begin() as connection:
        assert [word for word in engine.weaknesses(connection) if "max_allowed_packet = 65536" in word]
    database.dispose()
    bench.sql(f"SET GLOBAL max_allowed_packet = {before}")


def test_ddl_that_stopped_half_way_is_finished(mysql: Site) -> None:
    """DDL commits implicitly: columns that the catalogue has but the table lacks are created when they are needed."""
    bench = Workbench(mysql)
    bench.send(("t", {"v": 1, "w": 2}))
    (index,) = (row[2] for row in bench.sql("SHOW INDEX FROM t") if row[2] != "PRIMARY")
    bench.sql("DROP VIEW IF EXISTS t_view")
    bench.sql("ALTER TABLE t DROP COLUMN w")
    bench.sql(f"DROP INDEX {index} ON t")
    bench.restart()
    batch = bench.batch(Sent("t", {"v": 3, "w": 4}))
    with pytest.raises(sa.exc.DBAPIError):
        bench.store(batch)
    assert bench.writer.repair(batch)
    bench.store(batch)
    assert bench.data()[-1] == {"v": 3.0, "w": 4.0}
    assert index in {row[2] for row in bench.sql("SHOW INDEX FROM t")}


def test_the_schema_lock_ends_with_its_transaction(mysql: Site) -> None:
    """It survives the implicit commit of DDL, and is released with the connection."""
    engine = engine_for(mysql.url)
    database, other = engine.open(write=True), engine_for(mysql.url).open(write=True)
    free = f"SELECT IS_FREE_LOCK({_LOCK})"
    with other.connect() as observer:
        with database.begin() as connection:
            engine.lock_schema(connection)
            connection.exec_driver_sql("CREATE TABLE made (x INT)")
            assert observer.exec_driver_sql(free).scalar_one() == 0
        assert observer.exec_driver_sql(free).scalar_one() == 1
    database.dispose()
    other.dispose()


def test_a_connection_killed_in_the_middle_of_a_load(mysql: Site) -> None:
    """No message is blamed, nothing of the batch is stored, and the next attempt stores it once."""
    bench = Workbench(mysql)
    bench.send(("t", {"v": 0}))
    batch = bench.batch(*(Sent("t", {"v": value}) for value in range(1, 1001)))

    def strike(connection: sa.Connection) -> None:
        bench.sql(f"KILL {connection.exec_driver_sql('SELECT CONNECTION_ID()').scalar_one()}")

    sa.event.listen(bench.writer._database, "commit", strike, once=True)
    with pytest.raises(sa.exc.DBAPIError) as caught:
        bench.store(batch)
    assert not bench.writer._engine.is_value_fault(caught.value)
    bench.restart()
    bench.store(batch)
    assert [data["v"] for data in bench.data()] == [float(value) for value in range(1001)]


def test_a_missing_privilege_is_named(mysql: Site) -> None:
    """The error says which grants are needed."""
    bench = Workbench(mysql)
    bench.send(("t", {"v": 1}))
    name = sa.make_url(mysql.url).database
    bench.sql(f"CREATE USER {name}@localhost")
    bench.sql(f"GRANT SELECT ON {name}.* TO {name}@localhost")
    poor = sa.make_url(mysql.url).set(username=name).render_as_string(hide_password=False)
    with pytest.raises(DatabaseError, match="GRANT SELECT, INSERT"):
        Workbench(Site(mysql.path, poor, mysql.stack), token="b")
    bench.sql(f"DROP USER {name}@localhost")


def test_a_wrong_password_is_no_missing_grant(mysql: Site) -> None:
    """No grant would help, even if an anonymous user of this host takes precedence."""
    name = sa.make_url(mysql.url).database
    admin = Workbench(mysql)
    admin.sql(f"CREATE USER {name}@'%%' IDENTIFIED BY 'right', ''@localhost IDENTIFIED BY 'other'")
    for password in ("wrong", "right"):
        url = sa.make_url(mysql.url).set(username=name, password=password)
        with pytest.raises(DatabaseError, match=r"Access denied.*password of the URL is wrong for this host") as caught:
            require_database(url.render_as_string(hide_password=False))
        assert "GRANT" not in str(caught.value)
    admin.sql(f"DROP USER {name}@'%%', ''@localhost")


def test_topics_beyond_the_basic_plane(mysql: Site) -> None:
    """Names have no such characters; the topic keeps them."""
    bench = Workbench(mysql)
    bench.send(("𝔘𝔫𝔦/🏠", {"𝔵": 1}))
    assert [record.topic for record in bench.records()] == ["𝔘𝔫𝔦/🏠"]
    assert bench.data() == [{"𝔵": 1.0}]


def test_a_connection_lost_in_a_refresh_is_told_as_what_it_is(mysql: Site) -> None:
    """Putting the session's settings back does not hide the error that says why."""
    engine = engine_for(mysql.url)
    database = engine.open(write=True)
    with pytest.raises(sa.exc.OperationalError):
        _lose_in_a_refresh(engine, database)
    database.dispose()


def _lose_in_a_refresh(engine: Engine, database: sa.Engine) -> None:
    sql = view_sql(engine, database.dialect)
    assert sql is not None
    with sql.with_short_timeout(engine, database) as connection:
        number = connection.exec_driver_sql("SELECT CONNECTION_ID()").scalar_one()
        with database.connect() as other:
            other.exec_driver_sql(f"KILL {number}")
        connection.exec_driver_sql("SELECT 1")
