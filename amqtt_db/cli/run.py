"""The commands that run or check a broker or writer: `run`, `demo`, `check`, `write`."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from amqtt_db import config
from amqtt_db.cli import show
from amqtt_db.cli.arguments import Config
from amqtt_db.cli.output import make_console, print_result
from amqtt_db.cli.shell import error_boundary, print_notes, require_usable, start_logging
from amqtt_db.config import Settings


def run(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG|URL",
            help="A YAML file, or a broker's URL such as mqtt://localhost, to store all its messages in ./mqtt.db;"
            " default: run a broker with the built-in configuration.",
        ),
    ] = None,
) -> None:
    """Run a broker, or subscribe to one, and store its messages until Ctrl-C or SIGTERM."""
    from amqtt_db.cli.serve import addresses, preflight, serve  # noqa: PLC0415 - the broker is not needed elsewhere

    with error_boundary():
        start_logging(logging.INFO)
        broker = _read_source(source)
        if config.is_bridge(broker):
            _run_bridge(broker)
            return
        settings = config.load_document(broker)
        print_notes(broker, settings)
        preflight(broker, settings)
        where = " and ".join(f"{scheme}://{host}:{port}" for scheme, host, port in addresses(broker).values())
        asyncio.run(serve(broker, started=lambda: _announce(where, settings)))


def demo(
    directory: Annotated[
        Path | None, typer.Option(help="Directory for the files; default: a new temporary one.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds to publish.")] = 5,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The broker's port; 0 picks a free one.")] = 0,
) -> None:
    """Run a broker with simulated devices for a few seconds, then show the tables."""
    from amqtt_db.cli.demo import free_port, make_config, play, print_report  # noqa: PLC0415 - nor is MQTT's client
    from amqtt_db.cli.serve import preflight  # noqa: PLC0415

    with error_boundary():
        start_logging(logging.WARNING)
        place = (directory or Path(tempfile.mkdtemp(prefix="amqtt-db-demo-"))).resolve()
        place.mkdir(parents=True, exist_ok=True)
        port = port or free_port()
        broker = make_config(place, port)
        settings = config.load_document(broker)
        preflight(broker, settings)
        console = make_console()
        acknowledged = asyncio.run(play(broker, port, seconds, console))
        print_report(place / "mqtt.db", acknowledged, console)


def check(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG|URL", help="A YAML file, or a broker's URL; default: the built-in configuration."
        ),
    ] = None,
    topic: Annotated[str | None, typer.Option(help="The topic of a sample message.")] = None,
    payload: Annotated[str | None, typer.Option(help="The payload of the sample, as text.")] = None,
    sample: Annotated[Path | None, typer.Option(help="A file that contains the payload of the sample.")] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not connect to the brokers in `broker:`.")] = False,
) -> None:
    """Report every mistake in a configuration, or show its routes; with a sample, show what it would become.

    Without a sample, connect to the brokers in `broker:` too.  The exit code is 2 for a mistake in the configuration,
    and 1 for a sample that would not be stored or a broker that cannot be used.
    """
    with error_boundary():
        message = _sample(topic, payload, sample)
        broker = _read_source(source)
        settings = config.load_document(broker)
        print_notes(broker, settings)
        require_usable(settings)
        if message is None:
            print_result(show.render_routes(settings))
            raise typer.Exit(0 if offline or not config.is_bridge(broker) or _check_brokers(broker) else 1)
        from amqtt_db.writer.preview import preview  # noqa: PLC0415 - the broker's process does without SQLAlchemy

        result = preview(settings, *message)
        print_result(show.render_preview(result), soft_wrap=True)
        raise typer.Exit(0 if result.is_stored else 1)


def write(path: Config = None) -> None:
    """Run only the writer, which moves messages from the journal to the database, until Ctrl-C or SIGTERM."""
    from amqtt_db.cli.write import keep_writing  # noqa: PLC0415 - it needs SQLAlchemy

    with error_boundary():
        start_logging(logging.INFO)
        broker = config.broker_config(path)
        settings = config.load_document(broker)
        require_usable(settings)
        asyncio.run(keep_writing(broker, settings))


def _read_source(source: str | None) -> dict[str, Any]:
    """Return the configuration in a file, or the one that a broker's URL means.  Raises ConfigError."""
    return config.bridge_to(source) if source is not None and "://" in source else config.broker_config(source)


def _check_brokers(document: Mapping[str, Any]) -> bool:
    """Print what the brokers in a document grant; return True if all can be used."""
    from amqtt_db.cli.brokers import ask_brokers, is_usable, render_answer  # noqa: PLC0415 - only bridges need it

    settings, brokers = config.load_bridge(document)
    answers = ask_brokers(settings, brokers)
    for broker, answer in zip(brokers, answers, strict=True):
        print_result(render_answer(broker, answer), soft_wrap=True)
    return all(map(is_usable, brokers, answers))


def _run_bridge(document: Mapping[str, Any]) -> None:
    """Subscribe to the brokers in a document until SIGINT or SIGTERM."""
    from amqtt_db.cli.serve import bridge, require_resources  # noqa: PLC0415

    settings, brokers = config.load_bridge(document)
    print_notes(document, settings)
    require_resources(settings)
    asyncio.run(bridge(document, settings, brokers))


def _announce(where: str, settings: Settings) -> None:
    """Print where the broker listens; if that cannot be printed, go on."""
    journal = f"{settings.journal.path} (sync: {settings.journal.sync})"
    with suppress(OSError):
        typer.echo(
            f"amqtt_db listens on {where}, database {config.masked(settings.database)}, journal {journal};"
            " Ctrl-C stops it"
        )


def _sample(topic: str | None, payload: str | None, sample: Path | None) -> tuple[str, bytes] | None:
    if (topic, payload, sample) == (None, None, None):
        return None
    if topic is None or (payload is None) == (sample is None):
        raise typer.BadParameter("a sample needs --topic, and either --payload or --sample")
    if "+" in topic or "#" in topic:
        raise typer.BadParameter(f"{topic} is a filter; a message's topic contains neither + nor #")
    return topic, sample.read_bytes() if sample is not None else os.fsencode(payload or "")
