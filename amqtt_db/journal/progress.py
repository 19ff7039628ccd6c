"""A reader's progress through a journal, reported to the owner in a small file next to it."""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Final

import attrs
import orjson

from amqtt_db.journal.file import overwrite_beside, read_beside

_PROGRESS_FILE: Final = ".progress"
_WIDTH: Final = 256  # of the file: longer than any progress


@attrs.frozen
class Progress:
    """Everything before ``position`` of the generation ``token``, and all earlier generations, is stored elsewhere."""

    token: str
    position: int


def write_progress(path: Path | str, token: str, position: int) -> None:
    """Report to the owner of the journal at ``path`` what it need not keep.  Raises JournalError."""
    written = {"token": token, "position": position, "check": _sum_of(token, position)}
    overwrite_beside(Path(path), _PROGRESS_FILE, orjson.dumps(written).ljust(_WIDTH))


def read_progress(path: Path | str) -> Progress | None:
    """Return what was last reported for the journal at ``path``; None if nothing was, or it cannot be read just now."""
    try:
        found = orjson.loads(read_beside(Path(path), _PROGRESS_FILE))
        progress = Progress(str(found["token"]), int(found["position"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return progress if found.get("check") == _sum_of(progress.token, progress.position) else None


def _sum_of(token: str, position: int) -> int:
    """Return what a reader that sees half of the old file and half of the new one does not find."""
    return zlib.crc32(b"%s %d" % (token.encode(), position))
