"""What is waiting in a journal, according to its writer's last report."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import attrs

from amqtt_db.journal.progress import read_progress
from amqtt_db.journal.reader import JournalReader


@attrs.frozen
class Backlog:
    """How many messages are waiting, and when the oldest arrived, in microseconds since 1970; None if none is."""

    pending: int
    oldest: int | None


def read_backlog(path: Path) -> Backlog:
    """Return what is waiting in the journal at ``path``.  Raises JournalError if it cannot be read."""
    progress = read_progress(path)
    token, position = (None, 0) if progress is None else (progress.token, progress.position)
    with closing(JournalReader(path)) as reader:
        return Backlog(reader.pending(token, position), reader.oldest(token, position))
