"""What is around the work of every command: settings before it, errors as lines on stderr, an exit code.

Mistakes of the user are one clear line each: exit code 2 for the configuration, 1 for what happens later.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import typer

from amqtt_db import config
from amqtt_db.cli import show
from amqtt_db.config import Settings
from amqtt_db.config.broker_file import surprises
from amqtt_db.database.engines.urls import problem
from amqtt_db.errors import AmqttDbError, ConfigError, DatabaseError


@contextmanager
def told() -> Iterator[None]:
    """Turn the project's errors into lines on stderr and an exit code."""
    try:
        yield
    except ConfigError as error:
        raise typer.Exit(say(error, 2)) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read it has seen enough
    except (AmqttDbError, OSError) as error:
        raise typer.Exit(say(error, 1)) from None


def say(error: Exception, code: int) -> int:
    """Tell a user what went wrong; returns the exit code that is given."""
    typer.echo(show.visible_lines(str(error)), err=True)
    return code


def settings_of(path: Path | None) -> Settings:
    """The settings in a broker's YAML file, or those of the embedded default."""
    return config.load_document(config.broker_config(None)) if path is None else config.load_settings(path)


def require_usable(settings: Settings) -> None:
    """Refuse a database that can never work, which the writer would wait for in vain."""
    reason = problem(settings.database)
    if reason is not None:
        raise DatabaseError(reason)


def remark(broker: Mapping[str, Any], settings: Settings) -> None:
    """Tell what is valid and may surprise."""
    for note in (*surprises(broker), *settings.notes):
        typer.echo(f"note: {show.visible(str(note))}", err=True)


def log(level: int) -> None:
    """Log to stderr: amqtt tells much about every connection; this project little about what matters."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("amqtt_db").setLevel(level)
