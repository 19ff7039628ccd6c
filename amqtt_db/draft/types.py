"""The type of a property, from values that were heard: what the entity of a route declares."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from amqtt_db.entity import Entity
from amqtt_db.routing.readings import read_number

Declaration = str | dict[Any, Any]
"""A property's type as the YAML declares it."""

_STATES: Final = (
    ("on", "off"), ("open", "closed"), ("open", "close"), ("online", "offline"), ("true", "false"), ("yes", "no"),
    ("locked", "unlocked"), ("detected", "clear"), ("active", "inactive"), ("connected", "disconnected"),
    ("home", "not_home"), ("up", "down"),
)  # fmt: skip
"""Words for true and for false."""

_TIME_NAMES: Final = re.compile(
    r"(time|date|datetime|timestamp|unixtime|ts|tst|t|epoch|utc|when|last_?seen|(measured|created|sent)(_?at)?)",
    re.IGNORECASE,
)
_TIME_ENDS: Final = re.compile(r".*(time|stamp|_ts|_at|epoch|updated?|seen|changed)", re.IGNORECASE)
_IDENTIFIERS: Final = re.compile(r".*(id|name|serial|version|mac|code|number|address|model|mode)", re.IGNORECASE)
_WHOLE: Final = re.compile(r".*(id|count|counter|rev|version|code|uptime|port|channel|number|index)", re.IGNORECASE)
_EPOCHS: Final = (("epoch_s", 10**9), ("epoch_ms", 10**12), ("epoch_us", 10**15), ("epoch_ns", 10**18))
_UNIT: Final = re.compile(r"[-+0-9.]+( \D{1,11}|[%°][a-zA-Z]*|[kmMG]?(W|Wh|V|A|VA|Hz|Pa)|lux|lx|ppm|hPa|km/h|m/s|kg)")
_EXACT_IN_DOUBLE: Final = 2**53


def is_time_name(name: str) -> bool:
    """Return True for the name of a property that probably holds the time of an event."""
    return _TIME_NAMES.fullmatch(name) is not None


def declare_type(name: str, values: Sequence[Any]) -> Declaration | None:
    """Return the type of a property with these values, None if they have none in common."""
    known = [value for value in values if value is not None]
    kinds = set(map(type, known))
    if not known:
        return None
    if kinds == {bool}:
        return "bool"
    if kinds == {str}:
        return _declare_text(name, known)
    if kinds == {list}:
        return "list"
    if kinds <= {int, float}:
        return _declare_number(name, known)
    return None


def _declare_number(name: str, values: Sequence[Any]) -> Declaration | None:
    """Return a time's format, or float, which later fractions fit too; int for counts and what a double cannot hold."""
    if is_time_name(name) or _TIME_ENDS.fullmatch(name):
        for unit, least in _EPOCHS:
            if all(least <= value < 5 * least for value in values):
                return {"type": "datetime", "format": unit}
    is_whole = all(isinstance(value, int) and abs(value) < 2**63 for value in values)
    if is_whole and (_WHOLE.fullmatch(name) or max(map(abs, values)) > _EXACT_IN_DOUBLE):
        return "int"
    return "float" if max(map(abs, values)) <= _EXACT_IN_DOUBLE else None


def _declare_text(name: str, values: Sequence[str]) -> Declaration:
    if _all_have_type("datetime", values):
        return "datetime"
    candidates = [] if _IDENTIFIERS.fullmatch(name) else [*_number_candidates(values)]
    return next(iter((*candidates, *_state_candidates(values))), "str")


def _number_candidates(values: Sequence[str]) -> Iterator[Declaration]:
    """Yield how to read text as numbers."""
    for option in ("text", "comma"):
        if all(read_number({option}, value.strip()) is not None for value in values):
            yield {"type": "float", option: True}
    units = {found[1].strip() if (found := _UNIT.fullmatch(value.strip())) else None for value in values}
    unit = units.pop() if len(units) == 1 else None
    if unit and all(read_number({"text"}, value.strip().removesuffix(unit).strip()) is not None for value in values):
        yield {"type": "float", "unit": unit}


def _state_candidates(values: Sequence[str]) -> Iterator[Declaration]:
    """Yield how to read two words as true and false; one of them may not have been heard yet."""
    spellings = set(values)
    for words in _STATES:
        for spell in (str.lower, str.capitalize, str.upper):
            true, false = map(spell, words)
            if spellings <= {true, false}:
                yield {"type": "bool", True: [true], False: [false]}


def _all_have_type(declaration: Declaration, values: Sequence[Any]) -> bool:
    """Return True if an entity finds that all values have a type."""
    entity = Entity.inline({"value": declaration})
    return not any(entity.structure({"value": value})[1] for value in values)


def declare_object(objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return an entity for objects: their properties that have one type each, also those of objects in them."""
    declared: dict[str, Any] = {}
    for key in dict.fromkeys(key for one in objects for key in one):
        values = [one[key] for one in objects if key in one]
        if not key or not key.isprintable():
            continue
        if all(isinstance(value, dict) for value in values):
            inner = declare_object(values)
            found: Any = {**inner, "type": {"type": inner["type"]}} if isinstance(inner.get("type"), str) else inner
        else:
            found = declare_type(key, values)
        if found:
            declared[key] = found
    return declared
