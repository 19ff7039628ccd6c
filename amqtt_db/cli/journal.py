"""The commands about the journal: `journal info`, `verify`, `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import attrs
import orjson
import typer

from amqtt_db.cli import show
from amqtt_db.cli.arguments import Config
from amqtt_db.cli.shell import say, settings_of, told
from amqtt_db.errors import AmqttDbError, format_count

app = typer.Typer(no_args_is_help=True, help="Look into the journal, also when its database is lost for good.")

JournalFile = Annotated[
    Path | None,
    typer.Option("--journal", help="Another journal than the configuration's, such as one that was set aside."),
]


@app.command("info")
def journal_info(
    path: Config = None,
    journal: JournalFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")] = False,
) -> None:
    """Show what the journal holds: openings, positions, messages, bytes, and how far its writer is."""
    from amqtt_db.journal.inspection import read_journal_info  # noqa: PLC0415

    with told():
        found = read_journal_info(_journal_path(path, journal))
        if as_json:
            typer.echo(orjson.dumps(attrs.asdict(found), default=str))
        else:
            show.console().print(show.journal(found), soft_wrap=True)


@app.command("verify")
def journal_verify(path: Config = None, journal: JournalFile = None) -> None:
    """Read every group of the journal; the exit status is 1 if anything is damaged or missing."""
    from amqtt_db.journal.inspection import find_problems, read_journal_info  # noqa: PLC0415

    with told():
        file = _journal_path(path, journal)
        count = 0
        for problem in find_problems(file):
            typer.echo(show.visible(problem))
            count += 1
        if count:
            raise typer.Exit(say(AmqttDbError(f"journal {file}: {format_count(count, 'problem')}"), 1))
        typer.echo(f"journal {file}: {format_count(read_journal_info(file).messages, 'message')}, all can be read")


@app.command("export")
def journal_export(
    path: Config = None,
    journal: JournalFile = None,
    output: Annotated[Path | None, typer.Option(help="The file to write; without it, standard output.")] = None,
) -> None:
    """Write every message in the journal as JSON Lines, also those that its database has, and of a damaged one too."""
    from amqtt_db.cli.export import destination  # noqa: PLC0415
    from amqtt_db.journal.inspection import export_lines  # noqa: PLC0415

    with told(), destination(output) as file:
        file.writelines(export_lines(_journal_path(path, journal)))


def _journal_path(config_path: Path | None, journal: Path | None) -> Path:
    return settings_of(config_path).journal.path if journal is None else journal
