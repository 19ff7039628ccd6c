"""One writer per journal: a locked file next to it, which also identifies the writer's routes.

The lock ends with the process, however that ends.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import orjson

from amqtt_db.database.catalog import key_hash
from amqtt_db.errors import AmqttDbError, JournalError, JournalInUse
from amqtt_db.journal.file import writer_lock_file
from amqtt_db.journal.file_lock import is_locked, try_lock
from amqtt_db.models.spec import to_spec
from amqtt_db.routing.route import Route


def acquire_lock(journal: Path, routes: Iterable[Route]) -> int:
    """Become the journal's writer; return the locked file, which must stay open.

    Raises JournalInUse if there is another writer, JournalError if the file cannot be created or written.
    """
    path = writer_lock_file(journal)
    try:
        file = try_lock(path)
    except OSError as error:
        raise JournalError(f"cannot create {path}: {error.strerror}; make the directory writable") from error
    if file is None:
        raise JournalInUse(f"another writer is using {journal}; stop it first")
    digest = _digest(routes).encode()  # all have the same length
    try:
        if os.pwrite(file, digest, 0) < len(digest):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    except OSError as error:
        os.close(file)
        raise JournalError(f"cannot write {path}: {error.strerror}; check the disk") from error
    return file


def require_same_routes(journal: Path, routes: Iterable[Route]) -> None:
    """Raise AmqttDbError if a writer with other routes, decoders, entities or models is using the journal."""
    with suppress(FileNotFoundError), writer_lock_file(journal).open("rb") as file:
        if is_locked(file.fileno()) and file.read().decode() != _digest(routes):
            raise AmqttDbError(
                f"the writer of {journal} is running with different routes, and would undo this change; "
                "restart its broker with this configuration first"
            )


def _digest(routes: Iterable[Route]) -> str:
    return key_hash(orjson.dumps(list(map(_tell, routes))).decode())


def _tell(route: Route) -> Sequence[object]:
    """Return what decides which records a route's messages make, and where they go."""
    declared = [] if route.entity is None else sorted(route.entity.shape.properties)
    model = to_spec(route.model, timed=route.timed)
    return route.filter.text, route.format, model, route.time, declared, route.unknown, route.mismatch
