"""The journal's file in its owner's hands: locked, opened, and written anew when somebody removes it."""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Final

from amqtt_db.errors import JournalError
from amqtt_db.journal import file as journal_file
from amqtt_db.journal import salvage

logger = logging.getLogger(__name__)

_BUSY_MILLISECONDS: Final = 100  # an event loop may stand still meanwhile


class OwnedFile:
    """A journal's file with its owner's lock and connection.

    Until :meth:`settle`, each commit is synced to the disk; from then on only if ``is_synced``.
    """

    def __init__(self, path: Path, lock: int, connection: sqlite3.Connection, is_synced: bool) -> None:
        """For :meth:`open` alone."""
        self.path = path
        self.connection = connection
        self._lock = lock
        self._is_synced = is_synced
        self._identity = journal_file.identity(path)
        self._copy: tuple[int, int] | None = None

    @classmethod
    def open(cls, path: Path, *, is_synced: bool) -> OwnedFile:
        """Lock the file at ``path``, mend it where it is damaged, and connect to it; it is made where there is none.

        Raises JournalInUse if it has an owner, JournalError if it cannot be created, opened or recognised.
        """
        lock = journal_file.lock(path)
        try:
            journal_file.adopt_copy(path)
            salvage.mend(path)
            return cls(path, lock, journal_file.connect_owner(path), is_synced)
        except BaseException:
            os.close(lock)
            raise

    def settle(self) -> None:
        """Bring the connection into the mode for everyday commits."""
        self.connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}")
        if not self._is_synced:
            self.connection.execute("PRAGMA synchronous = NORMAL")

    def is_displaced(self) -> bool:
        """Whether the file that this process writes to is no longer the one that others find."""
        found = journal_file.identity(self.path)
        return found is None or found != self._identity

    def keep_place(self) -> None:
        """Write a removed file anew, with all that it held; one that took its place is not touched.

        Raises JournalError, OSError or sqlite3.Error if it cannot; it may be repeated.
        """
        if self.is_displaced():
            self._write_anew()
        elif self._copy is not None:  # somebody has put the file back
            journal_file.discard_copy(self.path)
            self._copy = None

    def _write_anew(self) -> None:
        """In an order in which a failure leaves everything in the removed file, and a crash in a copy that is found."""
        if journal_file.identity(self.path) not in {None, self._copy}:
            raise JournalError(
                f"journal {self.path}: another file has taken its place; move that one away, and this one is written"
                " there again, with all that it holds"
            )
        if not journal_file.holds(self._lock, self.path):
            removed, self._lock = self._lock, journal_file.lock(self.path)
            os.close(removed)
        self._copy = journal_file.write_copy(self.connection, self.path)
        journal_file.put_in_place(self.path)
        removed_file, self.connection = self.connection, journal_file.connect_owner(self.path)
        self._identity, self._copy = self._copy, None
        with suppress(sqlite3.Error):
            removed_file.close()
        self.settle()
        logger.error("journal %s: the file was removed; it is written anew, with all that it held", self.path)

    def close(self) -> None:
        """Close the file and give the lock back."""
        with suppress(sqlite3.Error):
            self.connection.close()
        os.close(self._lock)
