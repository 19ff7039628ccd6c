"""What users write on the command line beside names and numbers: files, times and topic filters."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from amqtt_db.entity.timestamp import read_time
from amqtt_db.routing.topics import TopicFilter


def moment(text: str) -> datetime:
    """Return a time as :data:`TIMES` says.  Raises BadParameter."""
    try:
        return read_time(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None


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
