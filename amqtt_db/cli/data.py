"""The commands about what is stored: `status`, `topics`, `export`, `tail`, `remodel`."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated

import attrs
import orjson
import typer

from amqtt_db.cli import show
from amqtt_db.cli.arguments import Config, Topic, moment
from amqtt_db.cli.shell import settings_of, told
from amqtt_db.entity.timestamp import TIMES
from amqtt_db.errors import format_count


class Form(Enum):
    """The formats of an export."""

    jsonl = "jsonl"
    csv = "csv"


def status(
    path: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")] = False,
) -> None:
    """Show how many messages are stored, dead, ignored, pending and refused."""
    from amqtt_db.reader.status import status as look  # noqa: PLC0415

    with told():
        result = look(settings_of(path))
        if as_json:
            typer.echo(orjson.dumps(attrs.asdict(result) | {"pending": result.pending}))
        else:
            show.console().print(show.status(result))


def topics(
    path: Config = None,
    topic: Topic = "#",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")] = False,
) -> None:
    """List the topics that are stored: model, tables, rows, first and last time."""
    from amqtt_db.reader.inventory import stored_topics  # noqa: PLC0415

    with told():
        found = stored_topics(settings_of(path), topic)
        if as_json:
            typer.echo(orjson.dumps([attrs.asdict(one) for one in found]))
        else:
            show.console().print(show.topics(found) if found else "No topic is stored.", soft_wrap=True)


def export(
    path: Config = None,
    topic: Topic = "#",
    since: Annotated[
        datetime | None, typer.Option(parser=moment, metavar="TIME", help=f"From then on; {TIMES}.")
    ] = None,
    until: Annotated[datetime | None, typer.Option(parser=moment, metavar="TIME", help="Before then.")] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="How many records at most.")] = None,
    newest: Annotated[bool, typer.Option("--newest", help="The newest first, not the oldest.")] = False,
    form: Annotated[Form, typer.Option("--format", help="JSON Lines, or CSV.")] = Form.jsonl,
    output: Annotated[Path | None, typer.Option(help="The file to write; without it, standard output.")] = None,
) -> None:
    """Write stored records to a file, or to standard output, in the order of their times."""
    from amqtt_db.cli.export import destination  # noqa: PLC0415
    from amqtt_db.reader.export import export as write  # noqa: PLC0415

    with told():
        settings = settings_of(path)
        with destination(output) as file:
            count = write(settings, file.write, form.value, topic, since=since, until=until, limit=limit, newest=newest)
        if output is not None:
            typer.echo(f"{format_count(count, 'record')} written to {output}", err=True)


def tail(
    path: Config = None,
    topic: Topic = "#",
    last: Annotated[int, typer.Option(min=0, help="How many stored records to begin with.")] = 10,
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between looks at the database.")] = 1,
) -> None:
    """Print the newest records, and then those that come, until Ctrl-C."""
    from amqtt_db.cli.export import follow  # noqa: PLC0415

    with told(), suppress(KeyboardInterrupt):
        for record in follow(settings_of(path), topic, last, interval):
            typer.echo(show.record(record))


def remodel(
    path: Config = None,
    topic: Topic = "#",
    drop: Annotated[bool, typer.Option("--drop", help="Delete the old rows once the new ones are compared.")] = False,
) -> None:
    """Rewrite what is stored as the routes are now, after a route got another model; may be stopped and repeated."""
    from amqtt_db.cli.remodel import rewrite  # noqa: PLC0415

    with told():
        typer.echo(rewrite(settings_of(path), topic, drop=drop))
