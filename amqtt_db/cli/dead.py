"""The commands about messages that could not be stored: `dead list`, `show`, `replay`, `purge`."""

from __future__ import annotations

from typing import Annotated

import orjson
import typer

from amqtt_db import config
from amqtt_db.cli import show
from amqtt_db.cli.arguments import Config, Topic
from amqtt_db.cli.shell import settings_of, told
from amqtt_db.errors import AmqttDbError, format_count

app = typer.Typer(no_args_is_help=True, help="Look at the messages that could not be stored.")


@app.command("list")
def dead_list(
    path: Config = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")] = False,
) -> None:
    """List the messages that could not be stored, the newest first."""
    from amqtt_db.database.dead_letters import letters  # noqa: PLC0415

    with told():
        found = letters(settings_of(path).database, limit)
        if as_json:
            typer.echo(orjson.dumps([show.plain(letter) for letter in found]))
        else:
            show.console().print(show.dead_letters(found), soft_wrap=True)


@app.command("show")
def dead_show(
    id: Annotated[int, typer.Argument(help="The id that `dead list` shows.")],  # noqa: A002
    path: Config = None,
) -> None:
    """Show one message that could not be stored, with its payload and the reason."""
    from amqtt_db.database.dead_letters import letter  # noqa: PLC0415

    with told():
        found = letter(settings_of(path).database, id)
        if found is None:
            raise AmqttDbError(f"there is no dead letter {id}; `amqtt-db dead list` shows those that there are")
        show.console().print(show.dead_letter(found), soft_wrap=True)


@app.command("replay")
def dead_replay(
    path: Config = None,
    topic: Topic = "#",
) -> None:
    """Try again to store them, after the route, the decoder or the database was mended; the rest stays."""
    from amqtt_db.writer.replay import replay  # noqa: PLC0415

    with told():
        settings, stored, kept = settings_of(path), 0, 0
        for letter in replay(settings.database, settings.routes, topic):
            stored, kept = stored + (letter.reason is None), kept + (letter.reason is not None)
            if letter.reason is not None:
                typer.echo(show.visible(f"{letter.id} stays: {letter.reason}"))
        typer.echo(f"{stored} stored, {format_count(kept, 'dead letter')} left")


@app.command("purge")
def dead_purge(
    path: Config = None,
    ids: Annotated[list[int] | None, typer.Option("--id", help="Only this one; may be given more than once.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete dead letters for good."""
    from amqtt_db.database.dead_letters import purge  # noqa: PLC0415

    with told():
        settings = settings_of(path)
        which = "all dead letters" if ids is None else format_count(len(ids), "dead letter")
        if not yes:
            typer.confirm(f"Delete {which} in {config.masked(settings.database)} for good?", abort=True)
        typer.echo(f"{purge(settings.database, ids)} deleted")
