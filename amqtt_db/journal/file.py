"""The journal's SQLite file: creating, recognising, locking and opening it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

from amqtt_db.errors import JournalError, JournalInUse
from amqtt_db.journal.file_lock import is_locked, try_lock

APPLICATION_ID: Final = 0x616D7164  # "amqd"
FORMAT: Final = 2

_CREATE_TABLES: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE opening (number INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE, first INTEGER NOT NULL,"
    " previous TEXT)",
    "CREATE TABLE entries (first INTEGER PRIMARY KEY, count INTEGER NOT NULL, messages INTEGER NOT NULL,"
    " opening INTEGER NOT NULL, size INTEGER NOT NULL, blob BLOB NOT NULL)",
    "INSERT INTO meta VALUES ('next', 1), ('refused', 0)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
)
# Not in the schema: journals older than notes get the table when their owner opens them.
CREATE_NOTES: Final = """
CREATE TABLE IF NOT EXISTS note
(scope TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (scope, key)) WITHOUT ROWID
"""
PUT_NOTE: Final = "INSERT OR REPLACE INTO note VALUES (?, ?, ?)"

_CHECKPOINT_PAGES: Final = 4000
_BUSY_SECONDS: Final = 5.0


def lock(path: Path) -> int:
    """Lock the journal at ``path`` for its owner; closing the returned file descriptor unlocks it.

    Raises JournalInUse if another owner holds the lock, JournalError if the lock file cannot be made.
    """
    with explained(path):
        descriptor = try_lock(lock_file(path))
    if descriptor is None:
        raise _in_use(path)
    return descriptor


def is_held(path: Path, lock: Path) -> bool:
    """Return True if a process holds ``lock``, a file of the journal at ``path``.  Raises JournalError."""
    with explained(path), suppress(FileNotFoundError), lock.open("rb") as file:
        return is_locked(file.fileno())
    return False


def require_unowned(path: Path) -> None:
    """Raise JournalInUse if a process owns the journal at ``path`` now."""
    if is_held(path, lock_file(path)):
        raise _in_use(path)


def _in_use(path: Path) -> JournalInUse:
    return JournalInUse(
        f"journal {path}: another process owns it, probably a broker or bridge that is still running; stop that one, or"
        " give this one its own journal"
    )


def lock_file(path: Path) -> Path:
    """Return the path of the file that a journal's owner locks."""
    return beside(path, ".lock")


def writer_lock_file(path: Path) -> Path:
    """Return the file that the writer of a journal locks."""
    return beside(path, ".writer")


def connect_owner(path: Path) -> sqlite3.Connection:
    """Return the owner's connection, in a mode that syncs each commit; create the file if it is missing.

    Raises JournalError.
    """
    with explained(path):
        _require_writable(path)
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _set_up(path, connection)
        except BaseException:
            connection.close()
            raise
    return connection


def create(path: Path) -> sqlite3.Connection:
    """Create an empty journal without a write-ahead log, so that a finished transaction is in the one file."""
    _make(path)
    connection = sqlite3.connect(path, isolation_level=None)
    _create_tables(connection)
    return connection


def remove(path: Path) -> None:
    """Delete an SQLite file and the files that belong to it, if they exist."""
    for end in ("", "-journal", "-wal", "-shm"):
        beside(path, end).unlink(missing_ok=True)


@lru_cache(64)
def beside(path: Path, end: str) -> Path:
    """Return the path of a file that belongs to a journal."""
    return path.with_name(path.name + end)


def replace_beside(path: Path, end: str, data: bytes) -> None:
    """Replace a file that belongs to a journal, and never show half of the new one.  Raises JournalError."""
    new = beside(path, f"{end}.new")
    with explained(path):
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW
        with open(os.open(new, flags, 0o600), "wb") as file:
            file.write(data)
        new.replace(beside(path, end))


def overwrite_beside(path: Path, end: str, data: bytes) -> None:
    """Write ``data`` over the beginning of a file that belongs to a journal: quick, but a reader may see a part of it.

    A system that replaces a file first writes the new one to the disk; see auto_da_alloc in ext4(5).  Raises
    JournalError.
    """
    with explained(path):
        file = os.open(beside(path, end), os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            os.pwrite(file, data, 0)
        finally:
            os.close(file)


def read_beside(path: Path, end: str) -> bytes:
    """Return the contents of a file that belongs to a journal.  Raises OSError, also for a symbolic link."""
    with open(os.open(beside(path, end), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW), "rb") as file:
        return file.read()


def sync_directory(path: Path) -> None:
    """Make the file names in the directory of ``path`` durable."""
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def connect_reader(path: Path) -> sqlite3.Connection:
    """Return a read-only connection, which never blocks the owner.  Raises JournalError."""
    if not path.exists():
        raise JournalError(f"journal {path}: it does not exist yet; the broker creates it when it starts")
    with explained(path):
        uri = f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' if must_read_as_is(path) else ''}"
        connection = sqlite3.connect(uri, timeout=_BUSY_SECONDS, isolation_level=None, uri=True)
        try:
            if not _is_ready(path, connection):
                raise JournalError(f"journal {path}: it is still empty; the broker is about to create it")
        except BaseException:
            connection.close()
            raise
    return connection


def must_read_as_is(path: Path) -> bool:
    """Return True if a SQLite file must be read without its -wal and -shm files, as SQLite's ``immutable`` does.

    That is the case if no program has the file open, and this user may not create those files, or would own them.
    """
    may_write = os.access(path, os.W_OK) and os.access(path.parent, os.W_OK)
    return not may_write and not beside(path, "-wal").exists()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn errors from SQLite and the operating system into a JournalError that says what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise JournalError(f"journal {path}: {error}; {_advice(error)}") from error
    except OSError as error:
        advice = "check that its directory exists and that this user may write there"
        raise JournalError(f"journal {path}: {error.strerror or error}; {advice}") from error


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Return True if an error says that the file itself is damaged."""
    return "malformed" in str(error) or "not a database" in str(error)


def _advice(error: sqlite3.DatabaseError) -> str:
    text = str(error)
    if "malformed" in text:
        return "the file is damaged; restart the broker, which sets the file aside and keeps everything readable"
    if is_damage(error):
        return (
            "the file is damaged or not a journal; move it away (with its -wal and -shm files) and start again"
            " to create a new one, or choose another path"
        )
    if "full" in text:
        return "free some space on its disk"
    if "locked" in text:
        return "another program has it open for writing; stop it"
    return "check the disk, and that this user may write to the file and its directory"


def _require_writable(path: Path) -> None:
    """Raise PermissionError unless the file is writable; create it with mode 0600 if it is missing."""
    if not path.exists():
        _make(path)
    elif not os.access(path, os.R_OK | os.W_OK):
        raise PermissionError(13, "this user may not write to it")


def _make(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    sync_directory(path)


def _set_up(path: Path, connection: sqlite3.Connection) -> None:
    if not _is_ready(path, connection):
        _create_tables(connection)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {_CHECKPOINT_PAGES * 4096 * 2}")


def _is_ready(path: Path, connection: sqlite3.Connection) -> bool:
    """Return True if the file is a journal, False if it is empty.  Raises JournalError if it is something else."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application == APPLICATION_ID and version == FORMAT:
        return True
    if application == APPLICATION_ID:
        raise JournalError(
            f"journal {path}: its format is {version}, and this version of amqtt_db knows {FORMAT};"
            " use the version that wrote it, or choose another path"
        )
    if application or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise JournalError(f"journal {path}: the file is another program's database; choose another path")
    return False


def _create_tables(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN EXCLUSIVE")
    for statement in _CREATE_TABLES:
        connection.execute(statement)
    connection.execute("COMMIT")


def identity(path: Path) -> tuple[int, int] | None:
    """Return the device and inode of a file, or None if it does not exist."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
