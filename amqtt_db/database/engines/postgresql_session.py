"""Settings of every session with PostgreSQL, set by the session itself.

A server, a database or a user may have other defaults.  Some silently change results, such as
``extra_float_digits = 0``.  On its own connection the project sets them once.  Behind a pooler such as PgBouncer, a
server's connection serves many clients, so each transaction sets them only for itself (``SET LOCAL``), and nothing is
left behind.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import Any, Final

import psycopg
import sqlalchemy as sa
from psycopg.abc import Buffer
from psycopg.types.datetime import DateLoader, TimeLoader, TimestamptzLoader
from psycopg.types.string import TextLoader

from amqtt_db.database.engines import postgresql_rows

SETTINGS: Final[Mapping[str, str]] = {
    "bytea_output": "hex",
    "datestyle": "ISO, MDY",
    "exit_on_error": "off",  # some errors are expected, and must not end the session
    "extra_float_digits": "1",  # 0 or less would round doubles when they are read
    "idle_in_transaction_session_timeout": "0",  # the maintenance lock is an idle transaction
    "intervalstyle": "postgres",
    "lock_timeout": "0",  # a transaction with a limited wait sets it itself
    "quote_all_identifiers": "off",
    "standard_conforming_strings": "on",
    "synchronous_commit": "on",  # a commit waits for the server's disk
    "timezone": "UTC",
    "transform_null_equals": "off",
    "xmloption": "content",
}
"""Settings that change results, encodings, limits or locks, and the values that the project relies on.

From PostgreSQL 17 on, ``transaction_timeout`` is switched off too: maintenance and exports are long transactions.
``statement_timeout`` and ``default_transaction_read_only`` are not changed: an administrator chose them, and the
writer copes with both.
"""

PARAMETERS: Final[Mapping[str, Any]] = {
    "application_name": "amqtt_db",
    "client_encoding": "utf8",  # without it, a database in SQL_ASCII returns bytes
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 25_000,  # milliseconds
}
"""Parameters of every connection that the URL does not set; times in seconds.

If a server's host silently disappears, the connection is given up after 25 seconds.
"""

_TIMED_SINCE: Final = 170_000  # the version of PostgreSQL that brought transaction_timeout
_POOLED: Final = "amqtt_db_pooled"
_READ_SINCE: Final = "amqtt_db_read_since"
_ONLY_IF_ASKED: Final = 2**31  # executions after which a statement is prepared
_LOCKED_AT_ONCE: Final = 20  # few, for each may lock a hypertable with hundreds of chunks


def prepare_writer(connection: psycopg.Connection[Any], record: Any) -> None:
    """Prepare a new connection of the writer, and note which tables have rules."""
    prepare_reader(connection, record)
    if not record.info[_POOLED]:
        connection.prepare_threshold = _ONLY_IF_ASKED
    record.info["amqtt_db_ruled"] = frozenset(name for (name,) in connection.execute(postgresql_rows.RULED))
    connection.rollback()


def prepare_reader(connection: psycopg.Connection[Any], record: Any) -> None:
    """Prepare a new connection, and note the server's version if it leads to a pooler, else 0."""
    connection.adapters.register_loader("jsonb", TextLoader)
    connection.autocommit = True  # a server may end an idle transaction, and the settings are not applied yet
    record.info[_POOLED] = connection.info.server_version if _is_pooled(connection) else 0
    if not record.info[_POOLED]:
        connection.execute(_setting("SET", connection.info.server_version).encode())
    connection.autocommit = False


def load_any_time(connection: psycopg.Connection[Any]) -> None:
    """Let a connection return a time that Python cannot represent, such as infinity, as its text."""
    for name, loader in (("timestamptz", _AnyTimestamp), ("date", _AnyDate), ("time", _AnyTime)):
        connection.adapters.register_loader(name, loader)


class _AnyTimestamp(TimestamptzLoader):
    def load(self, data: Buffer) -> Any:
        with suppress(psycopg.DataError):
            return super().load(data)
        return bytes(data).decode()


class _AnyDate(DateLoader):
    def load(self, data: Buffer) -> Any:
        with suppress(psycopg.DataError):
            return super().load(data)
        return bytes(data).decode()


class _AnyTime(TimeLoader):
    def load(self, data: Buffer) -> Any:
        with suppress(psycopg.DataError):
            return super().load(data)
        return bytes(data).decode()


def begin(connection: sa.Connection) -> None:
    """Apply the settings to the transaction, if its connection leads to a pooler."""
    if connection.info[_POOLED]:
        connection.exec_driver_sql(_setting("SET LOCAL", connection.info[_POOLED]))


def begin_reading(connection: sa.Connection) -> None:
    """Do the same, and prepare for :func:`release_locks`."""
    begin(connection)
    connection.exec_driver_sql("SAVEPOINT amqtt_db")
    connection.info[_READ_SINCE] = 0


def release_locks(connection: sa.Connection) -> None:
    """Give back a reader's locks now and then, for a server has room for some thousands of all its clients' together.

    A transaction keeps the locks of every table that it has read, and of its indexes.  Rolling back to a savepoint
    releases those taken since [https://www.postgresql.org/docs/current/explicit-locking.html]; the transaction's
    snapshot stays.
    """
    if _READ_SINCE in connection.info:
        connection.info[_READ_SINCE] += 1
        if connection.info[_READ_SINCE] == _LOCKED_AT_ONCE:
            connection.info[_READ_SINCE] = 0
            connection.exec_driver_sql("ROLLBACK TO SAVEPOINT amqtt_db")


def stop_workers(connection: sa.Connection) -> None:
    """Let the server run a reader's further queries without parallel workers.

    All rows pass through one process anyway.  For workers the server scans all that arrived in a time, although an
    index leads to a topic's rows, and starts them for each query.
    """
    if _READ_SINCE in connection.info:  # the setting must be older than the savepoint, or releasing locks undoes it
        connection.exec_driver_sql(
            "RELEASE SAVEPOINT amqtt_db; SET LOCAL max_parallel_workers_per_gather = 0; SAVEPOINT amqtt_db"
        )


@cache
def _setting(command: str, version: int) -> str:
    """Return the statements that apply the settings to a server of a version."""
    settings = {**SETTINGS, "transaction_timeout": "0"} if version >= _TIMED_SINCE else SETTINGS
    return "; ".join(f"{command} {name} = '{value}'" for name, value in settings.items())


def _is_pooled(connection: psycopg.Connection[Any]) -> bool:
    """Return True if the process that answers is not the one that took the connection: there is a pooler in between."""
    (answering,) = connection.execute("SELECT pg_backend_pid()").fetchone() or (None,)
    return bool(answering != connection.info.backend_pid)
