"""Databases for the tests, on the servers that the harness starts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import attrs
import pytest

from amqtt_db.testing.servers import SERVERS, Servers, needed

ENGINES: Final = ("sqlite", "postgresql", "mysql")


@attrs.frozen
class Site:
    """An empty database and a directory for what belongs to it; ``stack`` is unwound before the database is dropped."""

    path: Path
    url: str
    stack: ExitStack = attrs.field(factory=ExitStack, repr=False)

    @property
    def engine(self) -> str:
        """``sqlite``, ``postgresql`` or ``mysql``."""
        return self.url.partition(":")[0].partition("+")[0]


@pytest.fixture(scope="session")
def servers() -> Iterator[Servers]:
    """The servers of this session."""
    yield SERVERS
    SERVERS.close()


@contextmanager
def make_site(servers: Servers, engine: str, path: Path, *, new: bool = False) -> Iterator[Site]:
    """A site on an engine; with ``new`` its database has never been used, and is dropped afterwards."""
    with ExitStack() as stack:
        if engine == "sqlite":
            url = f"sqlite:///{path / 'mqtt.db'}"
        else:
            with needed(engine):
                url = stack.enter_context(servers.database(engine) if new else servers.empty(engine))
        yield Site(path, url, stack)


@pytest.fixture(params=ENGINES)
def site(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Iterator[Site]:
    """An empty database on each engine in turn, for tests that make nothing but tables and views."""
    with make_site(servers, request.param, tmp_path) as made:
        yield made


@pytest.fixture
def postgresql(servers: Servers, tmp_path: Path) -> Iterator[Site]:
    """A new database on PostgreSQL."""
    with make_site(servers, "postgresql", tmp_path, new=True) as made:
        yield made


@pytest.fixture
def timescaledb(servers: Servers, tmp_path: Path) -> Iterator[Site]:
    """A new database on TimescaleDB."""
    with make_site(servers, "timescaledb", tmp_path, new=True) as made:
        yield made


@pytest.fixture
def mysql(servers: Servers, tmp_path: Path) -> Iterator[Site]:
    """A new database on MariaDB or MySQL."""
    with make_site(servers, "mysql", tmp_path, new=True) as made:
        yield made
