"""Every session sets what it relies on: no default of a server, a database or a user changes what is stored or read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Final

import pytest
import sqlalchemy as sa

from amqtt_db.database.engines import engine_for, mysql_session, postgresql_session
from amqtt_db.reader.export import export
from amqtt_db.testing.starting import connected, execute
from tests.database.engines.pooler import pooled
from tests.database.engines.servers import Site
from tests.workbench import Workbench

ENTITY: Final = {"d": "decimal", "raw": "bytes", "at": "datetime", "clock": "time"}
VALUES: Final = {
    "n": 0.1 + 0.2, "tiny": 5e-324, "big": 2**63, "text": "Grüße, 你好 \\ 'quoted'", "on": True,
    "d": "1.10", "raw": "AAEC/w==", "at": "2026-03-29T02:30:00+02:00", "clock": "12:34:56.789", "list": [1, None, {}],
}  # fmt: skip

POSTGRESQL: Final = {
    "bytea_output": "escape",
    "datestyle": "SQL, DMY",
    "extra_float_digits": "-15",
    "idle_in_transaction_session_timeout": "1",
    "intervalstyle": "sql_standard",
    "lock_timeout": "1",
    "quote_all_identifiers": "on",
    "standard_conforming_strings": "off",
    "synchronous_commit": "off",
    "timezone": "Asia/Kathmandu",
    "transform_null_equals": "on",
    "xmloption": "document",
    "client_encoding": "LATIN1",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "array_nulls": "off",
    "backslash_quote": "off",
    "check_function_bodies": "off",
    "escape_string_warning": "off",
    "default_statistics_target": "1",
    "lo_compat_privileges": "on",
    "row_security": "off",
    "synchronize_seqscans": "on",
    "search_path": "public",
    "temp_buffers": "100",
    "work_mem": "64",
}
"""Settings of PostgreSQL and a value of each that would change results, encodings, limits or locks."""

MYSQL: Final = {
    "time_zone": "'+05:45'",
    "sql_mode": "'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,NO_ZERO_DATE'",
    "lock_wait_timeout": "1",
    "innodb_lock_wait_timeout": "1",
    "autocommit": "1",
    "completion_type": "'RELEASE'",
    "max_join_size": "1",
    "max_sort_length": "64",
    "net_read_timeout": "1",
    "net_write_timeout": "1",
    "sql_auto_is_null": "1",
    "sql_big_selects": "0",
    "sql_safe_updates": "1",
    "sql_select_limit": "3",
    "unique_checks": "0",
    "foreign_key_checks": "0",
    "wait_timeout": "2",
    "tx_isolation": "'SERIALIZABLE'",
    "character_set_client": "latin1",
    "character_set_connection": "latin1",
    "character_set_results": "latin1",
    "collation_connection": "latin1_swedish_ci",
    "group_concat_max_len": "4",
    "div_precision_increment": "0",
}
"""The same of MariaDB, as its global defaults."""


def exported(url: str) -> bytes:
    """Return everything that is stored, as JSON Lines."""
    written: list[bytes] = []
    export(url, written.append)
    return b"".join(written)


def filled(site: Site) -> Workbench:
    """Return a writer on a database with records in all models."""
    models = ("wide", {"wide": {"table": "one"}}, "eav", "document", "narrow")
    routes = [
        {"topic": f"m{number}/#", "model": model, "entity": ENTITY, "unknown": "add"}
        for number, model in enumerate(models)
    ]
    bench = Workbench(site, *routes)
    for number in range(len(models)):
        bench.send(*((f"m{number}/{topic}", {**VALUES, "i": topic}) for topic in range(4)))
    return bench


def require_unchanged(site: Site, bench: Workbench) -> None:
    """A writer and a reader with new sessions do what those before did."""
    before = exported(site.url)
    bench.close()
    bench.open()
    bench.send(*((f"m{number}/0", VALUES) for number in range(5)))
    after = exported(site.url)
    assert after.startswith(before)
    assert after.count(b"\n") == before.count(b"\n") + 5
    assert not bench.dead()


@pytest.mark.parametrize("name", POSTGRESQL)
def test_no_setting_of_postgresql_changes_what_is_stored_or_read(name: str, postgresql: Site) -> None:
    """An export is the same byte for byte, and the writer goes on."""
    bench = filled(postgresql)
    database = sa.make_url(postgresql.url).database
    execute(postgresql.url, f"ALTER DATABASE {database} SET {name} = '{POSTGRESQL[name]}'")
    require_unchanged(postgresql, bench)


@pytest.mark.parametrize("name", MYSQL)
def test_no_setting_of_mariadb_changes_what_is_stored_or_read(name: str, mysql: Site) -> None:
    """An export is the same byte for byte, and the writer goes on."""
    bench = filled(mysql)
    with global_value(mysql.url, name, MYSQL[name]):
        require_unchanged(mysql, bench)


@contextmanager
def global_value(url: str, name: str, value: str) -> Iterator[None]:
    """Temporarily change a variable of the server."""
    with connected(url) as administrator:
        before = administrator.exec_driver_sql(f"SELECT @@GLOBAL.{name}").scalar_one()
        administrator.exec_driver_sql(f"SET GLOBAL {name} = {value}")
        try:
            yield
        finally:
            literal = f"'{before}'" if isinstance(before, str) else str(before)
            administrator.exec_driver_sql(f"SET GLOBAL {name} = {literal}")


def test_every_setting_that_a_session_sets_is_tried() -> None:
    """Whoever adds a setting to the tables of the engines adds a value here that would do harm."""
    assert postgresql_session.SETTINGS.keys() <= POSTGRESQL.keys()
    assert mysql_session.SETTINGS.keys() - {"big_tables"} <= MYSQL.keys()


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
