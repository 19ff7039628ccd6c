"""The commands for the journal: `journal info`, `verify`, `export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import attrs
import typer

from amqtt_db.cli import show
from amqtt_db.cli.arguments import AsJson, Config, Output
from amqtt_db.cli.output import open_output, print_json, print_result, print_text
from amqtt_db.cli.shell import error_boundary, print_error, read_settings
from amqtt_db.errors import AmqttDbError, format_count

app = typer.Typer(no_args_is_help=True, help="Inspect the journal, even if its database is lost.")

JournalFile = Annotated[
    Path | None,
    typer.Option("--journal", help="Another journal file, such as one that was set aside."),
]


@app.command("info")
def journal_info(
    path: Config = None,
    journal: JournalFile = None,
    as_json: AsJson = False,
) -> None:
    """Show what the journal holds (generations, positions, messages, bytes) and how far its writer has got."""
    from amqtt_db.journal.inspection import read_journal_info  # noqa: PLC0415

    with error_boundary():
        found = read_journal_info(_journal_path(path, journal))
        if as_json:
            print_json(attrs.asdict(found) | {"path": str(found.path)})
        else:
            print_result(show.render_journal(found), soft_wrap=True)


@app.command("verify")
def journal_verify(path: Config = None, journal: JournalFile = None, as_json: AsJson = False) -> None:
    """Read every group in the journal; the exit code is 1 if anything is damaged or missing."""
    from amqtt_db.journal.inspection import find_problems, read_journal_info  # noqa: PLC0415

    with error_boundary():
        file, problems = _journal_path(path, journal), []
        for problem in find_problems(file):
            problems.append(problem)
            if not as_json:
                print_text(show.escape_text(problem))
        messages = None if problems else read_journal_info(file).messages
        if as_json:
            print_json({"path": str(file), "problems": problems, "messages": messages})
        if problems:
            raise typer.Exit(print_error(AmqttDbError(f"journal {file}: {format_count(len(problems), 'problem')}")))
        if not as_json:
            print_text(f"journal {file}: {format_count(messages or 0, 'message')}, all readable")


@app.command("export")
def journal_export(
    path: Config = None,
    journal: JournalFile = None,
    output: Output = None,
) -> None:
    """Write every message in the journal, stored or not, as JSON Lines; read a damaged journal as far as possible."""
    from amqtt_db.journal.inspection import export_lines  # noqa: PLC0415

    with error_boundary(), open_output(output) as write:
        for line in export_lines(_journal_path(path, journal)):
            write(line)


def _journal_path(config_path: Path | None, journal: Path | None) -> Path:
    return read_settings(config_path).journal.path if journal is None else journal
