"""SELECT statements that fetch one page of a model's rows in the order of an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.engines.base import Engine
from amqtt_db.models.binding import Query
from amqtt_db.reader.columns import StoredTable
from amqtt_db.reader.selection import Order

_NULL: Final = sa.types.NullType()  # parameters are passed to the driver as they are


@attrs.frozen
class Bounds:
    """The conditions of a statement; their values are its parameters ``topic``, ``low`` and ``high``."""

    topic: bool
    low: bool
    high: bool


@attrs.frozen
class DriverText:
    """A statement as the driver gets it.

    ``names`` are its parameters in order, None if the text names them; ``constants`` are values that are always the
    same.
    """

    text: str
    names: Sequence[str] | None
    constants: Mapping[str, Any]

    def execute(self, connection: sa.Connection, parameters: Mapping[str, Any]) -> sa.CursorResult[Any]:
        """Run the statement with parameters by name."""
        given = {**self.constants, **parameters}
        values = given if self.names is None else tuple(map(given.__getitem__, self.names))
        return connection.exec_driver_sql(self.text, values)


def page_statement(main: sa.TableClause, order: Order, bounds: Bounds, *, following: bool) -> sa.Select[Any]:
    """Return the statement for ``size`` rows of the main table in order.

    With ``following``, these are the rows after the one that the parameters ``after_<field>`` name.
    """
    columns = main.c
    page = bounded_statement(main, order, bounds, following=following)
    if following:
        page = page.where(_behind([columns[name] for name in order.fields], order, at_least=True))
    return page.order_by(*_sorting(columns, order)).limit(sa.bindparam("size", type_=sa.Integer()))


def bounded_statement(main: sa.TableClause, order: Order, bounds: Bounds, *, following: bool = False) -> sa.Select[Any]:
    """Return the statement for all rows of the main table within bounds; those of a ``following`` page bound less."""
    columns = main.c
    where = _bounds(columns, order, bounds, following=following)
    if bounds.topic:
        where.append(columns.topic == _parameter("topic"))
    return sa.select(main).where(*where)


def joined_statement(
    page: sa.Select[Any], query: Query, main: StoredTable, values: StoredTable, order: Order
) -> sa.Select[Any]:
    """Return the statement for the rows of a page with those of a detail table that belong to them."""
    rows = page.subquery("message")
    more = [values.target.c[name] for cell, name in values.names.items() if cell not in main.names]
    origin = rows.outerjoin(values.target, same_record(rows, query, values))
    return sa.select(*rows.c, *more).select_from(origin).order_by(*_sorting(rows.c, order))


def details_statement(page: sa.Select[Any], query: Query, details: StoredTable) -> sa.Select[Any]:
    """Return the statement for the rows of a detail table that belong to those of a page, in the order of its key."""
    rows = page.subquery("message")
    columns = details.target.c
    origin = rows.join(details.target, same_record(rows, query, details))
    return sa.select(*columns).select_from(origin).order_by(*(columns[name] for name in details.table.primary_key))


def same_record(page: sa.Subquery, query: Query, details: StoredTable) -> sa.ColumnElement[bool]:
    """Return the condition that a row of a detail table belongs to one of a page."""
    return sa.and_(*(page.c[name] == details.target.c[name] for name in query.on))


def _bounds(columns: Any, order: Order, bounds: Bounds, *, following: bool) -> list[sa.ColumnElement[bool]]:
    """Return the conditions on the order's first field.

    A following page is bounded only by its key: of two lower bounds, a database may use the weaker one.
    """
    first = columns[order.fields[0]]
    where = []
    if bounds.low and (order.descending or not following):
        where.append(first >= _parameter("low"))
    if bounds.high and not (order.descending and following):
        where.append(first < _parameter("high"))
    return where


def _behind(columns: Sequence[sa.ColumnElement[Any]], order: Order, *, at_least: bool) -> sa.ColumnElement[bool]:
    """Return the condition for rows after a key, written so that every database uses an index on the first columns."""
    first, *rest = columns
    key = _parameter(f"after_{first.key}")
    strict = first < key if order.descending else first > key
    if not rest:
        return strict
    further = _behind(rest, order, at_least=False)
    if at_least:
        return sa.and_(first <= key if order.descending else first >= key, sa.or_(strict, further))
    return sa.or_(strict, sa.and_(first == key, further))


def _sorting(columns: Any, order: Order) -> list[sa.ColumnElement[Any]]:
    return [columns[name].desc() if order.descending else columns[name].asc() for name in order.fields]


def _parameter(name: str) -> sa.BindParameter[Any]:
    return sa.bindparam(name, type_=_NULL)


def _run_statement(
    connection: sa.Connection,
    select: sa.Select[Any] | sa.CompoundSelect[Any] | DriverText,
    parameters: Mapping[str, Any],
) -> sa.CursorResult[Any]:
    if isinstance(select, DriverText):
        return select.execute(connection, parameters)
    return connection.execute(select, parameters)


def fetch_rows(
    engine: Engine,
    connection: sa.Connection,
    select: sa.Select[Any] | sa.CompoundSelect[Any] | DriverText,
    parameters: Mapping[str, Any],
) -> Sequence[Any]:
    """Return the rows of a query as the driver returns them; a value that it cannot represent comes as text."""

    def fetch() -> Sequence[Any]:
        with _run_statement(connection, select, parameters) as result:
            return result.cursor.fetchall()  # the columns have no types, so SQLAlchemy would only wrap each row

    try:
        rows = fetch()
    except Exception as error:
        if not engine.tolerate_values(connection, error):
            raise
        rows = fetch()
    engine.release_locks(connection)
    return rows
