"""`check`: every mistake in a configuration, or what it means for the brokers and for a sample message."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import attrs
import orjson
import typer

from amqtt_db import config
from amqtt_db.cli import show
from amqtt_db.cli.arguments import FOUND_CONFIG, AsJson
from amqtt_db.cli.findings import Findings, examine, find_obstacles
from amqtt_db.cli.output import STANDARD_OUTPUT, print_json, print_result, print_text
from amqtt_db.cli.shell import error_boundary, print_notes
from amqtt_db.config import Settings
from amqtt_db.errors import ConfigError, DatabaseError, NoDatabaseYet
from amqtt_db.models.spec import to_spec
from amqtt_db.routing.route import Route

if TYPE_CHECKING:
    from amqtt_db.writer.disagreements import RouteChange
    from amqtt_db.writer.preview import Preview


def check(
    source: Annotated[
        str | None,
        typer.Argument(metavar="CONFIG|URL", help=f"A YAML file, or a broker's URL; {FOUND_CONFIG}"),
    ] = None,
    topic: Annotated[str | None, typer.Option(help="The topic of a sample message.")] = None,
    payload: Annotated[str | None, typer.Option(help="The payload of the sample, as text.")] = None,
    sample: Annotated[
        Path | None, typer.Option(help="A file that contains the payload of the sample; - for standard input.")
    ] = None,
    offline: Annotated[bool, typer.Option("--offline", help="Do not connect to brokers or the database.")] = False,
    as_json: AsJson = False,
) -> None:
    """Report every mistake in a configuration, or show its routes; with a sample, show what it would become.

    Without a sample, connect to the brokers in `broker:` and list what is stored otherwise than declared.  The exit
    code is 2 for a mistake in the configuration, and 1 for files or a database that cannot be used, a sample that would
    not be stored, or a broker that cannot be used.
    """
    with error_boundary():
        message = _sample(topic, payload, sample)
        with _mistakes_as_json(as_json):
            found = examine(source)
            if found.settings is None or found.problems:
                raise _mistaken(found, as_json=as_json)
        settings, obstacles = found.settings, tuple(find_obstacles(found.settings))
        if as_json:
            is_good = _print_findings(found, settings, obstacles, message, is_asked=not offline)
        else:
            print_notes(found.notes)
            for obstacle in obstacles:
                typer.echo(show.escape_lines(obstacle), err=True)
            is_asked = not (offline or obstacles)
            is_good = _show_sample(settings, *message) if message else _show_routes(found.document, settings, is_asked)
        raise typer.Exit(0 if is_good and not obstacles else 1)


def _mistaken(found: Findings, *, as_json: bool) -> ConfigError:
    """Return the mistakes as an error; for people, print first what else may surprise."""
    if not as_json:
        print_notes(found.notes)
    return ConfigError(*found.problems, notes=found.notes)


def _show_routes(document: Mapping[str, Any], settings: Settings, is_asked: bool) -> bool:
    """Print the routes, how what is stored disagrees, and what brokers grant; return True if these can be used."""
    print_result(show.render_routes(settings))
    for line in map(show.escape_text, show.describe_keys(settings.routes)):
        print_text(line)
    for line in show.describe_changes(_find_changes(settings) if is_asked else ()):
        print_text(line)
    if not is_asked or not config.is_bridge(document):
        return True
    from amqtt_db.cli.brokers import ask_brokers, is_usable, render_answer  # noqa: PLC0415 - only bridges need it

    brokers = config.load_bridge(document)[1]
    answers = ask_brokers(settings, brokers)
    for broker, answer in zip(brokers, answers, strict=True):
        print_result(render_answer(broker, answer), soft_wrap=True)
    return all(map(is_usable, brokers, answers))


def _find_changes(settings: Settings) -> Sequence[RouteChange]:
    """Return how what is stored disagrees with the routes; a database that cannot be read is only worth a note."""
    from amqtt_db.writer.disagreements import find_changes  # noqa: PLC0415 - it needs SQLAlchemy

    try:
        return find_changes(settings.database, settings.routes)
    except NoDatabaseYet:
        return ()
    except DatabaseError as error:
        typer.echo(f"note: what is stored was not compared with the routes: {error}", err=True)
        return ()


def _show_sample(settings: Settings, topic: str, payload: bytes) -> bool:
    """Print what a sample would become; return True if it would be stored."""
    from amqtt_db.writer.preview import preview  # noqa: PLC0415 - the broker's process does without SQLAlchemy

    result = preview(settings, topic, payload)
    print_result(show.render_preview(result), soft_wrap=True)
    return result.is_stored


def _print_findings(
    found: Findings,
    settings: Settings,
    obstacles: Sequence[str],
    message: tuple[str, bytes] | None,
    *,
    is_asked: bool,
) -> bool:
    """Print everything as JSON; return True if the sample would be stored and the brokers can be used."""
    from amqtt_db.cli.brokers import ask_brokers, describe_answer  # noqa: PLC0415
    from amqtt_db.writer.preview import preview  # noqa: PLC0415

    asks = is_asked and message is None and not obstacles
    brokers = config.load_bridge(found.document)[1] if asks and config.is_bridge(found.document) else ()
    granted = list(map(describe_answer, brokers, ask_brokers(settings, brokers)))
    sample = None if message is None or obstacles else preview(settings, *message)
    print_json(
        {
            "problems": [],
            "notes": list(map(attrs.asdict, found.notes)),
            "obstacles": obstacles,
            "routes": list(map(_describe_route, settings.routes)),
            "changes": list(map(attrs.asdict, _find_changes(settings) if asks else ())),
            "brokers": granted,
            "sample": None if sample is None else _describe_sample(sample),
        }
    )
    return all(broker["usable"] for broker in granted) and (sample is None or sample.is_stored)


def _describe_route(route: Route) -> dict[str, Any]:
    """Return what a route does with its messages, for JSON; lengths of time are in seconds."""
    latest, only = route.latest, route.only
    return {
        "topic": route.filter.text,
        "stored": route.stores,
        "model": orjson.Fragment(to_spec(route.model, timed=route.timed)),
        "entity": None if route.entity is None else sorted(route.entity.declared),
        "decode": route.format,
        "time": route.time,
        "unknown": route.unknown,
        "mismatch": route.mismatch,
        "keep": _to_seconds(route.keep),
        "property": route.reshaping.property or None,
        "latest": None if latest is None else list(latest.paths),
        "only": None if only is None else "changes",
        "deadband": {} if only is None else dict(only.deadband),
        "at_least_every": None if only is None else _to_seconds(only.at_least_every),
        "gather": _to_seconds(route.gather),
        "rollup": [{"every": _to_seconds(step.every), "keep": _to_seconds(step.keep)} for step in route.rollup],
        "indexes": route.indexes,
        "raw": route.raw,
        "properties": route.properties,
        "max_columns": route.max_columns,
        "max_tables": route.max_tables,
    }


def _to_seconds(length: timedelta | None) -> float | None:
    return None if length is None else length.total_seconds()


def _describe_sample(result: Preview) -> dict[str, Any]:
    """Return what would become of a sample, for JSON."""
    from amqtt_db.reader.export import format_line  # noqa: PLC0415

    return {
        "route": None if result.route is None else result.route.filter.text,
        "stored": result.is_stored,
        "reason": result.reason,
        "records": [orjson.Fragment(format_line(record)) for record in result.records],
        "ddl": result.ddl,
    }


@contextmanager
def _mistakes_as_json(as_json: bool) -> Iterator[None]:
    """Print the mistakes of a configuration as JSON, if asked for."""
    try:
        yield
    except ConfigError as error:
        if not as_json:
            raise
        print_json({name: list(map(attrs.asdict, getattr(error, name))) for name in ("problems", "notes")})
        raise typer.Exit(2) from None


def _sample(topic: str | None, payload: str | None, sample: Path | None) -> tuple[str, bytes] | None:
    """Return topic and payload of a sample.  Raises BadParameter."""
    if (topic, payload, sample) == (None, None, None):
        return None
    if topic is None or (payload is None) == (sample is None):
        raise typer.BadParameter("a sample needs --topic, and either --payload or --sample")
    if "+" in topic or "#" in topic:
        raise typer.BadParameter(f"{topic} is a filter; a message's topic contains neither + nor #")
    if sample is None:
        return topic, os.fsencode(payload or "")
    return topic, sys.stdin.buffer.read() if sample == STANDARD_OUTPUT else sample.read_bytes()
