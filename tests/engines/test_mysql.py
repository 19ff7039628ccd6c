"""What only MariaDB and MySQL have: packets, DDL that commits, named locks."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from amqtt_db.engines import engine_for
from amqtt_db.engines.mysql import _packets
from amqtt_db.errors import DatabaseError
from tests.engines.servers import Site
from tests.workbench import Sent, Workbench


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
    """More bytes than the server takes at once are sent in several statements of one transaction."""
    bench = Workbench(mysql)
    most = bench.sql("SELECT @@max_allowed_packet")[0][0]
    size = most // 5
    bench.send(*(("t", {"n": number, "s": "x" * size}) for number in range(12)))
    assert bench.sql("SELECT count(*), min(length(s)), max(length(s)) FROM t") == [(12, size, size)]


def test_packets_hold_as_many_rows_as_fit() -> None:
    """At least one each, in order."""
    assert [list(some) for some in _packets(["aa", "bb", "cc"], 100)] == [["aa", "bb", "cc"]]
    assert [list(some) for some in _packets(["aa", "bb", "cc"], 10)] == [["aa", "bb"], ["cc"]]
    assert [list(some) for some in _packets(["aa", "bb"], 1)] == [["aa"], ["bb"]]


def test_a_message_beyond_a_packet_says_what_to_do(mysql: Site) -> None:
    """Nothing is lost: it waits until the server takes it."""
    bench = Workbench(mysql)
    most = bench.sql("SELECT @@max_allowed_packet")[0][0]
    with pytest.raises(DatabaseError, match="max_allowed_packet"):
        bench.send(("t", {"s": "x" * most}))


def test_ddl_that_stopped_half_way_is_finished(mysql: Site) -> None:
    """DDL commits by itself: what the catalogue knows and the table lacks is made when it is missed."""
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
    assert bench.writer.mend()
    bench.store(batch)
    assert bench.data()[-1] == {"v": 3.0, "w": 4.0}
    assert index in {row[2] for row in bench.sql("SHOW INDEX FROM t")}


def test_the_schema_lock_ends_with_its_transaction(mysql: Site) -> None:
    """It survives the implicit commit of DDL, and is gone when the connection is given back."""
    engine = engine_for(mysql.url)
    database, other = engine.open(write=True), engine_for(mysql.url).open(write=True)
    free = "SELECT IS_FREE_LOCK(CONCAT('amqtt_db.', MD5(DATABASE())))"
    with other.connect() as observer:
        with database.begin() as connection:
            engine.lock_schema(connection)
            connection.exec_driver_sql("CREATE TABLE made (x INT)")
            assert observer.exec_driver_sql(free).scalar_one() == 0
        assert observer.exec_driver_sql(free).scalar_one() == 1
    database.dispose()
    other.dispose()


def test_a_connection_killed_in_the_middle_of_a_load(mysql: Site) -> None:
    """It is no message's fault, nothing of the batch is there, and the next attempt stores it once."""
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


def test_topics_beyond_the_basic_plane(mysql: Site) -> None:
    """Names have no such characters; the topic keeps them."""
    bench = Workbench(mysql)
    bench.send(("𝔘𝔫𝔦/🏠", {"𝔵": 1}))
    assert [record.topic for record in bench.records()] == ["𝔘𝔫𝔦/🏠"]
    assert bench.data() == [{"𝔵": 1.0}]
