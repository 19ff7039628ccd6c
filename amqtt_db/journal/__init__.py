"""The durable spool between the broker and the writer.

The promise: what :meth:`Journal.commit` has returned for is as safe as ``sync`` says, survives a kill of any process,
and is read back exactly, in order, by any number of other processes that never hold up the owner.

The journal is an SQLite file in WAL mode.  One process owns it, which a lock on ``<path>.lock`` ensures, and only the
owner writes to it.  Entries lie in groups, one row each: the position of the first entry, their number, and a blob that
:mod:`amqtt_db.journal.group` explains.  Positions ascend and may have gaps.  The next one comes from the groups that
are there and from a stored number that is moved whenever groups are deleted.

Each opening by an owner has a random token, which is on disk before anything else, whatever ``sync`` says.  So a
position together with its token is never used twice, even if a power failure takes back entries that were not yet
synced, or somebody restores a copy.  The first entry of each opening is of kind START.

The process that stores the entries elsewhere reports how far it got (:mod:`amqtt_db.journal.progress`); the owner
deletes the groups behind it inside its own commits.  The file keeps its size; the space inside is used again.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from operator import add
from pathlib import Path
from typing import Any, Final, Literal

import attrs

from amqtt_db.errors import JournalError
from amqtt_db.journal import file as journal_file
from amqtt_db.journal import salvage
from amqtt_db.journal.file import explained
from amqtt_db.journal.group import FIXED, Columns, Entry, chunks, decode, encode, fitting
from amqtt_db.journal.progress import Progress, read_progress, write_progress
from amqtt_db.message import CONNECT, START, Batch, flags

__all__ = ["Journal", "JournalReader", "Opening", "Progress", "Sync", "read_progress", "write_progress"]

logger = logging.getLogger(__name__)

Sync = Literal["always", "1s", "never"]

_Row = tuple[int, int, int, int, int, bytes]

_ROW_BYTES: Final = 32
_OTHER_KINDS: Final = flags(CONNECT)  # the flags of published messages are smaller
_TRIM_GROUPS: Final = 64
_TRIM_BYTES: Final = 8 * 2**20
_SYNC_SECONDS: Final = 1.0
_BUSY_MILLISECONDS: Final = 100  # an event loop may stand still meanwhile

# A commit that failed may have reached the disk all the same; then the same row is there already.
_PUT: Final = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)"
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
_CUT: Final = """
SELECT first, count, blob FROM entries
WHERE first < :position AND first + count > :position
  AND opening >= coalesce((SELECT number FROM opening WHERE token = :token), 0)
"""
_TRIM_LIMIT: Final = """
SELECT min(:position, coalesce((SELECT min(first) FROM opening WHERE number > known.number), :position))
FROM opening AS known WHERE token = :token
"""
_BEHIND: Final = (
    "SELECT first, size FROM entries WHERE first < :limit AND first + count <= :limit ORDER BY first LIMIT :most"
)
_FORGET: Final = """
DELETE FROM opening
WHERE number < coalesce((SELECT min(opening) FROM entries) - 1, (SELECT max(number) FROM opening))
"""


@attrs.frozen
class Opening:
    """One opening of a journal by an owner: its token, its first position, and the token of the one before."""

    token: str
    first: int
    previous: str | None


class Journal:
    """The owner's side of a journal: append, commit, trim.

    Not for several threads at once, with one exception: while :meth:`write` runs in another thread, this one may go on
    to :meth:`append` and :meth:`refuse`, and read the properties.  All sizes are in bytes.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection, lock: int, max_size: int, sync: Sync) -> None:
        """For :meth:`open` alone."""
        self.path = path
        self.max_size = max_size
        self.sync = sync
        self.token = secrets.token_hex(16)
        self._connection = connection
        self._lock = lock
        self._identity: tuple[int, int] | None = None
        self._next = 1
        self._number = 0
        self._appended: list[Entry] = []
        self._appended_bytes = 0
        self._sealed: list[_Row] = []
        self._sealed_bytes = 0
        self._live = 0
        self._refused = 0
        self._refused_stored = 0
        self._trim_limit = 0
        self._trimming = False
        self._failed = False
        self._unsynced = False
        self._synced_at = time.monotonic()

    @classmethod
    def open(cls, path: Path | str, *, max_size: int, sync: Sync) -> Journal:
        """Become the owner of the journal at ``path``, which is created where there is none.

        ``max_size`` bounds the bytes that wait in it (see :attr:`full`).  ``sync`` is what a commit waits for:
        ``always`` until the disk has it, ``1s`` until the operating system has it, with the disk following within a
        second, ``never`` leaves the disk to the operating system.

        A damaged journal is set aside, and what can be read of it is kept (:mod:`amqtt_db.journal.salvage`).

        Raises JournalInUse if it has an owner, JournalError if it cannot be created, opened or recognised.
        """
        path = Path(path)
        lock = journal_file.lock(path)
        try:
            salvage.mend(path)
            journal = cls(path, journal_file.connect_owner(path), lock, max_size, sync)
        except BaseException:
            os.close(lock)
            raise
        try:
            journal._begin()
        except BaseException:
            journal.close()
            raise
        return journal

    @property
    def next(self) -> int:
        """The position that the next entry will get."""
        return self._next

    @property
    def size(self) -> int:
        """The bytes that wait in the journal: appended, and not trimmed."""
        return self._live + self._sealed_bytes + self._appended_bytes

    @property
    def uncommitted(self) -> int:
        """The bytes that wait in memory for a commit."""
        return self._sealed_bytes + self._appended_bytes

    @property
    def full(self) -> bool:
        """Whether ``max_size`` is reached.  The journal still takes entries then; its user decides."""
        return self._live + self._sealed_bytes + self._appended_bytes >= self.max_size

    @property
    def refused(self) -> int:
        """How many messages this journal's owners refused, ever."""
        return self._refused

    @property
    def busy(self) -> bool:
        """Whether a commit would have anything to do: entries, trimming, syncing, counting, or a file that is gone."""
        work = self._appended or self._sealed or self._trimming or self._refused != self._refused_stored
        return bool(work) or self._sync_due() or self._is_displaced()

    def append(self, flags: int, time: int, session: int, topic: bytes, payload: bytes) -> int:
        """Append an entry in memory and return its position; the next successful commit makes it durable.

        ``flags`` as by :func:`amqtt_db.message.flags`; ``time`` in microseconds since 1970 (UTC); ``session`` is the
        position of a CONNECT entry, or 0.
        """
        position = self._next
        self._next = position + 1
        self._appended.append((time, flags, session, topic, payload))
        self._appended_bytes += FIXED + len(topic) + len(payload)
        return position

    def refuse(self, count: int = 1) -> None:
        """Count messages that were not taken; the next commit stores the number."""
        self._refused += count

    def trim(self, progress: Progress) -> None:
        """Let the next commits delete the groups that lie wholly behind ``progress``, a bounded number each.

        A token that this journal does not know trims nothing.  Raises JournalError.
        """
        with explained(self.path):
            row = self._connection.execute(_TRIM_LIMIT, attrs.asdict(progress)).fetchone()
        if row is not None and row[0] > self._trim_limit:
            self._trim_limit = row[0]
            self._trimming = True

    def commit(self) -> int:
        """Commit all that was appended, in one transaction; return the position behind it.

        Raises JournalError if it cannot; everything stays as it was, to be committed again.
        """
        behind = self.seal()
        self.write()
        return behind

    def seal(self) -> int:
        """Make what was appended ready for :meth:`write`; return the position behind it."""
        first = self._next - len(self._appended)
        for group in chunks(self._appended):
            blob = encode(group)
            messages = sum(entry[1] < _OTHER_KINDS for entry in group)
            self._sealed.append((first, len(group), messages, self._number, len(blob) + _ROW_BYTES, blob))
            self._sealed_bytes += len(blob) + _ROW_BYTES
            first += len(group)
        self._appended = []
        self._appended_bytes = 0
        return self._next

    def write(self) -> None:
        """Commit all that was sealed, and trim.  Raises JournalError if it cannot; it may be repeated."""
        try:
            with explained(self.path):
                if self._failed and self._trimming:
                    self._transaction(())
                self._transaction(self._sealed)
                if self._is_displaced():
                    self._return()
        except JournalError:
            self._failed = True
            raise
        self._failed = False

    def close(self) -> None:
        """Give the journal up; what was not committed is not stored."""
        with suppress(sqlite3.Error):
            self._connection.close()
        os.close(self._lock)

    def _begin(self) -> None:
        """Write this opening's token and its START entry, and learn what is there."""
        with explained(self.path):
            execute = self._connection.execute
            meta = dict(execute("SELECT name, value FROM meta").fetchall())
            last = execute("SELECT coalesce(max(first + count), 0), coalesce(sum(size), 0) FROM entries").fetchone()
            self._next, self._live = max(meta["next"], last[0]), last[1]
            self._refused = self._refused_stored = meta["refused"]
            execute("BEGIN IMMEDIATE")
            execute(_FORGET)
            newest = execute("SELECT number, token FROM opening ORDER BY number DESC LIMIT 1").fetchone()
            self._number = newest[0] + 1 if newest else 1
            row = (self._number, self.token, self._next, newest[1] if newest else None)
            execute("INSERT INTO opening VALUES (?, ?, ?, ?)", row)
            self.append(flags(START), time.time_ns() // 1000, 0, b"", b"")
            self.seal()
            execute(_PUT, self._sealed[0])
            execute("COMMIT")
            self._written(self._sealed)
            self._settle()

    def _settle(self) -> None:
        """Bring the connection into the mode for everyday commits, and remember which file it is of."""
        self._identity = journal_file.identity(self.path)
        self._connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
        if self.sync != "always":
            self._connection.execute("PRAGMA synchronous = NORMAL")

    def _is_displaced(self) -> bool:
        """Whether the file that this process writes to is no longer the one that others find."""
        return journal_file.identity(self.path) != self._identity

    def _return(self) -> None:
        """Write a removed file anew, with all that it held; one that took its place is not touched."""
        if journal_file.identity(self.path) is not None:
            raise JournalError(
                f"journal {self.path}: another file has taken its place; move that one away, and this one is written"
                " there again, with all that it holds"
            )
        if not journal_file.holds(self._lock, self.path):
            removed, self._lock = self._lock, journal_file.lock(self.path)
            os.close(removed)
        journal_file.replace(self._connection, self.path)
        self._connection = journal_file.connect_owner(self.path)
        self._settle()
        logger.error("journal %s: the file was removed; it is written anew, with all that it held", self.path)

    def _transaction(self, rows: Sequence[_Row]) -> None:
        refused = self._refused
        syncing = self._sync_due()
        trimmed = None
        if len(rows) == 1 and not (self._trimming or syncing or refused != self._refused_stored):
            self._connection.execute(_PUT, rows[0])  # a transaction of its own, at the price of one statement
        else:
            trimmed = self._work(rows, refused, syncing)
        self._refused_stored = refused
        self._written(rows)
        self._note_trimmed(trimmed)
        self._note_synced(syncing, bool(rows))

    def _work(self, rows: Sequence[_Row], refused: int, syncing: bool) -> list[tuple[int, int]] | None:
        """Whatever is due, in one transaction; returns the (first, size) of the groups that it trimmed."""
        execute = self._connection.execute
        if syncing:
            execute("PRAGMA synchronous = FULL")
        try:
            execute("BEGIN IMMEDIATE")
            for row in rows:
                execute(_PUT, row)
            trimmed = self._delete_behind() if self._trimming else None
            if trimmed is not None or syncing or refused != self._refused_stored:
                self._store_meta(refused)
            execute("COMMIT")
        finally:
            if self._connection.in_transaction:
                self._connection.rollback()
            if syncing:
                execute("PRAGMA synchronous = NORMAL")
        return trimmed

    def _store_meta(self, refused: int) -> None:
        behind = self._sealed[-1][0] + self._sealed[-1][1] if self._sealed else self._next - len(self._appended)
        values = [(behind, "next"), (refused, "refused")]
        self._connection.executemany("UPDATE meta SET value = ? WHERE name = ?", values)

    def _delete_behind(self) -> list[tuple[int, int]]:
        """Delete groups behind the trim limit; return their (first, size)."""
        found = self._connection.execute(_BEHIND, {"limit": self._trim_limit, "most": _TRIM_GROUPS}).fetchall()
        found = found[: fitting((size for _, size in found), _TRIM_BYTES)]
        if found:
            self._connection.execute("DELETE FROM entries WHERE first BETWEEN ? AND ?", (found[0][0], found[-1][0]))
        return found

    def _note_trimmed(self, trimmed: list[tuple[int, int]] | None) -> None:
        if trimmed is not None:
            self._live -= sum(size for _, size in trimmed)
            self._trimming = bool(trimmed)

    def _written(self, rows: Sequence[_Row]) -> None:
        size = sum(row[4] for row in rows)
        self._live += size
        self._sealed_bytes -= size
        self._sealed = self._sealed[len(rows) :]

    def _sync_due(self) -> bool:
        return self._unsynced and time.monotonic() - self._synced_at >= _SYNC_SECONDS

    def _note_synced(self, synced: bool, wrote: bool) -> None:
        if synced:
            self._unsynced = False
            self._synced_at = time.monotonic()
        elif wrote and self.sync == "1s":
            self._unsynced = True


class JournalReader:
    """Reads a journal while its owner writes to it, from any process; never holds the owner up.

    All methods raise JournalError if the file cannot be read.
    """

    def __init__(self, path: Path | str) -> None:
        """Open the journal at ``path``.  Raises JournalError, also where there is none yet: then try again later."""
        self.path = Path(path)
        self._connection = journal_file.connect_reader(self.path)
        self._identity = journal_file.identity(self.path)
        self._version: int | None = None

    def openings(self) -> tuple[Opening, ...]:
        """The openings that the journal knows, oldest first; those wholly trimmed may be missing."""
        rows = self._all("SELECT token, first, previous FROM opening ORDER BY number", {})
        return tuple(Opening(*row) for row in rows)

    def read(self, token: str, position: int, *, max_messages: int = 5000, max_bytes: int = 16 * 2**20) -> Batch | None:
        """The entries of an opening from ``position`` on, None if there are none.

        At most ``max_messages`` entries, and as many as come to ``max_bytes`` of topics and payloads, at least one.
        """
        positions, columns = self._groups(token, position, max_messages, max_bytes)
        if columns is None:
            return None
        sizes = map(add, map(len, columns.topics), map(len, columns.payloads))
        count = min(max_messages, fitting(sizes, max_bytes))
        positions, columns = positions[:count], columns.part(0, count)
        return Batch(token, positions, *columns.all(), positions[-1] + 1)

    def changed(self) -> bool:
        """Whether anything may have been committed since the last call; cheap, so poll it.

        Raises JournalError also where another file has taken the journal's place: open it again.
        """
        if journal_file.identity(self.path) != self._identity:
            raise JournalError(f"journal {self.path}: the file was moved away or replaced")
        version = self._all("PRAGMA data_version", {})[0][0]
        before, self._version = self._version, version
        return bool(before != version)

    def pending(self, token: str | None, position: int) -> int:
        """How many messages there are at ``position`` of an opening or later; of an unknown token, from it on."""
        here = {"token": token, "position": position}
        whole = int(self._all(_PENDING, here)[0][0])
        cut = [decode(count, blob).flags[position - first :] for first, count, blob in self._all(_CUT, here)]
        return whole + sum(flag < _OTHER_KINDS for part in cut for flag in part)

    def refused(self) -> int:
        """How many messages the journal's owners refused, ever, because it was full or could not be written."""
        return int(self._all("SELECT value FROM meta WHERE name = 'refused'", {})[0][0])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _all(self, statement: str, parameters: dict[str, Any]) -> list[Any]:
        with explained(self.path):
            return self._connection.execute(statement, parameters).fetchall()

    def _groups(self, token: str, position: int, max_messages: int, max_bytes: int) -> tuple[list[int], Columns | None]:
        """The positions and columns of the groups that together reach a limit, from ``position`` on."""
        positions: list[int] = []
        parts: list[Columns] = []
        size = 0
        with explained(self.path), closing(self._connection.cursor()) as cursor:
            for first, count, blob in cursor.execute(_READ, {"token": token, "position": position}):
                columns = decode(count, blob)
                start = max(0, position - first)
                parts.append(columns.part(start, count) if start else columns)
                positions.extend(range(first + start, first + count))
                size += len(blob)
                if len(positions) >= max_messages or size >= max_bytes:
                    break
        return positions, Columns.joined(parts) if parts else None
