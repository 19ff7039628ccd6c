"""Kinds: the types that values, and so columns, can have."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from numbers import Integral, Rational, Real
from typing import Any, Final, Literal, get_args
from uuid import UUID

import attrs

Kind = Literal[
    "bool", "number", "int64", "bigint", "text", "bytes", "datetime", "date", "time", "decimal", "uuid", "json",
    "tagged", "timestamp",
]  # fmt: skip
"""The types of the project.

Two of them never belong to a declared property: ``tagged`` keeps a value that its own kind's column would not return
exactly, and ``timestamp`` is a time given as microseconds since 1970 (UTC), as envelopes carry it.
"""

Pair = tuple[str, Kind]
"""A property's path and the kind of its value; each pair can have a column."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

EXACT: Final = 2**53  # beyond it, not every integer is a double
MAX_DIGITS: Final = 4300  # of an integer: Python does not write longer ones as text
_TOO_LONG: Final = 10**MAX_DIGITS

KIND_OF_TYPE: Final[Mapping[type, Kind]] = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "text",
    bytes: "bytes",
    datetime: "datetime",
    date: "date",
    time: "time",
    Decimal: "decimal",
    UUID: "uuid",
    list: "json",
    tuple: "json",
    dict: "json",
}

_RESEMBLANCES: Final[Sequence[tuple[Any, Callable[[Any], Any]]]] = (
    (str, str.__str__),
    (bytes, bytes),
    ((bytearray, memoryview), bytes),
    (datetime, lambda value: datetime.combine(value.date(), value.timetz())),
    (date, lambda value: date(value.year, value.month, value.day)),
    (Decimal, Decimal),
    (UUID, lambda value: UUID(int=value.int)),
    (Integral, int),
    (Rational, lambda value: value),
    (Real, float),
)
"""Types, and how an instance of a similar type is converted to one of the project's."""


def kind_of(value: object) -> Kind | None:
    """Return the kind of an undeclared value, None for None; integers beyond ±2⁵³ are ``int64`` or ``bigint``.

    Raises TypeError for a value that has none of the project's types, ValueError for an integer with too many digits.
    """
    if value is None:
        return None
    kind = KIND_OF_TYPE.get(type(value))
    if kind is None:
        raise TypeError(f"a {type(value).__name__} cannot be stored")
    if type(value) is int and not -EXACT <= value <= EXACT:
        return "int64" if -(2**63) <= value < 2**63 else _bigint(value)
    return kind


def _bigint(value: int) -> Kind:
    if abs(value) >= _TOO_LONG:
        raise ValueError(f"an integer has more than {MAX_DIGITS} digits")
    return "bigint"


def as_plain(value: Any) -> Any:
    """Return a value of a similar type, and everything in it, converted to the project's types.

    Similar are subclasses, such as an ``IntEnum`` or an ``OrderedDict``, any other mapping, and numpy's numbers.
    Anything else is returned unchanged.
    """
    if isinstance(value, Mapping):
        return {str.__str__(key) if isinstance(key, str) else key: as_plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(inner) for inner in value]
    if type(value) in KIND_OF_TYPE:
        return value
    return next((make(value) for base, make in _RESEMBLANCES if isinstance(value, base)), value)


def natural_kind(value: Any) -> tuple[Kind, Any]:
    """Return the kind that a value has by itself, and the value as a column of that kind returns it."""
    kind = kind_of(value) or "json"
    return kind, float(value) if kind == "number" else value


@attrs.frozen
class TaggedValue:
    """A value whose kind cannot be told from the value alone, such as a declared ``int64`` of 5."""

    kind: Kind
    value: Any


def tag(kind: Kind, value: Any) -> Any:
    """Return ``value``, wrapped only if its kind could not be told from it.

    A ``tagged`` value is never wrapped, nor is an integer whose kind is still ``number``.
    """
    is_natural = kind == "tagged" or (kind == "number" and type(value) is int) or kind_of(value) == kind
    return value if is_natural else TaggedValue(kind, value)


def restored(path: str, value: Any) -> tuple[Pair, Any]:
    """Return the pair and the value of a property that :func:`tag` prepared for JSON."""
    if isinstance(value, TaggedValue):
        return (path, value.kind), value.value
    kind, value = natural_kind(value)
    return (path, kind), value
