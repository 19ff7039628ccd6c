"""The databases of the contract: SQLite, and servers that the harness starts."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import attrs

from amqtt_db.testing.servers import SERVERS


@attrs.frozen
class Database:
    """A database system to run laws on.

    ``fresh`` yields the URL of an empty database and drops it at the end.  ``prepare`` makes sure that it is available
    and raises :class:`~amqtt_db.testing.starting.Missing` otherwise.  ``thorough`` is False if a few examples are
    enough, unless the hypothesis profile asks for many.  With ``hypertables``, tables with the time in their keys are
    hypertables.
    """

    name: str
    fresh: Callable[[], AbstractContextManager[str]] = attrs.field(repr=False)
    thorough: bool = True
    prepare: Callable[[], object] = attrs.field(default=lambda: None, repr=False)
    hypertables: bool = False

    def __str__(self) -> str:
        return self.name


@contextmanager
def _sqlite() -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="amqtt_db") as directory:
        yield f"sqlite:///{Path(directory) / 'mqtt.db'}"


def _server(kind: str, *, thorough: bool) -> Database:
    return Database(kind, partial(SERVERS.empty, kind), thorough, partial(SERVERS.url, kind))


SQLITE: Final = Database("sqlite", _sqlite)
POSTGRESQL: Final = _server("postgresql", thorough=True)
MYSQL: Final = _server("mysql", thorough=False)
TIMESCALEDB: Final = attrs.evolve(_server("timescaledb", thorough=False), hypertables=True)

DATABASES: Final = (SQLITE, POSTGRESQL, MYSQL, TIMESCALEDB)
"""All of them, available or not."""
