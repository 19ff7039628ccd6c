"""The servers of a test session: started on first use, stopped when the process ends.

To use a running server, set its URL in ``AMQTT_DB_TEST_POSTGRESQL``, ``AMQTT_DB_TEST_MYSQL`` or
``AMQTT_DB_TEST_TIMESCALEDB``; its user must be allowed to create databases.  A test whose server is missing is skipped,
or fails if ``AMQTT_DB_REQUIRE_ENGINES``, a comma-separated list, names the server's kind.
"""

from __future__ import annotations

import atexit
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Final, NoReturn

import attrs
import pytest
import sqlalchemy as sa

from amqtt_db.testing.starting import STARTERS, Missing, connected, execute

_EXTENSIONS: Final = {"timescaledb": "CREATE EXTENSION IF NOT EXISTS timescaledb"}
"""Kind of database → statements for each new one."""

_SESSIONS: Final = {
    "mysql": ("SELECT id FROM information_schema.processlist WHERE db = '{}'", "KILL {}"),
    "postgresql": ("SELECT pid FROM pg_stat_activity WHERE datname = '{}'", "SELECT pg_terminate_backend({})"),
}
"""Dialect → (query for the connections to a database, statement that closes one)."""


@attrs.define
class Servers:
    """At most one server of each kind, and databases on it."""

    _running: dict[str, str] = attrs.field(factory=dict)
    _missing: dict[str, Missing] = attrs.field(factory=dict)
    _idle: dict[str, list[str]] = attrs.field(factory=partial(defaultdict, list))
    _stack: ExitStack = attrs.field(factory=ExitStack)
    _numbers: Iterator[int] = attrs.field(factory=partial(count, 1))

    def url(self, kind: str) -> str:
        """Return the URL of a server's own database.  Raises Missing."""
        if kind in self._missing:
            raise self._missing[kind]
        if kind not in self._running:
            try:
                self._running[kind] = os.environ.get(f"AMQTT_DB_TEST_{kind.upper()}") or self._start(kind)
            except Missing as error:
                self._missing[kind] = error
                raise
        return self._running[kind]

    @contextmanager
    def database(self, kind: str) -> Iterator[str]:
        """Yield the URL of a new database; drop it at the end."""
        url = self._create(kind)
        try:
            yield url
        finally:
            self._drop(kind, url)

    @contextmanager
    def empty(self, kind: str) -> Iterator[str]:
        """Yield the URL of a database without tables; empty it at the end for the next test.

        This is much cheaper than a new one, and enough for tests that create only tables and views.
        """
        url = self._idle[kind].pop() if self._idle[kind] else self._create(kind)
        try:
            yield url
        finally:
            try:
                _empty(url)
            except sa.exc.DBAPIError:  # something still locks a table
                self._drop(kind, url)
            else:
                self._idle[kind].append(url)

    def close(self) -> None:
        """Drop leftover databases and stop the servers that were started here."""
        for kind, urls in self._idle.items():
            for url in urls:
                self._drop(kind, url)
        self._idle.clear()
        self._running.clear()
        self._stack.close()

    def _start(self, kind: str) -> str:
        directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="amqtt_db_")))
        directory.chmod(0o755)  # the server may be another user's
        (directory / kind).mkdir()
        url = self._stack.enter_context(STARTERS[kind](directory / kind))
        atexit.register(self.close)
        return url

    def _create(self, kind: str) -> str:
        server, name = self.url(kind), f"amqtt_db_test_{os.getpid()}_{next(self._numbers)}"
        execute(server, f"CREATE DATABASE {name}")
        url = sa.make_url(server).set(database=name).render_as_string(hide_password=False)
        if kind in _EXTENSIONS:
            execute(url, _EXTENSIONS[kind])
        return url

    def _drop(self, kind: str, url: str) -> None:
        server, name = self.url(kind), sa.make_url(url).database
        _disconnect(server, str(name))
        execute(server, f"DROP DATABASE {name}")


SERVERS: Final = Servers()
"""The servers of this process."""


@contextmanager
def needed(kind: str) -> Iterator[None]:
    """Skip a test whose server is missing; fail it if that kind is required."""
    try:
        yield
    except Missing as missing:
        _give_up(kind, str(missing))


def _give_up(kind: str, reason: str) -> NoReturn:
    if kind in os.environ.get("AMQTT_DB_REQUIRE_ENGINES", "").split(","):
        pytest.fail(f"{kind} is required: {reason}", pytrace=False)
    pytest.skip(reason)


def _empty(url: str) -> None:
    """Drop all tables and views, one by one: a hypertable cannot be dropped together with others."""
    with connected(url) as connection:
        _hurry(connection)
        there, quote = sa.inspect(connection), connection.dialect.identifier_preparer.quote
        names = {"VIEW": there.get_view_names(), "TABLE": there.get_table_names()}
        for what, name in ((what, name) for what, some in names.items() for name in some):
            connection.exec_driver_sql(f"DROP {what} IF EXISTS {quote(name)} CASCADE")


def _disconnect(server: str, name: str) -> None:
    with connected(server) as connection:
        asked, kill = _SESSIONS[connection.dialect.name]
        for session in connection.exec_driver_sql(asked.format(name)).scalars().all():
            connection.exec_driver_sql(kill.format(session))


def _hurry(connection: sa.Connection) -> None:
    """Wait at most a second for locks."""
    for statement in ("SET lock_timeout = 1000", "SET lock_wait_timeout = 1"):
        with suppress(sa.exc.DBAPIError):  # each server knows one of them
            connection.exec_driver_sql(statement)
            return
