"""What can be said of a model without a database: its tables agree with its rows, and its rows with its records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from amqtt_db.database.catalog import PhysicalTable
from amqtt_db.database.schema import columns_to_fill
from amqtt_db.models.base import Cell, Column, Destination, Model, Row, Table
from amqtt_db.record import Kind, Pair, Record, Shape
from amqtt_db.tagged import tag
from amqtt_db.testing.answer import Told, Value, natural, told

_PYTHON: Final[Mapping[Kind, tuple[type, ...]]] = {
    "bool": (bool,),
    "bytes": (bytes,),
    "int64": (int,),
    "timestamp": (int,),
    "number": (int, float),
    "text": (str,),
}
"""The types that fixed columns of the simple kinds take; the other kinds are not checked."""


def table_faults(model: Model, destination: Destination, shape: Shape) -> Iterator[str]:
    """Sentences about what is wrong with a model's tables, and with its query for them."""
    tables = {table.key: table for table in model.tables(destination, shape)}
    first = {table.key: table for table in model.tables(destination, Shape(()))}
    if tables.keys() != first.keys():
        yield f"the keys of the tables depend on the shape: {sorted(first)} for none, {sorted(tables)} for {shape}"
    for table in tables.values():
        yield from _faults_of(table, first.get(table.key, table))
    query = model.query(destination)
    yield from _query_faults(tables, query.table, ("id", "part", *query.on))
    if query.values is not None:
        yield from _query_faults(tables, query.values, query.on)


def _faults_of(table: Table, first: Table) -> Iterator[str]:
    columns = {column.name: column for column in table.columns}
    if len({name.casefold() for name in columns}) < len(table.columns):
        yield f"table {table.key}: two of its columns have the same name"
    if attrs.evolve(table, properties=()) != attrs.evolve(first, properties=()):
        yield f"table {table.key}: more than its properties depends on the shape"
    for name in {*table.primary_key, *(name for index in table.indexes for name in index)} - columns.keys():
        yield f"table {table.key}: a key or an index names {name!r}, which is no fixed column"
    for name in table.primary_key:
        if name in columns and columns[name].nullable:
            yield f"table {table.key}: {name!r} is part of the primary key and nullable"
    if table.overflow is not None and (table.overflow not in columns or columns[table.overflow].kind != "json"):
        yield f"table {table.key}: the overflow {table.overflow!r} is no fixed column of kind json"


def _query_faults(tables: Mapping[str, Table], key: str, names: Iterable[str]) -> Iterator[str]:
    if key not in tables:
        yield f"the query reads from table {key}, which is not declared"
        return
    missing = sorted(set(names) - {column.name for column in tables[key].columns})
    if missing:
        yield f"the query needs the columns {missing} in table {key}, which has none of that name"


def row_faults(model: Model, destination: Destination, record: Record) -> Iterator[str]:
    """Sentences about rows of a record that do not fit the tables that its model declares for its shape."""
    tables = {table.key: table for table in model.tables(destination, record.shape)}
    keys: set[tuple[str, tuple[Any, ...]]] = set()
    for key, row in model.rows(destination, record):
        table = tables.get(key)
        if table is None:
            yield f"a row is for table {key}, which is not declared"
            continue
        yield from (f"table {key}: {fault}" for fault in _row_faults(table, row))
        primary = (key, tuple(row.get(name) for name in table.primary_key))
        if primary in keys:
            yield f"table {key}: two rows of one record have the same primary key"
        keys.add(primary)


def _row_faults(table: Table, row: Row) -> Iterator[str]:
    columns = {column.name: column for column in table.columns}
    for cell in row:
        if isinstance(cell, str) and cell not in columns:
            yield f"a row fills {cell!r}, which is no fixed column"
        elif isinstance(cell, tuple) and cell not in table.properties and table.overflow is None:
            yield f"a row fills a column for {cell!r}, which is not declared, and there is no overflow"
    for column in table.columns:
        value = row.get(column.name)
        if value is None and not column.nullable:
            yield f"column {column.name!r} is not nullable and not filled"
        elif value is not None and not _fits(column, value):
            yield f"column {column.name!r} is filled with {value!r}, which is not what it is for"


def _fits(column: Column, value: Any) -> bool:
    if column.lookup is None:
        return column.kind not in _PYTHON or type(value) in _PYTHON[column.kind]
    parts = value if isinstance(value, tuple) else (value,)
    return len(parts) == len(column.lookup.columns) and all(type(part) is str for part in parts)


def cells_to_fill(
    model: Model, destination: Destination, shape: Shape, known: Iterable[Pair]
) -> dict[str, tuple[Cell, ...]]:
    """What the writer asks a row maker for, where tables have columns for the pairs ``known`` and those they must."""
    cells: dict[str, tuple[Cell, ...]] = {}
    for table in model.tables(destination, shape):
        given = table.properties if table.overflow is None else [pair for pair in table.properties if pair in known]
        physical = PhysicalTable(table.key, table.name, {pair: f"c{index}" for index, pair in enumerate(given)})
        cells[table.key] = tuple(columns_to_fill(physical, table, shape))
    return cells


def read_without_database(model: Model, destination: Destination, records: Sequence[Record]) -> list[Told]:
    """The records that a model finds in its own rows, which lie in lists instead of tables."""
    return [told(record) for record in model.records(destination, queried(model, destination, records))]


def queried(model: Model, destination: Destination, records: Sequence[Record]) -> Iterator[Row]:
    """What a model's query returns once it has stored some records, if lists were tables."""
    filled = Shape(tuple(dict.fromkeys(pair for record in records for pair in record.shape.properties)))
    tables = {table.key: table for table in model.tables(destination, filled)}
    shelves: dict[str, list[dict[Cell, Any]]] = {key: [] for key in tables}
    for record in records:
        for key, row in model.rows(destination, record):
            if key in tables:
                shelves[key].append(_stored(tables[key], row))
    return _joined(model, destination, shelves, tables)


def _stored(table: Table, row: Row) -> dict[Cell, Any]:
    """A row as its table returns it: all its columns, the rest in the overflow, numbers as doubles."""
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


def _joined(
    model: Model, destination: Destination, shelves: Mapping[str, list[dict[Cell, Any]]], tables: Mapping[str, Table]
) -> Iterator[Row]:
    query = model.query(destination)
    for row in sorted(shelves[query.table], key=lambda row: (row["id"], row["part"])):
        if query.values is None:
            yield row
            continue
        matching = [other for other in shelves[query.values] if all(other[name] == row[name] for name in query.on)]
        nothing: dict[Cell, Any] = {column.name: None for column in tables[query.values].columns}
        yield from ({**other, **row} for other in matching or [nothing])


def meant(record: Record) -> Told:
    """What a record must read back as: numbers as doubles, a ``tagged`` value as what it is by nature."""
    written = told(record)
    return attrs.evolve(written, values={keys: _meant(*value) for keys, value in written.values.items()})


def _meant(kind: str, value: Any) -> Value:
    if kind == "number":
        return kind, float(value)
    return natural(value) if kind == "tagged" else (kind, value)
