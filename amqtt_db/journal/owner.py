"""The owner's side of a journal: append, commit, trim."""

from __future__ import annotations

import os
import secrets
import sqlite3
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import attrs

from amqtt_db.errors import JournalError
from amqtt_db.journal import file as journal_file
from amqtt_db.journal import salvage
from amqtt_db.journal.file import CREATE_NOTES, PUT_NOTE, explained
from amqtt_db.journal.group import FIXED, OTHER_KINDS, Entry, encode_group, fitting, split_groups
from amqtt_db.journal.progress import Progress
from amqtt_db.message import START, flags

Sync = Literal["always", "1s", "never"]

NO_LONGER_FULL: Final = 0.9
"""A journal that was full takes messages again below this fraction of ``max_size``."""

_Row = tuple[int, int, int, int, int, bytes]
_Note = tuple[str, str, bytes | None]

_ROW_BYTES: Final = 32
_TRIM_GROUPS: Final = 64
_TRIM_BYTES: Final = 8 * 2**20
_SYNC_SECONDS: Final = 1.0
_BUSY_MILLISECONDS: Final = 100  # an event loop may be blocked in the meantime

# A failed commit may have reached the disk all the same; then the same row is already there.
_PUT: Final = "INSERT OR REPLACE INTO entries VALUES (?, ?, ?, ?, ?, ?)"
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
_DELETE_NOTE: Final = "DELETE FROM note WHERE scope = ? AND key = ?"


class Journal:
    """The owner's side of a journal: append, commit, trim.

    Not thread-safe, with one exception: while :meth:`write` runs in another thread, this one may call :meth:`append`,
    :meth:`extend`, :meth:`remember` and :meth:`refuse`, and read the properties.  All sizes are in bytes.
    """

    def __init__(self, path: Path, lock: int, connection: sqlite3.Connection, max_size: int, sync: Sync) -> None:
        """Use :meth:`open` instead."""
        self.path = path
        self.max_size = max_size
        self.sync = sync
        self.token = secrets.token_hex(16)
        self._lock = lock
        self._connection = connection
        self._identity = journal_file.identity(path)
        self._next = 1
        self._number = 0
        self._appended: list[Entry] = []
        self._appended_bytes = 0
        self._sealed: list[_Row] = []
        self._sealed_bytes = 0
        self._notes: dict[str, dict[str, bytes]] = {}
        self._changed_notes: list[_Note] = []
        self._sealed_notes: list[_Note] = []
        self._live = 0
        self._received = 0
        self._refused = 0
        self._refused_stored = 0
        self._trim_limit = 0
        self._trimming = False
        self._failed = False
        self._suspicious = False
        self._unsynced = False
        self._synced_at = time.monotonic()

    @classmethod
    def open(cls, path: Path | str, *, max_size: int, sync: Sync) -> Journal:
        """Become the owner of the journal at ``path``; create it if it is missing.

        ``max_size`` bounds the bytes that wait in it (see :attr:`full`).  ``sync`` is what a commit waits for:
        ``always`` until the disk has it, ``1s`` until the operating system has it, with the disk following within a
        second, ``never`` leaves the disk to the operating system.

        A damaged journal is set aside, and everything readable in it is kept (:mod:`amqtt_db.journal.salvage`).

        Raises JournalInUse if it has an owner, JournalError if it cannot be created, opened or recognised.
        """
        path = Path(path)
        lock = journal_file.lock(path)
        try:
            salvage.mend(path)
            journal = cls(path, lock, journal_file.connect_owner(path), max_size, sync)
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
        """The bytes that wait in the journal: appended and not yet trimmed."""
        return self._live + self._sealed_bytes + self._appended_bytes

    @property
    def uncommitted(self) -> int:
        """The bytes that wait in memory for a commit."""
        return self._sealed_bytes + self._appended_bytes

    @property
    def full(self) -> bool:
        """True if ``max_size`` is reached.  The journal still accepts entries; its user decides."""
        return self._live + self._sealed_bytes + self._appended_bytes >= self.max_size

    @property
    def received(self) -> int:
        """The number of messages that this owner has taken so far."""
        return self._received

    @property
    def refused(self) -> int:
        """The number of messages that all owners of this journal have refused so far."""
        return self._refused

    @property
    def busy(self) -> bool:
        """True if a commit would have anything to do: entries, notes, trimming, syncing, counting, retrying."""
        entries = self._appended or self._sealed or self._changed_notes or self._sealed_notes
        again = self._failed or self._suspicious
        return bool(entries or again or self._trimming or self._refused != self._refused_stored) or self._sync_due()

    def append(self, flags: int, time: int, session: int, topic: bytes, payload: bytes) -> int:
        """Append an entry in memory and return its position; the next successful commit makes it durable.

        ``flags`` are as returned by :func:`amqtt_db.message.flags`; ``time`` is in microseconds since 1970 (UTC);
        ``session`` is the position of a CONNECT entry, or 0.
        """
        position = self._next
        self._next = position + 1
        self._appended.append((time, flags, session, topic, payload))
        self._appended_bytes += FIXED + len(topic) + len(payload)
        return position

    def extend(self, entries: Sequence[Entry]) -> int:
        """Append many entries in memory, see :meth:`append`; return the position of the first."""
        position = self._next
        self._next = position + len(entries)
        self._appended.extend(entries)
        self._appended_bytes += sum(FIXED + len(entry[3]) + len(entry[4]) for entry in entries)
        return position

    def refuse(self, count: int = 1) -> None:
        """Count messages that were not accepted; the next commit stores the number."""
        self._refused += count

    def remember(self, scope: str, key: str, value: bytes | None) -> None:
        """Keep a small note with the entries, or delete it with None; the next successful commit makes it durable.

        It is committed in one transaction with everything appended so far.  Notes outlive trimming and restarts.
        """
        notes = self._notes.setdefault(scope, {})
        if value is None:
            notes.pop(key, None)
        else:
            notes[key] = value
        self._changed_notes.append((scope, key, value))

    def notes(self, scope: str) -> Mapping[str, bytes]:
        """Return the current notes of a scope, including those that are not committed yet."""
        return self._notes.get(scope, {})

    def trim(self, progress: Progress) -> None:
        """Let the next commits delete groups that lie entirely before ``progress``, a limited number each.

        An unknown token trims nothing.  Raises JournalError.
        """
        with explained(self.path):
            row = self._connection.execute(_TRIM_LIMIT, attrs.asdict(progress)).fetchone()
        if row is not None and row[0] > self._trim_limit:
            self._trim_limit = row[0]
            self._trimming = True

    def commit(self) -> int:
        """Commit everything that was appended, in one transaction; return the position after it.

        Raises JournalError if that fails; everything is kept, to be committed again.
        """
        behind = self.seal()
        self.write()
        return behind

    def seal(self) -> int:
        """Prepare what was appended for :meth:`write`; return the position after it."""
        first = self._next - len(self._appended)
        for group in split_groups(self._appended):
            blob = encode_group(group)
            messages = sum(entry[1] < OTHER_KINDS for entry in group)
            self._sealed.append((first, len(group), messages, self._number, len(blob) + _ROW_BYTES, blob))
            self._sealed_bytes += len(blob) + _ROW_BYTES
            self._received += messages
            first += len(group)
        self._appended = []
        self._appended_bytes = 0
        self._sealed_notes += self._changed_notes
        self._changed_notes = []
        return self._next

    def write(self) -> None:
        """Commit everything that was sealed, and trim.  Raises JournalError if that fails; it may be repeated.

        After a failure, and once :meth:`check_file` has found the file missing, it raises until the file is back.
        """
        try:
            with explained(self.path):
                if self._failed or self._suspicious:
                    self._require_file()
                if self._failed and self._trimming:
                    self._transaction((), ())
                self._transaction(self._sealed, self._sealed_notes)
        except JournalError:
            self._failed = True
            raise
        self._failed = False

    def check_file(self) -> None:
        """Check whether the file was removed or replaced; if so, nothing more is committed.

        SQLite would keep writing to a file that no other process can find.
        """
        self._suspicious = self._suspicious or self._is_displaced()

    def close(self) -> None:
        """Close the file and unlock it; what was not committed is not stored."""
        with suppress(sqlite3.Error):
            self._connection.close()
        os.close(self._lock)

    def _is_displaced(self) -> bool:
        found = journal_file.identity(self.path)
        return found is None or found != self._identity

    def _require_file(self) -> None:
        if self._is_displaced():
            self._suspicious = True
            raise JournalError(
                f"journal {self.path}: the file was removed or replaced while this process owned it; put it back, or"
                " restart the broker to begin a new one (first move away any file that has taken its place)"
            )
        self._suspicious = False

    def _begin(self) -> None:
        """Write this opening's token and its START entry, and read what the file holds."""
        with explained(self.path):
            execute = self._connection.execute
            meta = dict(execute("SELECT name, value FROM meta").fetchall())
            last = execute("SELECT coalesce(max(first + count), 0), coalesce(sum(size), 0) FROM entries").fetchone()
            self._next, self._live = max(meta["next"], last[0]), last[1]
            self._refused = self._refused_stored = meta["refused"]
            execute("BEGIN IMMEDIATE")
            execute(CREATE_NOTES)
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
            for scope, key, value in execute("SELECT scope, key, value FROM note"):
                self._notes.setdefault(scope, {})[key] = value
            execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
            if self.sync != "always":
                execute("PRAGMA synchronous = NORMAL")

    def _transaction(self, rows: Sequence[_Row], notes: Sequence[_Note]) -> None:
        refused = self._refused
        syncing = self._sync_due()
        trimmed = None
        if len(rows) == 1 and not (notes or self._trimming or syncing or refused != self._refused_stored):
            self._connection.execute(_PUT, rows[0])  # its own transaction, for the price of one statement
        else:
            trimmed = self._work(rows, notes, refused, syncing)
        self._refused_stored = refused
        self._sealed_notes = self._sealed_notes[len(notes) :]
        self._written(rows)
        self._note_trimmed(trimmed)
        self._note_synced(syncing, bool(rows))

    def _work(
        self, rows: Sequence[_Row], notes: Sequence[_Note], refused: int, syncing: bool
    ) -> list[tuple[int, int]] | None:
        """Do everything that is due, in one transaction; return the (first, size) of the groups that it trimmed."""
        execute = self._connection.execute
        if syncing:
            execute("PRAGMA synchronous = FULL")
        try:
            execute("BEGIN IMMEDIATE")
            for row in rows:
                execute(_PUT, row)
            for scope, key, value in notes:
                execute(_DELETE_NOTE, (scope, key)) if value is None else execute(PUT_NOTE, (scope, key, value))
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
        """Delete groups before the trim limit; return their (first, size)."""
        execute = self._connection.execute
        found = execute(_BEHIND, {"limit": self._trim_limit, "most": _TRIM_GROUPS}).fetchall()
        found = found[: fitting((size for _, size in found), _TRIM_BYTES)]
        if found:
            execute("DELETE FROM entries WHERE first BETWEEN ? AND ?", (found[0][0], found[-1][0]))
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
