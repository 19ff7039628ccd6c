"""`init`: a first YAML, from a template or from what a broker's clients publish."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Final

import typer
import yaml

from amqtt_db import config
from amqtt_db.cli import show
from amqtt_db.cli.arguments import Topic
from amqtt_db.cli.output import STANDARD_OUTPUT, open_output, print_result, print_text
from amqtt_db.cli.shell import error_boundary
from amqtt_db.config import Settings
from amqtt_db.errors import AmqttDbError, format_count

if TYPE_CHECKING:
    from amqtt_db.draft import Heard
    from amqtt_db.ingest.bridge.packets import Publish
    from amqtt_db.writer.growth import CreatedTable

_DEFAULT_FILE: Final = Path("amqtt-db.yaml")
_MOST_OF_A_TOPIC: Final = 1000
_MOST_BYTES_HEARD: Final = 64 * 2**20
_MOST_TABLES: Final = 10
_PASSWORD_IN_URL: Final = re.compile(r"(://[^:/@]*:)(?!\$\{)[^@]*@")
PASSWORD_VARIABLE: Final = "MQTT_PASSWORD"  # noqa: S105 - its name


def init(
    url: Annotated[
        str | None, typer.Argument(metavar="URL", help="A broker to listen to, such as mqtt://localhost.")
    ] = None,
    output: Annotated[Path, typer.Option(help="The file to write; - is standard output.")] = _DEFAULT_FILE,
    seconds: Annotated[float, typer.Option(min=0.1, max=86_400, help="How long to listen; Ctrl-C ends it.")] = 30,
    topic: Topic = "#",
    force: Annotated[bool, typer.Option("--force", help="Replace the file if there is one.")] = False,
) -> None:
    """Write a first YAML with comments: a template, or routes for what a broker's clients publish.

    With a URL it listens to the broker, gathers topics that are alike in filters with named levels, infers types and
    proposes models.  Look at the result, then check it with `amqtt-db check`.
    """
    from amqtt_db.draft import TEMPLATE, draft_routes, find_families, write_yaml  # noqa: PLC0415 - few need it

    with error_boundary():
        if output != STANDARD_OUTPUT and output.exists() and not force:
            raise AmqttDbError(
                f"{output} is there already; write another file with --output, or replace it with --force"
            )
        if url is None:
            _write_file(output, TEMPLATE)
            _tell_written(output)
            return
        heard, lasted = _hear(url, topic, seconds)
        public = _PASSWORD_IN_URL.sub(rf"\1${{{PASSWORD_VARIABLE}}}@", url)
        drafts = draft_routes(find_families(heard), lasted)
        text = write_yaml(public, drafts, len(heard), round(lasted, 1))
        settings = config.load_document({**yaml.safe_load(text), "broker": url})
        _write_file(output, text)
        if output != STANDARD_OUTPUT:
            _show_result(settings, heard)
        _tell_written(output)
        if public != url:
            typer.echo(f"the password is not in the file: set the environment variable {PASSWORD_VARIABLE}", err=True)


def _write_file(output: Path, text: str) -> None:
    with open_output(output) as write:
        write(text.encode())


def _tell_written(output: Path) -> None:
    if output != STANDARD_OUTPUT:
        print_text(show.escape_text(f"wrote {output}; now: amqtt-db check {output}"))


def _hear(url: str, topic: str, seconds: float) -> tuple[Sequence[Heard], float]:
    """Return the messages that a broker sends, and for how many seconds it was listened to."""
    from amqtt_db.cli.serve import set_by_signals  # noqa: PLC0415
    from amqtt_db.draft import Heard  # noqa: PLC0415
    from amqtt_db.ingest.bridge.listener import listen  # noqa: PLC0415
    from amqtt_db.ingest.bridge.peer import Ending  # noqa: PLC0415

    (broker,) = config.load_bridge(config.bridge_to(url))[1]
    heard: list[Heard] = []
    counts: Counter[bytes] = Counter()
    start = monotonic()

    def take(message: Publish) -> None:
        counts[message.topic] += 1
        counts[b""] += len(message.payload)
        if counts[message.topic] <= _MOST_OF_A_TOPIC and counts[b""] <= _MOST_BYTES_HEARD:
            heard.append(Heard(message.topic.decode(errors="replace"), message.payload, monotonic() - start))

    async def listen_until_stopped() -> object:
        stop = asyncio.Event()
        set_by_signals(stop)
        typer.echo(f"listening to {topic} of {broker.url} for {seconds:g} s; Ctrl-C ends it", err=True)
        return await listen(broker, topic, seconds, take, stop)

    answer = asyncio.run(listen_until_stopped())
    if isinstance(answer, Ending):
        raise AmqttDbError(f"{broker.url}: the broker {answer.reason}")
    return heard, monotonic() - start


def _show_result(settings: Settings, heard: Sequence[Heard]) -> None:
    """Print the routes, the tables that they make of what was heard, and what of it would not be stored."""
    from amqtt_db.writer.preview import find_rejected  # noqa: PLC0415 - it needs SQLAlchemy

    if not heard:
        typer.echo("nothing was published: there is only a route for everything", err=True)
        return
    print_result(show.render_routes(settings))
    tables = [(table.name, ", ".join(table.columns)) for table in _tables(settings, heard)]
    title = "Tables; `amqtt-db check --topic … --payload …` shows their SQL"
    print_result(show.make_table(("table", "columns"), tables, title))
    rejected = find_rejected(settings, [(message.topic, message.payload) for message in heard])
    for one in rejected[:_MOST_TABLES]:
        typer.echo(f"would be a dead letter: {show.escape_text(f'{one.filter}: {one.reason}')}", err=True)
    count = len(heard) - len(rejected)
    print_text(f"{count} of {format_count(len(heard), 'message')} that were heard would be stored")


def _tables(settings: Settings, heard: Sequence[Heard]) -> Iterator[CreatedTable]:
    """Yield the tables of the first routes, as a large message of each would create them."""
    from amqtt_db.writer.growth import read_created  # noqa: PLC0415
    from amqtt_db.writer.preview import preview  # noqa: PLC0415

    largest = {message.topic: message for message in sorted(heard, key=lambda message: len(message.payload))}
    first: dict[str, Heard] = {}
    for message in largest.values():
        route = next((one for one in settings.routes if one.filter.match(message.topic) is not None), None)
        if route is not None:
            first.setdefault(route.filter.text, message)
    for message in [first[route.filter.text] for route in settings.routes if route.filter.text in first][:_MOST_TABLES]:
        yield from read_created(preview(settings, message.topic, message.payload).ddl)
