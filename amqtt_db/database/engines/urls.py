"""Checks of a database URL, made before anything connects.

The broker's process does not import SQLAlchemy, so neither does this module.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import unquote

import attrs

from amqtt_db.registry import install_hint, suggest

ENGINE_GROUP: Final = "amqtt_db.engines"
"""The entry point group of engines from elsewhere."""

_URL: Final = re.compile(r"(?P<dialect>[a-z]\w*)(?:\+(?P<driver>\w+))?://(?P<rest>.*)", re.DOTALL)
_USER: Final = r"[^:/@]*(?::[^@]*)?@"
_SERVER: Final = re.compile(
    rf"(?:{_USER}|(?!{_USER}))(?:\[[^\]/?@]+\]|[^:/?@]*)(?::(?P<port>[^/?@]*))?(?:/(?P<name>[^?@]*))?"
    r"(?:\?[^=@]*(?:=.*)?)?",
    re.DOTALL,
)
"""The part of a server's URL after ``://``, as SQLAlchemy parses it, but without a misplaced @."""

_ESCAPES: Final = "in the user name and password, write %40 for @, %3A for :, %2F for /, %3F for ? and %25 for %"


@attrs.frozen
class _Server:
    """Facts about a server that are known before connecting.

    This project's ``extra`` installs the ``driver``; ``has_default`` is true if a URL may omit the database.
    """

    driver: str
    extra: str
    has_default: bool


_MYSQL: Final = _Server("pymysql", "mysql", has_default=False)
_SERVERS: Final[Mapping[str, _Server]] = {
    "postgresql": _Server("psycopg", "postgresql", has_default=True),
    "mysql": _MYSQL,
    "mariadb": _MYSQL,
}

_MAGIC: Final = b"SQLite format 3\x00"  # https://www.sqlite.org/fileformat.html#magic_header_string


def dialect_of(url: str) -> str:
    """Return the dialect in a URL, under which an engine is registered."""
    return url.partition(":")[0].partition("+")[0]


def check_url(url: str) -> None:
    """Raise ValueError, saying what would be right, for a URL that no engine accepts or whose driver is missing."""
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError("not a database URL; expected one such as sqlite:///mqtt.db or postgresql://USER@HOST/NAME")
    dialect, driver, rest = match["dialect"], match["driver"], match["rest"]
    if dialect == "sqlite":
        _check_sqlite(driver, rest)
    elif dialect in _SERVERS:
        _check_server(dialect, driver, rest)
    elif dialect not in entry_points(group=ENGINE_GROUP).names:
        raise ValueError(f"unknown database {dialect!r}; {suggest(dialect, ['sqlite', *_SERVERS])}")
    elif not rest.startswith("/"):
        _checked_name(rest)


def file_of(url: str) -> Path | None:
    """Return a database's file, or None for a server's database."""
    return Path(unquote(url.partition("://")[2].partition("?")[0][1:])) if dialect_of(url) == "sqlite" else None


def problem(url: str) -> str | None:
    """Return why the database can never be used, and what to do; None if it may be usable.

    A server that does not answer may answer later; a file in a missing directory is a mistake.
    """
    path = file_of(url)
    return None if path is None else file_problem("database", path) or _content_problem(path)


def file_problem(what: str, path: Path) -> str | None:
    """Return why a file cannot be written or created, or None; ``what`` says what it is for."""
    directory = path.parent
    if not directory.is_dir():
        return f"{what} {path}: the directory {directory} does not exist; create it or choose another {what}"
    if path.is_dir():
        return f"{what} {path}: it is a directory; name a file"
    if _may(directory, os.W_OK | os.X_OK) and (not path.exists() or _may(path, os.R_OK | os.W_OK)):
        return None
    return f"{what} {path}: it cannot be read and written; change its permissions or choose another {what}"


def _may(path: Path, mode: int) -> bool:
    return os.access(path, mode, effective_ids=os.access in os.supports_effective_ids)


def _content_problem(path: Path) -> str | None:
    if not path.exists():
        return None
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    return None if start in (b"", _MAGIC) else f"database {path}: it is not an SQLite database; choose another file"


def _check_server(dialect: str, given: str | None, rest: str) -> None:
    server = _SERVERS[dialect]
    if given not in (None, server.driver):
        raise ValueError(
            f"{dialect} needs the driver {server.driver}; write {dialect}://… or {dialect}+{server.driver}://…"
        )
    if find_spec(server.driver) is None:
        raise ValueError(f"{dialect} needs its driver: {install_hint(server.extra)}")
    name = _checked_name(rest)
    if not (name or server.has_default):
        raise ValueError(f"it names no database; write {dialect}://user:password@host/name")


def _checked_name(rest: str) -> str | None:
    """Return the database that a server's URL names.

    Raises ValueError if it is malformed, without showing any of it: parts of a password may be anywhere in such a URL.
    """
    match = _SERVER.fullmatch(rest)
    if match is None:
        raise ValueError(f"it has more than one @, or a misplaced special character; {_ESCAPES}")
    port = match["port"]
    if port and not (port.isascii() and port.isdecimal() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError(f"its port is not a number from 0 to 65535; {_ESCAPES}")
    return match["name"]


def _check_sqlite(driver: str | None, rest: str) -> None:
    if driver not in (None, "pysqlite"):
        raise ValueError("SQLite needs Python's own driver; write sqlite:///mqtt.db")
    path, _, query = rest.partition("?")
    if path in ("", "/") or ":memory:" in path or "mode=memory" in query:
        raise ValueError("a database in memory cannot be shared with the writer process; name a file")
    if not path.startswith("/"):
        raise ValueError("an SQLite URL has three slashes before a relative path, four before an absolute one")
    if path.startswith("/file:"):
        raise ValueError("SQLite's own file: URIs are not supported; name the file itself")
