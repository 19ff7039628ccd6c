"""What only PostgreSQL has: its types, its locks, its ways to fail."""

from __future__ import annotations

import pytest
import sqlalchemy as sa

from amqtt_db.database.engines import engine_for
from amqtt_db.errors import DatabaseError
from tests.database.engines.servers import Site
from tests.workbench import Sent, Workbench


def test_columns_have_the_types_of_their_kinds(postgresql: Site) -> None:
    """A user of the database sees these types."""
    entity = {
        "b": "bool", "f": "float", "n": "int", "s": "str", "raw": "bytes", "at": "datetime", "day": "date",
        "clock": "time", "amount": "decimal", "key": "uuid", "tags": "list",
    }  # fmt: skip
    bench = Workbench(postgresql, {"topic": "#", "entity": entity})
    bench.send(("t", {"b": True}))
    bench.send(("t", dict.fromkeys(entity)))
    types = dict(
        bench.sql("SELECT column_name::text, data_type::text FROM information_schema.columns WHERE table_name = 't'")
    )
    assert types["time"] == "timestamp with time zone"
    assert types["b"] == "boolean"
    assert types["extra"] == "jsonb"


def test_sessions_are_named_and_wait_for_the_disk(postgresql: Site) -> None:
    """An administrator finds them; `postgresql://` alone means psycopg."""
    plain = "postgresql" + postgresql.url.removeprefix("postgresql+psycopg").removeprefix("postgresql")
    _admin(postgresql, f"ALTER DATABASE {sa.make_url(plain).database} SET transaction_timeout = '1h'")
    database = engine_for(plain).open(write=True)
    with database.begin() as connection:
        shown = {
            name: connection.exec_driver_sql(f"SHOW {name}").scalar_one()
            for name in ("application_name", "synchronous_commit", "timezone", "transaction_timeout")
        }
    database.dispose()
    assert list(shown.values()) == ["amqtt_db", "on", "UTC", "0"]


def test_ddl_does_not_wait_for_ever(postgresql: Site) -> None:
    """If a table stays locked, the DDL's transaction is ended after some seconds, and storing goes on."""
    engine = engine_for(postgresql.url)
    database = engine.open(write=True)
    with database.begin() as connection:
        engine.lock_schema(connection)
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "5s"
    with database.begin() as connection:
        assert connection.exec_driver_sql("SHOW lock_timeout").scalar_one() == "0"
    database.dispose()


def test_the_schema_lock_keeps_others_out(postgresql: Site) -> None:
    """Until the transaction ends."""
    engine = engine_for(postgresql.url)
    database = engine.open(write=True)
    held = (
        "SELECT count(*) FROM pg_locks JOIN pg_database ON pg_database.oid = database "
        "WHERE locktype = 'advisory' AND datname = current_database()"
    )
    with database.begin() as connection:
        engine.lock_schema(connection)
        assert connection.exec_driver_sql(held).scalar_one() == 1
    with database.begin() as connection:
        assert connection.exec_driver_sql(held).scalar_one() == 0
    database.dispose()


def test_a_reader_of_rows_uses_no_parallel_workers(postgresql: Site) -> None:
    """For the rest of its transaction, however often it gives back its locks; others are not concerned."""
    engine = engine_for(postgresql.url)
    database = engine.open(write=False)
    workers = "SHOW max_parallel_workers_per_gather"
    with database.begin() as connection:
        given = connection.exec_driver_sql(workers).scalar_one()
        engine.expect_rows(connection)
        for _ in range(50):
            engine.release_locks(connection)
        assert connection.exec_driver_sql(workers).scalar_one() == "0"
    with database.begin() as connection:
        assert connection.exec_driver_sql(workers).scalar_one() == given != "0"
    database.dispose()


KILL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name = 'amqtt_db' AND datname = current_database() AND pid <> pg_backend_pid()"
)


def test_a_connection_killed_in_the_middle_of_a_load(postgresql: Site) -> None:
    """No message is blamed, nothing of the batch is stored, and the next attempt stores it once."""
    bench = Workbench(postgresql)
    bench.send(("t", {"v": 0}))
    batch = bench.batch(*(Sent("t", {"v": value}) for value in range(1, 1001)))
    sa.event.listen(bench.writer._database, "commit", lambda _: bench.sql(KILL), once=True)
    with pytest.raises(sa.exc.DBAPIError) as caught:
        bench.store(batch)
    assert not bench.writer._engine.is_value_fault(caught.value)
    bench.restart()
    assert bench.checkpoint == batch.positions[0]
    bench.store(batch)
    assert [data["v"] for data in bench.data()] == [float(value) for value in range(1001)]


def test_a_read_only_server_is_waited_for(postgresql: Site) -> None:
    """After a failover to a standby no message is blamed."""
    bench = Workbench(postgresql)
    bench.send(("t", {"v": 1}))
    name = sa.make_url(postgresql.url).database
    bench.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    bench.restart()
    batch = bench.batch(Sent("t", {"v": 2}))
    with pytest.raises(sa.exc.DBAPIError) as caught:
        bench.store(batch)
    assert not bench.writer._engine.is_value_fault(caught.value)
    _admin(postgresql, f"ALTER DATABASE {name} SET default_transaction_read_only = off")
    bench.restart()
    bench.store(batch)
    assert len(bench.records()) == 2


def _admin(site: Site, *statements: str) -> None:
    database = engine_for(site.url).open(write=True)
    with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for statement in ("SET default_transaction_read_only = off", *statements):
            connection.exec_driver_sql(statement)
    database.dispose()


def test_a_missing_privilege_is_named(postgresql: Site) -> None:
    """The error says which grant is needed, and it is the database's condition, not a message's fault."""
    bench = Workbench(postgresql)
    bench.send(("t", {"v": 1}))
    role = f"{sa.make_url(postgresql.url).database}_poor"
    _admin(postgresql, f"CREATE ROLE {role} LOGIN", "REVOKE CREATE ON SCHEMA public FROM public")
    poor = sa.make_url(postgresql.url).set(username=role).render_as_string(hide_password=False)
    with pytest.raises(DatabaseError, match="GRANT"):
        Workbench(Site(postgresql.path, poor, postgresql.stack), token="b")
    _admin(postgresql, f"DROP ROLE {role}")


def test_triggers_blame_their_message(postgresql: Site) -> None:
    """An error raised by a trigger is blamed on the row that it saw."""
    bench = Workbench(postgresql)
    bench.send(("t", {"v": 0}))
    bench.sql("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'too hot'; END $$")
    bench.sql("CREATE TRIGGER hot BEFORE INSERT ON t FOR EACH ROW WHEN (NEW.v = 42) EXECUTE FUNCTION no()")
    bench.send(("t", {"v": 41}), ("t", {"v": 42}), ("t", {"v": 43}))
    assert [data["v"] for data in bench.data()] == [0.0, 41.0, 43.0]
    assert len(bench.dead()) == 1


def test_a_weak_server_is_told_of(postgresql: Site) -> None:
    """Settings that can lose a commit are named, with what to do."""
    engine = engine_for(postgresql.url)
    database = engine.open(write=True)
    with database.begin() as connection:
        weak = [name for name in ("fsync", "full_page_writes") if _shown(connection, name) == "off"]
        found = list(engine.weaknesses(connection))
        connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
        assert len(list(engine.weaknesses(connection))) == len(weak) + 1
    database.dispose()
    assert [sentence.split(" with ")[1].split(" =")[0] for sentence in found] == weak


def _shown(connection: sa.Connection, name: str) -> str:
    return str(connection.exec_driver_sql(f"SHOW {name}").scalar_one())
