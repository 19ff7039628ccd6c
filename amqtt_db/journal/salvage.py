"""Salvaging a damaged journal: it is set aside, not deleted, and a new one gets everything that can still be read.

A disk that lost or changed what it had confirmed damages a journal; a killed process or a power failure does not.
The order of the steps ensures that nothing is lost if the process dies in between: the new file is complete, under a
temporary name, before the damaged one is moved.
"""

from __future__ import annotations

import logging
import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Final

import attrs

from amqtt_db.errors import JournalError, format_count
from amqtt_db.journal import file as journal_file
from amqtt_db.journal.file import APPLICATION_ID, CREATE_NOTES, FORMAT, PUT_NOTE
from amqtt_db.journal.group import FIXED, decode_group
from amqtt_db.journal.progress import read_progress

logger = logging.getLogger(__name__)

GroupRow = tuple[int, int, int, int, int, bytes]
"""A group as it is in the file: first, count, messages, opening, size, blob."""

_ScanResult = tuple[list[int], int | None]
"""First positions of intact groups, and the last position that could be read; None if the whole range could."""

_SQLITE_MAGIC: Final = b"SQLite format 3\0"
_ID_AT: Final = 68  # bytes into the file [https://www.sqlite.org/fileformat2.html#database_header]
_LAST_POSITION: Final = 2**40
_NO_ROW: Final = -1
_BROKEN: Final = (sqlite3.DatabaseError, UnicodeDecodeError)  # the latter from what SQLite says about damaged names
_MOST_TRIES: Final = 50_000
_STRAYS: Final = "SELECT count(*) FROM entries WHERE opening NOT IN (SELECT number FROM opening)"
_BRING_HOME: Final = """
UPDATE entries SET opening = coalesce(
  (SELECT max(number) FROM opening WHERE opening.first <= entries.first), (SELECT min(number) FROM opening))
WHERE opening NOT IN (SELECT number FROM opening)
"""
_GROUPS: Final = (
    "SELECT first, count, messages, opening, size, blob FROM entries WHERE first BETWEEN ? AND ? ORDER BY first"
)


@attrs.define
class Salvage:
    """Counts of the groups and entries that can be read, and of the positions between them that cannot."""

    groups: int = 0
    entries: int = 0
    missing: int = 0
    _behind: int | None = None

    def add(self, row: GroupRow) -> None:
        """Count a group; groups come in order."""
        first, count = row[:2]
        self.groups += 1
        self.entries += count
        self.missing += 0 if self._behind is None else first - self._behind
        self._behind = first + count


def mend(path: Path) -> None:
    """If the journal at ``path`` is damaged, set it aside and replace it with everything that can be read.

    The caller owns the journal.  Raises JournalError, and changes nothing, if that cannot be done.
    """
    ready = journal_file.beside(path, ".mended")
    if not ready.exists():
        problem = damage(path)
        if problem is None:
            return
        with journal_file.explained(path):
            found = _copy(path, ready)
        logger.error(
            "journal %s is damaged (%s); %s could be read and kept, %d or more could not",
            path, problem, format_count(found.entries, "message or event", "messages and events"), found.missing,
        )  # fmt: skip
    with journal_file.explained(path):
        aside = _set_aside(path)
        os.replace(ready, path)
        journal_file.sync_directory(path)
    logger.error("the damaged journal is set aside as %s; keep it until you know what is missing", aside)


def damage(path: Path) -> str | None:
    """Return what is damaged in the journal at ``path``; None if nothing is, or if it is not a journal at all."""
    if not _is_journal(path):
        wal = journal_file.beside(path, "-wal")
        is_empty = not path.exists() or path.stat().st_size == 0
        return "a write-ahead log without its database" if is_empty and _file_size(wal) else None
    with journal_file.explained(path):
        try:
            return _first_damage(path)
        except JournalError as error:
            return str(error).partition(";")[0]
        except UnicodeDecodeError:
            return "a name in it is not text"
        except sqlite3.DatabaseError as error:
            if journal_file.is_damage(error):
                return str(error)
            raise


def _first_damage(path: Path) -> str | None:
    with closing(_look(path)) as connection:
        if connection.execute("PRAGMA user_version").fetchone()[0] != FORMAT:
            return None  # another version's, which is reported when it is opened
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            return str(verdict).splitlines()[-1]
        for _, count, _, _, _, blob in connection.execute(_GROUPS, (0, _LAST_POSITION)):
            decode_group(count, blob)
        if connection.execute(_STRAYS).fetchone()[0]:
            return "a group belongs to an unknown generation"
    return None


def readable(path: Path) -> Iterator[GroupRow]:
    """Yield every group of a journal that can be read, in order."""
    if not _is_journal(path):
        return
    with closing(_insist(path)) as connection:
        size = _file_size(path) + _file_size(journal_file.beside(path, "-wal"))
        for first in sorted(set(_search(connection, size // FIXED))):
            yield from connection.execute(f"{_GROUPS} LIMIT 1", (first, first))  # the next page may be damaged


def _search(connection: sqlite3.Connection, most: int) -> Iterator[int]:
    """Yield first positions of intact groups: read a range from both ends until it breaks, halve the rest, and go on.

    ``most``: the largest possible number of entries, used if the last one cannot be read; positions have gaps.
    """
    lowest, _ = _read_range(connection, 0, _LAST_POSITION, "ASC LIMIT 1")
    highest, _ = _read_range(connection, 0, _LAST_POSITION, "DESC LIMIT 1")
    low = lowest[0] if lowest else 0
    high = highest[0] if highest else low + most if lowest else _LAST_POSITION
    ranges = [(low, high)]
    for _ in range(_MOST_TRIES):
        if not ranges:
            return
        low, high = ranges.pop()
        found, last = _read_range(connection, low, high, "ASC")
        yield from found
        if last is None:
            continue
        low = max(low, last + 1)
        found, last = _read_range(connection, low, high, "DESC")
        yield from found
        high = high if last in (None, _NO_ROW) else last - 1
        if low < high:
            middle = (low + high) // 2
            ranges += [(middle + 1, high), (low, middle)]


def _read_range(connection: sqlite3.Connection, low: int, high: int, order: str) -> _ScanResult:
    found: list[int] = []
    last = _NO_ROW
    try:
        for row in connection.execute(f"{_GROUPS} {order}", (low, high)):
            last = row[0]
            if _is_sound(row):
                found.append(last)
    except _BROKEN:
        return found, last
    return found, None


def _is_sound(row: GroupRow) -> bool:
    try:
        decode_group(row[1], row[5])
    except JournalError:
        return False
    return True


def _copy(path: Path, ready: Path) -> Salvage:
    """Create a journal from what can be read of the one at ``path``; once on disk, it gets the name ``ready``."""
    part = journal_file.beside(path, ".mending")
    journal_file.remove(part)
    found = Salvage()
    with closing(journal_file.create(part)) as target:
        target.execute("BEGIN")
        known = _openings(path)
        for row in readable(path):
            found.add(row)
            target.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?)", row)
        target.executemany("INSERT INTO opening VALUES (?, ?, ?, ?)", known)
        if not known and found.groups:
            _adopt(path, target)
        target.execute(_BRING_HOME)
        target.executemany("UPDATE meta SET value = max(value, ?) WHERE name = ?", _meta(path))
        target.execute(CREATE_NOTES)
        target.executemany(PUT_NOTE, _notes(path))
        target.execute("COMMIT")
    os.replace(part, ready)
    return found


def _openings(path: Path) -> list[tuple[int, str, int, str | None]]:
    """Return the openings, or an empty list if they cannot be read: they are few, on one page."""
    if not _is_journal(path):
        return []
    with closing(_insist(path)) as connection, suppress(*_BROKEN):
        return connection.execute("SELECT number, token, first, previous FROM opening ORDER BY number").fetchall()
    return []


def _adopt(path: Path, target: sqlite3.Connection) -> None:
    """Assign entries whose openings are lost to the last reported opening: its checkpoint says what is stored."""
    progress = read_progress(path)
    token = secrets.token_hex(16) if progress is None else progress.token
    first = target.execute("SELECT min(first) FROM entries").fetchone()[0]
    target.execute("INSERT INTO opening VALUES (1, ?, ?, NULL)", (token, first))
    target.execute("UPDATE entries SET opening = 1")


def _meta(path: Path) -> list[tuple[int, str]]:
    if not _is_journal(path):
        return []
    with closing(_insist(path)) as connection, suppress(*_BROKEN):
        return connection.execute("SELECT value, name FROM meta").fetchall()
    return []


def _notes(path: Path) -> list[tuple[str, str, bytes]]:
    """Return the notes, or an empty list if they cannot be read or there never were any."""
    if not _is_journal(path):
        return []
    with closing(_insist(path)) as connection, suppress(*_BROKEN):
        return connection.execute("SELECT scope, key, value FROM note").fetchall()
    return []


def _set_aside(path: Path) -> Path:
    """Rename the files of a journal; return the new name of the first."""
    aside = journal_file.beside(path, time.strftime(".damaged-%Y%m%dT%H%M%SZ", time.gmtime()))
    journal_file.beside(path, "-shm").unlink(missing_ok=True)  # SQLite creates it again
    if _file_size(journal_file.beside(path, "-wal")):
        os.rename(journal_file.beside(path, "-wal"), journal_file.beside(aside, "-wal"))
    if path.exists():
        os.rename(path, aside)
    return aside


def _is_journal(path: Path) -> bool:
    """Return True if the file begins like a journal."""
    try:
        with path.open("rb") as file:
            head = file.read(_ID_AT + 4)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise JournalError(f"journal {path}: {error.strerror or error}; check its permissions") from error
    return head.startswith(_SQLITE_MAGIC) and head[_ID_AT:] == APPLICATION_ID.to_bytes(4, "big")


def _look(path: Path) -> sqlite3.Connection:
    """Return a read-only connection; it opens damaged files too."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", isolation_level=None, uri=True)
    connection.text_factory = lambda raw: raw.decode(errors="replace")
    return connection


def _insist(path: Path) -> sqlite3.Connection:
    """Return it with a setting that lets SQLite read a truncated file as far as possible."""
    connection = _look(path)
    connection.execute("PRAGMA writable_schema = ON")
    return connection


def _file_size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
