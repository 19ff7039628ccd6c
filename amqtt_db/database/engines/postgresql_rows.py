"""Rows into PostgreSQL: binary COPY for many rows of a table, one statement for a few rows of many tables.

A COPY takes three exchanges with the server, whatever it contains.  Tables that get a row each take a third of the time
if many INSERTs are parts of one statement, in its WITH (measured by ``benchmarks/small_groups.py``); beyond some
hundred tables, planning it takes longer than several statements.  Parameters are sent as in a COPY, in binary format
and without a type: as with COPY, a column of another type rejects them instead of rounding.
"""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from functools import lru_cache
from itertools import chain, groupby
from typing import Any, Final
from uuid import UUID

import attrs
import psycopg
from psycopg.adapt import Dumper
from psycopg.types import bool as boolean
from psycopg.types import datetime as moments
from psycopg.types import numeric, string, uuid

from amqtt_db.database.engines.base import RowBatch, batched, on_conflict
from amqtt_db.record import Kind

_FIELD_TYPES: Final[Mapping[Kind, str]] = {
    "bool": "bool",
    "number": "float8",
    "int64": "int8",
    "bigint": "numeric",
    "text": "text",
    "bytes": "bytea",
    "datetime": "int8",
    "timestamp": "int8",
    "date": "date",
    "time": "time",
    "decimal": "numeric",
    "uuid": "uuid",
    "json": "text",
    "tagged": "text",
}
"""Kind → type of encoded values in the binary format: timestamps are integers already, JSONB is text."""

_FEW_ROWS: Final = 4  # rows of a table that go into a statement with those of other tables
_FEW_OF_MANY: Final = 12  # the same with many tables: each COPY between them would end a statement early
_TABLES: Final = 64  # in one statement
_PARAMETERS: Final = 16_384  # in one statement of several tables; the protocol's limit is 65,535


RULED: Final = (
    b"SELECT relname FROM pg_class WHERE relhasrules AND relkind IN ('r', 'p') "
    b"AND relnamespace = to_regnamespace(current_schema()::text)"
)
"""Finds tables with rules: an INSERT would apply them, a COPY does not."""


def insert(driver: psycopg.Connection[Any], row_batches: Sequence[RowBatch], ruled: Container[str]) -> None:
    """Append rows, in the order of the batches; for tables in ``ruled`` use only COPY."""
    most = _FEW_ROWS if len(row_batches) < _TABLES else _FEW_OF_MANY
    for few, some in groupby(row_batches, lambda row_batch: row_batch.table not in ruled and _is_few(row_batch, most)):
        if few:
            insert_together(driver, list(some))
        else:
            for row_batch in some:
                (replace if row_batch.replaces else copy)(driver, row_batch)


def _is_few(row_batch: RowBatch, most: int) -> bool:
    return (
        not row_batch.replaces
        and len(row_batch.rows) <= most
        and len(row_batch.rows) * len(row_batch.columns) <= _PARAMETERS // _TABLES
    )


def copy(driver: psycopg.Connection[Any], row_batch: RowBatch) -> None:
    """Append rows by binary COPY."""
    with driver.cursor() as cursor, cursor.copy(_copy_statement(row_batch.table, row_batch.columns)) as into:
        into.set_types([_FIELD_TYPES[kind] for kind in row_batch.kinds])
        write = into.write_row
        for row in row_batch.rows:
            write(row)


def replace(driver: psycopg.Connection[Any], row_batch: RowBatch) -> None:
    """Insert rows that replace older ones with the same key."""
    head, clause = _head(row_batch.table, row_batch.columns), on_conflict(_quoted, row_batch)
    width = len(row_batch.columns)
    with _cursor(driver) as cursor:
        for rows in batched(row_batch.rows, _PARAMETERS // width):
            parameters = list(_parameters(attrs.evolve(row_batch, rows=rows)))
            cursor.execute(f"{head}{_marks(1, width, len(rows))}{clause}".encode(), parameters, binary=True)


def _cursor(driver: psycopg.Connection[Any]) -> psycopg.RawCursor[Any]:
    cursor = psycopg.RawCursor(driver)
    for type_, dumper in _DUMPERS.items():
        cursor.adapters.register_dumper(type_, dumper)
    return cursor


def insert_together(driver: psycopg.Connection[Any], row_batches: Sequence[RowBatch]) -> None:
    """Append rows with one statement for many tables at a time."""
    with _cursor(driver) as cursor:
        for some in batched(row_batches, _TABLES):
            parameters = list(chain.from_iterable(map(_parameters, some)))
            cursor.execute(_statement(some), parameters, binary=True)


def _statement(row_batches: Sequence[RowBatch]) -> bytes:
    """Return the last batch's INSERT, preceded by those of the others."""
    parts, first = [], 1
    for row_batch in row_batches:
        parts.append(
            _head(row_batch.table, row_batch.columns) + _marks(first, len(row_batch.columns), len(row_batch.rows))
        )
        first += len(row_batch.columns) * len(row_batch.rows)
    *others, last = parts
    before = ", ".join(f"part{index} AS ({part})" for index, part in enumerate(others))
    return (f"WITH {before} {last}" if others else last).encode()


@lru_cache(4096)
def _marks(first: int, columns: int, rows: int) -> str:
    starts = range(first, first + columns * rows, columns)
    return ", ".join(f"({', '.join(f'${number}' for number in range(start, start + columns))})" for start in starts)


def _parameters(row_batch: RowBatch) -> Iterator[Any]:
    makes = [_MAKERS.get(kind) for kind in row_batch.kinds]
    for row in row_batch.rows:
        for make, value in zip(makes, row, strict=True):
            yield value if make is None or value is None else make(value)


def _untyped(dumper: type[Dumper]) -> type[Dumper]:
    return type(dumper.__name__, (dumper,), {"oid": 0})


_DUMPERS: Final[Mapping[type, type[Dumper]]] = {
    bool: _untyped(boolean.BoolBinaryDumper),
    int: _untyped(numeric.Int8BinaryDumper),
    float: _untyped(numeric.FloatBinaryDumper),
    Decimal: _untyped(numeric.DecimalBinaryDumper),
    str: _untyped(string.StrBinaryDumper),
    bytes: _untyped(string.BytesBinaryDumper),
    date: _untyped(moments.DateBinaryDumper),
    time: _untyped(moments.TimeBinaryDumper),
    UUID: _untyped(uuid.UUIDBinaryDumper),
}
_MAKERS: Final[Mapping[Kind, type]] = {"number": float, "bigint": Decimal}
"""Kinds of numbers, and the type that converts an integer to each."""


@lru_cache(40_960)  # no fewer than tables that one batch may fill
def _head(table: str, columns: tuple[str, ...]) -> str:
    return f"INSERT INTO {_quoted(table)} ({', '.join(map(_quoted, columns))}) VALUES "  # noqa: S608 - quoted


@lru_cache(40_960)
def _copy_statement(table: str, columns: tuple[str, ...]) -> bytes:
    return f"COPY {_quoted(table)} ({', '.join(map(_quoted, columns))}) FROM STDIN (FORMAT BINARY)".encode()


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
