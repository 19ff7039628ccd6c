"""A reader's progress through a journal, reported to the owner in a small file next to it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import attrs
import orjson

from amqtt_db.journal.file import read_beside, replace_beside

_PROGRESS_FILE: Final = ".progress"


@attrs.frozen
class Progress:
    """Everything before ``position`` of the generation ``token``, and all earlier generations, is stored elsewhere."""

    token: str
    position: int


def write_progress(path: Path | str, token: str, position: int) -> None:
    """Report to the owner of the journal at ``path`` what it need not keep.  Raises JournalError."""
    replace_beside(Path(path), _PROGRESS_FILE, orjson.dumps({"token": token, "position": position}))


def read_progress(path: Path | str) -> Progress | None:
    """Return what was last reported for the journal at ``path``; None if nothing was, or it cannot be read."""
    try:
        found = orjson.loads(read_beside(Path(path), _PROGRESS_FILE))
        return Progress(str(found["token"]), int(found["position"]))
    except (OSError, ValueError, TypeError, KeyError):
        return None
