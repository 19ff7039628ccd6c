"""Kinds as Arrow types: arrays of values, and the values back.

Decimals, integers beyond 64 bits and UUIDs are text, lists and other JSON are tagged JSON text: Arrow has no type that
keeps each of them exactly.  A value that its kind's type cannot hold, such as a time with a zone, has the kind
``tagged``: it is JSON text as :mod:`amqtt_db.tagged` describes it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, time, timezone
from decimal import Decimal
from typing import Any, Final, TypeAlias
from uuid import UUID

import numpy as np
import pyarrow as pa

from amqtt_db import tagged
from amqtt_db.record import Kind, Pair, restored, tag

MOMENT: Final = pa.timestamp("us", "UTC")

Integers: TypeAlias = "np.ndarray[Any, Any]"

ARROW_TYPES: Final[Mapping[Kind, pa.DataType]] = {
    "bool": pa.bool_(),
    "number": pa.float64(),
    "int64": pa.int64(),
    "bigint": pa.string(),
    "text": pa.string(),
    "bytes": pa.binary(),
    "datetime": MOMENT,
    "date": pa.date32(),
    "time": pa.time64("us"),
    "decimal": pa.string(),
    "uuid": pa.string(),
    "json": pa.string(),
    "tagged": pa.string(),
}
"""The type of each kind's column."""


def _require_zone(value: datetime) -> datetime:
    """Return a datetime in UTC.  Raises ValueError for one without a zone, OverflowError for one out of range."""
    if value.tzinfo is None:
        raise ValueError
    return value.astimezone(timezone.utc)


def _require_no_zone(value: time) -> time:
    """Return a time.  Raises ValueError for one with a zone."""
    if value.tzinfo is not None:
        raise ValueError
    return value


_TO_ARROW: Final[Mapping[Kind, Callable[[Any], Any]]] = {
    "bigint": str,
    "datetime": _require_zone,
    "time": _require_no_zone,
    "decimal": str,
    "uuid": str,
    "json": tagged.dumps,
}
"""Kinds whose values Arrow does not take as they are."""

_FROM_ARROW: Final[Mapping[Kind, Callable[[Any], Any]]] = {
    "bigint": int,
    "datetime": lambda value: value.astimezone(timezone.utc),
    "decimal": Decimal,
    "uuid": UUID,
    "json": tagged.loads,
}


def make_array(kind: Kind, values: Sequence[Any]) -> pa.Array:
    """Return values of a kind, None for absent ones.  Raises what Arrow raises if one does not fit."""
    convert = _TO_ARROW.get(kind)
    if convert is not None:
        values = [None if value is None else convert(value) for value in values]
    return pa.array(values, ARROW_TYPES[kind])


def make_fitting(pair: Pair, values: Sequence[Any], rows: Sequence[int]) -> dict[Pair, tuple[Sequence[int], pa.Array]]:
    """Return values (none of them None) and their rows by the pair under which Arrow can hold them."""
    path, kind = pair
    try:
        return {pair: (rows, make_array(kind, values))}
    except (pa.ArrowException, ArithmeticError, TypeError, ValueError):
        pass
    fits = [_fits_arrow(kind, value) for value in values]
    odd = [tagged.dumps(tag(kind, value)) for value, fit in zip(values, fits, strict=True) if not fit]
    good = [value for value, fit in zip(values, fits, strict=True) if fit]
    found: dict[Pair, tuple[Sequence[int], pa.Array]] = {}
    found[path, "tagged"] = ([row for row, fit in zip(rows, fits, strict=True) if not fit], pa.array(odd))
    if good:
        found[pair] = [row for row, fit in zip(rows, fits, strict=True) if fit], make_array(kind, good)
    return found


def _fits_arrow(kind: Kind, value: Any) -> bool:
    try:
        make_array(kind, [value])
    except (pa.ArrowException, ArithmeticError, TypeError, ValueError):
        return False
    return True


def read_array(pair: Pair, array: pa.Array) -> list[tuple[Pair, Any] | None]:
    """Return the pair and the value of each element, None for nulls: the inverse of :func:`make_fitting`."""
    path, kind = pair
    values = array.to_pylist()
    if kind == "tagged":
        return [None if text is None else restored(path, tagged.loads(text)) for text in values]
    convert = _FROM_ARROW.get(kind)
    return [None if value is None else (pair, value if convert is None else convert(value)) for value in values]
