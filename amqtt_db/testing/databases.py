"""The databases that the contract is proved on: SQLite always, servers where the environment names one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

import attrs
import sqlalchemy as sa

SERVERS: Final[Mapping[str, tuple[str, bool]]] = {
    "postgresql": ("AMQTT_DB_TEST_POSTGRESQL", True),
    "mysql": ("AMQTT_DB_TEST_MYSQL", False),
}
"""Database → the environment variable with the URL of a server that may be used for tests, and whether thoroughly.

The URL's user must be allowed to create and drop databases.
"""


@attrs.frozen
class Database:
    """A database system to prove laws on.

    ``fresh`` gives the URL of an empty database, which is gone at the end.  ``thorough`` is False where a few examples
    must do, as long as hypothesis is not asked for many.
    """

    name: str
    fresh: Callable[[], AbstractContextManager[str]] = attrs.field(repr=False)
    thorough: bool = True

    def __str__(self) -> str:
        return self.name


@contextmanager
def _sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="amqtt_db") as directory:
        yield f"sqlite:///{Path(directory) / 'mqtt.db'}"


@contextmanager
def _server(url: str) -> Iterator[str]:
    name = f"amqtt_db_{uuid4().hex[:12]}"
    server = sa.create_engine(url, isolation_level="AUTOCOMMIT", hide_parameters=True)
    try:
        with server.connect() as connection:
            connection.exec_driver_sql(f"CREATE DATABASE {name}")
            try:
                yield sa.make_url(url).set(database=name).render_as_string(hide_password=False)
            finally:
                connection.exec_driver_sql(f"DROP DATABASE {name}")
    finally:
        server.dispose()


SQLITE: Final = Database("sqlite", _sqlite)


def available() -> tuple[Database, ...]:
    """SQLite, and each of :data:`SERVERS` whose environment variable is set."""
    servers = (
        Database(name, partial(_server, os.environ[variable]), thorough)
        for name, (variable, thorough) in SERVERS.items()
        if os.environ.get(variable)
    )
    return (SQLITE, *servers)
