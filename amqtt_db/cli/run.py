"""The commands that run a broker, a bridge, a writer or the page: `run`, `demo`, `write`, `web`."""

from __future__ import annotations

import asyncio
import logging
import math
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from amqtt_db import config
from amqtt_db.cli.arguments import FOUND_CONFIG, ChosenLevel, Config
from amqtt_db.cli.output import make_console
from amqtt_db.cli.shell import error_boundary, find_notes, log_as_told, print_notes, read_document, require_usable
from amqtt_db.config import Settings
from amqtt_db.config.operation import LOG_DEFAULTS, WebSettings, require_web
from amqtt_db.ingest.logs import start_logging


def run(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="CONFIG|URL",
            help="A YAML file, or a broker's URL such as mqtt://localhost, to store all its messages in ./mqtt.db;"
            f" {FOUND_CONFIG}",
        ),
    ] = None,
    log_level: ChosenLevel = None,
) -> None:
    """Run a broker, or subscribe to one, and store its messages until Ctrl-C or SIGTERM."""
    from amqtt_db.cli.serve import addresses, preflight, serve  # noqa: PLC0415 - the broker is not needed elsewhere

    with error_boundary():
        broker = read_document(source)
        settings = config.load_document(broker)
        log_as_told(settings, log_level)
        if config.is_bridge(broker):
            _run_bridge(broker)
            return
        print_notes(find_notes(broker, settings))
        preflight(broker, settings)
        where = " and ".join(f"{scheme}://{host}:{port}" for scheme, host, port in addresses(broker).values())
        asyncio.run(serve(broker, started=lambda: _announce(where, settings)))


def demo(
    directory: Annotated[
        Path | None, typer.Option(help="Directory for the files; default: a new temporary one.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Seconds to publish.")] = 5,
    port: Annotated[int, typer.Option(min=0, max=65535, help="The broker's port; 0 picks a free one.")] = 0,
    keep_running: Annotated[
        bool, typer.Option("--keep-running", help="Go on until Ctrl-C, and serve the page.")
    ] = False,
) -> None:
    """Run a broker with simulated devices for a few seconds, then show the tables."""
    from amqtt_db.cli.demo import free_port, make_config, play, print_command, print_report, write_config  # noqa: PLC0415 - nor is MQTT's client
    from amqtt_db.cli.serve import preflight  # noqa: PLC0415

    with error_boundary():
        start_logging(LOG_DEFAULTS, logging.WARNING, others=logging.ERROR)
        place = (directory or Path(tempfile.mkdtemp(prefix="amqtt-db-demo-"))).resolve()
        place.mkdir(parents=True, exist_ok=True)
        port = port or free_port()
        broker = make_config(place, port, free_port() if keep_running else None)
        settings = config.load_document(broker)
        preflight(broker, settings)
        console = make_console()
        if settings.web is not None:
            console.print(f"Look at what they send, until Ctrl-C: [bold]{settings.web.url}[/]", soft_wrap=True)
        acknowledged = asyncio.run(play(broker, port, math.inf if keep_running else seconds, console))
        print_report(place / "mqtt.db", acknowledged, console)
        print_command(write_config(place, broker), console)


def write(path: Config = None, log_level: ChosenLevel = None) -> None:
    """Run only the writer, which moves messages from the journal to the database, until Ctrl-C or SIGTERM."""
    from amqtt_db.cli.write import keep_writing  # noqa: PLC0415 - it needs SQLAlchemy

    with error_boundary():
        broker = read_document(path)
        settings = config.load_document(broker)
        log_as_told(settings, log_level)
        require_usable(settings)
        asyncio.run(keep_writing(broker, settings))


def web(path: Config = None) -> None:
    """Serve the page that shows what is stored, what waits and what is wrong, until Ctrl-C or SIGTERM.

    `amqtt-db run` serves it too, if the configuration has `web:`.
    """
    from amqtt_db.cli.serve import NotReady, listen_problem  # noqa: PLC0415

    with error_boundary():
        settings = config.load_document(read_document(path))
        try:
            require_web()
        except ValueError as error:
            raise NotReady(f"amqtt-db web {error}") from None
        from amqtt_db.web.process import make_server, serve_until_signal  # noqa: PLC0415 - an extra

        place = settings.web or WebSettings()
        problem = listen_problem(place.path, place.host, place.port)
        if problem is not None:
            raise NotReady(problem)
        log_as_told(settings, None)
        typer.echo(f"the page is on {place.url}; Ctrl-C stops it")
        serve_until_signal(make_server(settings, place))


def _run_bridge(document: Mapping[str, Any]) -> None:
    """Subscribe to the brokers in a document until SIGINT or SIGTERM."""
    from amqtt_db.cli.serve import bridge, require_resources  # noqa: PLC0415

    settings, brokers = config.load_bridge(document)
    print_notes(find_notes(document, settings))
    require_resources(settings)
    asyncio.run(bridge(document, settings, brokers))


def _announce(where: str, settings: Settings) -> None:
    """Print where the broker listens, and where to look; if that cannot be printed, go on."""
    journal = f"{settings.journal.path} (sync: {settings.journal.sync})"
    page = "`amqtt-db web` shows" if settings.web is None else f"{settings.web.url} shows"
    with suppress(OSError):
        typer.echo(
            f"amqtt_db listens on {where}, database {config.masked(settings.database)}, journal {journal};"
            " Ctrl-C stops it"
        )
        typer.echo(f"{page} in a browser what is stored")
