"""What users write on the command line beside names and numbers: files, times and topic filters."""

from __future__ import annotations

import re
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Annotated, Final

import typer

from amqtt_db.routing.topics import TopicFilter

TIMES: Final = "ISO 8601, in UTC without a zone; or how long ago: 90s, 15m, 24h, 7d, 2w"

_UNITS: Final = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def moment(text: str) -> datetime:
    """A time, as :data:`TIMES` says.  Raises BadParameter."""
    ago = re.fullmatch(r"(\d+)([smhdw])", text)
    try:
        if ago:
            return datetime.now(timezone.utc) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        parsed = datetime.fromisoformat(f"{text[:-1]}+00:00" if text.endswith("Z") else text)
        return (parsed if parsed.tzinfo else parsed.replace(tzinfo=timezone.utc)).astimezone(timezone.utc)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} is no time; write {TIMES}") from None


def topic_filter(text: str) -> str:
    """A topic filter as it was written.  Raises BadParameter."""
    try:
        return TopicFilter.parse(text).text
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


Config = Annotated[
    Path | None,
    typer.Argument(metavar="CONFIG", help="An amqtt broker's YAML file; without it, an embedded default."),
]

Topic = Annotated[
    str,
    typer.Option(metavar="FILTER", parser=topic_filter, help="Which topics; + is any one level, # all that follow."),
]
