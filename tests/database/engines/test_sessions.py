"""Sessions through poolers, in databases of other encodings, and the lock that they share for maintenance."""

from __future__ import annotations

from contextlib import ExitStack

import pytest
import sqlalchemy as sa

from amqtt_db.database.engines import engine_for
from amqtt_db.testing.starting import connected
from tests.database.engines.pooler import pooled
from tests.database.engines.servers import Site
from tests.database.engines.test_settings import exported, filled
from tests.workbench import Workbench


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "UTF8"])
def test_text_survives_a_database_without_an_encoding(encoding: str, postgresql: Site) -> None:
    """SQL_ASCII stores bytes as they come; the session says that they are UTF-8."""
    name = f"{sa.make_url(postgresql.url).database}_{encoding.lower()}"
    with connected(postgresql.url) as administrator:
        administrator.execution_options(isolation_level="AUTOCOMMIT")
        administrator.exec_driver_sql(
            f"CREATE DATABASE {name} ENCODING '{encoding}' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        try:
            url = sa.make_url(postgresql.url).set(database=name).render_as_string(hide_password=False)
            bench = Workbench(Site(postgresql.path, url))
            bench.send(("größe/你好", {"größe": "你好"}))
            assert bench.data() == [{"größe": "你好"}]
            bench.close()
        finally:
            administrator.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("mode", ["session", "transaction"])
def test_a_pooler_is_no_hindrance_and_keeps_nothing(mode: str, postgresql: Site) -> None:
    """Through PgBouncer: stored, read and looked at; what others get from the pool may write and holds no lock."""
    with pooled(postgresql.url, mode) as url:
        bench = filled(Site(postgresql.path, url))
        assert bench.writer.retention is not None
        bench.writer.retention.finish()
        assert exported(url) == exported(postgresql.url)
        assert read_stored(url)
        bench.close()
        assert_clean(url)


def assert_clean(url: str) -> None:
    """Require that the pool's connections can write for other programs, have no time limit and hold no lock."""
    stranger = sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg"), pool_size=4)
    with ExitStack() as stack:
        for connection in [stack.enter_context(stranger.connect()) for _ in range(4)]:
            settings = {"transaction_read_only": "off", "lock_timeout": "0"}
            shown = {name: connection.exec_driver_sql(f"SHOW {name}").scalar_one() for name in settings}
            assert shown == settings
            held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
            assert connection.exec_driver_sql(held).scalar_one() == 0
    stranger.dispose()


def read_stored(url: str) -> int:
    """Return how many messages the counters know, read through a session for reading."""
    database = engine_for(url).open(write=False)
    with database.connect() as connection:
        found = int(connection.exec_driver_sql("SELECT sum(stored) FROM mqtt_counter").scalar_one())
    database.dispose()
    return found


def test_the_maintenance_lock_is_one_for_all(postgresql: Site) -> None:
    """Only one process can hold it, also through a pooler; it ends with that process."""
    with pooled(postgresql.url, "transaction") as url:
        here, there = engine_for(postgresql.url), engine_for(url)
        ours, theirs = here.open(write=True), there.open(write=True)
        with here.maintenance(ours) as mine:
            assert mine
            with there.maintenance(theirs) as other:
                assert not other
        with there.maintenance(theirs) as other:
            assert other
            with here.maintenance(ours) as mine:
                assert not mine
        ours.dispose()
        theirs.dispose()
