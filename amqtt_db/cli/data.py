"""The commands for stored records: `status`, `topics`, `latest`, `export`, `tail`, `remodel`."""

from __future__ import annotations

from contextlib import suppress
from enum import Enum
from typing import Annotated

import attrs
import typer

from amqtt_db.cli import show
from amqtt_db.cli.arguments import MAX_INT64, AsJson, Config, Output, Since, Topic, Until, choose_one_of, parse_pause
from amqtt_db.cli.output import STANDARD_OUTPUT, open_output, print_json, print_result, print_text
from amqtt_db.cli.shell import error_boundary, read_settings
from amqtt_db.cli.show_status import render_status
from amqtt_db.errors import AmqttDbError, UnreadableRecords, format_count

Interval = Annotated[float, typer.Option(parser=parse_pause, metavar="SECONDS", help="Seconds between queries.")]


class ExportFormat(Enum):
    """The formats of an export."""

    jsonl = "jsonl"
    csv = "csv"
    parquet = "parquet"


def status(
    path: Config = None,
    as_json: AsJson = False,
    watch: Annotated[bool, typer.Option("--watch", help="Repeat this until Ctrl-C.")] = False,
    interval: Interval = 2.0,
) -> None:
    """Show what became of all messages (stored, dead, pending and so on), and the writer's lag.

    The exit code is 1 if the journal or the database cannot be read.
    """
    from amqtt_db.cli.tail import repeat_until_interrupted  # noqa: PLC0415
    from amqtt_db.reader.status import read_status  # noqa: PLC0415

    with error_boundary():
        settings = read_settings(path)
        is_readable = True
        for _ in repeat_until_interrupted(interval) if watch else (None,):
            found = read_status(settings)
            is_readable = not found.errors
            if as_json:
                print_json(attrs.asdict(found) | {"pending": found.pending})
            else:
                print_result(render_status(found), clear=watch)
        if not is_readable:
            raise typer.Exit(1)


def show_topics(path: Config = None, topic: Topic = "#", as_json: AsJson = False) -> None:
    """List the stored topics with their model, tables, number of rows, and first and last time."""
    from amqtt_db.reader.topics import list_topics  # noqa: PLC0415

    with error_boundary():
        found = list_topics(read_settings(path), topic)
        if as_json:
            print_json([attrs.asdict(one) for one in found])
        else:
            nothing = "Nothing is stored yet." if topic == "#" else f"No stored topic matches {topic}."
            print_result(show.render_topics(found) if found else show.escape_text(nothing), soft_wrap=True)


def show_latest(
    path: Config = None,
    topic: Topic = "#",
    as_json: AsJson = False,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="First add the newest values of what was stored before `latest` was set.")
    ] = False,
) -> None:
    """Show the newest values of each device, for the routes with `latest`."""
    from amqtt_db.reader.latest import latest as read_states  # noqa: PLC0415

    with error_boundary():
        settings = read_settings(path)
        if rebuild:
            from amqtt_db.writer.fill_latest import fill_latest  # noqa: PLC0415

            fill_latest(settings, topic)
        states = list(read_states(settings, topic))
        if as_json:
            print_text(show.states_as_json(states))
        else:
            nothing = "No newest values are stored yet." if topic == "#" else f"No device matches {topic}."
            print_result(show.render_states(states) if states else show.escape_text(nothing), soft_wrap=True)


def export(
    path: Config = None,
    topic: Topic = "#",
    since: Since = None,
    until: Until = None,
    limit: Annotated[int | None, typer.Option(min=0, max=MAX_INT64, help="Write at most this many records.")] = None,
    newest: Annotated[bool, typer.Option("--newest", help="Newest first.")] = False,
    form: Annotated[
        ExportFormat, choose_one_of(ExportFormat, "--format", help="JSON Lines, CSV or Parquet.")
    ] = ExportFormat.jsonl,
    output: Output = None,
) -> None:
    """Write stored records, in time order, to a file or to standard output."""
    from amqtt_db.reader.export import export as write_records  # noqa: PLC0415

    with error_boundary():
        settings, bounds = read_settings(path), {"since": since, "until": until}
        unread = None
        with open_output(output) as write:
            try:
                count = write_records(settings, write, form.value, topic, **bounds, limit=limit, newest=newest)
            except UnreadableRecords as error:  # all others are written
                unread = error
            except ValueError as error:  # a library is missing
                raise AmqttDbError(f"--format {form.value} {error}") from None
        if unread is not None:
            raise unread
        if output not in (None, STANDARD_OUTPUT):
            typer.echo(f"{format_count(count, 'record')} written to {output}", err=True)


def tail(
    path: Config = None,
    topic: Topic = "#",
    last: Annotated[int, typer.Option(min=0, max=MAX_INT64, help="First print this many stored records.")] = 10,
    interval: Interval = 1.0,
    as_json: AsJson = False,
) -> None:
    """Print the newest records, then new ones as they are stored, until Ctrl-C."""
    from amqtt_db.cli.tail import follow_until_interrupted  # noqa: PLC0415
    from amqtt_db.reader.export import format_line  # noqa: PLC0415

    with error_boundary(), suppress(KeyboardInterrupt):
        for record in follow_until_interrupted(read_settings(path), topic, last, interval):
            print_text(format_line(record) if as_json else show.format_record(record))


def remodel(
    path: Config = None,
    topic: Topic = "#",
    drop: Annotated[
        bool, typer.Option("--drop", help="Compare the old rows with the new ones, then delete the old ones.")
    ] = False,
) -> None:
    """Move stored records to the models of the current routes, after you have given a route another model.

    You can stop it and start it again.
    """
    from amqtt_db.cli.remodel import move_topics  # noqa: PLC0415

    with error_boundary():
        print_text(move_topics(read_settings(path), topic, drop=drop))
