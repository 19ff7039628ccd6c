"""What every command shares: reading the settings, and turning errors into lines on stderr and an exit code.

A user's mistake is one clear line.  The exit code is 2 for a mistake in the configuration or on the command line, and 1
for an error while running.
"""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from amqtt_db import config
from amqtt_db.cli import show
from amqtt_db.cli.arguments import LogLevel
from amqtt_db.cli.output import discard_output
from amqtt_db.cli.taken import find_config
from amqtt_db.config import Settings
from amqtt_db.config.operation import LOG_LEVELS
from amqtt_db.database.engines.urls import file_problem, problem
from amqtt_db.errors import AmqttDbError, ConfigError, DatabaseError, Problem
from amqtt_db.ingest.logs import start_logging


@contextmanager
def error_boundary() -> Iterator[None]:
    """Turn the project's errors and the system's into lines on stderr and an exit code."""
    try:
        with _interruptible():
            yield
    except ConfigError as error:
        raise typer.Exit(print_error(error, 2)) from None
    except BrokenPipeError:  # the reader of standard output has closed it
        discard_output()
    except (AmqttDbError, OSError) as error:
        raise typer.Exit(print_error(error)) from None


@contextmanager
def _interruptible() -> Iterator[None]:
    """Let Ctrl-C raise KeyboardInterrupt, so that a command can tidy up, if otherwise it ends the process at once."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL)


def print_error(error: Exception, code: int = 1) -> int:
    """Print what went wrong on stderr; return the exit code."""
    discard_output()
    typer.echo(show.escape_lines(_describe_error(error)), err=True)
    return code


def _describe_error(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{os.fsdecode(error.filename)}: {error.strerror}"
    return str(error)


def read_settings(path: Path | None) -> Settings:
    """Return the settings in a YAML file, or else in the one that is found, or the built-in.  Raises ConfigError."""
    found = find_config(path)
    return config.load_document(config.broker_config(None)) if found is None else config.load_settings(found)


def read_document(source: str | Path | None) -> dict[str, Any]:
    """Return the whole configuration in a file, or the one that a broker's URL means.  Raises ConfigError.

    Without a source, see :func:`find_config`.
    """
    if source is not None and "://" in str(source):
        return config.bridge_to(str(source))
    return config.broker_config(find_config(None if source is None else Path(source)))


def require_usable(settings: Settings) -> None:
    """Raise DatabaseError for a database that can never work: the writer would wait forever."""
    reason = problem(settings.database)
    if reason is not None:
        raise DatabaseError(reason)


def find_notes(document: Mapping[str, Any], settings: Settings) -> tuple[Problem, ...]:
    """Return what is valid in a configuration but may surprise."""
    if config.is_bridge(document):
        return settings.notes
    from amqtt_db.config.broker_start import find_surprises  # noqa: PLC0415 - only amqtt's own broker has plugins

    return (*find_surprises(document), *settings.notes)


def print_notes(notes: Iterable[Problem]) -> None:
    """Print what is valid in a configuration but may surprise, on stderr."""
    for note in notes:
        typer.echo(f"note: {show.escape_text(str(note))}", err=True)


def require_consent(question: str, undone: str = "nothing was deleted") -> None:
    """Ask a question on stderr.  Raises AmqttDbError, which says what is ``undone``, unless the answer is yes."""
    try:
        is_given = typer.confirm(question, err=True)
    except typer.Abort:  # there is nobody to answer, or Ctrl-C
        typer.echo(err=True)
        is_given = False
    if not is_given:
        raise AmqttDbError(f"{undone}, because the answer was not yes; --yes skips the question")


def log_as_told(settings: Settings, chosen: LogLevel | None) -> None:
    """Log as the settings say, from the chosen level on if any.  Raises AmqttDbError if the file cannot be written."""
    reason = None if settings.log.file is None else file_problem("log", settings.log.file)
    if reason is not None:
        raise AmqttDbError(reason)
    level = settings.log.level if chosen is None else LOG_LEVELS[chosen.value]
    start_logging(settings.log, logging.INFO if level is None else level)
