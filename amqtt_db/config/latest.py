"""``latest:``, the key of a route that also keeps the newest values of each device."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from amqtt_db.config.yaml_checks import Node, found, text
from amqtt_db.entity import Entity
from amqtt_db.record import level_path
from amqtt_db.registry import suggest
from amqtt_db.routing.route import Latest


def read_latest(section: Node, entity: Entity | None, levels: Collection[str]) -> Latest | None:
    """Return how devices are identified; None if the route does not keep newest values.

    ``levels`` are the names in the route's topic filter.
    """
    return section.child("latest").read(lambda value: _latest(value, entity, levels), None)


def _latest(value: Any, entity: Entity | None, levels: Collection[str]) -> Latest | None:
    if isinstance(value, bool):
        return Latest() if value else None
    if not isinstance(value, list) or not value:
        raise ValueError(f"expected true, or a list of levels and properties such as [room], found {found(value)}")
    return Latest(tuple(_path(_read_name(item), entity, levels) for item in value))


def _read_name(item: Any) -> str:
    """Return a name; in YAML, ``{room}`` without quotes is a mapping of that one key to nothing."""
    if isinstance(item, dict) and len(item) == 1 and list(item.values()) == [None]:
        return text(*item)
    name = text(item)
    return name[1:-1] if name.startswith("{") and name.endswith("}") else name


def _path(name: str, entity: Entity | None, levels: Collection[str]) -> str:
    if name in levels:
        return level_path(name)
    if entity is not None and name not in entity.declared:
        raise ValueError(
            f"the topic has no level {{{name}}}, and the entity declares no property {name!r}; "
            f"{suggest(name, [*levels, *entity.declared])}"
        )
    return name
