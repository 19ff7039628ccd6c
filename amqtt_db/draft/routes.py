"""A route for each family of topics: its filter, its types and its model, each with the reason for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import attrs

from amqtt_db.database.naming import table_name
from amqtt_db.draft.families import Family
from amqtt_db.draft.types import declare_object, is_time_name
from amqtt_db.errors import format_count
from amqtt_db.record import flatten

_LEVEL_NAMES: Final = {
    "home": "room", "house": "room", "zigbee2mqtt": "device", "shellies": "device", "tele": "device", "stat": "device",
    "status": "part",
}  # fmt: skip
"""What the levels below some well-known ones are."""

_OTHER_NAMES: Final = ("device", "site", "group", "part", "level")

_MANY: Final = 80  # properties, which are too many for columns that a person reads
_FILLED: Final = 0.25
_NESTED: Final = 3
_FREQUENT: Final = 5.0  # messages a second
_MOST_ROUTES: Final = 60
_LONGEST_TABLE_NAME: Final = 40  # bytes


@attrs.frozen
class RouteDraft:
    """A route as the YAML has it, and the reasons for it; ``topics`` and ``messages`` say how many it is made from."""

    route: dict[str, Any]
    reasons: tuple[str, ...]
    topics: int = 0
    messages: int = 0


def draft_routes(families: Iterable[Family], seconds: float) -> list[RouteDraft]:
    """Return a route for each family that needs one, and one for everything else; ``seconds`` were listened to."""
    found = list(families)
    most = sorted(found, key=lambda family: family.messages, reverse=True)[:_MOST_ROUTES]
    worth = [*most, *(family for family in found if family.form == "broken")]
    taken: set[str] = set()
    drafts = [_draft_route(family, seconds, taken) for family in found if family in worth]
    needed = [draft for draft in drafts if _says_something(draft.route)]
    left = len(found) - len(needed)
    heard = [f"this includes {format_count(left, 'topic')} of the ones that were heard"] if left else []
    return [*needed, RouteDraft({"topic": "#"}, ("everything else: a table per topic, a column per property", *heard))]


def _says_something(route: dict[str, Any]) -> bool:
    """Return False for a route that does no more than one for everything."""
    more = route.keys() - {"topic", "unknown", "entity"}
    return bool(more) or any(spec not in ("float", "str", "bool", "list") for spec in route.get("entity", {}).values())


def _draft_route(family: Family, seconds: float, taken: set[str]) -> RouteDraft:
    names = _level_names(family)
    route: dict[str, Any] = {"topic": "/".join(_level_text(level, name) for level, name in names)}
    reasons: list[str] = []
    named = [name for _, name in names if name]
    objects = _objects(family)
    if family.form in ("broken", "mixed", "list"):
        _add_irregular(family, route, reasons)
    elif family.is_split:
        route |= {"property": f"{{{named[-1]}}}", "latest": True}
        reasons.append("each topic has one value: the topics of a device share a table, a column per topic")
    else:
        _add_model(family, objects, seconds, route, reasons)
    if family.form in ("object", "value") and "model" not in route:
        _add_table(family, named, route, taken)
        _add_types(objects, route, reasons)
    elif family.form == "object":
        _add_event_time(objects, declare_object(objects), route, reasons)
    return RouteDraft(route, tuple(reasons), len(family.topics), family.messages)


def _objects(family: Family) -> list[dict[str, Any]]:
    """Return the payloads as objects, as the route will see them."""
    if family.is_split:
        return [{topic.levels[-1]: one} for topic in family.topics for one in topic.data]
    return [one if isinstance(one, dict) else {"value": one} for topic in family.topics for one in topic.data]


def _add_irregular(family: Family, route: dict[str, Any], reasons: list[str]) -> None:
    """Add how payloads are stored that are not all objects, or not all values."""
    if family.form == "broken":
        route["decode"] = "bytes"
        reasons.append("some payloads begin like JSON but are not: kept as bytes, so that none is lost")
    elif family.form == "list" and all(_is_list_of_objects(one) for topic in family.topics for one in topic.data):
        route["each"] = ""
        reasons.append("each payload is a list: each of its items becomes a row")
    else:
        route["model"] = "document"
        reasons.append("payloads of several forms, or lists: a JSON document per message")


def _is_list_of_objects(value: Any) -> bool:
    return bool(value) and all(isinstance(item, dict) for item in value)


def _add_model(
    family: Family, objects: Sequence[dict[str, Any]], seconds: float, route: dict[str, Any], reasons: list[str]
) -> None:
    """Add the model, if it is not the default, and why."""
    flat = [flatten(one) for one in objects]
    paths = {path for one in flat for path in one}
    filled = sum(map(len, flat)) / max(1, len(flat) * len(paths))
    rate = family.messages / seconds if family.is_steady(seconds) else 0.0
    values = [value for one in flat for path, value in one.items() if value is not None and not is_time_name(path)]
    if len(paths) > _MANY and filled < _FILLED:
        route["model"] = "eav"
        reasons.append(f"{len(paths)} properties, and a message has {filled:.0%} of them on average: a row per value")
    elif len(paths) > _MANY or any(_depth(one) > _NESTED for one in objects):
        route["model"] = "document"
        reasons.append(f"nested, or many properties ({len(paths)}): a JSON document per message")
    elif rate >= _FREQUENT and values and all(type(value) in (int, float) for value in values):
        route["model"] = "narrow"
        reasons.append(f"only numbers, and {rate:.0f} messages a second: a row per point of a series")
    else:
        common = "the same properties in most payloads" if filled > 0.5 else "some properties in common"
        reasons.append(f"{common if len(objects) > 1 else 'one message so far'}: a column per property")


def _depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return max(map(_depth, value), default=0) if isinstance(value, list) else 0


def _add_table(family: Family, named: Sequence[str], route: dict[str, Any], taken: set[str]) -> None:
    """Add a table for all topics of the family, if there may be several and it is not made of their values."""
    if not named or family.is_split:
        return
    words = "_".join(level for level in family.levels if level)
    name = table_name(words or "messages", is_taken=taken.__contains__, limit=_LONGEST_TABLE_NAME)
    taken.add(name)
    route["model"] = {"wide": {"table": name}}


def _add_types(objects: Sequence[dict[str, Any]], route: dict[str, Any], reasons: list[str]) -> None:
    declared = declare_object(objects)
    if not declared:
        return
    route |= {"entity": declared, "unknown": "add"}
    _add_event_time(objects, declared, route, reasons)


def _add_event_time(
    objects: Sequence[dict[str, Any]], declared: dict[str, Any], route: dict[str, Any], reasons: list[str]
) -> None:
    """Add which property is the time of the event, if one is in nearly all payloads, and its type."""
    time = next((name for name, spec in declared.items() if is_time_name(name) and _is_time(spec)), None)
    if time is not None and sum(one.get(time) is not None for one in objects) > 0.9 * len(objects):
        route.setdefault("entity", {time: declared[time]})
        route.setdefault("unknown", "add")
        route["time"] = time
        reasons.append(f"`{time}` is the time of the event; without a zone it is UTC unless you set `timezone`")


def _is_time(spec: Any) -> bool:
    return spec == "datetime" or (isinstance(spec, dict) and spec.get("type") == "datetime")


def _level_names(family: Family) -> list[tuple[str | None, str | None]]:
    """Return each level, with a name if it differs between the topics; a telling level above it comes first."""
    properties = declare_object(_objects(family)) if family.form == "object" else {}
    taken = {name.casefold() for name in properties}
    wishes = {index: _wish(family, index) for index, level in enumerate(family.levels) if level is None}
    names: dict[int, str] = {}
    for index in sorted(wishes, key=lambda index: not wishes[index]):
        candidates = (*wishes[index], *(() if wishes[index] else _OTHER_NAMES), *(f"level_{n}" for n in range(1, 99)))
        names[index] = next(name for name in candidates if name.casefold() not in taken)
        taken.add(names[index])
    return [(level, names.get(index)) for index, level in enumerate(family.levels)]


def _wish(family: Family, index: int) -> tuple[str, ...]:
    """Return what a level is, going by the one above it; nothing if that does not tell."""
    if family.is_split and index == len(family.levels) - 1:
        return ("property",)
    above = (family.levels[index - 1] or "") if index else ""
    if above in _LEVEL_NAMES:
        return (_LEVEL_NAMES[above],)
    singular = above[:-1].lower() if above.endswith("s") and not above.endswith(("ss", "us", "is")) else ""
    return (singular,) if len(singular) > 2 and singular.isidentifier() else ()


def _level_text(level: str | None, name: str | None) -> str:
    """Return a level as a filter has it; braces in a topic's own level would make it a named one."""
    if level is None:
        return f"{{{name}}}"
    return "+" if "{" in level or "}" in level else level
