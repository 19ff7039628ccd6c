"""Checks of a model that need no database: its tables fit its rows, and its rows fit its records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

import attrs

from amqtt_db.database.catalog import PhysicalTable
from amqtt_db.database.schema import columns_to_fill
from amqtt_db.models.base import Cell, Column, Row
from amqtt_db.models.binding import BoundModel, BoundTable
from amqtt_db.record import Kind, Pair, Record, Shape, tag
from amqtt_db.testing.answer import Told, Value, natural, told

_PYTHON: Final[Mapping[Kind, tuple[type, ...]]] = {
    "bool": (bool,),
    "bytes": (bytes,),
    "int64": (int,),
    "timestamp": (int,),
    "number": (int, float),
    "text": (str,),
}
"""Simple kind → Python types that its fixed columns accept; other kinds are not checked."""


def table_faults(model: BoundModel, shape: Shape) -> Iterator[str]:
    """Yield sentences about mistakes in a model's tables."""
    declared = [table.name for table in model.model.tables(shape)]
    tables, first = model.named_tables(shape), model.named_tables()
    if len(set(declared)) < len(declared):
        yield f"two tables have the same name: {declared}"
    if tables.keys() != first.keys():
        yield f"the tables depend on the shape: {[*first]} for none, {[*tables]} for {shape}"
    for name, table in tables.items():
        yield from _faults_in_rows(table, first.get(name, table))


def _faults_in_rows(table: BoundTable, first: BoundTable) -> Iterator[str]:
    columns = {column.name: column for column in table.columns}
    if len({name.casefold() for name in columns}) < len(table.columns):
        yield f"table {table.key}: two of its columns have the same name"
    if attrs.evolve(table, properties=()) != attrs.evolve(first, properties=()):
        yield f"table {table.key}: more than its property columns depends on the shape"
    for name in {*table.primary_key, *(name for index in table.indexes for name in index)} - columns.keys():
        yield f"table {table.key}: a key or an index names {name!r}, which is not a fixed column"
    for name in table.primary_key:
        if name in columns and columns[name].nullable:
            yield f"table {table.key}: {name!r} is part of the primary key and nullable"
    if table.overflow is not None and (table.overflow not in columns or columns[table.overflow].kind != "json"):
        yield f"table {table.key}: the overflow {table.overflow!r} is not a fixed column of kind json"


def row_faults(model: BoundModel, record: Record) -> Iterator[str]:
    """Yield sentences about a record's rows that do not fit the tables declared for its shape."""
    tables = model.named_tables(record.shape)
    keys: Counter[tuple[str, tuple[Any, ...]]] = Counter()
    counts: Counter[str] = Counter()
    for name, row in model.model.write(record):
        table = tables.get(name)
        if table is None:
            yield f"a row is for table {name}, which is not declared"
            continue
        counts[table.key] += 1
        envelope = {cell: value for cell, value in record.envelope().items() if cell in _column_names(table)}
        extra = model.model.extra_values(record) if name == next(iter(tables)) else {}
        full = {**envelope, **extra, **row}
        yield from (f"table {name}: {fault}" for fault in _row_faults(table, full))
        keys[table.key, tuple(full.get(column) for column in table.primary_key)] += 1
    yield from (f"table {key}: two rows of one record have the same primary key" for key, _ in _repeated(keys))
    main = next(iter(tables.values())).key
    if counts[main] != 1:
        yield f"the record has {counts[main]} rows in its own table instead of one"


def _repeated(counts: Counter[Any]) -> list[Any]:
    return [key for key, count in counts.items() if count > 1]


def _column_names(table: BoundTable) -> set[str]:
    return {column.name for column in table.columns}


def _row_faults(table: BoundTable, row: Row) -> Iterator[str]:
    columns = {column.name: column for column in table.columns}
    for cell in row:
        if isinstance(cell, str) and cell not in columns:
            yield f"a row fills {cell!r}, which is not a fixed column"
        elif isinstance(cell, tuple) and cell not in table.properties and table.overflow is None:
            yield f"a row fills a column for {cell!r}, which is not declared, and there is no overflow"
    for column in table.columns:
        value = row.get(column.name)
        if value is None and not column.nullable:
            yield f"column {column.name!r} is not nullable and not filled"
        elif value is not None and not _fits(column, value):
            yield f"column {column.name!r} is filled with {value!r}, which is not of its kind"


def _fits(column: Column, value: Any) -> bool:
    if column.lookup is None:
        return column.kind not in _PYTHON or type(value) in _PYTHON[column.kind]
    parts = value if isinstance(value, tuple) else (value,)
    return len(parts) == len(column.lookup.columns) and all(type(part) is str for part in parts)


def cells_to_fill(model: BoundModel, shape: Shape, known: Iterable[Pair]) -> dict[str, tuple[Cell, ...]]:
    """Return the cells that the writer asks a row maker for, with columns for the pairs ``known``."""
    cells: dict[str, tuple[Cell, ...]] = {}
    for table in model.tables(shape):
        given = table.properties if table.overflow is None else [pair for pair in table.properties if pair in known]
        physical = PhysicalTable(table.key, table.name, {pair: f"c{index}" for index, pair in enumerate(given)})
        cells[table.key] = tuple(columns_to_fill(physical, table, shape))
    return cells


def read_plainly(model: BoundModel, rows: Mapping[str, Sequence[Row]]) -> list[Told]:
    """Return the records that the model's ``read`` finds in rows from lists instead of tables."""
    cells = {key: tuple(some[0]) for key, some in rows.items() if some}
    main = model.query.table
    if main not in cells:
        return []
    empty = {table.key: tuple(column.name for column in table.columns) for table in model.tables()}
    cells = {key: cells.get(key, empty[key]) for key in (main, *model.query.details)}
    read = model.plain_reader(cells)
    return [told(record) for record in read({key: _fixed_columns(cells[key], rows[key]) for key in cells})]


def read_quickly(model: BoundModel, rows: Mapping[str, Sequence[Row]]) -> list[Told]:
    """Return the records that the model's reader finds; the fast one if it has one."""
    query = model.query
    if not model.joins:
        if query.details or not rows[query.table]:
            return read_plainly(model, rows)
        joined = list(rows[query.table])
    else:
        joined = list(_joined(model, rows))
    cells = tuple(joined[0]) if joined else ()
    read = model.reader({query.table: cells})
    return [told(record) for record in read({query.table: _fixed_columns(cells, joined)})] if joined else []


def _fixed_columns(cells: Sequence[Cell], rows: Sequence[Row]) -> list[list[Any]]:
    return [[row[cell] for row in rows] for cell in cells]


def stored_rows(model: BoundModel, records: Sequence[Record]) -> dict[str, list[Row]]:
    """Return the rows by table key that a reader would find after storing records, with lists as tables."""
    filled = Shape(tuple(dict.fromkeys(pair for record in records for pair in record.shape.properties)))
    tables = model.named_tables(filled)
    shelves: dict[str, list[Row]] = {table.key: [] for table in tables.values() if not table.replaces}
    for record in records:
        for name, row in model.model.write(record):
            if name in tables and tables[name].key in shelves:
                shelves[tables[name].key].append(_stored(tables[name], {**record.envelope(), **row}))
    for rows in shelves.values():
        rows.sort(key=itemgetter("id", "part"))
    return shelves


def _stored(table: BoundTable, row: Row) -> dict[Cell, Any]:
    """Return a row as its table returns it: all its columns, the rest in the overflow, numbers as doubles."""
    cells: list[Cell] = [*(column.name for column in table.columns), *table.properties]
    stored: dict[Cell, Any] = {cell: row.get(cell) for cell in cells}
    homeless = [cell for cell in row if isinstance(cell, tuple) and cell not in stored and row[cell] is not None]
    if homeless and table.overflow is not None:
        stored[table.overflow] = {path: tag(kind, row[path, kind]) for path, kind in homeless}
    kinds = {column.name: column.kind for column in table.columns}
    for cell, value in stored.items():
        kind = kinds[cell] if isinstance(cell, str) else cell[1]
        stored[cell] = float(value) if kind == "number" and value is not None else value
    return stored


def _joined(model: BoundModel, rows: Mapping[str, Sequence[Row]]) -> Iterator[Row]:
    query = model.query
    (key,) = query.details
    (details,) = (table for table in model.tables() if table.key == key)
    for row in rows[query.table]:
        matching = [other for other in rows[key] if all(other[name] == row[name] for name in query.on)]
        nothing: dict[Cell, Any] = {column.name: None for column in details.columns}
        yield from ({**other, **row} for other in matching or [nothing])


def meant(record: Record) -> Told:
    """Return the record as it must read back: numbers as doubles, ``tagged`` values under their own kinds."""
    written = told(record)
    return attrs.evolve(written, values={keys: _meant(*value) for keys, value in written.values.items()})


def _meant(kind: str, value: Any) -> Value:
    if kind == "number":
        return kind, float(value)
    return natural(value) if kind == "tagged" else (kind, value)
