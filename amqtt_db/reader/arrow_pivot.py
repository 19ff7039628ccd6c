"""Sparse values as whole Arrow columns, and rows of values turned into a column for each property."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from amqtt_db import tagged
from amqtt_db.models.base import Cell
from amqtt_db.reader.arrow_types import Integers, make_fitting
from amqtt_db.record import Kind, Pair, restored

Sparse: TypeAlias = "dict[Pair, tuple[list[Any], list[int]]]"
"""Values by pair, with their rows."""


def note_value(found: Sparse, pair: Pair, value: Any, row: int) -> None:
    """Add a value."""
    values, rows = found.setdefault(pair, ([], []))
    values.append(value)
    rows.append(row)


def add_sparse(whole: dict[Pair, pa.Array], count: int, found: Sparse) -> None:
    """Add values to columns of ``count`` rows."""
    for pair, (values, rows) in found.items():
        for fitting, (there, array) in make_fitting(pair, values, rows).items():
            _merge_values(whole, count, fitting, np.asarray(there, np.int64), array)


def _merge_values(whole: dict[Pair, pa.Array], count: int, pair: Pair, rows: Integers, values: pa.Array) -> None:
    column = _scatter(count, rows, values)
    whole[pair] = pc.coalesce(whole[pair], column) if pair in whole else column


def _scatter(count: int, rows: Integers, values: pa.Array) -> pa.Array:
    """Return a column of ``count`` rows that has values at some rows, and nulls elsewhere."""
    if len(rows) == count and (rows[1:] > rows[:-1]).all():
        return values
    source = np.full(count, -1, np.int64)
    source[rows] = np.arange(len(rows))
    return values.take(pa.array(source, mask=source < 0))


def present_in(column: pa.Array) -> Iterator[tuple[int, Any]]:
    """Yield the index and the value of each element that is not null."""
    if column.null_count < len(column):
        indexes = np.flatnonzero(_validity(column))
        yield from zip(indexes.tolist(), column.take(pa.array(indexes)).to_pylist(), strict=True)


def _validity(column: pa.Array) -> Integers:
    return column.is_valid().to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


def pivot(
    whole: dict[Pair, pa.Array],
    messages: Mapping[Cell, pa.Array],
    values: Mapping[Cell, pa.Array],
    paths: tuple[Sequence[str], Integers],
    kinds: Mapping[Cell, Kind],
    exact: str | None,
) -> None:
    """Add rows of values to columns, which have a row for each message.

    ``paths`` are those of the properties, and for each row the index of its own.  Messages and values have columns
    ``id`` and ``part``; the others of the values are named with their ``kinds``.  Where the column ``exact`` has a
    value, only that counts.
    """
    count, rows = len(messages["id"]), _find_rows(messages, values)
    is_wanted = rows >= 0
    is_near = is_wanted & ~_validity(values[exact]) if exact else is_wanted
    for name, column in values.items():
        if name not in {"id", "part"} and column.null_count < len(column):
            there = np.flatnonzero(_validity(column) & (is_wanted if name == exact else is_near))
            for number, some in _by_number(paths[1], there):
                for pair, at, array in _restored_values((paths[0][number], kinds[name]), column.take(pa.array(some))):
                    _merge_values(whole, count, pair, rows[some][at], array)


def _restored_values(pair: Pair, column: pa.Array) -> Iterator[tuple[Pair, Any, pa.Array]]:
    """Yield values, none of them null, by the pair that they have; with the indexes of its values."""
    path, kind = pair
    if kind != "tagged":
        yield pair, slice(None), column
        return
    encoded = column.dictionary_encode()
    found: Sparse = {}
    for code, text in enumerate(encoded.dictionary.to_pylist()):  # the same texts are often there many times
        note_value(found, *restored(path, tagged.loads(text)), code)
    for one, (different, codes) in found.items():
        for fitting, (chosen, array) in make_fitting(one, different, codes).items():
            places = np.full(len(encoded.dictionary), -1)
            places[chosen] = np.arange(len(chosen))
            where = places[encoded.indices.to_numpy()]
            at = np.flatnonzero(where >= 0)
            yield fitting, at, array.take(pa.array(where[at]))


def _by_number(numbers: Integers, indexes: Integers) -> Iterator[tuple[int, Any]]:
    """Yield each number among those at some indexes, with the indexes that have it."""
    found = numbers[indexes]
    if len(found) and found.max() < 2**15:
        found = found.astype(np.int16)  # which NumPy sorts several times faster
    order = np.argsort(found, kind="stable")
    ordered = found[order]
    starts = np.flatnonzero(ordered[1:] != ordered[:-1]) + 1
    for some in np.split(indexes[order], starts):
        if len(some):
            yield int(numbers[some[0]]), some


def _find_rows(messages: Mapping[Cell, pa.Array], values: Mapping[Cell, pa.Array]) -> np.ndarray[Any, Any]:
    """Return the row of its message for each row of values, −1 for a value without one.

    Messages are sorted by id and part.
    """
    if not len(messages["id"]):
        return np.full(len(values["id"]), -1)
    (id_, part), (of_id, of_part) = ([some[name].to_numpy() for name in ("id", "part")] for some in (messages, values))
    parts = int(part.max()) + 1
    if parts > 1:
        ids = np.unique(id_)
        at = np.searchsorted(ids, of_id).clip(max=len(ids) - 1)
        of_id = np.where((ids[at] == of_id) & (of_part < parts), at * parts + of_part, -1)
        id_ = np.searchsorted(ids, id_) * parts + part
    rows = np.searchsorted(id_, of_id).clip(max=len(id_) - 1)
    return np.where((id_[rows] == of_id) & (of_part < parts), rows, -1)
