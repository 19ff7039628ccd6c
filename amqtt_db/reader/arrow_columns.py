"""Records as Arrow columns, straight from the tables where the model's layout says what their columns mean.

A model without a known layout, and a table with a value that its column's kind does not allow, are read
record by record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from amqtt_db import tagged
from amqtt_db.database.engines.base import driver_error
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.models.base import Cell, OwnColumns, ValueRows
from amqtt_db.models.wide import EXTRA
from amqtt_db.reader.arrow_rows import fetch_columns
from amqtt_db.reader.arrow_types import MOMENT, make_array, make_fitting
from amqtt_db.reader.columns import StoredTable
from amqtt_db.reader.keys import LookupCache
from amqtt_db.reader.path import RecordPath
from amqtt_db.reader.selection import Selection
from amqtt_db.reader.statement import bounded_statement, same_record
from amqtt_db.reader.walk import bounds_of, walk
from amqtt_db.record import ENVELOPE_NAMES, Kind, Pair, Record, restored

_PAGE_SIZE: Final = 2000  # records, where they are read one by one

_ENVELOPE_KINDS: Final[Mapping[str, Kind]] = {
    "id": "int64", "part": "int64", "time": "timestamp", "topic": "text", "session": "int64", "qos": "int64",
    "retain": "bool",
}  # fmt: skip

_ODD_VALUE: Final = (pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError)
"""What a value in a table raises that the project has not written."""


@attrs.frozen(eq=False)
class ColumnSet:
    """Records column by column: those of the envelope by name, and those of properties by pair."""

    envelope: Mapping[str, pa.Array]
    properties: Mapping[Pair, pa.Array]

    def __len__(self) -> int:
        return len(self.envelope["id"])


def read_arrow_columns(snapshot: Snapshot, keys: LookupCache, path: RecordPath, wanted: Selection) -> ColumnSet:
    """Return the records on a path, in any order.  Raises DatabaseError if one cannot be read."""
    read = _DIRECTLY.get(type(path.source.model.layout_read))
    if read is not None:
        try:
            return read(snapshot, keys, path, wanted)
        except (sa.exc.DBAPIError, snapshot.connection.dialect.loaded_dbapi.Error) as error:
            if not snapshot.engine.tolerate_values(snapshot.connection, driver_error(error)):
                raise
        except _ODD_VALUE:  # reading record by record copes with it, or says where it is
            pass
    return columns_of_records(list(walk(snapshot, keys, path, wanted, _PAGE_SIZE)))


def columns_of_records(records: Sequence[Record]) -> ColumnSet:
    """Return records column by column."""
    envelope = {
        name: _envelope_array(name, [getattr(record, field) for record in records])
        for name, field in zip(ENVELOPE_NAMES, _FIELDS, strict=True)
    }
    found: dict[Pair, tuple[list[Any], list[int]]] = {}
    for row, record in enumerate(records):
        for pair, value in zip(record.shape.properties, record.values, strict=True):
            if value is not None:
                values, rows = found.setdefault(pair, ([], []))
                values.append(value)
                rows.append(row)
    return ColumnSet(envelope, _make_whole(len(records), found))


_FIELDS: Final = tuple("time_us" if name == "time" else name for name in ENVELOPE_NAMES)


def _envelope_array(name: str, values: Sequence[Any]) -> pa.Array:
    kind = _ENVELOPE_KINDS[name]
    return pa.array(values, pa.int64()).cast(MOMENT) if kind == "timestamp" else make_array(kind, values)


def _make_whole(
    count: int,
    found: Mapping[Pair, tuple[Sequence[Any], Sequence[int]]],
    columns: Mapping[Pair, pa.Array] | None = None,
) -> dict[Pair, pa.Array]:
    """Return whole columns of ``count`` rows, made of sparse values and added to the given columns."""
    whole = dict(columns or {})
    for pair, (values, rows) in found.items():
        for fitting, (there, found_there) in make_fitting(pair, values, rows).items():
            column = _scatter(count, np.asarray(there, np.int64), found_there)
            whole[fitting] = pc.coalesce(whole[fitting], column) if fitting in whole else column
    return whole


def _scatter(count: int, rows: np.ndarray[Any, Any], values: pa.Array) -> pa.Array:
    """Return a column of ``count`` rows that has values at some rows, and nulls elsewhere."""
    if len(rows) == count and (rows[1:] > rows[:-1]).all():
        return values
    source = np.full(count, -1, np.int64)
    source[rows] = np.arange(len(rows))
    return values.take(pa.array(source, mask=source < 0))


# tables whose columns are properties


def _read_own_columns(snapshot: Snapshot, keys: LookupCache, path: RecordPath, wanted: Selection) -> ColumnSet:
    bounds, parameters = bounds_of(snapshot, path, wanted)
    query, main = bounded_statement(path.main, wanted.order, bounds), path.main
    cells: list[Cell] = [*ENVELOPE_NAMES, *(cell for cell in main.names if isinstance(cell, tuple) or cell == EXTRA)]
    columns = _fetch_arrays(snapshot, main, cells, query, parameters)
    envelope = _take_envelope(keys, main, columns)
    odd = {cell: columns.pop(cell) for cell in cells if cell == EXTRA or cell[1] == "tagged"}
    whole = _make_whole(len(envelope["id"]), _read_odd_values(odd), columns)  # type: ignore[arg-type]
    return ColumnSet(envelope, whole)


def _read_odd_values(columns: Mapping[Cell, pa.Array]) -> dict[Pair, tuple[list[Any], list[int]]]:
    """Return the values in columns of tagged JSON, and in the column for the rest, by pair, with their rows."""
    found: dict[Pair, tuple[list[Any], list[int]]] = {}
    for cell, column in columns.items():
        for row, text in _present_in(column):
            data = tagged.loads(text)
            for path, value in data.items() if cell == EXTRA else ((cell[0], data),):
                _note_value(found, *restored(path, value), row)
    return found


def _note_value(found: dict[Pair, tuple[list[Any], list[int]]], pair: Pair, value: Any, row: int) -> None:
    values, rows = found.setdefault(pair, ([], []))
    values.append(value)
    rows.append(row)


def _present_in(column: pa.Array) -> Iterator[tuple[int, Any]]:
    """Yield the index and the value of each element that is not null."""
    if column.null_count < len(column):
        indexes = np.flatnonzero(_validity(column))
        yield from zip(indexes.tolist(), column.take(pa.array(indexes)).to_pylist(), strict=True)


def _validity(column: pa.Array) -> np.ndarray[Any, Any]:
    return column.is_valid().to_numpy(zero_copy_only=False)  # type: ignore[no-any-return]


# tables whose rows are properties


def _read_value_rows(snapshot: Snapshot, keys: LookupCache, path: RecordPath, wanted: Selection) -> ColumnSet:
    bounds, parameters = bounds_of(snapshot, path, wanted)
    query, (main, table) = bounded_statement(path.main, wanted.order, bounds), (path.main, *path.details)
    messages = _fetch_arrays(
        snapshot, main, ENVELOPE_NAMES, query.order_by(main.target.c.id, main.target.c.part), parameters
    )
    rows = sa.select(table.target)
    if bounds.topic or bounds.low or bounds.high:
        page = query.subquery("message")
        rows = rows.select_from(page.join(table.target, same_record(page, path.source.query, table)))
    layout = path.source.model.layout_read
    assert isinstance(layout, ValueRows)  # noqa: S101 - as the caller has looked up
    names = dict.fromkeys(layout.columns.values())
    values = _fetch_arrays(snapshot, table, ("id", "part", layout.path, *names), rows, parameters)
    paths = _paths_of(keys, table, layout, values[layout.path])
    whole = _pivot(messages, values, table, layout, paths)
    return ColumnSet(_take_envelope(keys, main, messages), whole)


def _paths_of(
    keys: LookupCache, table: StoredTable, layout: ValueRows, ids: pa.Array
) -> tuple[Sequence[str], np.ndarray[Any, Any]]:
    """Return the paths of the properties in rows of values, and for each row the index of its own."""
    different, numbers = np.unique(ids.to_numpy(zero_copy_only=False), return_inverse=True)
    lookup = table.lookup(layout.path)
    if lookup is None:
        return list(map(str, different)), numbers
    known = keys.get_keys(lookup, different.tolist())
    found = [key if isinstance(key, str) else key[-1] for key in map(known.__getitem__, different.tolist())]
    paths, same = np.unique(np.array(found, dtype=object), return_inverse=True)
    return paths.tolist(), same[numbers]


def _pivot(
    messages: Mapping[Cell, pa.Array],
    values: Mapping[Cell, pa.Array],
    table: StoredTable,
    layout: ValueRows,
    paths: tuple[Sequence[str], np.ndarray[Any, Any]],
) -> dict[Pair, pa.Array]:
    """Return a column for each path and kind in rows of values."""
    count, rows = len(messages["id"]), _find_rows(messages, values)
    odd: dict[Pair, tuple[list[Any], list[int]]] = {}
    whole: dict[Pair, pa.Array] = {}
    exact = _validity(values[layout.exact]) if layout.exact else np.zeros(len(rows), bool)
    for name in dict.fromkeys(layout.columns.values()):
        column, kind = values[name], _kind_of(table, name)
        if kind == "tagged":
            for index, text in _present_in(column):
                if rows[index] >= 0:
                    _note_value(odd, *restored(paths[0][paths[1][index]], tagged.loads(text)), rows[index])
        elif column.null_count < len(column):
            there = np.flatnonzero(_validity(column) & ~exact & (rows >= 0))
            for number, some in _by_number(paths[1], there):
                whole[paths[0][number], kind] = _scatter(count, rows[some], column.take(pa.array(some)))
    return _make_whole(count, odd, whole)


def _by_number(numbers: np.ndarray[Any, Any], indexes: np.ndarray[Any, Any]) -> Iterator[tuple[int, Any]]:
    """Yield each number among those at some indexes, with the indexes that have it."""
    found = numbers[indexes]
    order = np.argsort(found, kind="stable")
    different, starts = np.unique(found[order], return_index=True)
    yield from zip(different.tolist(), np.split(indexes[order], starts[1:]), strict=True)


def _find_rows(messages: Mapping[Cell, pa.Array], values: Mapping[Cell, pa.Array]) -> np.ndarray[Any, Any]:
    """Return for each row of values the row of its message, which are sorted by id and part; −1 if there is none."""
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


_DIRECTLY: Final[Mapping[type, Callable[[Snapshot, LookupCache, RecordPath, Selection], ColumnSet]]] = {
    OwnColumns: _read_own_columns,
    ValueRows: _read_value_rows,
}
"""How to read columns from tables whose layout is known."""


# rows as columns


def _kind_of(table: StoredTable, cell: Cell) -> Kind:
    """Return the kind of a column's values as they are in the database; those of a lookup are integers."""
    if isinstance(cell, tuple):
        return cell[1]
    return next(column.kind for column in table.table.columns if column.name == cell)


def _take_envelope(keys: LookupCache, table: StoredTable, columns: dict[Cell, pa.Array]) -> dict[str, pa.Array]:
    """Take the columns of the envelope out of all columns; topics become text."""
    envelope = {name: columns.pop(name) for name in ENVELOPE_NAMES}
    lookup = table.lookup("topic")
    if lookup is not None:
        ids = envelope["topic"].dictionary_encode()
        known = keys.get_keys(lookup, ids.dictionary.to_pylist())
        names = pa.array(map(known.__getitem__, ids.dictionary.to_pylist()), pa.string())
        envelope["topic"] = pa.DictionaryArray.from_arrays(ids.indices, names).cast(pa.string())
    return envelope


def _fetch_arrays(
    snapshot: Snapshot,
    table: StoredTable,
    cells: Sequence[Cell],
    query: sa.Select[Any],
    parameters: Mapping[str, Any],
) -> dict[Cell, pa.Array]:
    """Return columns of a query's rows."""
    kinds = [_kind_of(table, cell) for cell in cells]
    query = query.with_only_columns(*(table.target.c[table.names[cell]] for cell in cells))
    return dict(zip(cells, fetch_columns(snapshot, query, parameters, kinds), strict=True))
