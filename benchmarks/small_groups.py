"""Small groups on PostgreSQL: COPY, INSERT, INSERT in pipeline mode, one INSERT for all tables, in one run.

A transaction is what the writer does for a batch: move the checkpoint, then insert rows into several tables.

    python benchmarks/small_groups.py [ROUNDS]
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from statistics import median
from typing import Any

import psycopg
import sqlalchemy as sa
from psycopg import sql

from amqtt_db.database.engines.base import RowBatch
from amqtt_db.database.engines.postgresql import PostgreSQL
from amqtt_db.database.engines.postgresql_rows import insert_together
from amqtt_db.record import Kind
from amqtt_db.testing.servers import SERVERS

COLUMNS = ("id", "part", "time", "topic", "session", "qos", "retain", "temp", "rh", "state")
TYPES = ("int8", "int8", "int8", "text", "int8", "int8", "bool", "float8", "float8", "text")
KINDS: tuple[Kind, ...] = (
    "int64", "int64", "int64", "text", "int64", "int64", "bool", "number", "number", "text"
)  # fmt: skip
GROUPS = [(tables, rows) for tables in (1, 5, 50) for rows in (1, 2, 5, 10, 100)]

Rows = Sequence[Sequence[Any]]
Way = Callable[[psycopg.Connection[Any], Sequence[str], Rows], None]


def copy(connection: psycopg.Connection[Any], tables: Sequence[str], rows: Rows) -> None:
    """Insert as the engine does for many rows."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("UPDATE checkpoint SET position = position + 1")
        for table in tables:
            names = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
            statement = sql.SQL("COPY {} ({}) FROM STDIN (FORMAT BINARY)").format(sql.Identifier(table), names)
            with cursor.copy(statement) as target:
                target.set_types(TYPES)
                for row in rows:
                    target.write_row(row)


def insert(connection: psycopg.Connection[Any], tables: Sequence[str], rows: Rows) -> None:
    """Insert by the driver's ``executemany``, one pipeline per table."""
    with connection.transaction(), connection.cursor() as cursor:
        cursor.execute("UPDATE checkpoint SET position = position + 1")
        for table in tables:
            cursor.executemany(_statement(table), rows)


def pipeline(connection: psycopg.Connection[Any], tables: Sequence[str], rows: Rows) -> None:
    """Run the whole transaction in one pipeline."""
    with connection.pipeline():
        insert(connection, tables, rows)


def values(connection: psycopg.Connection[Any], tables: Sequence[str], rows: Rows) -> None:
    """Run one multi-row INSERT per table, the whole transaction in one pipeline."""
    with connection.pipeline(), connection.transaction(), connection.cursor() as cursor:
        cursor.execute("UPDATE checkpoint SET position = position + 1")
        for table in tables:
            cursor.execute(_statement(table, len(rows)), [value for row in rows for value in row])


def together(connection: psycopg.Connection[Any], tables: Sequence[str], rows: Rows) -> None:
    """Insert as the engine does for few rows: one statement for several tables."""
    with connection.transaction():
        connection.execute("UPDATE checkpoint SET position = position + 1")
        insert_together(connection, [RowBatch(table, COLUMNS, KINDS, rows) for table in tables])


def _statement(table: str, rows: int = 1) -> bytes:
    marks = f"({', '.join(['%s'] * len(COLUMNS))})"
    return f"INSERT INTO {table} ({', '.join(COLUMNS)}) VALUES {', '.join([marks] * rows)}".encode()


WAYS: tuple[Way, ...] = (copy, insert, pipeline, values, together)


def _rows(numbers: Iterator[int], many: int) -> list[tuple[Any, ...]]:
    return [(next(numbers), 0, 0, "home/kitchen/climate", None, 1, False, 21.5, 0.4, "on") for _ in range(many)]


def main() -> None:
    """Print milliseconds per transaction, medians of interleaved rounds."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 200
    with SERVERS.database("postgresql") as url:
        database = PostgreSQL(url).open(write=True)
        with database.connect() as connection:
            _measure(connection, rounds)
        database.dispose()
    SERVERS.close()


def _measure(connection: sa.Connection, rounds: int) -> None:
    driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
    tables = [f"t{number}" for number in range(50)]
    columns = ", ".join(f"{name} {type_}" for name, type_ in zip(COLUMNS, TYPES, strict=True))
    with driver.transaction():
        driver.execute("CREATE TABLE checkpoint AS SELECT 0 AS position")
        for table in tables:
            driver.execute(f"CREATE TABLE {table} ({columns}, PRIMARY KEY (id, part))".encode())
    numbers = count()
    print(f"{'tables × rows':>14}", *(f"{way.__name__:>9}" for way in WAYS), "ms per transaction")
    for many, each in GROUPS:
        took: dict[Way, list[float]] = {way: [] for way in WAYS}
        for _ in range(rounds):
            for way in WAYS:
                rows = _rows(numbers, each)
                started = time.perf_counter()
                way(driver, tables[:many], rows)
                took[way].append(time.perf_counter() - started)
        print(f"{many:>6} × {each:<5}", *(f"{1000 * median(took[way]):>9.2f}" for way in WAYS))


if __name__ == "__main__":
    main()
