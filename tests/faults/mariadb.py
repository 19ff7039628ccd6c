"""A MariaDB server of the fault suite's own, which may be killed, paused and restarted."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import ClassVar, Final

import pymysql
import pytest
import sqlalchemy as sa

from amqtt_db.testing.servers import needed
from amqtt_db.testing.starting import connected, execute, mariadb

_FEWEST: Final = 10  # connections that the server lets itself be limited to
_MOST: Final = 151  # what it allows by default


class MariaDB:
    """A data directory, and the server on it whenever it runs."""

    name: ClassVar[str] = "MariaDB"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._running = ExitStack()
        self._url = ""
        self._numbers = count(1)

    def start(self) -> None:
        """Start the server, if it does not run."""
        if not self._url:
            self._url = self._running.enter_context(mariadb(self._directory))

    def stop(self) -> None:
        """Stop it in order."""
        self._url = ""
        self._running.close()

    def crash(self) -> None:
        """``kill -9``."""
        os.kill(self._process(), signal.SIGKILL)
        self.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """It is paused: connections stay open, but nothing answers."""
        process = self._process()
        os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(process, signal.SIGCONT)

    @contextmanager
    def account(self) -> Iterator[str]:
        """The URL of a new database for its owner, who is not a superuser."""
        name = f"faults{next(self._numbers)}"
        grant = f"GRANT ALL ON {name}.* TO {name}@localhost"
        execute(self._url, f"CREATE DATABASE {name}", f"CREATE USER {name}@localhost", grant)
        yield sa.make_url(self._url).set(username=name, database=name).render_as_string()
        self.start()
        execute(self._url, f"DROP DATABASE {name}", f"DROP USER {name}@localhost")

    @contextmanager
    def crowded(self, url: str) -> Iterator[str]:
        """Others have all connections that the server allows."""
        with ExitStack() as others, connected(self._url) as connection:
            connection.exec_driver_sql(f"SET GLOBAL max_connections = {_FEWEST}")
            try:
                self._crowd(others)
                while self._disconnect(connection, url):
                    self._crowd(others)
                yield "Too many connections"
            finally:
                connection.exec_driver_sql(f"SET GLOBAL max_connections = {_MOST}")

    @contextmanager
    def read_only(self, url: str) -> Iterator[str]:
        """Nothing can be written, as on a replica."""
        execute(self._url, "SET GLOBAL read_only = ON")
        try:
            yield "--read-only option"
        finally:
            execute(self._url, "SET GLOBAL read_only = OFF")

    @contextmanager
    def unprivileged(self, url: str) -> Iterator[str]:
        """The account may insert nothing."""
        whose = f"INSERT ON {_name(url)}.* {{}} {_name(url)}@localhost"
        with connected(self._url) as connection:
            connection.exec_driver_sql(f"REVOKE {whose.format('FROM')}")
            try:
                self._disconnect(connection, url)  # what a connection may do in its database is not asked again
                yield "INSERT command denied"
            finally:
                connection.exec_driver_sql(f"GRANT {whose.format('TO')}")
                self._disconnect(connection, url)

    def _crowd(self, others: ExitStack) -> None:
        """Take all available connections."""
        socket = sa.make_url(self._url).query["unix_socket"]
        with suppress(pymysql.err.OperationalError):
            while True:
                others.callback(pymysql.connect(user="root", unix_socket=socket).close)

    def _disconnect(self, connection: sa.Connection, url: str) -> int:
        """End all connections of an account; how many there were."""
        asked = f"SELECT id FROM information_schema.processlist WHERE user = '{_name(url)}'"
        found = connection.exec_driver_sql(asked).scalars().all()
        for session in found:
            with suppress(sa.exc.DBAPIError):  # it may have gone by itself
                connection.exec_driver_sql(f"KILL {session}")
        return len(found)

    def _process(self) -> int:
        (file,) = (self._directory / "data").glob("*.pid")
        return int(file.read_text())


def _name(url: str) -> str:
    return str(sa.make_url(url).database)


@pytest.fixture(scope="session")
def maria() -> Iterator[MariaDB]:
    """The server of this session, started when it is needed."""
    with tempfile.TemporaryDirectory(prefix="amqtt_db_", ignore_cleanup_errors=True) as directory:
        Path(directory).chmod(0o755)  # the server may be another user's
        data = Path(directory) / "mariadb"
        data.mkdir()
        made = MariaDB(data)
        with needed("mysql"):
            made.start()
        yield made
        made.stop()
