"""The commands that change what is stored: `delete`, `rename`, `redecode`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from amqtt_db import config
from amqtt_db.cli import show
from amqtt_db.cli.arguments import AsJson, Config, Since, parse_filter, parse_new_topic, parse_time
from amqtt_db.cli.output import print_json, print_text
from amqtt_db.cli.shell import error_boundary, read_settings, require_consent
from amqtt_db.config import Settings
from amqtt_db.entity.timestamp import TIMES
from amqtt_db.errors import AmqttDbError, DatabaseError, format_count

if TYPE_CHECKING:
    from amqtt_db.writer.workshop import Workshop


_DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")]
_Yes = Annotated[bool, typer.Option("--yes", help="Do not ask for confirmation.")]


def delete(
    which: Annotated[
        str | None,
        typer.Argument(metavar="TOPIC", help="A topic, or a filter: + is one level, # all levels below."),
    ] = None,
    path: Config = None,
    topic: Annotated[
        str | None, typer.Option(metavar="FILTER", parser=parse_filter, help="The same as TOPIC, before CONFIG.")
    ] = None,
    before: Annotated[
        datetime | None, typer.Option(parser=parse_time, metavar="TIME", help=f"Only what is older; {TIMES}.")
    ] = None,
    dry_run: _DryRun = False,
    yes: _Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete stored records for good, all of some topics or the older ones, even while messages arrive."""
    with error_boundary():
        wanted, path = _read_arguments(which, path, topic)
        settings = read_settings(path)
        with open_workshop(settings) as shop:
            from amqtt_db.writer.deletion import Deleter  # noqa: PLC0415
            from amqtt_db.writer.fill_latest import refill_latest  # noqa: PLC0415

            deleter = Deleter(shop, wanted, before)
            found = deleter.find()
            if not found and before is None:
                raise AmqttDbError(f"no stored topic matches {wanted}; `amqtt-db topics` lists what is stored")
            count = sum(one.records for one in found)
            if not as_json:
                for one in found:
                    print_text(f"{show.escape_text(one.topic)}: {format_count(one.records, 'record')}")
            what = f"{format_count(count, 'record')} of {format_count(len(found), 'topic')}"
            if found and not dry_run and not yes:
                require_consent(f"Delete {what} from {config.masked(settings.database)} permanently?")
            deleted = 0 if dry_run else sum(sum(deleter.delete(one.topic)) for one in found)
        if deleted:
            refill_latest(settings, (one.topic for one in found))
        if as_json:
            print_json({"records": count, "topics": [one.topic for one in found], "deleted": deleted})
        else:
            print_text(f"{what} would be deleted" if dry_run else f"{format_count(deleted, 'record')} deleted")


def rename(
    old: Annotated[
        str, typer.Argument(metavar="OLD", parser=parse_new_topic, help="The topic whose records are stored.")
    ],
    new: Annotated[str, typer.Argument(metavar="NEW", parser=parse_new_topic, help="The topic that they get.")],
    path: Config = None,
    dry_run: _DryRun = False,
    yes: _Yes = False,
) -> None:
    """Give what is stored of a topic another topic, and move it to where that one's route wants it.

    It may be stopped and started again, even while messages arrive.  If there are records of the other topic already,
    it asks first, because nothing tells them apart afterwards.  It also asks if sums of deleted records would be lost.
    """
    with error_boundary():
        settings = read_settings(path)
        with open_workshop(settings) as shop:
            from amqtt_db.writer.fill_latest import refill_latest  # noqa: PLC0415
            from amqtt_db.writer.lock import require_same_routes  # noqa: PLC0415
            from amqtt_db.writer.renaming import Renamer  # noqa: PLC0415

            require_same_routes(settings.journal.path, settings.routes)
            renamer = Renamer(shop)
            count, there = renamer.count(old, new)
            beside = f", beside {format_count(there, 'record')} that {new} has already" if there else ""
            loses = renamer.loses_sums(old, new)
            lost = ", without the sums of deleted records, because its route has no `rollup` for them" if loses else ""
            if (there or loses) and not dry_run and not yes:
                question = f"Rename {format_count(count, 'record')} of {old} to {new}{beside}{lost}?"
                require_consent(show.escape_text(question), "nothing was renamed")
            if not dry_run:
                count = sum(renamer.rename(old, new))
        if not dry_run:
            refill_latest(settings, [old])
        verb = "would be renamed" if dry_run else "renamed"
        print_text(show.escape_text(f"{format_count(count, 'record')} of {old} {verb} to {new}{beside}{lost}"))


def redecode(
    topic: Annotated[
        str, typer.Argument(metavar="TOPIC", parser=parse_filter, help="A topic, or a filter that matches several.")
    ],
    path: Config = None,
    since: Since = None,
    before: Annotated[
        datetime | None, typer.Option(parser=parse_time, metavar="TIME", help=f"Only what arrived before; {TIMES}.")
    ] = None,
    dry_run: _DryRun = False,
) -> None:
    """Store messages again from their payloads, kept by `raw: true`, as their routes want them now.

    It may be stopped and started again, even while messages arrive.  The exit code is 1 if a message is refused now; it
    stays as it was.
    """
    with error_boundary():
        settings = read_settings(path)
        with open_workshop(settings) as shop:
            from amqtt_db.writer.fill_latest import refill_latest  # noqa: PLC0415
            from amqtt_db.writer.lock import require_same_routes  # noqa: PLC0415
            from amqtt_db.writer.redecoding import RedecodeProgress, Redecoder  # noqa: PLC0415

            require_same_routes(settings.journal.path, settings.routes)
            redecoder = Redecoder(shop, since, before)
            topics = [] if dry_run else redecoder.topics(topic)
            done = redecoder.preview(topic) if dry_run else [RedecodeProgress(), *redecoder.redecode(*topics)][-1]
        if not done.messages and not done.refusals:
            raise AmqttDbError(
                f"no payload of topic {topic} is kept, or none in these times; `raw: true` in a route keeps those that "
                "arrive from then on"
            )
        refill_latest(settings, topics)
        for one, (count, reason) in sorted(done.refusals.items()):
            print_text(show.escape_text(f"{one}: {count} refused, and kept as before: {reason}"))
        would = "would be stored" if dry_run else "stored"
        records = format_count(done.records, "record")
        print_text(f"{format_count(done.messages, 'message')} {would} again as {records}")
        raise typer.Exit(1 if done.refusals else 0)


def _read_arguments(which: str | None, path: Path | None, topic: str | None) -> tuple[str, Path | None]:
    """Return the topic filter and the configuration; with the option ``--topic``, the first argument is the latter.

    Raises BadParameter.
    """
    if topic is None and which is not None:
        return parse_filter(parse_new_topic(which)), path
    if topic is None or path is not None:
        raise typer.BadParameter("name one topic or filter: amqtt-db delete TOPIC [CONFIG]")
    return topic, None if which is None else Path(which)


@contextmanager
def open_workshop(settings: Settings, *, create: bool = False) -> Iterator[Workshop]:
    """Open the database to rewrite what is stored; ``create`` it if missing.  Raises DatabaseError if it cannot be."""
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415 - commands start without it

    from amqtt_db.database.snapshot import answer, require_database  # noqa: PLC0415
    from amqtt_db.writer.workshop import Workshop, create_database  # noqa: PLC0415

    (create_database if create else require_database)(settings.database)
    try:
        shop = Workshop(settings.database, settings.routes)
        try:
            yield shop
        finally:
            shop.close()
    except DBAPIError as error:
        raise DatabaseError(answer(error)) from error
