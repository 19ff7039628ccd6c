"""The target database, opened read-only, for `status`, `dead`, `read` and others."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog
from amqtt_db.database.engines import engine_for
from amqtt_db.database.engines.base import Engine, driver_error, first_line
from amqtt_db.database.store_version import require_version
from amqtt_db.errors import DatabaseError, NoDatabaseYet

_SNAPSHOT_LEVEL: Final = "REPEATABLE READ"
_CATALOGS: Final[dict[type[Engine], Catalog]] = {}
"""By class, for it takes milliseconds to make one, and it is the same for all engines of a class."""


@attrs.frozen
class Snapshot:
    """An open connection, with the engine and the catalogue needed to read.

    ``is_noted``: a writer has noted the version of the system tables, so they are all there.
    """

    engine: Engine
    catalog: Catalog
    connection: sa.Connection
    is_noted: bool = True


class Snapshots:
    """Snapshots of one database, over pooled connections.  Close it at the end."""

    def __init__(self, url: str) -> None:
        self._engine = engine_for(url)
        self._catalog = _CATALOGS.get(type(self._engine)) or Catalog(self._engine)
        _CATALOGS[type(self._engine)] = self._catalog
        self._database = self._engine.open(write=False)

    @contextmanager
    def take(self) -> Iterator[Snapshot]:
        """Read the database as it is at the first statement, without later commits.

        Raises DatabaseError with the database's answer if it cannot be read, and if its tables are older or newer than
        this program.
        """
        try:
            with _with_snapshots(self._database).begin() as connection:
                is_noted = require_version(connection)
                yield Snapshot(self._engine, self._catalog, connection, is_noted)
        except (sa.exc.DBAPIError, self._database.dialect.loaded_dbapi.Error) as error:
            raise DatabaseError(answer(error)) from error

    def close(self) -> None:
        """Release the connections."""
        self._database.dispose()


@contextmanager
def open_snapshot(url: str) -> Iterator[Snapshot]:
    """Open a database for one snapshot.  Raises what :meth:`Snapshots.take` raises."""
    snapshots = Snapshots(url)
    try:
        with snapshots.take() as snapshot:
            yield snapshot
    finally:
        snapshots.close()


def require_tables(snapshot: Snapshot) -> None:
    """Raise NoDatabaseYet if no writer has created all of its tables yet."""
    if not snapshot.is_noted and not _has_others(snapshot):
        raise NoDatabaseYet("the database is empty: its tables are created when the writer first starts")


def _has_others(snapshot: Snapshot) -> bool:
    """Return True if all system tables are there, except for the one with the version, which may have been dropped."""
    others = snapshot.catalog.metadata.tables.keys() - {snapshot.catalog.meta.name}
    return all(map(sa.inspect(snapshot.connection).has_table, others))


def require_database(url: str) -> None:
    """Raise NoDatabaseYet if there is no database, or no writer has created its tables yet; create nothing."""
    with open_snapshot(url) as snapshot:
        require_tables(snapshot)


def has_database(url: str) -> bool:
    """Return True if a writer has created its tables.  Raises DatabaseError if the database cannot be read."""
    try:
        require_database(url)
    except NoDatabaseYet:
        return False
    return True


def _with_snapshots(database: sa.Engine) -> sa.Engine:
    """Return connections whose transactions see one state of the database; SQLite needs no isolation level for that."""
    levels = database.dialect.get_isolation_level_values(None)  # type: ignore[arg-type]
    return database.execution_options(isolation_level=_SNAPSHOT_LEVEL) if _SNAPSHOT_LEVEL in levels else database


def answer(error: Exception) -> str:
    """Return what a database says as one line, without the statement and its values."""
    return f"the database answers: {first_line(driver_error(error))}"
