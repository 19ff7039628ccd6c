"""The keys of a route that keeps the newest values of each device apart, and perhaps stores only their changes."""

from __future__ import annotations

from collections.abc import Collection
from sys import float_info
from typing import Any, Final

from amqtt_db.config.keys import ConfigKey, described
from amqtt_db.config.yaml_checks import Node, duration, found, text
from amqtt_db.entity import Entity
from amqtt_db.record import level_path
from amqtt_db.registry import suggest
from amqtt_db.routing.each import Capture, parse_each
from amqtt_db.routing.route import Latest, OnlyChanges

CHANGES_KEYS: Final = {
    "only": ConfigKey("`changes`: store a message only if it says something new.", described(enum=["changes"])),
    "deadband": ConfigKey(
        "By how much a number must differ from the one stored last, for each property.",
        described(type="object", minProperties=1, additionalProperties={"type": "number", "exclusiveMinimum": 0}),
    ),
    "at_least_every": ConfigKey("Store a message after this time even if nothing has changed.", duration),
}


def read_latest(section: Node, entity: Entity | None, levels: Collection[str]) -> dict[str, Any]:
    """Return a route's fields ``latest`` and ``only``; changes are judged by the newest values, so these are kept.

    ``levels`` are the names in the route's topic filter.
    """
    captured = _captured(section)
    latest = section.child("latest").read(lambda value: _latest(value, entity, levels, captured), None)
    only = _only_changes(section, entity)
    if only is not None and section.value.get("latest") is False:
        section.child("latest").fail("`only: changes` needs the newest values; leave this out")
    return {"latest": Latest() if latest is None and only is not None else latest, "only": only}


def _only_changes(section: Node, entity: Entity | None) -> OnlyChanges | None:
    is_on = section.child("only").read(_is_changes, default=False)
    deadband = section.child("deadband").read(lambda value: _deadband(value, entity), {})
    pause = section.child("at_least_every").read(duration, None)
    for key in ("deadband", "at_least_every") if section.value.get("only") is None else ():
        if section.child(key).value is not None:
            section.child(key).fail("has no effect without `only: changes`")
    return OnlyChanges(deadband, pause) if is_on else None


def _is_changes(value: Any) -> bool:
    if value != "changes":
        raise ValueError(f"expected `changes`, found {found(value)}; leave it out to store every message")
    return True


def _deadband(value: Any, entity: Entity | None) -> dict[str, float]:
    if not isinstance(value, dict) or not value:
        raise ValueError(f"expected a number for each property, such as {{temp: 0.1}}, found {found(value)}")
    for path, width in value.items():
        if isinstance(width, bool) or not isinstance(width, int | float) or not 0 < width <= float_info.max:
            raise ValueError(f"expected a number above 0 for {path}, found {found(width)}")
        if entity is not None and text(path) not in entity.declared:
            raise ValueError(f"the entity declares no property {path!r}; {suggest(path, entity.declared)}")
    return {text(path): float(width) for path, width in value.items()}


def _latest(value: Any, entity: Entity | None, levels: Collection[str], captured: Collection[str]) -> Latest | None:
    if isinstance(value, bool):
        return Latest() if value else None
    if not isinstance(value, list) or not value:
        raise ValueError(f"expected true, or a list of levels and properties such as [room], found {found(value)}")
    return Latest(tuple(_path(_read_name(item), entity, levels, captured) for item in value))


def _read_name(item: Any) -> str:
    """Return a name; in YAML, ``{room}`` without quotes is a mapping of that one key to nothing."""
    if isinstance(item, dict) and len(item) == 1 and list(item.values()) == [None]:
        return f"{{{text(*item)}}}"
    return text(item)


def _path(name: str, entity: Entity | None, levels: Collection[str], captured: Collection[str]) -> str:
    if name in levels:
        return level_path(name)
    bare = name.strip("{}")
    if bare in levels:
        return level_path(bare)
    if bare in captured:
        return bare
    if bare != name:
        raise ValueError(
            f"the topic has no level {name}, and `each` captures none; {suggest(bare, [*levels, *captured])}"
        )
    if entity is not None and name not in entity.declared:
        raise ValueError(
            f"the topic has no level {{{name}}}, and the entity declares no property {name!r}; "
            f"{suggest(name, [*levels, *captured, *entity.declared])}"
        )
    return name


def _captured(section: Node) -> list[str]:
    """Return the names of the keys that the route's `each` captures."""
    path = section.value.get("each")
    return [part.name for part in parse_each(path) if isinstance(part, Capture)] if isinstance(path, str) else []
