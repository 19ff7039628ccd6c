"""The commands that take what is stored elsewhere, or bring it back: `backup`, `copy`, `import`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import attrs
import typer
from rich.progress import Progress

from amqtt_db.cli import show
from amqtt_db.cli.arguments import AsJson, Config, parse_file, parse_source, parse_url
from amqtt_db.cli.edit import open_workshop
from amqtt_db.cli.output import make_console, print_json, print_text
from amqtt_db.cli.shell import error_boundary, read_settings
from amqtt_db.config import masked
from amqtt_db.errors import AmqttDbError, DatabaseError, format_count
from amqtt_db.routing.route import Route

if TYPE_CHECKING:
    from amqtt_db.writer.copying import CopiedTopic


def backup(
    path: Config = None,
    *,
    to: Annotated[
        Path, typer.Option("--to", metavar="FILE", parser=parse_file, help="The copy; an older one is replaced.")
    ],
) -> None:
    """Copy an SQLite database and its journal while messages arrive; for a server, say which tool does that."""
    from amqtt_db.database.backup import back_up  # noqa: PLC0415

    with error_boundary():
        settings = read_settings(path)
        with _make_bar() as bar:
            task = bar.add_task("copying", total=None)
            copies = back_up(
                settings.database,
                settings.journal.path,
                to,
                lambda done, total: bar.update(task, completed=done, total=total),
            )
        for one in copies:
            print_text(f"backed up to {one}")


def copy_database(
    path: Config = None,
    *,
    to: Annotated[
        str,
        typer.Option("--to", metavar="URL", parser=parse_url, help="The new database; it may have an earlier copy."),
    ],
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", parser=parse_url, help="The old database; default: the configuration's."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Copy everything into another database while messages arrive, and compare; every topic gets its route's model.

    You can stop it and start it again.
    """
    from sqlalchemy.exc import DBAPIError  # noqa: PLC0415

    from amqtt_db.database.snapshot import answer  # noqa: PLC0415

    with error_boundary():
        settings = read_settings(path)
        old = settings.database if source is None else source
        if old == to:
            raise AmqttDbError(f"{masked(to)} is the old database as well; name another one with --to")
        try:
            copied = _copy_topics(old, to, settings.routes)
        except DBAPIError as error:
            raise DatabaseError(answer(error)) from error
        if as_json:
            print_json([attrs.asdict(one) for one in copied])
            return
        _report_copy([one for one in copied if one.total or one.changed], masked(to))


def _report_copy(copied: Sequence[CopiedTopic], to: str) -> None:
    """Say what became of topics with records; what earlier copies have compared is not compared again."""
    for one in copied:
        counts = f"{format_count(one.new, 'record')} copied, {one.total - one.new} there before"
        checksum = f"; checksum {one.checksum}" if one.records else ""
        changed = f"; {format_count(one.changed, 'message')} changed since, brought along" if one.changed else ""
        print_text(f"{show.escape_text(one.topic)}: {counts}{checksum}{changed}")
    read, total = sum(one.records for one in copied), sum(one.total for one in copied)
    topics = format_count(len([one for one in copied if one.records]), "topic")
    if read or not total:
        print_text(f"{format_count(read, 'record')} of {topics} read back unchanged from {to}")
    if total > read:
        there = f"{format_count(total, 'record')} of {format_count(len(copied), 'topic')}"
        print_text(f"{to} has {there}; those of earlier copies were compared then")


def _make_bar() -> Progress:
    """Return a progress bar on stderr, which shows nothing unless that is a terminal."""
    console = make_console(stderr=True)
    return Progress(console=console, transient=True, disable=not console.is_terminal)


def _copy_topics(old: str, new: str, routes: Sequence[Route]) -> Sequence[CopiedTopic]:
    """Copy with a progress bar; return what was copied of each topic."""
    from amqtt_db.writer.catching_up import ChangedTopic  # noqa: PLC0415
    from amqtt_db.writer.copying import CopiedTopic, Copier  # noqa: PLC0415

    copier, copied = Copier(old, new, routes), dict[str, CopiedTopic]()
    try:
        with _make_bar() as bar:
            task, records = bar.add_task("copying", total=len(copier.topics)), 0
            for step in copier.copy():
                if isinstance(step, CopiedTopic):
                    bar.advance(task)
                    copied[step.topic] = step
                elif isinstance(step, ChangedTopic):
                    copied[step.topic] = attrs.evolve(copied[step.topic], changed=step.messages)
                else:
                    records += step.new + step.same
                    bar.update(task, description=format_count(records, "record"))
    finally:
        copier.close()
    return list(copied.values())


def import_file(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `export` has written: JSON Lines or Parquet.")],
    path: Config = None,
    source: Annotated[
        str | None,
        typer.Option(metavar="NAME", parser=parse_source, help="The file is of another database, with this name."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be stored.")] = False,
    as_json: AsJson = False,
) -> None:
    """Store the records of a file, each once by its id, with the models of their routes, even while messages arrive."""
    from amqtt_db.database.snapshot import has_database  # noqa: PLC0415
    from amqtt_db.reader.record_file import read_file_records  # noqa: PLC0415
    from amqtt_db.writer.importing import Importer, Survey  # noqa: PLC0415
    from amqtt_db.writer.lock import require_same_routes  # noqa: PLC0415
    from amqtt_db.writer.taking_in import TakenIn  # noqa: PLC0415

    with error_boundary():
        settings = read_settings(path)
        require_same_routes(settings.journal.path, settings.routes)
        survey = Survey.of(read_file_records(file), settings.routes, source)  # before a database is created for nothing
        if dry_run and not has_database(settings.database):
            done = TakenIn(survey.records)
        else:
            with open_workshop(settings, create=True) as shop:
                importer = Importer(shop, lambda: read_file_records(file), survey, source)
                done = importer.check()
                if not dry_run:
                    done = sum(importer.store(), TakenIn())
        if as_json:
            print_json({"new": done.new, "same": done.same})
        else:
            verb = "would be stored" if dry_run else "stored"
            print_text(f"{format_count(done.new, 'record')} {verb}, {done.same} there before")
