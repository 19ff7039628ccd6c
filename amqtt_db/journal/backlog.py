"""What waits in a journal to be stored, as far as its writer has reported its progress."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import attrs

from amqtt_db.journal.progress import read_progress
from amqtt_db.journal.reader import JournalReader


@attrs.frozen
class Backlog:
    """How many messages wait, and when the oldest of them arrived, in microseconds since 1970; None if none waits."""

    pending: int
    oldest: int | None


def read_backlog(path: Path) -> Backlog:
    """Return what waits in the journal at ``path``.  Raises JournalError if it cannot be read."""
    progress = read_progress(path)
    token, position = (None, 0) if progress is None else (progress.token, progress.position)
    with closing(JournalReader(path)) as reader:
        return Backlog(reader.pending(token, position), reader.oldest(token, position))
