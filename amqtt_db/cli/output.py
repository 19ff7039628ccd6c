"""Write results to standard output, or to a file that appears only when it is complete."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import orjson
import typer
from rich.console import Console, RenderableType

from amqtt_db.database.engines.urls import file_problem
from amqtt_db.errors import AmqttDbError

STANDARD_OUTPUT = Path("-")


class OutputError(AmqttDbError):
    """Standard output cannot be written."""


def obey_no_color() -> None:
    """Print no escape sequences if ``NO_COLOR`` is set, not even in --help: pretend that the terminal is dumb."""
    if os.environ.get("NO_COLOR"):
        os.environ["TERM"] = "dumb"


def prepare_streams() -> None:
    """Make the standard streams safe, before any file is opened.

    A character that the encoding of standard output lacks is replaced.  The null device replaces a closed stream, so
    that no database or journal gets its descriptor; for standard output it is opened for reading, so that writing
    fails.
    """
    for descriptor, name, access in ((0, "stdin", os.O_RDONLY), (1, "stdout", os.O_RDONLY), (2, "stderr", os.O_WRONLY)):
        if getattr(sys, name) is None:
            os.open(os.devnull, access)  # takes the lowest free number
            mode = "w" if descriptor else "r"
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]


def print_text(text: str) -> None:
    """Print a line of text."""
    with _explaining():
        typer.echo(text)


def print_json(value: Any) -> None:
    """Print a value as one line of JSON, in UTF-8."""
    with _explaining():
        typer.echo(orjson.dumps(value))


def print_result(result: RenderableType, *, soft_wrap: bool = False, clear: bool = False) -> None:
    """Print tables and text; with ``soft_wrap``, lines are not broken however narrow the terminal is.

    ``clear`` the terminal first.
    """
    with _explaining():
        console = make_console()
        if clear:
            console.clear()
        console.print(result, soft_wrap=soft_wrap)


def make_console(*, stderr: bool = False) -> Console:
    """Return a console on standard output or stderr; escape sequences appear only on a terminal."""
    return Console(highlight=False, stderr=stderr)


def print_bytes(data: bytes) -> None:
    """Write bytes as they are.  Raises OutputError on a terminal, which they might command."""
    if sys.stdout.isatty():
        raise OutputError("these bytes may not be text: write them to a file, with `> FILE`")
    _write_bytes(data)


def discard_output() -> None:
    """Drop what is still buffered for standard output, so that the interpreter does not complain at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


@contextmanager
def open_output(path: Path | None) -> Iterator[Callable[[bytes], object]]:
    """Open a file, or standard output for None and ``-``; yield a function that writes bytes.

    A regular file gets its name when it is complete, and keeps the owner and mode of the file that it replaces.  A
    device, a pipe or a file with several hard links is written in place.
    """
    if path is None or path == STANDARD_OUTPUT:
        yield _write_bytes
        with _explaining():
            sys.stdout.buffer.flush()
        return
    target = _replaceable(path)
    if target is None:
        with path.open("wb") as file:
            yield file.write
    else:
        with _open_replacement(target) as file:
            yield file.write


def _write_bytes(data: bytes) -> None:
    with _explaining():
        sys.stdout.buffer.write(data)


@contextmanager
def _explaining() -> Iterator[None]:
    """Name standard output in its errors; a closed pipe is not an error."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(f"standard output cannot be written: {error.strerror}") from error


def _replaceable(path: Path) -> Path | None:
    """Return the regular file that ``path`` leads to, or None if it must be written in place."""
    target = Path(os.path.realpath(path))
    try:
        status = path.stat()
    except FileNotFoundError:
        return target
    if stat.S_ISDIR(status.st_mode):
        return path
    is_plain = stat.S_ISREG(status.st_mode) and status.st_nlink == 1
    return target if is_plain and target.exists() else None


@contextmanager
def _open_replacement(path: Path) -> Iterator[BinaryIO]:
    reason = file_problem("output", path)
    if reason is not None:
        raise AmqttDbError(reason)
    partial = path.with_name(f"{path.name}.part")
    try:
        with open(partial, "wb", opener=_open_no_link) as file:
            _copy_mode(path, file)
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _open_no_link(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


def _copy_mode(path: Path, file: BinaryIO) -> None:
    """Give a file the owner and mode of the one that it replaces, as far as this user is allowed to."""
    if path.exists():
        status = path.stat()
        with suppress(OSError):
            os.fchown(file.fileno(), status.st_uid, status.st_gid)
        os.fchmod(file.fileno(), stat.S_IMODE(status.st_mode))
