"""The expected records of a history, computed in plain Python without any of the code that stores it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import attrs

from amqtt_db.record import Record, split_path
from amqtt_db.testing.history import Data, Sent, Setting

Keys = tuple[str | None, ...]
"""The keys that lead to a value in a payload; ``(None, name)`` for a named level of the topic."""

Value = tuple[str, Any]
"""(kind, value)."""

KIND_OF_DECLARED: Final[Mapping[str, str]] = {
    "any": "json",
    "bool": "bool",
    "bytes": "bytes",
    "date": "date",
    "datetime": "datetime",
    "decimal": "decimal",
    "dict": "json",
    "float": "number",
    "int": "int64",
    "list": "json",
    "str": "text",
    "time": "time",
    "uuid": "uuid",
}
"""Name of a declared type → kind."""

_KIND_OF_PYTHON: Final[Mapping[type, str]] = {
    bool: "bool",
    float: "number",
    str: "text",
    bytes: "bytes",
    datetime: "datetime",
    date: "date",
    time: "time",
    Decimal: "decimal",
    UUID: "uuid",
    list: "json",
    dict: "json",
}
_EXACT: Final = 9_007_199_254_740_992  # up to here every integer is a double
_DEEP: Final = 16  # levels of keys; anything deeper stays one JSON value
_MOST_SHOWN: Final = 5  # differences in a message


@attrs.frozen
class Told:
    """A record as plain data; equal records have equal data."""

    id: int
    part: int
    time: int
    topic: str
    session: int | None
    qos: int
    retain: bool
    values: Mapping[Keys, Value] = attrs.field(eq=False)


def expected(sent: Sent, number: int, position: int, setting: Setting) -> list[Told]:
    """Return the expected records of the message at ``position`` of generation ``number``."""
    levels = _levels(sent.topic, setting.filter)
    return [
        Told(
            id=number * 2**40 + position,
            part=part,
            time=sent.time,
            topic=sent.topic,
            session=number * 2**40 + sent.session if sent.session else None,
            qos=sent.qos,
            retain=sent.retain,
            values={**dict(_typed(data, setting)), **levels},
        )
        for part, data in enumerate(sent.parts)
    ]


def _levels(topic: str, text: str) -> Mapping[Keys, Value]:
    names = zip(text.split("/"), topic.split("/"), strict=False)
    return {(None, name[1:-1]): ("text", level) for name, level in names if name.startswith("{")}


def _typed(data: Data, setting: Setting) -> Iterator[tuple[Keys, Value]]:
    """Return declared values under their declared kinds if their types fit; all others under their own."""
    for name, value in data.items():
        declared = setting.entity.get(name)
        if declared is None:
            yield from ((keys, natural(leaf)) for keys, leaf in leaves({name: value}))
        elif value is not None:
            yield (name,), (KIND_OF_DECLARED[declared], value) if is_of(declared, value) else natural(value)


def leaves(data: Data, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield the present values of nested objects with their keys; empty and very deep objects are values."""
    for key, value in data.items():
        keys = (*above, key)
        if isinstance(value, dict) and value and len(keys) < _DEEP:
            yield from leaves(value, keys)
        elif value is not None:
            yield keys, value


def natural(value: Any) -> Value:
    """Return the kind of an undeclared value, and the value as it reads back: small integers are doubles."""
    if type(value) is not int:
        return _KIND_OF_PYTHON[type(value)], value
    if abs(value) <= _EXACT:
        return "number", float(value)
    return "int64" if -(2**63) <= value < 2**63 else "bigint", value


def is_of(declared: str, value: Any) -> bool:
    """Return True if a generated value has the type of its declared property."""
    if declared == "any":
        return True
    if declared == "int":
        return type(value) is int
    python = {"list": list, "dict": dict}.get(declared)
    return type(value) is python if python else _KIND_OF_PYTHON.get(type(value)) == KIND_OF_DECLARED[declared]


def told(record: Record) -> Told:
    """Return a record, as read, as plain data."""
    values: dict[Keys, Value] = {}
    for (path, kind), value in zip(record.shape.properties, record.values, strict=True):
        keys: Keys = (None, path[1:-1]) if path.startswith("{") else split_path(path)
        require(value is None or keys not in values, f"record {record.id}.{record.part} has {path!r} twice")
        if value is not None:
            values[keys] = kind, value
    envelope = (record.id, record.part, record.time_us, record.topic, record.session, record.qos, record.retain)
    return Told(*envelope, values)


def same(left: Any, right: Any) -> bool:
    """Return True if equal; distinguishes 1, 1.0 and True, 0.0 and −0.0, 1.0 and 1.00; NaN equals NaN."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, (float, Decimal)):
        return repr(left) == repr(right)
    if isinstance(left, (datetime, time)):
        return left == right and (left.tzinfo is None) == (right.tzinfo is None)
    return bool(left == right)


def differences(wanted: Iterable[Told], found: Iterable[Told]) -> list[str]:
    """Return sentences about lost, doubled, unexpected or changed records; empty if both are equal in any order."""
    rest = {(one.id, one.part): one for one in wanted}
    seen: set[tuple[int, int]] = set()
    sentences: list[str] = []
    for one in found:
        key = (one.id, one.part)
        if key in rest:
            sentences += _changes(rest.pop(key), one)
        else:
            sentences.append(f"{_name(one)} {'was read twice' if key in seen else 'was never sent'}")
        seen.add(key)
    return [*sentences, *(f"{_name(one)} is lost" for one in rest.values())]


def _name(one: Told) -> str:
    return f"record {one.id % 2**40}.{one.part} of {one.topic!r}"


def _changes(wanted: Told, found: Told) -> Iterator[str]:
    for field in attrs.fields(Told):
        before, after = getattr(wanted, field.name), getattr(found, field.name)
        if field.eq and not same(before, after):
            yield f"{_name(wanted)}: {field.name} was {before!r}, is {after!r}"
    for keys in sorted({*wanted.values, *found.values}, key=repr):
        before, after = wanted.values.get(keys, "absent"), found.values.get(keys, "absent")
        if not same(before, after):
            yield f"{_name(wanted)}: property {keys!r} was {before!r}, is {after!r}"


def require_same(wanted: Iterable[Told], found: Iterable[Told], reasons: Sequence[str] = ()) -> None:
    """Raise AssertionError with the differences of two lists of records; ``reasons`` may explain them."""
    sentences = differences(wanted, found)
    more = [f"and {len(sentences) - _MOST_SHOWN} more"] if len(sentences) > _MOST_SHOWN else []
    require(not sentences, "\n".join([*sentences[:_MOST_SHOWN], *more, *reasons]))


def require(holds: bool, otherwise: str) -> None:
    """Raise AssertionError with a sentence unless the condition holds."""
    if not holds:
        raise AssertionError(otherwise)
