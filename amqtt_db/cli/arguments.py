"""Arguments and options that several commands share; each is checked while the command line is parsed."""

from __future__ import annotations

import math
import re
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from amqtt_db.database.engines.urls import check_url
from amqtt_db.entity.duration import read_duration
from amqtt_db.entity.timestamp import TIMES, read_time
from amqtt_db.routing.topics import TopicFilter

MAX_INT64: Final = 2**63 - 1
"""The largest number that every database accepts."""


def parse_time(text: str) -> datetime:
    """Return a time written as :data:`TIMES` describes.  Raises BadParameter."""
    try:
        return read_time(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def parse_filter(text: str) -> str:
    """Return a topic filter unchanged.  Raises BadParameter if it is invalid."""
    try:
        return TopicFilter.parse(text).text
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


def parse_url(text: str) -> str:
    """Return a database's URL unchanged.  Raises BadParameter, which does not show it."""
    try:
        check_url(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    return text


def parse_file(text: str) -> Path:
    """Return the path of a file.  Raises BadParameter for a URL."""
    if "://" in str(text):
        raise typer.BadParameter("expected the path of a file, not a URL")
    return Path(text)


def parse_source(text: str) -> str:
    """Return the name of another database.  Raises BadParameter."""
    if not re.fullmatch(r"[\w.-]{1,40}", text):
        raise typer.BadParameter(f"{text!r} is not a name of up to 40 letters, digits, dots, hyphens and underscores")
    return text


def parse_new_topic(text: str) -> str:
    """Return a topic or filter unchanged.  Raises BadParameter if it is the name of a YAML file instead."""
    if text.endswith((".yaml", ".yml")) and Path(text).is_file():
        raise typer.BadParameter(f"{text} is a file: write the topics first, and the configuration last")
    return text


def choose_one_of(kind: type[Enum], *names: str, **settings: Any) -> Any:
    """Return an option whose value is one of an enumeration's; a wrong one is explained by naming them all."""
    values = [str(one.value) for one in kind]

    def parse(given: Any) -> Enum:
        if isinstance(given, kind):
            return given
        if given in values:
            return kind(given)
        raise typer.BadParameter(f"{given!r} is not one of {', '.join(values)}")

    return typer.Option(*names, parser=parse, metavar="|".join(values), autocompletion=lambda: values, **settings)


def parse_pause(given: str | float) -> float:
    """Return a pause in seconds, written as a number of them or with a unit.  Raises BadParameter."""
    text = str(given)  # a default is a number
    try:
        length = read_duration(text)
        seconds = float(text) if length is None else length.total_seconds()
    except ValueError:
        seconds = math.nan
    if not 0.05 <= seconds <= 86_400:  # also false for NaN
        raise typer.BadParameter(f"{text!r} is not a time from 0.05 s to 1 day, such as 2 or 5min")
    return seconds


FOUND_CONFIG: Final = "default: $AMQTT_DB_CONFIG, ./amqtt-db.yaml, ./broker.yaml, or a built-in configuration."

Config = Annotated[
    Path | None,
    typer.Argument(metavar="CONFIG", help=f"A YAML file, for amqtt's broker or for others; {FOUND_CONFIG}"),
]

Topic = Annotated[
    str,
    typer.Option(
        metavar="FILTER",
        parser=parse_filter,
        help="Only topics that match this filter (+ is one level, # all levels below).",
    ),
]

Since = Annotated[
    datetime | None, typer.Option(parser=parse_time, metavar="TIME", help=f"Only from this time on; {TIMES}.")
]

Until = Annotated[datetime | None, typer.Option(parser=parse_time, metavar="TIME", help="Only before this time.")]


class LogLevel(Enum):
    """The levels of the log."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"


ChosenLevel = Annotated[
    LogLevel | None,
    choose_one_of(LogLevel, "--log-level", help="Log from this level on; default: `log: {level: …}`, or info."),
]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

Output = Annotated[Path | None, typer.Option(help="Write to this file; the default, or -, is standard output.")]
