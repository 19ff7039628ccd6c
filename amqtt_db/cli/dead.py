"""The commands for messages that could not be stored: `dead list`, `show`, `replay`, `purge`."""

from __future__ import annotations

from typing import Annotated, Final

import typer

from amqtt_db import config
from amqtt_db.cli import show
from amqtt_db.cli.arguments import MAX_INT64, AsJson, Config, Topic
from amqtt_db.cli.output import print_json, print_result, print_text
from amqtt_db.cli.shell import error_boundary, read_settings
from amqtt_db.errors import AmqttDbError, format_count
from amqtt_db.journal.inspection import readable_bytes

app = typer.Typer(no_args_is_help=True, help="List, show, replay or delete messages that could not be stored.")


_SHOWN: Final = 20  # dead letters in a list, unless it is asked for more


@app.command("list")
def dead_list(
    path: Config = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_INT64 - 1, help="At most this many, newest first; default: 20, with --json all."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the messages that could not be stored, newest first."""
    from amqtt_db.database.dead_letters import letters  # noqa: PLC0415

    with error_boundary():
        database, most = read_settings(path).database, limit or _SHOWN
        if as_json:
            print_json([show.to_json(letter) for letter in letters(database, limit)])
            return
        found = letters(database, most + 1)
        print_result(show.render_dead_letters(found[:most]), soft_wrap=True)
        if len(found) > most:
            print_text(f"There are more: --limit {10 * most} shows up to {10 * most}, --json all.")


@app.command("show")
def dead_show(
    id: Annotated[int, typer.Argument(min=0, max=MAX_INT64, help="The id, from `dead list`.")],  # noqa: A002
    path: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show one message that could not be stored, with its payload and the reason."""
    from amqtt_db.database.dead_letters import letter  # noqa: PLC0415

    with error_boundary():
        found = letter(read_settings(path).database, id)
        if found is None:
            raise AmqttDbError(f"there is no dead letter {id}; `amqtt-db dead list` shows them all")
        if as_json:
            print_json(show.to_json(found) | readable_bytes("payload", found.payload or b""))
        else:
            print_result(show.render_dead_letter(found), soft_wrap=True)


@app.command("replay")
def dead_replay(
    path: Config = None,
    topic: Topic = "#",
    as_json: AsJson = False,
) -> None:
    """Try to store dead letters again, after you have fixed the route, the decoder or the database."""
    from amqtt_db.writer.replay import replay  # noqa: PLC0415

    with error_boundary():
        settings, stored, kept = read_settings(path), 0, []
        for letter in replay(settings.database, settings.routes, topic):
            if letter.reason is None:
                stored += 1
                continue
            kept.append({"id": show.exact_id(letter.id), "reason": letter.reason})
            if not as_json:
                print_text(show.escape_text(f"{letter.id} kept: {letter.reason}"))
        if as_json:
            print_json({"stored": stored, "kept": kept})
        else:
            print_text(f"{stored} stored, {format_count(len(kept), 'dead letter')} left")


@app.command("purge")
def dead_purge(
    path: Config = None,
    ids: Annotated[
        list[int] | None,
        typer.Option("--id", min=0, max=MAX_INT64, help="Only the dead letter with this id; may be repeated."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete dead letters permanently."""
    from amqtt_db.database.dead_letters import purge  # noqa: PLC0415
    from amqtt_db.database.snapshot import require_database  # noqa: PLC0415

    with error_boundary():
        settings = read_settings(path)
        require_database(settings.database)
        which = "all dead letters" if ids is None else format_count(len(ids), "dead letter")
        if not yes:
            typer.confirm(f"Delete {which} in {config.masked(settings.database)} permanently?", abort=True)
        print_text(f"{purge(settings.database, ids)} deleted")
