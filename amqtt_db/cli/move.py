"""The commands that take what is stored elsewhere: `backup`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress

from amqtt_db.cli.arguments import Config
from amqtt_db.cli.output import make_console, print_text
from amqtt_db.cli.shell import error_boundary, read_settings


def backup(
    path: Config = None,
    *,
    to: Annotated[Path, typer.Option("--to", metavar="FILE", help="The copy; an older one is replaced.")],
) -> None:
    """Copy an SQLite database and its journal while messages arrive; for a server, say which tool does that."""
    from amqtt_db.database.backup import back_up  # noqa: PLC0415

    with error_boundary():
        settings = read_settings(path)
        with Progress(console=make_console(stderr=True), transient=True) as bar:
            task = bar.add_task("copying", total=None)
            copies = back_up(
                settings.database,
                settings.journal.path,
                to,
                lambda done, total: bar.update(task, completed=done, total=total),
            )
        for one in copies:
            print_text(f"backed up to {one}")
