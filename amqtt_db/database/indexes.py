"""The indexes that a route requests, on columns of its record's own table."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext

import sqlalchemy as sa

from amqtt_db.database.catalog import PhysicalTable
from amqtt_db.database.engines.base import Engine, driver_error, first_line
from amqtt_db.database.naming import unique
from amqtt_db.models.binding import BoundTable
from amqtt_db.record import Kind

logger = logging.getLogger(__name__)

IndexColumns = Sequence[tuple[str, Kind]]
"""The columns of an index, with the kinds of their values."""


def make_indexes(
    engine: Engine, connection: sa.Connection, table: BoundTable, known: PhysicalTable, wishes: Iterable[Sequence[str]]
) -> list[str]:
    """Create the indexes that are missing, in the connection's transaction; return the DDL.

    A wish names fixed columns and paths of properties; it waits until all of them have a column.  If the database
    rejects an index, that is logged, and messages are stored without it.
    """
    present = {index["name"] for index in sa.inspect(connection).get_indexes(known.name)}
    targets = (_index(engine, known, columns) for columns in _find_columns(table, known, wishes))
    made = (_create_index(engine, connection, target) for target in targets if target.name not in present)
    return [statement for statement in made if statement is not None]


def _find_columns(table: BoundTable, known: PhysicalTable, wishes: Iterable[Sequence[str]]) -> Iterator[IndexColumns]:
    """Yield the columns of each wish whose columns all exist."""
    fixed = {column.name: column.kind for column in table.columns}
    for wish in wishes:
        columns = [(name, fixed[name]) if name in fixed else _property_column(known, name) for name in wish]
        found = [column for column in columns if column is not None]
        if len(found) == len(columns):
            yield found


def _property_column(known: PhysicalTable, path: str) -> tuple[str, Kind] | None:
    """Return a property's plain column, the one with the shortest name."""
    columns = [(name, kind) for (own, kind), name in known.columns.items() if own == path]
    return min(columns, key=lambda column: len(column[0]), default=None)


def _index(engine: Engine, known: PhysicalTable, columns: IndexColumns) -> sa.Index:
    names = [name for name, _ in columns]
    wish = "_".join(("ix", known.name, *names))  # it always gets a tag, because index names are shared by all tables
    name = unique(wish, f"{known.key}\n{names}", {wish}.__contains__, engine.name_limit)
    target = sa.Table(known.name, sa.MetaData(), *(sa.Column(name, engine.types[kind]) for name, kind in columns))
    return sa.Index(name, *(target.c[name] for name in names), **engine.index_options(columns))


def _create_index(engine: Engine, connection: sa.Connection, index: sa.Index) -> str | None:
    statement = sa.schema.CreateIndex(index)
    try:
        with _savepoint(engine, connection):
            connection.execute(statement)
    except sa.exc.DBAPIError as error:
        columns = ", ".join(column.name for column in index.columns)
        table = index.table.name if index.table is not None else ""
        logger.warning(
            "no index on %s of table %s: %s; messages are stored without it",
            columns,
            table,
            first_line(driver_error(error)),
        )
        return None
    return str(statement.compile(dialect=connection.dialect)).strip()


def _savepoint(engine: Engine, connection: sa.Connection) -> AbstractContextManager[object]:
    """Return a savepoint that undoes only the failed statement, if failures would otherwise end the transaction."""
    return connection.begin_nested() if engine.transactional_ddl else nullcontext()
