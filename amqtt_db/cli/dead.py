"""The commands for messages that could not be stored: `dead list`, `show`, `replay`, `purge`."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from amqtt_db import config
from amqtt_db.cli import show
from amqtt_db.cli.arguments import MAX_INT64, AsJson, Config, Since, Topic, choose_one_of
from amqtt_db.cli.output import print_bytes, print_json, print_result, print_text
from amqtt_db.cli.shell import error_boundary, read_settings, require_consent
from amqtt_db.errors import AmqttDbError, format_count
from amqtt_db.journal.inspection import readable_bytes

if TYPE_CHECKING:
    from amqtt_db.database.dead_letters import DeadLetter, LetterChoice

app = typer.Typer(no_args_is_help=True, help="List, show, replay or delete messages that could not be stored.")


_SHOWN: Final = 20  # dead letters in a list, unless it is asked for more


class Step(Enum):
    """What rejects messages."""

    decode = "decode"
    deserialize = "deserialize"
    structure = "structure"
    store = "store"


Ids = Annotated[
    list[int] | None,
    typer.Option("--id", min=0, max=MAX_INT64, help="Only the message with this id; may be repeated."),
]

ChosenStep = Annotated[Step | None, choose_one_of(Step, "--step", help="Only what this step has rejected.")]


@app.command("list")
def dead_list(
    path: Config = None,
    ids: Ids = None,
    topic: Topic = "#",
    step: ChosenStep = None,
    since: Since = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, max=MAX_INT64 - 1, help="At most this many, newest first; default: 20, with --json all."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the messages that could not be stored, newest first."""
    from amqtt_db.database.dead_letters import letters  # noqa: PLC0415

    with error_boundary():
        choice, most = _choice(ids, topic, step, since), limit or _SHOWN
        database = read_settings(path).database
        if as_json:
            print_json([show.to_json(letter) for letter in letters(database, limit, choice)])
            return
        found = letters(database, most + 1, choice)
        print_result(show.render_dead_letters(found[:most]), soft_wrap=True)
        if len(found) > most:
            print_text(f"There are more: --limit {10 * most} shows up to {10 * most}, --json all.")


@app.command("show")
def dead_show(
    which: Annotated[
        str | None,
        typer.Argument(
            metavar="[ID]", help="The id, from `dead list`; without it, the newest that the options select."
        ),
    ] = None,
    path: Config = None,
    ids: Ids = None,
    topic: Topic = "#",
    step: ChosenStep = None,
    since: Since = None,
    payload: Annotated[
        bool, typer.Option("--payload", help="Write only the payload, byte for byte, to standard output.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one message that could not be stored, with its payload and the reason."""
    with error_boundary():
        if which is not None and not which.isdecimal() and path is None:
            path, which = Path(which), None
        choice = _choice(ids if which is None else [_read_id(which)], topic, step, since)
        found = _newest_letter(read_settings(path).database, choice)
        if payload:
            print_bytes(found.payload or b"")
        elif as_json:
            print_json(show.to_json(found) | readable_bytes("payload", found.payload or b""))
        else:
            print_result(show.render_dead_letter(found), soft_wrap=True)


@app.command("replay")
def dead_replay(
    path: Config = None,
    ids: Ids = None,
    topic: Topic = "#",
    step: ChosenStep = None,
    since: Since = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would become of them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Try to store dead letters again, after you have fixed the route, the decoder or the database.

    The exit code is 1 if some of them cannot be stored: they stay dead letters.
    """
    from amqtt_db.database.snapshot import require_database  # noqa: PLC0415
    from amqtt_db.writer.lock import require_same_routes  # noqa: PLC0415
    from amqtt_db.writer.replay import rehearse, replay  # noqa: PLC0415

    with error_boundary():
        choice, settings, stored, kept = _choice(ids, topic, step, since), read_settings(path), 0, []
        require_database(settings.database)
        if not dry_run:
            require_same_routes(settings.journal.path, settings.routes)
        done = rehearse(settings, choice) if dry_run else replay(settings.database, settings.routes, choice)
        for letter in done:
            if letter.reason is None:
                stored += 1
                continue
            kept.append({"id": show.exact_id(letter.id), "reason": letter.reason})
            if not as_json:
                print_text(show.escape_text(f"{letter.id} kept: {letter.reason}"))
        if as_json:
            print_json({"stored": stored, "kept": kept, "dry_run": dry_run})
        else:
            left = format_count(len(kept), "dead letter")
            print_text(
                f"{stored} would be stored, {left} would be left" if dry_run else f"{stored} stored, {left} left"
            )
        raise typer.Exit(1 if kept else 0)


@app.command("purge")
def dead_purge(
    path: Config = None,
    ids: Ids = None,
    topic: Topic = "#",
    step: ChosenStep = None,
    since: Since = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")] = False,
) -> None:
    """Delete dead letters permanently: all of them, or those that the options select."""
    from amqtt_db.database.dead_letters import count_letters, purge  # noqa: PLC0415

    with error_boundary():
        settings, choice = read_settings(path), _choice(ids, topic, step, since)
        count = count_letters(settings.database, choice)
        if count and not yes:
            which = format_count(count, "dead letter")
            require_consent(f"Delete {which} in {config.masked(settings.database)} permanently?")
        print_text(f"{purge(settings.database, choice) if count else 0} deleted")


def _choice(ids: list[int] | None, topic: str, step: Step | None, since: datetime | None) -> LetterChoice:
    from amqtt_db.database.dead_letters import LetterChoice  # noqa: PLC0415 - it needs SQLAlchemy

    return LetterChoice(None if ids is None else frozenset(ids), topic, None if step is None else step.value, since)


def _read_id(text: str) -> int:
    """Return a message's id.  Raises BadParameter."""
    if not text.isdecimal() or int(text) > MAX_INT64:
        raise typer.BadParameter(f"no dead letter can have the id {text!r}; `amqtt-db dead list` shows them")
    return int(text)


def _newest_letter(database: str, choice: LetterChoice) -> DeadLetter:
    """Return the newest of the chosen dead letters, with its payload.  Raises AmqttDbError if there is none."""
    from amqtt_db.database.dead_letters import letter, letters  # noqa: PLC0415

    for one in letters(database, 1, choice):
        found = letter(database, one.id)
        if found is not None:
            return found
    which = f"dead letter {min(choice.ids)}" if choice.ids else "such dead letter"
    raise AmqttDbError(f"there is no {which}; `amqtt-db dead list` shows them all")
