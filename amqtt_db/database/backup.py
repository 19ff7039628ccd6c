"""Copies of a database that others keep writing to, with the journal that belongs to it.

The journal is copied first: what is stored between the two copies is then in both, and the checkpoint in the database
keeps it from being stored again.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from amqtt_db.database.engines.urls import file_of, file_problem
from amqtt_db.errors import AmqttDbError, DatabaseError, NoDatabaseYet
from amqtt_db.journal.file import sync_directory

STEP_PAGES: Final = 2000  # copied at a time

_LOCK_WAIT: Final = 5.0  # for a program that locks the whole file
_MODE: Final = 0o600  # of a copy, as of a database


def back_up(url: str, journal: Path, target: Path, tell: Callable[[int, int], None]) -> list[Path]:
    """Copy the journal to ``target`` with ``.journal`` at its end, then an SQLite database to ``target``; return both.

    Each copy is consistent and complete, or does not appear; an older one is replaced.  The writer is not held up.
    ``tell`` is called with the pages copied so far and all of them.  Raises AmqttDbError if a file cannot be written,
    NoDatabaseYet if there is no database, and DatabaseError for a server, which has a tool of its own.
    """
    if target.is_dir():
        raise AmqttDbError(f"backup {target}: it is a directory; name a file")
    source, beside = file_of(url), target.with_name(f"{target.name}.journal")
    if source is not None and not source.exists():
        raise NoDatabaseYet(f"database {source} does not exist yet; storing the first message creates it")
    if {target.resolve(), beside.resolve()} & {(source or journal).resolve(), journal.resolve()}:
        raise AmqttDbError(f"backup {target}: this would replace what is to be backed up; choose another file")
    copies = [copy_file(journal, beside, tell)] if journal.exists() else []
    if source is None:
        raise DatabaseError("\n".join((*(f"journal copied to {one}" for one in copies), _name_tool(url, target))))
    return [*copies, copy_file(source, target, tell)]


def copy_file(source: Path, target: Path, tell: Callable[[int, int], None]) -> Path:
    """Copy an SQLite file as it is when this begins, step by step.

    Raises AmqttDbError if a file cannot be read or written.
    """
    reason = file_problem("backup", target)
    if reason is not None:
        raise AmqttDbError(reason)
    partial = target.with_name(f"{target.name}.part")
    partial.unlink(missing_ok=True)
    try:
        os.close(os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, _MODE))
        _copy_pages(source, partial, tell)
        partial.replace(target)
        sync_directory(target)
    except sqlite3.Error as error:
        raise AmqttDbError(f"backup {target}: {error}; check the disk, and that {source} can be read") from error
    finally:
        partial.unlink(missing_ok=True)
    return target


def _copy_pages(source: Path, target: Path, tell: Callable[[int, int], None]) -> None:
    """Copy all pages as one open transaction sees them; without it, each commit would restart the copy."""

    def report(_: int, remaining: int, total: int) -> None:
        tell(total - remaining, total)

    uri = f"{source.absolute().as_uri()}?mode=rw"
    with (
        closing(sqlite3.connect(uri, uri=True, timeout=_LOCK_WAIT, isolation_level=None)) as original,
        closing(sqlite3.connect(target)) as copy,
    ):
        original.execute("BEGIN")
        original.execute("SELECT count(*) FROM sqlite_master").fetchone()
        original.backup(copy, pages=STEP_PAGES, progress=report)


def _name_tool(url: str, target: Path) -> str:
    """Return what to run to back up a server's database; passwords are left out."""
    given = sa.make_url(url)
    tool = _TOOLS.get(given.get_backend_name())
    if tool is None:
        return "the database is not backed up: use its server's own tool"
    return f"the database is not backed up yet: its server has a tool for that\n  {shlex.join(tool(given, target))}"


def _pg_dump(url: sa.URL, target: Path) -> list[str]:
    kept = {name: value for name, value in url.query.items() if "password" not in name}
    plain = sa.URL.create("postgresql", url.username, None, url.host, url.port, url.database, kept)
    return ["pg_dump", "--format=custom", f"--file={target}", plain.render_as_string()]


def _mariadb_dump(url: sa.URL, target: Path) -> list[str]:
    program = "mysqldump" if url.get_backend_name() == "mysql" else "mariadb-dump"
    where = {"host": url.host, "port": url.port, "user": url.username}
    options = [f"--{name}={value}" for name, value in where.items() if value is not None]
    return [program, "--single-transaction", *options, "--password", f"--result-file={target}", str(url.database)]


_TOOLS: Final[Mapping[str, Callable[[sa.URL, Path], list[str]]]] = {
    "postgresql": _pg_dump,
    "mysql": _mariadb_dump,
    "mariadb": _mariadb_dump,
}
