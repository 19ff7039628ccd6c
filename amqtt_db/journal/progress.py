"""A reader's progress through a journal, reported to the owner in a small file next to it."""

from __future__ import annotations

import os
from pathlib import Path

import attrs
import orjson

from amqtt_db.journal.file import explained


@attrs.frozen
class Progress:
    """Everything before ``position`` of the generation ``token``, and all earlier generations, is stored elsewhere."""

    token: str
    position: int


def write_progress(path: Path | str, token: str, position: int) -> None:
    """Report to the owner of the journal at ``path`` what it need not keep.  Raises JournalError."""
    new = f"{path}.progress.new"
    with explained(Path(path)):
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with open(descriptor, "wb") as file:
            file.write(orjson.dumps({"token": token, "position": position}))
        os.replace(new, f"{path}.progress")


def read_progress(path: Path | str) -> Progress | None:
    """Return what was last reported for the journal at ``path``; None if nothing was, or it cannot be read."""
    try:
        found = orjson.loads(_read_plain(f"{path}.progress"))
        return Progress(str(found["token"]), int(found["position"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _read_plain(path: str) -> bytes:
    """Return the contents of a file that is not a symbolic link."""
    with open(os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
        return file.read()
