"""Reading a journal from a process that does not own it: its generations, its entries, and how many are waiting."""

from __future__ import annotations

from contextlib import closing
from operator import add
from pathlib import Path
from typing import Any, Final

import attrs

from amqtt_db.errors import JournalError
from amqtt_db.journal import file as journal_file
from amqtt_db.journal.file import explained
from amqtt_db.journal.group import OTHER_KINDS, EntryColumns, decode_group, fitting
from amqtt_db.message import Batch

_READ: Final = """
SELECT first, count, blob FROM entries
WHERE first >= coalesce((SELECT max(first) FROM entries WHERE first <= :position), :position)
  AND first + count > :position AND opening = (SELECT number FROM opening WHERE token = :token)
ORDER BY first
"""
_PENDING: Final = """
SELECT coalesce(sum(messages), 0) FROM entries
WHERE first >= :position AND opening >= coalesce((SELECT number FROM opening WHERE token = :token), 0)
"""
_OLDEST: Final = """
SELECT first, count, blob FROM entries
WHERE messages > 0 AND first >= :position
  AND opening >= coalesce((SELECT number FROM opening WHERE token = :token), 0)
ORDER BY first LIMIT 1
"""
_CUT: Final = """
SELECT first, count, blob FROM entries
WHERE first < :position AND first + count > :position
  AND opening >= coalesce((SELECT number FROM opening WHERE token = :token), 0)
"""


@attrs.frozen
class Generation:
    """One opening of a journal by an owner: its token, its first position, and the token of the one before."""

    token: str
    first: int
    previous: str | None


class JournalReader:
    """Reads a journal from any process, while its owner writes to it; never blocks the owner.

    All methods raise JournalError if the file cannot be read.
    """

    def __init__(self, path: Path | str) -> None:
        """Open the journal at ``path``.  Raises JournalError, also if it does not exist yet; if so, try again later."""
        self.path = Path(path)
        self._identity = journal_file.identity(
            self.path
        )  # before opening, so that a file that replaces it meanwhile is noticed
        self._connection = journal_file.connect_reader(self.path)
        self._version: int | None = None
        self.has_read_all = False

    def generations(self) -> tuple[Generation, ...]:
        """Return the generations in the journal, oldest first; fully trimmed ones may be missing."""
        rows = self._all("SELECT token, first, previous FROM opening ORDER BY number", {})
        return tuple(Generation(*row) for row in rows)

    def read(self, token: str, position: int, *, max_messages: int = 5000, max_bytes: int = 16 * 2**20) -> Batch | None:
        """Return the entries of a generation from ``position`` on, or None if there are none.

        At most ``max_messages`` entries and ``max_bytes`` of topics and payloads, but at least one entry.
        Afterwards ``has_read_all`` is False if a limit may have kept entries of this generation back.
        """
        positions, columns = self._groups(token, position, max_messages, max_bytes)
        if columns is None:
            return None
        sizes = map(add, map(len, columns.topics), map(len, columns.payloads))
        count = min(max_messages, fitting(sizes, max_bytes))
        positions, columns = positions[:count], columns.part(0, count)
        return Batch(token, positions, *columns.all(), positions[-1] + 1, columns.properties)

    def changed(self) -> bool:
        """Return True if anything may have been committed since the last call; cheap, so poll it.

        Raises JournalError also if another file has taken the journal's place: open it again.
        """
        if journal_file.identity(self.path) != self._identity:
            raise JournalError(f"journal {self.path}: the file was moved away or replaced")
        return self.has_news()

    def has_news(self) -> bool:
        """Do what :meth:`changed` does, but go on with a file that was replaced."""
        before, self._version = self._version, self._all("PRAGMA data_version", {})[0][0]
        return bool(before != self._version)

    def pending(self, token: str | None, position: int) -> int:
        """Return how many messages there are at or after ``position`` of a generation.

        With an unknown token, or None, count those of all generations.
        """
        here = {"token": token, "position": position}
        whole = int(self._all(_PENDING, here)[0][0])
        cut = [decode_group(count, blob).flags[position - first :] for first, count, blob in self._all(_CUT, here)]
        return whole + sum(flag < OTHER_KINDS for part in cut for flag in part)

    def oldest(self, token: str | None, position: int) -> int | None:
        """Return when the first message at or after ``position`` arrived, in microseconds since 1970; None without one.

        The token means what it means for :meth:`pending`.
        """
        here = {"token": token, "position": position}
        for query in (_CUT, _OLDEST):
            for first, count, blob in self._all(query, here):
                columns = decode_group(count, blob)
                for index in range(max(0, position - first), count):
                    if columns.flags[index] < OTHER_KINDS:
                        return columns.times[index]
        return None

    def refused(self) -> int:
        """Return how many messages its owners have refused so far."""
        return int(self._all("SELECT value FROM meta WHERE name = 'refused'", {})[0][0])

    def size(self) -> int:
        """Return the bytes in the journal that count towards its owner's ``max_size``."""
        return int(self._all("SELECT coalesce(sum(size), 0) FROM entries", {})[0][0])

    def notes(self, scope: str) -> dict[str, bytes]:
        """Return the committed notes of a scope."""
        if not self._all("SELECT 1 FROM sqlite_master WHERE name = 'note'", {}):
            return {}
        return dict(self._all("SELECT key, value FROM note WHERE scope = :scope", {"scope": scope}))

    def is_owned(self) -> bool:
        """Return True if a process owns the journal now."""
        return journal_file.is_held(self.path, journal_file.lock_file(self.path))

    def has_writer(self) -> bool:
        """Return True if a writer works on the journal now."""
        return journal_file.is_held(self.path, journal_file.writer_lock_file(self.path))

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _all(self, statement: str, parameters: dict[str, Any]) -> list[Any]:
        with explained(self.path):
            return self._connection.execute(statement, parameters).fetchall()

    def _groups(
        self, token: str, position: int, max_messages: int, max_bytes: int
    ) -> tuple[list[int], EntryColumns | None]:
        """Return positions and columns of the groups from ``position`` on that together reach a limit."""
        positions: list[int] = []
        parts: list[EntryColumns] = []
        size = 0
        self.has_read_all = True
        with explained(self.path), closing(self._connection.cursor()) as cursor:
            for first, count, blob in cursor.execute(_READ, {"token": token, "position": position}):
                columns = decode_group(count, blob)
                start = max(0, position - first)
                parts.append(columns.part(start, count) if start else columns)
                positions.extend(range(first + start, first + count))
                size += len(blob)
                if len(positions) >= max_messages or size >= max_bytes:
                    self.has_read_all = False
                    break
        return positions, EntryColumns.joined(parts) if parts else None
