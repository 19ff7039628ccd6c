"""Keys of a route that are valid but have no effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import combinations

from amqtt_db.config.yaml_checks import Node
from amqtt_db.errors import Problem, Rejected
from amqtt_db.models.base import OwnColumns
from amqtt_db.routing.route import Route


def find_idle_keys(node: Node, routes: Mapping[str, Route]) -> Iterator[Problem]:
    """Yield remarks on what is valid in ``routes:`` but has no effect, or perhaps not the intended one."""
    for (earlier, first), (path, second) in combinations(routes.items(), 2):
        if covers(first.filter.mqtt, second.filter.mqtt):
            yield Problem(
                f"{path}.topic", f"never matches: {earlier} ({first.filter.text}) already matches all its topics"
            )
    for item in node.items() if isinstance(node.value, list) else ():
        if item.path in routes and routes[item.path].stores:
            with suppress(Rejected):  # from a user's model, whose mistakes are told elsewhere
                yield from _idle_keys_of(item, routes[item.path])


def _idle_keys_of(item: Node, route: Route) -> Iterator[Problem]:
    if route.entity is None:
        for key in item.value.keys() & {"unknown", "mismatch"}:
            yield Problem(f"{item.path}.{key}", "has no effect without `entity`, which declares the properties")
    elif item.value.get("mismatch", "") is None:
        message = (
            "is empty, which YAML reads as null: values of another type are dropped; write 'null' if that is meant"
        )
        yield Problem(f"{item.path}.mismatch", message)
    if "max_columns" in item.value and not isinstance(route.bound().layout, OwnColumns):
        yield Problem(f"{item.path}.max_columns", "has no effect: this model has no column for each property")
    if "max_tables" in item.value and not route.is_per_topic:
        yield Problem(f"{item.path}.max_tables", "has no effect: all topics of this route share the model's tables")


def covers(general: str, special: str) -> bool:
    """Return True if ``general`` matches every topic that the MQTT filter ``special`` matches."""
    wide, narrow = general.split("/"), special.split("/")
    if special.startswith("$") and wide[0] in ("+", "#"):
        return False
    for index, level in enumerate(wide):
        if level == "#":
            return True
        other = narrow[index] if index < len(narrow) else None
        if other in (None, "#") or level not in ("+", other):
            return False
    return len(wide) == len(narrow)
