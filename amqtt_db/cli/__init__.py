"""The command line: a thin shell over functions."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from amqtt_db import __version__
from amqtt_db.cli import check, data, dead, edit, init, journal, move, query, run, schema
from amqtt_db.cli.output import OutputError, obey_no_color, prepare_streams
from amqtt_db.cli.shell import print_error
from amqtt_db.registry import search_last

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(dead.app, name="dead")
app.add_typer(journal.app, name="journal")
for command in (
    init.init,
    run.run,
    run.demo,
    check.check,
    schema.schema,
    run.write,
    run.web,
    data.status,
    data.export,
    data.tail,
    query.query,
    data.remodel,
    edit.delete,
    edit.rename,
    edit.redecode,
    move.backup,
):
    app.command()(command)
app.command("copy")(move.copy_database)
app.command("import")(move.import_file)
app.command("topics")(data.show_topics)
app.command("latest")(data.show_latest)


def main() -> None:
    """Run ``amqtt-db``; a user's own modules are also found in the current directory and next to the YAML file."""
    prepare_streams()
    obey_no_color()
    search_last(os.getcwd())
    try:
        app()
    except OSError as error:  # from printing outside of any command, such as --help
        sys.exit(print_error(OutputError(f"standard output cannot be written: {error.strerror}")))


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """Store MQTT messages in a relational database."""
    if version:
        typer.echo(__version__)
        raise typer.Exit
