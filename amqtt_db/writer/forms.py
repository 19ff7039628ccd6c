"""Tables that are there already in the form that another model gave them, when the routes were others."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

import sqlalchemy as sa

from amqtt_db.catalog import Catalog
from amqtt_db.errors import DatabaseError
from amqtt_db.models.base import Column, Table, exact_tables
from amqtt_db.models.spec import model_of
from amqtt_db.route import Route


def require_forms(catalog: Catalog, connection: sa.Connection, routes: Iterable[Route]) -> None:
    """Raise DatabaseError for a table that a route names, and that cannot hold the rows of the route's model."""
    before = _tables_before(catalog, connection)
    for route in routes:
        for table in exact_tables(route.model):
            forms = [old for old in before if old.key == table.key]
            is_other = bool(forms) and not any(_has_room(old, table) for old in forms)
            if is_other and sa.inspect(connection).has_table(table.name):
                raise DatabaseError(
                    f"table {table.name}, which route {route.filter.text} names, already holds the records of another "
                    "model, and its columns are others; choose another name"
                )


def _tables_before(catalog: Catalog, connection: sa.Connection) -> list[Table]:
    """In all forms that they have ever had: a table may have been dropped and made anew."""
    found: list[Table] = []
    for spec in catalog.models(connection):
        with suppress(Exception):  # its class is gone, or raises whatever a user's class does
            found += exact_tables(model_of(spec))
    return found


def _has_room(old: Table, new: Table) -> bool:
    """Whether a table that was made as ``old`` takes the rows of ``new``: a column may be added, but none changed."""
    there = {column.name: column for column in old.columns}
    wanted = {column.name: column for column in new.columns}
    changed = [name for name in there.keys() & wanted if _content(there[name]) != _content(wanted[name])]
    unfilled = [name for name, column in there.items() if not column.nullable and name not in wanted]
    return old.primary_key == new.primary_key and not changed and not unfilled


def _content(column: Column) -> tuple[object, object]:
    return column.kind, column.lookup
