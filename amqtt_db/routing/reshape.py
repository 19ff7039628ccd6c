"""What a route changes in plain data before it is typed: lift, drop and rename properties, and read text as values.

All functions are pure.  A message here is what its decoder returned: an object, or a single value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import cached_property
from string import Formatter
from typing import Any, Final
from zoneinfo import ZoneInfo

import attrs

from amqtt_db.record import escape, split_path
from amqtt_db.routing.readings import Reading, read_number

_LOCAL_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?", re.ASCII).fullmatch
_OUTSIDE: Final = "outside"


@attrs.frozen
class Pairs:
    """A list of objects, each with a name and a value: the path of the list, and the two keys."""

    path: tuple[str, ...]
    name: str = "name"
    value: str = "value"


@attrs.frozen
class Reshaping:
    """What a route changes in its messages.

    The properties of the object at ``root`` become the message's own.  ``pairs`` makes properties of a list.
    ``property`` makes the message one property, named by levels of its topic: ``{kind}.{name}``.

    In each record, properties whose paths match a pattern in ``drop`` are left out, and those in ``rename`` get another
    path.  Text in ``booleans`` becomes true or false.  With ``numbers``, text that is a number becomes a number: also
    with a comma if ``numbers`` has ``comma``, and followed by a unit, which is dropped, if it has ``unit``.  Dates with
    times but no zone get the offset of ``timezone``.  ``readings`` says how declared properties are read, by the keys
    that lead to them.
    """

    root: tuple[str, ...] = ()
    pairs: Pairs | None = None
    property: str | None = None
    drop: tuple[str, ...] = ()
    rename: Mapping[str, str] = attrs.field(factory=dict)
    booleans: Mapping[str, bool] = attrs.field(factory=dict)
    numbers: frozenset[str] = frozenset()
    timezone: ZoneInfo | None = None
    readings: Mapping[tuple[str, ...], Reading] = attrs.field(factory=dict)

    @cached_property
    def changes_messages(self) -> bool:
        """True if :func:`reshape_message` changes anything."""
        return bool(self.root or self.pairs or self.property)

    @cached_property
    def changes_records(self) -> bool:
        """True if :func:`reshape_record` changes anything."""
        return bool(self.drop or self.rename or self.booleans or self.numbers or self.timezone or self.readings)

    @cached_property
    def dropped(self) -> re.Pattern[str]:
        """The paths to leave out: ``*`` matches any text, and everything below a path is left out too."""
        patterns = (re.escape(path).replace(r"\*", ".*") for path in self.drop)
        return re.compile("|".join(f"(?:{pattern})" for pattern in patterns) or r"(?!)")


def reshape_message(reshaping: Reshaping, levels: Mapping[str, str], data: Any) -> Any:
    """Return a message as its route reshapes it, given the named levels of its topic."""
    if isinstance(data, Mapping):
        if reshaping.root:
            data = _lift(data, reshaping.root)
        if reshaping.pairs is not None:
            data = _spell_out(data, reshaping.pairs)
    if reshaping.property is not None:
        for part in reversed(reshaping.property.split(".")):
            data = {part.format_map(levels): data}
    return data


def reshape_record(reshaping: Reshaping, data: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's object as its route reshapes it."""
    edited = _edit(reshaping, data, "")
    for old, new in reshaping.rename.items():
        edited = _rename(edited, split_path(old), split_path(new))
    for keys, reading in reshaping.readings.items():
        value = find(edited, reading.source)
        if value is not None:
            edited = replaced(without(edited, reading.source), keys, reading.read(value))
    return edited


def names_in(template: str | None) -> frozenset[str]:
    """Return the names of the levels in a property's name."""
    return frozenset(name for _, name, _, _ in Formatter().parse(template or "") if name)


def hoist(outer: Mapping[str, Any], inner: Mapping[str, Any]) -> dict[str, Any]:
    """Return an object with the properties of both; if a name is in both, that of ``outer`` goes under ``outside``."""
    clashing = {name: value for name, value in outer.items() if name in inner}
    others = {name: value for name, value in outer.items() if name not in inner}
    if not clashing:
        return {**others, **inner}
    return {**others, **inner, free_name(_OUTSIDE, {**others, **inner}): clashing}


def free_name(name: str, taken: Mapping[str, Any]) -> str:
    """Return ``name``, with as many underscores added as it takes to differ from all taken names."""
    while name in taken:
        name += "_"
    return name


def without(data: Mapping[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    """Return an object without the property that the keys lead to, and without objects that this leaves empty."""
    first, *rest = keys
    others = {name: value for name, value in data.items() if name != first}
    if not rest or not isinstance(data.get(first), Mapping):
        return others
    inner = without(data[first], rest)
    return {name: inner if name == first else value for name, value in data.items()} if inner else others


def find(data: Any, keys: Sequence[str]) -> Any:
    """Return the value that the keys lead to, or None."""
    for key in keys:
        if not isinstance(data, Mapping) or key not in data:
            return None
        data = data[key]
    return data


def replaced(data: Mapping[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    """Return an object with another value where the keys lead."""
    first, *rest = keys
    inner = data.get(first)
    below = replaced(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value
    return {**data, first: below}


def _lift(data: Mapping[str, Any], root: Sequence[str]) -> Mapping[str, Any]:
    """Make the properties of the object at ``root`` the message's own; without such an object nothing changes."""
    inner = find(data, root)
    return hoist(without(data, root), inner) if isinstance(inner, Mapping) else data


def _spell_out(data: Mapping[str, Any], pairs: Pairs) -> Mapping[str, Any]:
    """Turn a list of names and values into properties; items that are not such a pair, or repeat a name, stay in it."""
    items = find(data, pairs.path)
    if not isinstance(items, list):
        return data
    named: dict[str, Any] = {}
    left: list[Any] = []
    for item in items:
        found = _properties_of(item, pairs)
        if found and named.keys().isdisjoint(found):
            named.update(found)
        else:
            left.append(item)
    rest = replaced(data, pairs.path, left) if left else without(data, pairs.path)
    return hoist(rest, named)


def _properties_of(item: Any, pairs: Pairs) -> dict[str, Any]:
    """Return the properties from a pair: its value, and one for each further key; none if it is not a pair."""
    if not isinstance(item, Mapping) or pairs.value not in item or not isinstance(item.get(pairs.name), str):
        return {}
    name = item[pairs.name]
    more = {f"{name}_{key}": value for key, value in item.items() if key not in (pairs.name, pairs.value)}
    return {name: item[pairs.value], **more}


def _edit(reshaping: Reshaping, data: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return an object without what is dropped, and with text read as values."""
    result: dict[str, Any] = {}
    for key, value in data.items():
        path = prefix + escape(key) if isinstance(key, str) else prefix
        if reshaping.dropped.fullmatch(path):
            continue
        if isinstance(value, str):
            result[key] = read_text(reshaping, value)
        elif isinstance(value, Mapping) and value:
            inner = _edit(reshaping, value, f"{path}.")
            if inner:
                result[key] = inner
        else:
            result[key] = value
    return result


def read_text(reshaping: Reshaping, text: str) -> Any:
    """Return what a text means on a route: a boolean, a number, a time with its offset, or itself."""
    if text in reshaping.booleans:
        return reshaping.booleans[text]
    if reshaping.numbers:
        number = read_number(reshaping.numbers, text.strip())
        if number is not None:
            return number
    if reshaping.timezone is not None and _LOCAL_TIME(text):
        return _with_offset(reshaping.timezone, text)
    return text


def _with_offset(zone: ZoneInfo, text: str) -> str:
    """Add a zone's offset at a local time; if the time occurs twice in autumn, the first one."""
    try:
        offset = datetime.fromisoformat(text[:19]).replace(tzinfo=zone).strftime("%z")
    except ValueError:  # there is no such day or hour
        return text
    return f"{text}{offset[:3]}:{offset[3:5]}"


def _rename(data: dict[str, Any], old: Sequence[str], new: Sequence[str]) -> dict[str, Any]:
    """Give a property another path, unless it is absent or the path is taken."""
    value = find(data, old)
    if value is None or find(data, new) is not None:
        return data
    return replaced(without(data, old), new, value)
