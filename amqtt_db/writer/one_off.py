"""A writer for work beside the journal: replaying dead letters, filling the newest values."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from amqtt_db.database.engines import engine_for
from amqtt_db.database.snapshot import answer, require_database
from amqtt_db.errors import DatabaseError
from amqtt_db.routing.route import Route
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.writer import Writer


@contextmanager
def open_writer(database: str, routes: Sequence[Route]) -> Iterator[Writer]:
    """Open a writer on a database, given by its URL.  Raises DatabaseError if the database cannot be used."""
    require_database(database)
    with tempfile.TemporaryDirectory() as directory:
        guard = CrashGuard(Path(directory) / "attempt")
        writer = Writer(engine_for(database), routes, guard)
        try:
            writer.prepare()
            yield writer
        except DBAPIError as error:
            raise DatabaseError(answer(error)) from error
        finally:
            writer.close()
            guard.close()
