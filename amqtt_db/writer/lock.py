"""One writer per journal: a locked file beside it, which also tells by which routes its writer works.

The lock ends with the process, however that ends.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import orjson

from amqtt_db.database.catalog import key_hash
from amqtt_db.errors import AmqttDbError, JournalError, JournalInUse
from amqtt_db.routing.route import Route
from amqtt_db.writer.topic_router import spec


def acquire_lock(journal: Path, routes: Iterable[Route]) -> int:
    """Become the journal's writer; returns the open file that says so.

    Raises JournalInUse if there is one, JournalError if the file cannot be made.
    """
    path = _path(journal)
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise JournalError(f"cannot make {path}: {error.strerror}; give the directory write permission") from error
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(file)
        raise JournalInUse(f"another writer is at work on {journal}; stop it first") from error
    os.pwrite(file, _digest(routes).encode(), 0)  # digests are equally long
    return file


def require_same_routes(journal: Path, routes: Iterable[Route]) -> None:
    """Raises AmqttDbError if a writer is at work on the journal that has other routes or models."""
    with suppress(FileNotFoundError), _path(journal).open("rb") as file:
        if _is_claimed(file.fileno()) and file.read().decode() != _digest(routes):
            raise AmqttDbError(
                f"the writer of {journal} is at work with other routes than these, and would undo what is done here; "
                "restart its broker with this configuration first"
            )


def _path(journal: Path) -> Path:
    return journal.with_name(journal.name + ".writer")


def _is_claimed(file: int) -> bool:
    """Whether a writer has locked the file; a shared lock, given back at once, tells."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    fcntl.flock(file, fcntl.LOCK_UN)
    return False


def _digest(routes: Iterable[Route]) -> str:
    return key_hash(orjson.dumps([(route.filter.text, spec(route.model)) for route in routes]).decode())
