"""The command line: a thin shell over functions.

Mistakes of the user are one clear line each on stderr: exit code 2 for the configuration, 1 for what happens later.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import attrs
import orjson
import typer

from amqtt_db import __version__, config
from amqtt_db.cli import show
from amqtt_db.cli.arguments import TIMES, moment, topic_filter
from amqtt_db.config import Settings
from amqtt_db.config.broker_file import surprises
from amqtt_db.engines.urls import problem
from amqtt_db.errors import AmqttDbError, ConfigError, DatabaseError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, add_completion=False)
dead_app = typer.Typer(no_args_is_help=True, help="Look at the messages that could not be stored.")
app.add_typer(dead_app, name="dead")
journal_app = typer.Typer(no_args_is_help=True, help="Look into the journal, also when its database is lost for good.")
app.add_typer(journal_app, name="journal")

Config = Annotated[
    Path | None,
    typer.Argument(metavar="CONFIG", help="An amqtt broker's YAML file; without it, an embedded default."),
]

Topic = Annotated[
    str,
    typer.Option(metavar="FILTER", parser=topic_filter, help="Which topics; + is any one level, # all that follow."),
]


JournalFile = Annotated[
    Path | None,
    typer.Option("--journal", help="Another journal than the configuration's, such as one that was set aside."),
]


class Form(Enum):
    """The formats of an export."""

    jsonl = "jsonl"
    csv = "csv"


def main() -> None:
    """The entry point of ``amqtt-db``; a user's own modules are also found in the current directory."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    app()


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False) -> None:
    """What arrives over MQTT ends up in a relational database."""
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def run(path: Config = None) -> None:
    """Run a broker that stores what is published to it, until Ctrl-C or SIGTERM."""
    from amqtt_db.cli.serve import addresses, preflight, serve  # noqa: PLC0415 - the broker is not needed elsewhere

    with _told():
        _log(logging.INFO)
        broker = config.broker_config(path)
        settings = config.load_document(broker)
        _remark(broker, settings)
        preflight(broker, settings)
        where = " and ".join(f"{scheme}://{host}:{port}" for scheme, host, port in addresses(broker).values())
        asyncio.run(serve(broker, started=lambda: typer.echo(_started(where, settings))))


@app.command()
def demo(
    directory: Annotated[Path | None, typer.Option(help="Where the files go; without it, a new temporary one.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="How long the devices publish.")] = 5,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The broker's port; 0 for a free one.")] = 0,
) -> None:
    """Run a broker with simulated devices for a few seconds, then show the tables."""
    from amqtt_db.cli.demo import broker as demo_broker  # noqa: PLC0415 - nor is MQTT's client
    from amqtt_db.cli.demo import free_port, play, report  # noqa: PLC0415
    from amqtt_db.cli.serve import preflight  # noqa: PLC0415

    with _told():
        _log(logging.WARNING)
        place = (directory or Path(tempfile.mkdtemp(prefix="amqtt-db-demo-"))).resolve()
        place.mkdir(parents=True, exist_ok=True)
        port = port or free_port()
        broker = demo_broker(place, port)
        settings = config.load_document(broker)
        preflight(broker, settings)
        console = show.console()
        acknowledged = asyncio.run(play(broker, port, seconds, console))
        report(place / "mqtt.db", acknowledged, console)


@app.command()
def check(
    path: Config = None,
    topic: Annotated[str | None, typer.Option(help="The topic of a sample message.")] = None,
    payload: Annotated[str | None, typer.Option(help="The sample's payload, as text.")] = None,
    sample: Annotated[Path | None, typer.Option(help="The file that holds the sample's payload.")] = None,
) -> None:
    """Report every mistake in a configuration, or its routes; with a sample, what would become of it.

    The exit code is 2 for a configuration with mistakes, 1 for a sample that would not be stored.
    """
    with _told():
        message = _sample(topic, payload, sample)
        broker = config.broker_config(path)
        settings = config.load_document(broker)
        _remark(broker, settings)
        _require_usable(settings)
        if message is None:
            show.console().print(show.routes(settings))
            return
        from amqtt_db.preview import preview  # noqa: PLC0415 - the broker's process does without SQLAlchemy

        result = preview(settings, *message)
        show.console().print(show.preview(result), soft_wrap=True)
        raise typer.Exit(0 if result.is_stored else 1)


@app.command()
def write(path: Config = None) -> None:
    """Run only the writer, until Ctrl-C or SIGTERM: it moves what is in the journal to the database."""
    from amqtt_db.cli.write import write as keep_writing  # noqa: PLC0415 - it needs SQLAlchemy

    with _told():
        _log(logging.INFO)
        broker = config.broker_config(path)
        settings = config.load_document(broker)
        _require_usable(settings)
        asyncio.run(keep_writing(broker, settings))


@app.command()
def status(
    path: Config = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of tables.")] = False,
) -> None:
    """Show how many messages are stored, dead, ignored, pending and refused."""
    from amqtt_db.status import status as look  # noqa: PLC0415

    with _told():
        result = look(_settings(path))
        if as_json:
            typer.echo(orjson.dumps(attrs.asdict(result) | {"pending": result.pending}))
        else:
            show.console().print(show.status(result))


@app.command()
def topics(
    path: Config = None,
    topic: Topic = "#",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table.")] = False,
) -> None:
    """List the topics that are stored: model, tables, rows, first and last time."""
    from amqtt_db.inventory import stored_topics  # noqa: PLC0415

    with _told():
        found = stored_topics(_settings(path), topic)
        if as_json:
            typer.echo(orjson.dumps([attrs.asdict(one) for one in found]))
        else:
            show.console().print(show.topics(found) if found else "No topic is stored.", soft_wrap=True)


@app.command()
def export(
    path: Config = None,
    topic: Topic = "#",
    since: Annotated[
        datetime | None, typer.Option(parser=moment, metavar="TIME", help=f"From then on; {TIMES}.")
    ] = None,
    until: Annotated[datetime | None, typer.Option(parser=moment, metavar="TIME", help="Before then.")] = None,
    limit: Annotated[int | None, typer.Option(min=0, help="How many records at most.")] = None,
    newest: Annotated[bool, typer.Option("--newest", help="The newest first, not the oldest.")] = False,
    form: Annotated[Form, typer.Option("--format", help="JSON Lines, or CSV.")] = Form.jsonl,
    output: Annotated[Path | None, typer.Option(help="The file to write; without it, standard output.")] = None,
) -> None:
    """Write stored records to a file, or to standard output, in the order of their times."""
    from amqtt_db.cli.way_back import destination  # noqa: PLC0415
    from amqtt_db.export import export as write  # noqa: PLC0415

    with _told():
        settings = _settings(path)
        with destination(output) as file:
            count = write(settings, file.write, form.value, topic, since=since, until=until, limit=limit, newest=newest)
        if output is not None:
            typer.echo(f"{count} records written to {output}", err=True)


@app.command()
def tail(
    path: Config = None,
    topic: Topic = "#",
    last: Annotated[int, typer.Option(min=0, help="How many stored records to begin with.")] = 10,
    interval: Annotated[float, typer.Option(min=0.05, help="Seconds between looks at the database.")] = 1,
) -> None:
    """Print the newest records, and then those that come, until Ctrl-C."""
    from amqtt_db.cli.way_back import follow  # noqa: PLC0415

    with _told(), suppress(KeyboardInterrupt):
        for record in follow(_settings(path), topic, last, interval):
            typer.echo(show.record(record))


@dead_app.command("list")
def dead_list(
    path: Config = None,
    limit: Annotated[int, typer.Option(min=1, help="How many, the newest first.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")] = False,
) -> None:
    """List the messages that could not be stored, the newest first."""
    from amqtt_db.dead import letters  # noqa: PLC0415

    with _told():
        found = letters(_settings(path).database, limit)
        if as_json:
            typer.echo(orjson.dumps([show.plain(letter) for letter in found]))
        else:
            show.console().print(show.dead_letters(found), soft_wrap=True)


@dead_app.command("show")
def dead_show(
    id: Annotated[int, typer.Argument(help="The id that `dead list` shows.")],  # noqa: A002
    path: Config = None,
) -> None:
    """Show one message that could not be stored, with its payload and the reason."""
    from amqtt_db.dead import letter  # noqa: PLC0415

    with _told():
        found = letter(_settings(path).database, id)
        if found is None:
            raise AmqttDbError(f"there is no dead letter {id}; `amqtt-db dead list` shows those that there are")
        show.console().print(show.dead_letter(found), soft_wrap=True)


@dead_app.command("replay")
def dead_replay(
    path: Config = None,
    topic: Topic = "#",
) -> None:
    """Try again to store them, after the route, the decoder or the database was mended; the rest stays."""
    from amqtt_db.writer.replay import replay  # noqa: PLC0415

    with _told():
        settings, stored, kept = _settings(path), 0, 0
        for letter in replay(settings.database, settings.routes, topic):
            stored, kept = stored + (letter.reason is None), kept + (letter.reason is not None)
            if letter.reason is not None:
                typer.echo(show.visible(f"{letter.id} stays: {letter.reason}"))
        typer.echo(f"{stored} stored, {kept} stay dead letters")


@dead_app.command("purge")
def dead_purge(
    path: Config = None,
    ids: Annotated[list[int] | None, typer.Option("--id", help="Only this one; may be given more than once.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete dead letters for good."""
    from amqtt_db.dead import purge  # noqa: PLC0415

    with _told():
        settings = _settings(path)
        which = "all dead letters" if ids is None else f"{len(ids)} dead letters"
        if not yes:
            typer.confirm(f"Delete {which} in {config.masked(settings.database)} for good?", abort=True)
        typer.echo(f"{purge(settings.database, ids)} deleted")


@journal_app.command("info")
def journal_info(
    path: Config = None,
    journal: JournalFile = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")] = False,
) -> None:
    """Show what the journal holds: openings, positions, messages, bytes, and how far its writer is."""
    from amqtt_db.journal.survey import contents  # noqa: PLC0415

    with _told():
        found = contents(_journal_path(path, journal))
        if as_json:
            typer.echo(orjson.dumps(attrs.asdict(found), default=str))
        else:
            show.console().print(show.journal(found), soft_wrap=True)


@journal_app.command("verify")
def journal_verify(path: Config = None, journal: JournalFile = None) -> None:
    """Read every group of the journal; the exit status is 1 if anything is damaged or missing."""
    from amqtt_db.journal.survey import contents, problems  # noqa: PLC0415

    with _told():
        file = _journal_path(path, journal)
        count = 0
        for problem in problems(file):
            typer.echo(show.visible(problem))
            count += 1
        if count:
            raise typer.Exit(_say(AmqttDbError(f"journal {file}: {count} problems"), 1))
        typer.echo(f"journal {file}: {contents(file).messages} messages, all can be read")


@journal_app.command("export")
def journal_export(
    path: Config = None,
    journal: JournalFile = None,
    output: Annotated[Path | None, typer.Option(help="The file to write; without it, standard output.")] = None,
) -> None:
    """Write every message in the journal as JSON Lines, also those that its database has, and of a damaged one too."""
    from amqtt_db.cli.way_back import destination  # noqa: PLC0415
    from amqtt_db.journal.survey import lines  # noqa: PLC0415

    with _told(), destination(output) as file:
        file.writelines(lines(_journal_path(path, journal)))


@app.command()
def remodel(
    path: Config = None,
    topic: Topic = "#",
    drop: Annotated[bool, typer.Option("--drop", help="Delete the old rows once the new ones are compared.")] = False,
) -> None:
    """Rewrite what is stored as the routes are now, after a route got another model; may be stopped and repeated."""
    from amqtt_db.cli.rewrite import rewrite  # noqa: PLC0415

    with _told():
        typer.echo(rewrite(_settings(path), topic, drop=drop))


@contextmanager
def _told() -> Iterator[None]:
    """Turn the project's errors into lines on stderr and an exit code."""
    try:
        yield
    except ConfigError as error:
        raise typer.Exit(_say(error, 2)) from None
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # whoever read it has seen enough
    except (AmqttDbError, OSError) as error:
        raise typer.Exit(_say(error, 1)) from None


def _say(error: Exception, code: int) -> int:
    typer.echo(show.visible_lines(str(error)), err=True)
    return code


def _settings(path: Path | None) -> Settings:
    return config.load_document(config.broker_config(None)) if path is None else config.load_file(path)


def _require_usable(settings: Settings) -> None:
    """Refuse a database that can never work, which the writer would wait for in vain."""
    reason = problem(settings.database)
    if reason is not None:
        raise DatabaseError(reason)


def _journal_path(config_path: Path | None, journal: Path | None) -> Path:
    return _settings(config_path).journal.path if journal is None else journal


def _remark(broker: Mapping[str, Any], settings: Settings) -> None:
    for note in (*surprises(broker), *settings.notes):
        typer.echo(f"note: {show.visible(str(note))}", err=True)


def _started(where: str, settings: Settings) -> str:
    journal = f"{settings.journal.path} (sync: {settings.journal.sync})"
    return (
        f"amqtt_db listens on {where}, database {config.masked(settings.database)}, journal {journal}; Ctrl-C stops it"
    )


def _sample(topic: str | None, payload: str | None, sample: Path | None) -> tuple[str, bytes] | None:
    if (topic, payload, sample) == (None, None, None):
        return None
    if topic is None or (payload is None) == (sample is None):
        raise typer.BadParameter("a sample needs --topic, and either --payload or --sample")
    if "+" in topic or "#" in topic:
        raise typer.BadParameter(f"{topic} is a filter; the topic of a message has neither + nor #")
    return topic, sample.read_bytes() if sample is not None else (payload or "").encode()


def _log(level: int) -> None:
    """amqtt tells much about every connection; this project little about what matters."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s", stream=sys.stderr
    )
    logging.getLogger("amqtt_db").setLevel(level)
