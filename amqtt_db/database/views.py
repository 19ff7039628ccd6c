"""The views of a database: their names, their columns, and their creation and replacement."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Final

import attrs
import orjson
import sqlalchemy as sa

from amqtt_db.database.catalog import CURRENT, MOVED, Catalog, PhysicalTable, key_hash
from amqtt_db.database.engines.base import Engine
from amqtt_db.database.engines.views import ViewSQL
from amqtt_db.database.lookup import lookup_table
from amqtt_db.database.naming import clean, column_name, fold, table_name
from amqtt_db.database.view_sql import (
    Gather,
    View,
    ViewSource,
    is_latest,
    is_property,
    is_route,
    latest_key,
    path_lookup,
    select,
)
from amqtt_db.errors import Rejected
from amqtt_db.models.base import ENVELOPE, Destination, Layout, OwnColumns, ValueRows
from amqtt_db.models.binding import BoundTable, Query
from amqtt_db.models.calls import Watch, asking, unwatched
from amqtt_db.models.latest import LATEST_LAYOUT, LATEST_RECORDS, LATEST_VALUES
from amqtt_db.models.spec import bound_model
from amqtt_db.models.wide import EXTRA
from amqtt_db.record import Pair

MOST_SOURCES: Final = 100
"""The most tables that one view combines: SQLite allows 500 parts in a statement, and other engines get slow."""


@attrs.frozen
class Wish:
    """A view to create or update: the properties that may have a column.

    ``routes`` are the topic filters of the routes whose records it shows: more than one if they share the table that
    it is named after.  ``max_columns`` limits the number of property columns.  ``name`` is the wished
    name; without one a view is named after what it shows.
    """

    destination: Destination
    routes: tuple[str, ...]
    pairs: tuple[Pair, ...] = ()
    max_columns: int = 1000
    name: str = ""
    gather: Gather | None = None


@attrs.frozen
class _Known:
    """A registered view: its name, the order of its columns, and the hash of its definition."""

    name: str
    order: tuple[str, ...] = ()
    definition: str = ""


@attrs.frozen
class _Stored:
    """A model's answer about records that it has stored: where SQL finds them, and in which tables."""

    query: Query
    tables: tuple[BoundTable, ...]
    layout: Layout | None


_STORED_LATEST: Final = _Stored(
    Query(LATEST_RECORDS.key, (LATEST_VALUES.key,), LATEST_RECORDS.primary_key),
    (LATEST_RECORDS, LATEST_VALUES),
    LATEST_LAYOUT,
)


class Views:
    """The views in a database; :meth:`refresh` creates and replaces them.

    ``reserved`` are names that no view may have; ``watch`` notes that a model is being asked where its records are.
    """

    def __init__(
        self, engine: Engine, catalog: Catalog, reserved: Iterable[str] = (), watch: Watch = unwatched
    ) -> None:
        self._watch = watch
        self._engine = engine
        self._catalog = catalog
        self._reserved = {fold(name) for name in reserved}

    def drop_conflicting(self, connection: sa.Connection, sql: ViewSQL[Any]) -> None:
        """Drop views whose names are reserved for tables, and give them other names."""
        for key, name in connection.execute(sa.select(self._catalog.view.c.key, self._catalog.view.c.name)).all():
            if fold(name) in self._reserved:
                inspector = sa.inspect(connection)
                if name in inspector.get_view_names():
                    connection.exec_driver_sql(f"DROP VIEW {sql.name(name)}")
                self._rename(connection, key, _Known(name), self._free(name, self._taken(connection, inspector)))

    def related(self, connection: sa.Connection, destination: Destination) -> list[str]:
        """Return the keys of other views that show these records: the route's, and those of moved topics."""
        view, assignment = self._catalog.view, self._catalog.assignment
        here = (assignment.c.state == CURRENT) & (assignment.c.key == destination.key)
        route = sa.select(view.c.key).where(view.c.hash == key_hash(f"$route/{destination.route}"))
        moved = sa.select(view.c.key).join(assignment, assignment.c.hash == view.c.hash).where(here)
        found = [*connection.scalars(route), *connection.scalars(moved)]
        return [key for key in dict.fromkeys(found) if key != destination.key]

    def key_of(self, connection: sa.Connection, destination: Destination, routes: Sequence[str]) -> str:
        """Return the key of the one view of a destination, that of the first of its ``routes`` which has a view."""
        if len(routes) == 1 or not is_route(destination.key):
            return destination.key
        return self._first_registered(connection, [f"$route/{route}" for route in routes])

    def key_of_latest(self, connection: sa.Connection, routes: Sequence[str]) -> str:
        """Return the key of the one view of the newest values of ``routes``, that of the first which has a view."""
        return self._first_registered(connection, list(map(latest_key, routes)))

    def _first_registered(self, connection: sa.Connection, keys: Sequence[str]) -> str:
        """Return the first key that a view has, or the first of all."""
        view = self._catalog.view
        known = set(connection.scalars(sa.select(view.c.key).where(view.c.hash.in_(list(map(key_hash, keys))))))
        return next((key for key in keys if key in known), keys[0])

    def shown(
        self, connection: sa.Connection, destination: Destination, routes: Sequence[str]
    ) -> Sequence[PhysicalTable]:
        """Return the existing views that show the records of a destination, whose routes' filters are ``routes``."""
        keys = dict.fromkeys((self.key_of(connection, destination, routes), *self.related(connection, destination)))
        there = set(sa.inspect(connection).get_view_names())
        found = {key: view.name for key, view in self._known(connection, keys).items() if view.name in there}
        columns = self._catalog.columns_of(connection, found.values())
        return [PhysicalTable(key, name, columns[name]) for key, name in found.items()]

    def registered(self, connection: sa.Connection, keys: Iterable[str]) -> Sequence[PhysicalTable]:
        """Return the views that are registered under some keys, without their columns."""
        return [PhysicalTable(key, view.name, {}) for key, view in self._known(connection, keys).items()]

    def unregister(self, connection: sa.Connection, view: PhysicalTable) -> None:
        """Drop a view, and forget it and its columns."""
        quote = connection.dialect.identifier_preparer.quote
        connection.execution_options(no_parameters=True).exec_driver_sql(f"DROP VIEW IF EXISTS {quote(view.name)}")
        table, column = self._catalog.view, self._catalog.column
        connection.execute(table.delete().where(table.c.hash == key_hash(view.key)))
        connection.execute(column.delete().where(column.c.table_name == view.name))

    def drop(self, connection: sa.Connection, view: PhysicalTable) -> None:
        """Drop a view; its name and its columns stay registered."""
        quote = connection.dialect.identifier_preparer.quote
        connection.execution_options(no_parameters=True).exec_driver_sql(f"DROP VIEW {quote(view.name)}")
        here = self._catalog.view.c.hash == key_hash(view.key)
        connection.execute(self._catalog.view.update().where(here).values(definition=""))

    def refresh(
        self, connection: sa.Connection, sql: ViewSQL[Any], wishes: Mapping[str, Wish]
    ) -> tuple[list[str], dict[str, Rejected]]:
        """Create or replace the views whose definition has changed, with the schema locked; return their names.

        Also return, by key, why views whose models cannot be called were not refreshed.
        """
        sources, faults = self._sources(connection, wishes)
        known = self._known(connection, wishes)
        inspector = sa.inspect(connection)
        tables, views = set(inspector.get_table_names()), set(inspector.get_view_names())
        taken = self._taken(connection, inspector)
        made = []
        for key, wish in wishes.items():
            if not sources.get(key):
                continue
            there = known.get(key)
            if there is None or there.name in tables:
                name = self._free(_first_name(wish, sources[key], self._engine), taken)
                there = self._rename(connection, key, there, name)
                taken.add(fold(name))
            if self._remake(connection, sql, wish, there, key, sources[key], is_there=there.name in views):
                made.append(there.name)
        return made, faults

    def make(self, connection: sa.Connection, sql: ViewSQL[Any], key: str, wish: str, statement: str) -> str | None:
        """Create or replace a view of tables that are always there, with the schema locked.

        Return its name, None if it is as it should be.  ``wish`` is the name of a new one, unless that is taken.
        """
        inspector = sa.inspect(connection)
        known = self._known(connection, [key]).get(key)
        if known is None:
            known = self._rename(connection, key, None, self._free(wish, self._taken(connection, inspector)))
        definition = key_hash(statement)
        if known.definition == definition and known.name in inspector.get_view_names():
            return None
        sql.replace(connection, known.name, statement)
        here = self._catalog.view.c.hash == key_hash(key)
        connection.execute(self._catalog.view.update().where(here).values(definition=definition))
        return known.name

    def _remake(
        self,
        connection: sa.Connection,
        sql: ViewSQL[Any],
        wish: Wish,
        known: _Known,
        key: str,
        sources: Sequence[ViewSource],
        *,
        is_there: bool,
    ) -> bool:
        columns = self._columns(connection, known, wish, sources)
        view = View(
            key,
            known.name,
            wish.routes,
            columns,
            tuple(self._with_ids(connection, source, columns) for source in sources),
            wish.gather,
        )
        statement = select(view, sql)
        definition = key_hash(statement)
        if is_there and definition == known.definition:
            return False
        sql.replace(connection, known.name, statement)
        table = self._catalog.view
        row = {"columns": orjson.dumps(list(view.columns.values())).decode(), "definition": definition}
        connection.execute(table.update().where(table.c.hash == key_hash(key)).values(**row))
        return True

    def _taken(self, connection: sa.Connection, inspector: sa.Inspector) -> set[str]:
        """Return the folded names that no view can have."""
        there = map(fold, (*inspector.get_table_names(), *inspector.get_view_names()))
        return {*self._reserved, *there, *self._catalog.table_folds(connection)}

    def _free(self, wish: str, taken: Collection[str]) -> str:
        return table_name(wish, is_taken=lambda name: fold(name) in taken, limit=self._engine.name_limit)

    def _sources(
        self, connection: sa.Connection, wishes: Mapping[str, Wish]
    ) -> tuple[dict[str, tuple[ViewSource, ...]], dict[str, Rejected]]:
        """Return where the records of each view are, oldest tables first, unless their models cannot be called.

        Also return why those cannot be called.
        """
        stored: dict[str, list[_Stored]] = {}
        faults: dict[str, Rejected] = {}
        for key, wish in wishes.items():
            try:
                stored[key] = list(self._stored(connection, key, wish.routes))
            except Rejected as fault:
                faults[key] = fault
        wanted = {table.key for found in stored.values() for one in found for table in one.tables}
        known = self._catalog.physical_tables(connection, sorted(wanted))
        sources = {key: [_source(one, known) for one in found] for key, found in stored.items()}
        return {key: tuple(one for one in found if one is not None) for key, found in sources.items()}, faults

    def _stored(self, connection: sa.Connection, key: str, routes: Sequence[str]) -> Iterator[_Stored]:
        if is_latest(key):
            yield _STORED_LATEST
            return
        assignment = self._catalog.assignment
        if not key.startswith("$"):
            here = assignment.c.hash == key_hash(key)
        else:
            same = assignment.c.route.in_(routes) if is_route(key) else assignment.c.key == key
            topics = sa.select(assignment.c.hash).where(same & (assignment.c.state == CURRENT))
            here = assignment.c.hash.in_(topics)
        group = (assignment.c.key, assignment.c.route, assignment.c.model)
        query = sa.select(*group, sa.func.max(assignment.c.sequence)).where(here & (assignment.c.state != MOVED))
        rows = connection.execute(query.group_by(*group))
        seen = set()
        for row in sorted(rows, key=itemgetter(3, 0))[-MOST_SOURCES:]:
            with asking(row[2], self._watch):
                model = bound_model(row[2], row[0], row[1])
                tables = tuple(table for table in model.tables() if not table.replaces)
                stored = _Stored(model.query, tables, model.layout)
            if stored.query not in seen:
                seen.add(stored.query)
                yield stored

    def _known(self, connection: sa.Connection, keys: Iterable[str]) -> dict[str, _Known]:
        table = self._catalog.view
        query = sa.select(table).where(table.c.hash.in_([key_hash(key) for key in keys]))
        return {
            row.key: _Known(row.name, tuple(orjson.loads(row.columns)), row.definition)
            for row in connection.execute(query)
        }

    def _rename(self, connection: sa.Connection, key: str, known: _Known | None, name: str) -> _Known:
        """Register a view, or the new name of one."""
        table, column = self._catalog.view, self._catalog.column
        if known is None:
            row = {"hash": key_hash(key), "name": name, "key": key, "columns": "[]", "definition": ""}
            connection.execute(table.insert(), row)
            return _Known(name)
        connection.execute(table.update().where(table.c.hash == key_hash(key)).values(name=name))
        connection.execute(column.update().where(column.c.table_name == known.name).values(table_name=name))
        return attrs.evolve(known, name=name)

    def _columns(
        self, connection: sa.Connection, known: _Known, wish: Wish, sources: Sequence[ViewSource]
    ) -> dict[Pair, str]:
        """Return a view's columns in order, and register new ones."""
        column = self._catalog.column
        query = sa.select(column.c.property, column.c.kind, column.c.column_name)
        old = {(row[0], row[1]): row[2] for row in connection.execute(query.where(column.c.table_name == known.name))}
        new = new_columns(old, wish, sources, self._engine)
        self._catalog.add_columns(connection, {known.name: new})
        order = {name: index for index, name in enumerate(known.order)}
        return dict(sorted((old | new).items(), key=lambda item: order.get(item[1], len(order))))

    def _with_ids(self, connection: sa.Connection, source: ViewSource, pairs: Iterable[Pair]) -> ViewSource:
        """Return the source with the ids of properties, if each property has one id for all topics."""
        if not isinstance(source.layout, ValueRows):
            return source
        lookup = path_lookup(source, source.layout)
        if len(lookup.columns) > 1:
            return source
        table = lookup_table(self._engine, lookup, sa.MetaData())
        paths = {key_hash(path): path for path, _ in pairs}
        query = sa.select(table.c.hash, table.c.id).where(table.c.hash.in_(list(paths)))
        return attrs.evolve(source, ids={paths[row[0]]: row[1] for row in connection.execute(query)})


def new_columns(
    known: Mapping[Pair, str], wish: Wish, sources: Sequence[ViewSource], engine: Engine
) -> dict[Pair, str]:
    """Return the additional columns that a view needs; tables' own columns keep their names if possible."""
    own = {
        pair: name
        for source in sources
        if isinstance(source.layout, OwnColumns)
        for pair, name in source.main[1].columns.items()
    }
    fixed = {pair: column.name for source in sources for pair, column in source.fixed.items()}
    named = own | fixed
    taken = {*map(fold, known.values()), *(fold(column.name) for column in ENVELOPE), EXTRA}
    with_plain = {path for path, kind in known if kind != "tagged"}
    room = wish.max_columns - sum(is_property(pair) for pair in known) + len(fixed.keys() - known.keys())
    new: dict[Pair, str] = {}
    for pair in dict.fromkeys((*fixed, *wish.pairs, *sorted(own, key=own.__getitem__))):
        path, kind = pair
        if pair in known or (pair not in named and len(new) >= room):
            continue
        plain = kind != "tagged" and path not in with_plain
        name = named.get(pair)
        if name is None or fold(name) in taken:
            name = column_name(engine.nameable(path), kind, plain=plain, taken=taken, limit=engine.name_limit)
        new[pair] = name
        taken.add(fold(name))
        with_plain.update([path] if plain else [])
    return new


def _source(stored: _Stored, known: Mapping[str, PhysicalTable]) -> ViewSource | None:
    """Return where a view finds a model's records; None without a layout, or without its tables."""
    (main, *details), layout = stored.tables, stored.layout
    if layout is None or not {main.key, *(table.key for table in details)} <= known.keys():
        return None
    values: tuple[BoundTable, PhysicalTable] | None = None
    if isinstance(layout, ValueRows):
        table = next(table for table in details if layout.path in {column.name for column in table.columns})
        values = table, known[table.key]
    return ViewSource(layout, (main, known[main.key]), values, stored.query.on)


def _first_name(wish: Wish, sources: Sequence[ViewSource], engine: Engine) -> str:
    """Return the wished name, or one after the table where a view shows one, otherwise after the route's filter."""
    if wish.name:
        return wish.name
    last = sources[-1]
    base = last.main[1].name if isinstance(last.layout, OwnColumns) else clean(engine.nameable(wish.destination.route))
    return f"{base}_view" if base.strip("_") else "all_view"
