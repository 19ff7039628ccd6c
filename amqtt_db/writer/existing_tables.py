"""Check tables that exist already, in the form that another model gave them under earlier routes.

What the database says of a table decides.  Only what its types do not tell, which lookup an id is from or which kind a
text is of, is taken from the models that have made it before.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog
from amqtt_db.database.engines.base import Engine
from amqtt_db.database.lookup import is_registered
from amqtt_db.database.naming import fold
from amqtt_db.errors import DatabaseError, Rejected
from amqtt_db.models.base import Column, Lookup
from amqtt_db.models.binding import BoundTable, exact_tables
from amqtt_db.models.calls import Watch, asking, unwatched
from amqtt_db.models.spec import bound_model, to_spec
from amqtt_db.record import Kind
from amqtt_db.routing.route import Route

NamedTable = tuple[Route, BoundTable]
"""A table of a route's model; if it is ``exact``, it has the very name that the model gives it."""


def named_tables(routes: Iterable[Route], watch: Watch = unwatched) -> list[NamedTable]:
    """Return the tables of routes' models; a model that cannot tell them has none."""
    found: list[NamedTable] = []
    for route in routes:
        with suppress(Rejected), asking(to_spec(route.model, timed=route.timed), watch):
            found += [(route, table) for table in (*route.bound().tables(), *route.latest_tables)]
    return found


def names_of(tables: Iterable[NamedTable]) -> set[str]:
    """Return the names of tables and of their lookups, which no topic's own table and no view may have."""
    found = list(tables)
    return {table.name for _, table in found if table.exact} | {lookup.name for lookup in _lookups(found)}


def _lookups(tables: Iterable[NamedTable]) -> list[Lookup]:
    columns = (column for _, table in tables for column in table.columns)
    return list(dict.fromkeys(column.lookup for column in columns if column.lookup is not None))


def check_existing_tables(
    engine: Engine,
    catalog: Catalog,
    connection: sa.Connection,
    tables: Sequence[NamedTable],
    watch: Watch = unwatched,
) -> set[str]:
    """Raise DatabaseError for a table that a route names, and that cannot hold the rows of the route's model.

    Return the keys of those that lack a fixed column, which may be added.
    """
    for lookup in _lookups(tables):
        is_registered(catalog, connection, lookup)
    wishes = [(route, table) for route, table in tables if table.exact]
    forms = _forms(engine, catalog, connection, {table.key for _, table in wishes})
    before = _tables_before(catalog, connection, watch) if forms else []
    for route, table in wishes:
        form = forms.get(table.key)
        odd = None if form is None else form.odd_column(table, [old for old in before if old.key == table.key])
        if odd is not None:
            raise DatabaseError(
                f"table {table.name}, which route {route.filter.text} names, already holds the records of another "
                f"model, with different columns, such as {odd}; choose another name"
            )
    return {table.key for _, table in wishes if table.key in forms and forms[table.key].lacks_some(table)}


@attrs.frozen
class _ExistingTable:
    """A table as it is: its columns as SQLAlchemy reports them, by their folds; ``own`` are those of properties.

    ``types`` are the column types of kinds here; ``alike`` maps types of values to others that will do.
    """

    types: Mapping[Kind, sa.types.TypeEngine[Any]]
    alike: Mapping[type, type]
    columns: Mapping[str, Mapping[str, Any]]
    primary_key: frozenset[str]
    own: frozenset[str]

    def odd_column(self, table: BoundTable, before: Sequence[BoundTable]) -> str | None:
        """Return a column that rows of ``table`` do not fit; ``before`` are all forms that it has been given."""
        made = [old for old in before if self._misfit(old) is None]
        return self._misfit(table) or self._unfilled(table, made) or _redefined(table, made)

    def lacks_some(self, table: BoundTable) -> bool:
        """Return True if a fixed column does not exist yet."""
        return any(fold(column.name) not in self.columns for column in table.columns)

    def _misfit(self, table: BoundTable) -> str | None:
        """Return a column whose type, key or NOT NULL is another, or None."""
        names = {fold(column.name) for column in table.columns}
        key = {fold(name) for name in table.primary_key}
        if self.primary_key and self.primary_key <= names and not key <= self.primary_key:
            return min(key - self.primary_key)  # rows that differ in it alone would be one
        return next((column.name for column in table.columns if not self._takes(column)), None)

    def _takes(self, column: Column) -> bool:
        """Return True if a column exists and takes the values, or can be added."""
        there = self.columns.get(fold(column.name))
        if there is None:
            return True
        wanted, found = self._values(self.types[column.kind]), self._values(there["type"])
        is_alike = None in (wanted, found) or wanted == found
        return is_alike and fold(column.name) not in self.own and (there["nullable"] or not column.nullable)

    def _values(self, type_: sa.types.TypeEngine[Any]) -> type | None:
        """Return the Python type of a column type's values; None if it does not say, as a user-defined one."""
        if isinstance(type_, sa.JSON):
            return dict
        try:
            found: type = type_.python_type
        except NotImplementedError:
            return None
        return None if found is object else self.alike.get(found, found)

    def _unfilled(self, table: BoundTable, made: Iterable[BoundTable]) -> str | None:
        """Return a column that another model filled and that may not be empty, or None."""
        filled = {fold(column.name) for column in table.columns}
        others = self.primary_key | {fold(column.name) for old in made for column in old.columns}
        return next((name for name in sorted(others - filled) if self._must_be_filled(name)), None)

    def _must_be_filled(self, name: str) -> bool:
        there = self.columns.get(name, {"nullable": True})
        by_itself = ("default", "identity", "computed")
        is_counted = there.get("autoincrement") is True
        return not there["nullable"] and not is_counted and all(there.get(one) is None for one in by_itself)


def _forms(engine: Engine, catalog: Catalog, connection: sa.Connection, keys: set[str]) -> dict[str, _ExistingTable]:
    """Return the registered tables with ``keys`` that exist, by key."""
    known = catalog.physical_tables(connection, keys) if keys else {}
    if not known:
        return {}
    inspector, names = sa.inspect(connection), [table.name for table in known.values()]
    columns = {name: found for (_, name), found in inspector.get_multi_columns(filter_names=names).items()}
    primary = {name: found for (_, name), found in inspector.get_multi_pk_constraint(filter_names=names).items()}
    return {
        key: _ExistingTable(
            engine.types,
            engine.alike,
            {fold(column["name"]): column for column in columns[table.name]},
            frozenset(map(fold, primary[table.name]["constrained_columns"])),
            frozenset(map(fold, table.columns.values())),
        )
        for key, table in known.items()
        if columns.get(table.name)
    }


def _redefined(table: BoundTable, made: Sequence[BoundTable]) -> str | None:
    """Return a column whose values mean something else than in every form that the table may have, or None."""
    meanings: dict[str, set[object]] = {}
    for old in made:
        for column in old.columns:
            meanings.setdefault(column.name, set()).add(_meaning(column))
    known = [column for column in table.columns if column.name in meanings]
    return next((column.name for column in known if _meaning(column) not in meanings[column.name]), None)


def _meaning(column: Column) -> tuple[object, object]:
    return column.kind, column.lookup


def _tables_before(catalog: Catalog, connection: sa.Connection, watch: Watch) -> list[BoundTable]:
    """Return all named tables in all forms that models have given them: a table may have been dropped since."""
    found: list[BoundTable] = []
    for spec in catalog.models(connection):
        with suppress(Rejected), asking(spec, watch):  # its class may be gone
            found += exact_tables(bound_model(spec, "", ""))
    return found
