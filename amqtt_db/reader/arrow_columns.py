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
from amqtt_db.reader.arrow_pivot import Sparse, add_sparse, note_value, pivot, present_in
from amqtt_db.reader.arrow_rows import fetch_columns
from amqtt_db.reader.arrow_types import MOMENT, Integers, make_array
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
    found: Sparse = {}
    for row, record in enumerate(records):
        for pair, value in zip(record.shape.properties, record.values, strict=True):
            if value is not None:
                values, rows = found.setdefault(pair, ([], []))
                values.append(value)
                rows.append(row)
    whole: dict[Pair, pa.Array] = {}
    add_sparse(whole, len(records), found)
    return ColumnSet(envelope, whole)


_FIELDS: Final = tuple("time_us" if name == "time" else name for name in ENVELOPE_NAMES)


def _envelope_array(name: str, values: Sequence[Any]) -> pa.Array:
    kind = _ENVELOPE_KINDS[name]
    return pa.array(values, pa.int64()).cast(MOMENT) if kind == "timestamp" else make_array(kind, values)


# tables whose columns are properties


def _read_own_columns(snapshot: Snapshot, keys: LookupCache, path: RecordPath, wanted: Selection) -> ColumnSet:
    bounds, parameters = bounds_of(snapshot, path, wanted)
    query, main = bounded_statement(path.main.target, wanted.order, bounds), path.main
    cells: list[Cell] = [*ENVELOPE_NAMES, *(cell for cell in main.names if isinstance(cell, tuple) or cell == EXTRA)]
    columns = _fetch_arrays(snapshot, main, cells, query, parameters)
    envelope = _take_envelope(keys, main, columns)
    odd = {cell: columns.pop(cell) for cell in cells if cell == EXTRA or cell[1] == "tagged"}
    whole: dict[Pair, pa.Array] = columns  # type: ignore[assignment]
    add_sparse(whole, len(envelope["id"]), _read_odd_values(odd))
    return ColumnSet(envelope, whole)


def _read_odd_values(columns: Mapping[Cell, pa.Array]) -> Sparse:
    """Return the values in columns of tagged JSON, and in the column for the rest, by pair, with their rows."""
    found: Sparse = {}
    for cell, column in columns.items():
        for row, text in present_in(column):
            data = tagged.loads(text)
            for path, value in data.items() if cell == EXTRA else ((cell[0], data),):
                note_value(found, *restored(path, value), row)
    return found


# tables whose rows are properties


def _read_value_rows(snapshot: Snapshot, keys: LookupCache, path: RecordPath, wanted: Selection) -> ColumnSet:
    bounds, parameters = bounds_of(snapshot, path, wanted)
    query, (main, table) = bounded_statement(path.main.target, wanted.order, bounds), (path.main, *path.details)
    messages = _fetch_arrays(
        snapshot, main, ENVELOPE_NAMES, query.order_by(main.target.c.id, main.target.c.part), parameters
    )
    rows = sa.select(table.target)
    if bounds.topic or bounds.low or bounds.high:
        page = query.subquery("message")
        rows = rows.select_from(page.join(table.target, same_record(page, path.source.query, table)))
    layout = path.source.model.layout_read
    assert isinstance(layout, ValueRows)  # noqa: S101 - as the caller has looked up
    whole: dict[Pair, pa.Array] = {}
    for values in _fetch_values(snapshot, table, layout, rows, parameters):
        paths = _paths_of(keys, table, layout.path, values.pop(layout.path))
        pivot(whole, messages, values, paths, {name: _kind_of(table, name) for name in values}, layout.exact)
    return ColumnSet(_take_envelope(keys, main, messages), whole)


def _fetch_values(
    snapshot: Snapshot, table: StoredTable, layout: ValueRows, rows: sa.Select[Any], parameters: Mapping[str, Any]
) -> Iterator[dict[Cell, pa.Array]]:
    """Yield the rows of values: all with the columns for frequent kinds, then those that have one of another kind."""
    names, key = dict.fromkeys(layout.columns.values()), ("id", "part", layout.path)
    rare = [name for name in names if _kind_of(table, name) not in _FREQUENT_KINDS]
    if len(rare) <= 1:
        yield _fetch_arrays(snapshot, table, (*key, *names), rows, parameters)
        return
    has_rare = sa.or_(*(table.target.c[name].is_not(None) for name in rare))
    found = _fetch_arrays(
        snapshot, table, (*key, *(name for name in names if name not in rare)), rows, parameters, has_rare
    )
    is_rare = found.pop(_CONDITION)
    yield found
    if pc.any(is_rare).as_py():
        yield _fetch_arrays(snapshot, table, (*key, *rare), rows.where(has_rare), parameters)


_FREQUENT_KINDS: Final[frozenset[Kind]] = frozenset({"bool", "number", "text"})
_CONDITION: Final = "is so"


def _paths_of(keys: LookupCache, table: StoredTable, name: str, ids: pa.Array) -> tuple[Sequence[str], Integers]:
    """Return the paths of the properties in rows of values, and for each row the index of its own."""
    encoded = ids.dictionary_encode()
    different, numbers = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    lookup = table.lookup(name)
    if lookup is None:
        return list(map(str, different)), numbers
    known = keys.get_keys(lookup, different)
    found = [key if isinstance(key, str) else key[-1] for key in map(known.__getitem__, different)]
    paths = list(dict.fromkeys(found))  # series of several topics have the same path
    place = {path: number for number, path in enumerate(paths)}
    return paths, np.array([place[path] for path in found], np.int64)[numbers]


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
    condition: sa.ColumnElement[bool] | None = None,
) -> dict[Cell, pa.Array]:
    """Return columns of a query's rows; if there is a condition, also in which rows it is true."""
    kinds = [_kind_of(table, cell) for cell in cells]
    columns: list[sa.ColumnElement[Any]] = [table.target.c[table.names[cell]] for cell in cells]
    if condition is not None:
        cells, kinds, columns = [*cells, _CONDITION], [*kinds, "bool"], [*columns, condition.label(_CONDITION)]
    return dict(zip(cells, fetch_columns(snapshot, query.with_only_columns(*columns), parameters, kinds), strict=True))
