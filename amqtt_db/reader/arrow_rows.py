"""The columns of a query as Arrow arrays.

PostgreSQL copies them.  Other databases return rows: some hundred at a time, so that they are still in the processor's
cache when they are turned into columns.  Each column of these is packed, which takes less time than an array of Arrow,
and becomes one at the end.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, TypeAlias

import attrs
import numpy as np
import pyarrow as pa
import sqlalchemy as sa

from amqtt_db.database.engines.base import Engine
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.reader.arrow_types import ARROW_TYPES, MOMENT, make_array, read_array
from amqtt_db.record import Kind

_ROWS_IN_CACHE: Final = 500
_ROWS_FROM_SERVER: Final = 20 * _ROWS_IN_CACHE  # fetched at a time, for each of them is a round trip


def fetch_columns(
    snapshot: Snapshot, query: sa.Select[Any], parameters: Mapping[str, Any], kinds: Sequence[Kind]
) -> list[pa.Array]:
    """Return the columns of a query's rows, given the kinds of their values.

    Raises an error of Arrow, of the driver or of Python for a value that its column's kind does not allow.
    """
    targets = [MOMENT if kind == "timestamp" else ARROW_TYPES[kind] for kind in kinds]
    copied = _copy_parts(snapshot, query, parameters, kinds)
    if copied is not None:
        return [pa.chunked_array(parts, target).combine_chunks() for parts, target in zip(copied, targets, strict=True)]
    parts = _pack_rows(snapshot, query, parameters, kinds)
    return [_join_parts(some, target) for some, target in zip(parts, targets, strict=True)]


# copied


def _copy_parts(
    snapshot: Snapshot, query: sa.Select[Any], parameters: Mapping[str, Any], kinds: Sequence[Kind]
) -> Sequence[Sequence[pa.Array]] | None:
    """Return columns in parts, as PostgreSQL sends them; None if it cannot."""
    if snapshot.connection.dialect.name != "postgresql":
        return None
    from amqtt_db.reader.arrow_copy import copy_columns  # noqa: PLC0415 - which needs psycopg

    found = copy_columns(snapshot.connection, query, parameters, kinds)
    return found and [[_in_own_form(kind, part) for part in parts] for kind, parts in zip(kinds, found, strict=True)]


def _in_own_form(kind: Kind, column: pa.Array) -> pa.Array:
    """Return a column in this project's form, given the server's."""
    if kind not in _WRITTEN_DIFFERENTLY or column.null_count == len(column):
        return column
    values = [None if one is None else one[1] for one in read_array(("", kind), column)]
    return make_array(kind, values)


_WRITTEN_DIFFERENTLY: Final[frozenset[Kind]] = frozenset({"bigint", "decimal", "json"})


# made of rows


@attrs.frozen
class _Same:
    """An integer, several times."""

    value: int
    count: int


_Part: TypeAlias = "pa.Array | array[Any] | bytes | str | _Same"
"""Some values of a column.

Apart from Arrow's: numbers, booleans as bytes, or times as texts of the same length, one behind the other.
"""

_Pack = Callable[[Sequence[Any]], _Part]

_MOMENT_LENGTH: Final = len("2026-01-31 12:00:00.000000")


def _pack_rows(
    snapshot: Snapshot, query: sa.Select[Any], parameters: Mapping[str, Any], kinds: Sequence[Kind]
) -> list[list[_Part]]:
    """Return columns in parts, made of the driver's rows."""
    packers = [_PACKED.get(kind) or _decoding(snapshot.engine, kind) for kind in kinds]
    parts: list[list[_Part]] = [[] for _ in kinds]
    for rows in _fetch_blocks(snapshot, query, parameters):
        for pack, column, found in zip(packers, zip(*rows, strict=True), parts, strict=True):
            found.append(pack(column))
    return parts


def _fetch_blocks(
    snapshot: Snapshot, statement: sa.Select[Any], parameters: Mapping[str, Any]
) -> Iterator[Sequence[Any]]:
    """Yield the rows of a query, some hundred at a time, without having all of them in memory."""
    if snapshot.connection.dialect.name == "sqlite":  # its driver has no rows before they are asked for
        with snapshot.connection.execute(statement, parameters) as result:
            while rows := result.cursor.fetchmany(_ROWS_IN_CACHE):
                yield rows
        return
    options = {"stream_results": True, "max_row_buffer": _ROWS_FROM_SERVER}
    with snapshot.connection.execute(statement, parameters, execution_options=options) as streamed:
        while some := streamed.fetchmany(_ROWS_IN_CACHE):
            yield some


def _decoding(engine: Engine, kind: Kind) -> _Pack:
    """Return what packs a column of a kind after decoding its values."""
    decode = engine.decoders.get(kind)

    def pack(column: Sequence[Any]) -> _Part:
        if column.count(None) == len(column):
            return pa.nulls(len(column))
        decoded = column if decode is None else [None if value is None else decode(value) for value in column]
        return make_array(kind, decoded)

    return pack


def _pack_numbers(column: Sequence[Any]) -> _Part:
    """Pack doubles, and integers among them.  Unlike Arrow, ``array`` takes nothing else."""
    try:
        return array("d", column)
    except TypeError:  # there is a None
        return _infer(column, pa.float64(), pa.int64())


def _pack_integers(column: Sequence[Any]) -> _Part:
    first = column[0]
    if type(first) is int and first == column[-1] and column.count(first) == len(column):
        return _Same(first, len(column))
    try:
        return array("q", column)
    except TypeError:
        return _infer(column, pa.int64())


def _pack_bools(column: Sequence[Any]) -> _Part:
    try:
        return bytes(column)
    except (TypeError, ValueError):
        return _infer(column, pa.bool_(), pa.int64())


def _pack_bytes(column: Sequence[Any]) -> _Part:
    return _infer(column, pa.binary())


def _infer(column: Sequence[Any], *allowed: pa.DataType) -> pa.Array:
    """Let Arrow find the type, which must be one of these.  Raises ValueError for another one."""
    found = pa.nulls(len(column)) if column.count(None) == len(column) else pa.array(column)
    if found.type not in (*allowed, pa.null()):
        raise ValueError(f"a column holds a {found.type}")
    return found


def _pack_texts(column: Sequence[Any]) -> _Part:
    """Pack texts; bytes among them become texts."""
    return pa.nulls(len(column)) if column.count(None) == len(column) else pa.array(column, pa.string())


def _pack_moments(column: Sequence[Any]) -> _Part:
    """Pack times that are texts, or datetimes in UTC with or without saying so."""
    first = next((value for value in column if value is not None), None)
    if first is None:
        return pa.nulls(len(column))
    if not isinstance(first, str):
        return pa.array(column, MOMENT)
    try:
        joined = "".join(column)
    except TypeError:  # there is a None
        return pa.array(column, pa.string())
    return joined if len(joined) == _MOMENT_LENGTH * len(column) else pa.array(column, pa.string())


_PACKED: Final[Mapping[Kind, _Pack]] = {
    "bool": _pack_bools,
    "number": _pack_numbers,
    "int64": _pack_integers,
    "text": _pack_texts,
    "bytes": _pack_bytes,
    "datetime": _pack_moments,
    "timestamp": _pack_moments,
    "tagged": _pack_texts,
}
"""Kinds whose values need no decoding."""


def _join_parts(parts: Sequence[_Part], target: pa.DataType) -> pa.Array:
    """Return a whole column of a type."""
    joined = [_JOINERS.get(form, pa.concat_arrays)(list(some)) for form, some in groupby(parts, type)]
    return pa.chunked_array([_as_type(one, target) for one in joined], target).combine_chunks()


def _as_type(column: pa.Array, target: pa.DataType) -> pa.Array:
    if column.type == pa.string() and target == MOMENT:
        column = column.cast(pa.timestamp("us"))  # without a zone, or it fails
    return column.cast(target)


def _join_packed(parts: Sequence[array[Any]]) -> pa.Array:
    packed = b"".join(parts)
    kind = pa.float64() if parts[0].typecode == "d" else pa.int64()
    return pa.Array.from_buffers(kind, len(packed) // 8, [None, pa.py_buffer(packed)])


def _join_bools(parts: Sequence[bytes]) -> pa.Array:
    return pa.array(np.frombuffer(b"".join(parts), np.uint8) != 0)


def _join_moments(parts: Sequence[str]) -> pa.Array:
    """Return texts of the same length; where one is not, Arrow does not take them for times."""
    texts = "".join(parts).encode()
    bounds = np.arange(0, len(texts) + 1, _MOMENT_LENGTH, dtype=np.int32)
    return pa.Array.from_buffers(pa.string(), len(bounds) - 1, [None, pa.py_buffer(bounds), pa.py_buffer(texts)])


def _join_same(parts: Sequence[_Same]) -> pa.Array:
    return pa.array(np.repeat([part.value for part in parts], [part.count for part in parts]), pa.int64())


_JOINERS: Final[Mapping[type, Callable[[Sequence[Any]], pa.Array]]] = {
    array: _join_packed,
    bytes: _join_bools,
    str: _join_moments,
    _Same: _join_same,
}
