"""Settings of every session with MariaDB or MySQL, set by the session itself.

A server, or its ``init_connect``, may have other defaults.  Some silently change results, such as
``sql_select_limit``, which truncates them.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any, Final

import pymysql

SETTINGS: Final[Mapping[str, str]] = {
    "time_zone": "'+00:00'",
    "sql_mode": "'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION'",
    "lock_wait_timeout": "10",
    "innodb_lock_wait_timeout": "30",
    "autocommit": "0",
    "big_tables": "0",
    "collation_connection": "utf8mb4_bin",
    "completion_type": "'NO_CHAIN'",  # a commit opens no transaction and closes no connection
    "foreign_key_checks": "1",
    "max_join_size": "18446744073709551615",
    "max_sort_length": "1024",  # bytes of a text that are used for sorting
    "net_read_timeout": "60",
    "net_write_timeout": "60",
    "sql_auto_is_null": "0",
    "sql_big_selects": "1",
    "sql_quote_show_create": "1",  # SQLAlchemy reads tables from what SHOW CREATE TABLE answers
    "sql_safe_updates": "0",
    "sql_select_limit": "18446744073709551615",
    "unique_checks": "1",
    "wait_timeout": "28800",
}
"""Session variables that change results, encodings, limits or locks, and the values that the project relies on.

``max_statement_time`` and ``max_execution_time`` are not changed: an administrator chose them, and the writer makes
its batches smaller.
"""

MARIADB_SETTINGS: Final[Mapping[str, str]] = {
    "alter_algorithm": "'DEFAULT'",  # with INSTANT, no index could be made
    "idle_readonly_transaction_timeout": "0",
    "idle_transaction_timeout": "0",
    "idle_write_transaction_timeout": "0",
    "innodb_strict_mode": "1",  # a table that is too wide is an error when it is made, not when it is filled
    "sql_if_exists": "0",
}
"""The same for variables that only MariaDB has, or lets everybody set."""


def _assignments(settings: Mapping[str, str]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in settings.items())


# MySQL takes what is between /*M! and */ for a comment: https://mariadb.com/kb/en/comment-syntax/
_SET: Final = f"SET SESSION {_assignments(SETTINGS)} /*M! , {_assignments(MARIADB_SETTINGS)} */"
_ISOLATION: Final = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
_READ_ONLY: Final = "SET SESSION TRANSACTION READ ONLY"
_READ_WRITE: Final = "SET SESSION TRANSACTION READ WRITE"

_TCP: Final[Mapping[str, int]] = {
    "TCP_KEEPIDLE": 10,
    "TCP_KEEPINTVL": 5,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 25_000,
}
"""Options of the connection's socket, as far as the system has them; seconds, but the last in milliseconds.

If a server's host silently disappears, the connection is given up after 25 seconds.
"""


def prepare_writer(connection: pymysql.Connection[Any], record: Any) -> None:
    """Prepare a new connection of the writer."""
    _prepare(connection, record, _SET, _ISOLATION, _READ_WRITE)


def prepare_reader(connection: pymysql.Connection[Any], record: Any) -> None:
    """Prepare a new read-only connection."""
    _prepare(connection, record, _SET, _ISOLATION, _READ_ONLY)


def _prepare(connection: pymysql.Connection[Any], record: Any, *statements: str) -> None:
    _watch_host(connection)
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
        cursor.execute("SELECT @@max_allowed_packet")
        record.info["amqtt_db_packet"] = cursor.fetchone()[0]
    connection.commit()


def _watch_host(connection: pymysql.Connection[Any]) -> None:
    """Make the system notice within 25 seconds that the server's host has disappeared."""
    found = connection._sock  # type: ignore[attr-defined]  # noqa: SLF001 - PyMySQL has no parameter for it
    if isinstance(found, socket.socket) and found.family != socket.AF_UNIX:
        for name, value in _TCP.items():
            if hasattr(socket, name):
                found.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
