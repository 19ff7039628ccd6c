"""The journal's SQLite file: how it is created, recognised, locked and connected to."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from amqtt_db.errors import JournalError, JournalInUse
from amqtt_db.journal.file_lock import try_lock

APPLICATION_ID: Final = 0x616D7164  # "amqd"
FORMAT: Final = 2

_SCHEMA: Final = (
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE TABLE opening (number INTEGER PRIMARY KEY, token TEXT NOT NULL UNIQUE, first INTEGER NOT NULL,"
    " previous TEXT)",
    "CREATE TABLE entries (first INTEGER PRIMARY KEY, count INTEGER NOT NULL, messages INTEGER NOT NULL,"
    " opening INTEGER NOT NULL, size INTEGER NOT NULL, blob BLOB NOT NULL)",
    "INSERT INTO meta VALUES ('next', 1), ('refused', 0)",
    f"PRAGMA application_id = {APPLICATION_ID}",
    f"PRAGMA user_version = {FORMAT}",
)
_PART: Final = ".copying"
_COPY: Final = ".copy"
_CHECKPOINT_PAGES: Final = 4000
_BUSY_SECONDS: Final = 5.0


def lock(path: Path) -> int:
    """Lock the journal at ``path`` for its owner; closing the returned file descriptor unlocks it.

    Raises JournalInUse if another owner holds the lock, JournalError if the lock file cannot be made.
    """
    with explained(path):
        descriptor = try_lock(f"{path}.lock")
    if descriptor is None:
        raise JournalInUse(
            f"journal {path}: another process owns it, probably a broker that still runs; stop that one, or give this"
            " one a journal of its own"
        )
    return descriptor


def holds(lock: int, path: Path) -> bool:
    """Whether a lock is on the file that others would lock, and not on one that somebody has removed."""
    try:
        return os.path.samestat(os.fstat(lock), os.stat(f"{path}.lock"))
    except FileNotFoundError:
        return False


def connect_owner(path: Path) -> sqlite3.Connection:
    """The owner's connection, in a mode that syncs each commit; creates the file where there is none.

    Raises JournalError.
    """
    with explained(path):
        _require_writable(path)
        connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            _prepare(path, connection)
        except BaseException:
            connection.close()
            raise
    return connection


def create(path: Path) -> sqlite3.Connection:
    """A new, empty journal without a write-ahead log: each transaction is in the file alone when it has ended."""
    _make(path)
    connection = sqlite3.connect(path, isolation_level=None)
    _lay_out(connection)
    return connection


def write_copy(source: sqlite3.Connection, path: Path) -> tuple[int, int]:
    """Write all that the journal of ``path`` holds to another file, which has its name once it is whole.

    Returns the copy's identity; :func:`put_in_place` gives it the journal's name.
    """
    part = beside(path, _PART)
    remove(part)
    _make(part)
    with closing(sqlite3.connect(part)) as target:
        source.backup(target)
    written = os.stat(part)
    os.replace(part, beside(path, _COPY))
    sync_directory(path)
    return written.st_dev, written.st_ino


def put_in_place(path: Path) -> None:
    """Make the copy of a journal the journal, whose own file is gone."""
    for end in ("-wal", "-shm"):
        beside(path, end).unlink(missing_ok=True)
    os.replace(beside(path, _COPY), path)
    sync_directory(path)


def discard_copy(path: Path) -> None:
    """Delete the copy of a journal, if there is one."""
    remove(beside(path, _COPY))


def adopt_copy(path: Path) -> None:
    """Finish what an owner began who wrote a removed journal anew and died: the copy has all that was acknowledged.

    Raises JournalError if there is a file in the journal's place again.
    """
    copy = beside(path, _COPY)
    with explained(path):
        remove(beside(path, _PART))
        if not copy.exists():
            return
        if path.exists():
            raise JournalError(
                f"journal {path}: its file was removed and {copy} has all that it held, but there is a file in its"
                " place, the removed one again or another; move that one away, and the copy becomes the journal"
            )
        put_in_place(path)


def remove(path: Path) -> None:
    """Delete an SQLite file and what belongs to it, if they are there."""
    for end in ("", "-journal", "-wal", "-shm"):
        beside(path, end).unlink(missing_ok=True)


def beside(path: Path, end: str) -> Path:
    """The path of a file that belongs to a journal."""
    return path.with_name(path.name + end)


def sync_directory(path: Path) -> None:
    """Make the names in the directory of ``path`` durable."""
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def connect_reader(path: Path) -> sqlite3.Connection:
    """A connection that can only read, and so never holds up the owner.  Raises JournalError."""
    if not path.exists():
        raise JournalError(f"journal {path}: there is none yet; the broker creates it when it starts")
    with explained(path):
        uri = f"{path.absolute().as_uri()}?mode=ro"
        connection = sqlite3.connect(uri, timeout=_BUSY_SECONDS, isolation_level=None, uri=True)
        try:
            if not _recognised(path, connection):
                raise JournalError(f"journal {path}: it is still empty; the broker is about to create it")
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the errors of SQLite and of the operating system into a JournalError that says what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        raise JournalError(f"journal {path}: {error}; {_advice(error)}") from error
    except OSError as error:
        advice = "check that its directory exists and that this user may write there"
        raise JournalError(f"journal {path}: {error.strerror or error}; {advice}") from error


def is_damage(error: sqlite3.DatabaseError) -> bool:
    """Whether an error says that the file itself is not as it should be."""
    return "malformed" in str(error) or "not a database" in str(error)


def _advice(error: sqlite3.DatabaseError) -> str:
    text = str(error)
    if "malformed" in text:
        return "the file is damaged; start the broker again: it sets the file aside and keeps what can be read of it"
    if is_damage(error):
        return (
            "the file is damaged or no journal; move it away (with its -wal and -shm files) and start again,"
            " which makes a new one, or name another path"
        )
    if "full" in text:
        return "free some space on its disk"
    if "locked" in text:
        return "another program holds it open for writing; stop that one"
    return "check the disk, and that this user may write to the file and its directory"


def _require_writable(path: Path) -> None:
    """That there is a file which this user may write; one that is not there is made, private to the user."""
    if not path.exists():
        _make(path)
    elif not os.access(path, os.R_OK | os.W_OK):
        raise PermissionError(13, "this user may not write to it")


def _make(path: Path) -> None:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    sync_directory(path)


def _prepare(path: Path, connection: sqlite3.Connection) -> None:
    if not _recognised(path, connection):
        _lay_out(connection)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {_CHECKPOINT_PAGES}")
    connection.execute(f"PRAGMA journal_size_limit = {_CHECKPOINT_PAGES * 4096 * 2}")


def _recognised(path: Path, connection: sqlite3.Connection) -> bool:
    """Whether the file is a journal; False if it is empty.  Raises JournalError if it is something else."""
    application = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if application == APPLICATION_ID and version == FORMAT:
        return True
    if application == APPLICATION_ID:
        raise JournalError(
            f"journal {path}: its format is {version}, and this version of amqtt_db knows {FORMAT};"
            " use the version that wrote it, or name another path"
        )
    if application or connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        raise JournalError(f"journal {path}: the file is another program's database; name another path")
    return False


def _lay_out(connection: sqlite3.Connection) -> None:
    connection.execute("BEGIN EXCLUSIVE")
    for statement in _SCHEMA:
        connection.execute(statement)
    connection.execute("COMMIT")


def identity(path: Path) -> tuple[int, int] | None:
    """What tells a file from another one that takes its place; None where there is none."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino
