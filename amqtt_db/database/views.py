"""The views of a database: their names, their columns, and their creation and replacement."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import attrs
import orjson
import sqlalchemy as sa

from amqtt_db.database.catalog import CURRENT, Catalog, PhysicalTable, key_hash
from amqtt_db.database.engines.base import Engine
from amqtt_db.database.engines.views import ViewSQL
from amqtt_db.database.lookup import lookup_table
from amqtt_db.database.naming import clean, column_name, fold, table_name
from amqtt_db.database.view_sources import find_view_sources
from amqtt_db.database.view_sql import (
    Gather,
    View,
    ViewSource,
    is_property,
    is_route,
    latest_key,
    path_lookup,
    select,
)
from amqtt_db.errors import Rejected
from amqtt_db.models.base import ENVELOPE, Destination, OwnColumns, ValueRows
from amqtt_db.models.calls import Watch, unwatched
from amqtt_db.models.wide import EXTRA
from amqtt_db.record import Pair


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

    def related(self, connection: sa.Connection, destinations: Iterable[Destination]) -> Mapping[str, Sequence[str]]:
        """Return the keys of other views that show the records of each destination, by its key.

        They are the route's view, and those of topics that have moved there.
        """
        by_key = {destination.key: f"$route/{destination.route}" for destination in destinations}
        there = self._registered_keys(connection, set(by_key.values()))
        found = {key: [route] if route in there else [] for key, route in by_key.items()}
        view, assignment = self._catalog.view, self._catalog.assignment
        here = (assignment.c.state == CURRENT) & assignment.c.key.in_(list(by_key))
        moved = sa.select(assignment.c.key, view.c.key).join(view, assignment.c.hash == view.c.hash).where(here)
        for key, other in connection.execute(moved):
            if key in found:  # for MariaDB, keys that differ in spaces at the end are the same
                found[key].append(other)
        return {key: [one for one in dict.fromkeys(others) if one != key] for key, others in found.items()}

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
        known = self._registered_keys(connection, keys)
        return next((key for key in keys if key in known), keys[0])

    def _registered_keys(self, connection: sa.Connection, keys: Iterable[str]) -> set[str]:
        """Return those keys that a view has."""
        view = self._catalog.view
        return set(connection.scalars(sa.select(view.c.key).where(view.c.hash.in_(list(map(key_hash, keys))))))

    def shown(
        self, connection: sa.Connection, destination: Destination, routes: Sequence[str]
    ) -> Sequence[PhysicalTable]:
        """Return the existing views that show the records of a destination, whose routes' filters are ``routes``."""
        others = self.related(connection, [destination])[destination.key]
        keys = dict.fromkeys((self.key_of(connection, destination, routes), *others))
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
        routes = {key: wish.routes for key, wish in wishes.items()}
        sources, faults = find_view_sources(connection, self._catalog, routes, self._watch)
        shown = {key: wish for key, wish in wishes.items() if sources.get(key)}
        inspector = sa.inspect(connection)
        there = set(inspector.get_view_names())
        known = self._name(connection, inspector, shown, sources, there)
        columns = self._columns(connection, known, shown, sources)
        made: dict[str, View] = {}
        definitions: dict[str, str] = {}
        for key, wish in shown.items():
            found = tuple(self._with_ids(connection, source, columns[key]) for source in sources[key])
            view = View(key, known[key].name, wish.routes, columns[key], found, wish.gather)
            statement = select(view, sql)
            definitions[key] = key_hash(statement)
            if view.name not in there or definitions[key] != known[key].definition:
                sql.replace(connection, view.name, statement)
                made[key] = view
        self._note_made(connection, made, definitions)
        return [view.name for view in made.values()], faults

    def make(self, connection: sa.Connection, sql: ViewSQL[Any], key: str, wish: str, statement: str) -> str | None:
        """Create or replace a view of tables that are always there, with the schema locked.

        Return its name, None if it is as it should be.  ``wish`` is the name of a new one, unless that is taken.
        """
        inspector = sa.inspect(connection)
        known = self._known(connection, [key]).get(key)
        if known is None:
            known = _Known(self._free(wish, self._taken(connection, inspector)))
            self._register(connection, {key: known.name})
        definition = key_hash(statement)
        if known.definition == definition and known.name in inspector.get_view_names():
            return None
        sql.replace(connection, known.name, statement)
        here = self._catalog.view.c.hash == key_hash(key)
        connection.execute(self._catalog.view.update().where(here).values(definition=definition))
        return known.name

    def _name(
        self,
        connection: sa.Connection,
        inspector: sa.Inspector,
        wishes: Mapping[str, Wish],
        sources: Mapping[str, Sequence[ViewSource]],
        there: Collection[str],
    ) -> Mapping[str, _Known]:
        """Return the views by key; new ones get names, and so do those whose names tables have got."""
        known = self._known(connection, wishes)
        if all(key in known and known[key].name in there for key in wishes):
            return known
        tables, taken = set(inspector.get_table_names()), self._taken(connection, inspector)
        new: dict[str, str] = {}
        for key, wish in wishes.items():
            if key in known and known[key].name not in tables:
                continue
            name = self._free(_first_name(wish, sources[key], self._engine), taken)
            taken.add(fold(name))
            if key in known:
                known[key] = self._rename(connection, key, known[key], name)
            else:
                new[key] = name
        self._register(connection, new)
        return {**known, **{key: _Known(name) for key, name in new.items()}}

    def _register(self, connection: sa.Connection, names: Mapping[str, str]) -> None:
        """Register new views, given their names by key."""
        rows = [
            {"hash": key_hash(key), "name": name, "key": key, "columns": "[]", "definition": ""}
            for key, name in names.items()
        ]
        if rows:
            connection.execute(self._catalog.view.insert(), rows)

    def _note_made(self, connection: sa.Connection, views: Mapping[str, View], definitions: Mapping[str, str]) -> None:
        """Note what views are now."""
        table = self._catalog.view
        rows = [
            {"of": key_hash(key), "order": orjson.dumps(list(view.columns.values())).decode(), "now": definitions[key]}
            for key, view in views.items()
        ]
        if rows:
            here = table.update().where(table.c.hash == sa.bindparam("of"))
            connection.execute(here.values(columns=sa.bindparam("order"), definition=sa.bindparam("now")), rows)

    def _taken(self, connection: sa.Connection, inspector: sa.Inspector) -> set[str]:
        """Return the folded names that no view can have."""
        there = map(fold, (*inspector.get_table_names(), *inspector.get_view_names()))
        return {*self._reserved, *there, *self._catalog.table_folds(connection)}

    def _free(self, wish: str, taken: Collection[str]) -> str:
        return table_name(wish, is_taken=lambda name: fold(name) in taken, limit=self._engine.name_limit)

    def _known(self, connection: sa.Connection, keys: Iterable[str]) -> dict[str, _Known]:
        table = self._catalog.view
        query = sa.select(table).where(table.c.hash.in_([key_hash(key) for key in keys]))
        return {
            row.key: _Known(row.name, tuple(orjson.loads(row.columns)), row.definition)
            for row in connection.execute(query)
        }

    def _rename(self, connection: sa.Connection, key: str, known: _Known, name: str) -> _Known:
        """Register the new name of a view."""
        table, column = self._catalog.view, self._catalog.column
        connection.execute(table.update().where(table.c.hash == key_hash(key)).values(name=name))
        connection.execute(column.update().where(column.c.table_name == known.name).values(table_name=name))
        return attrs.evolve(known, name=name)

    def _columns(
        self,
        connection: sa.Connection,
        known: Mapping[str, _Known],
        wishes: Mapping[str, Wish],
        sources: Mapping[str, Sequence[ViewSource]],
    ) -> Mapping[str, dict[Pair, str]]:
        """Return the columns of views by key, in order, and register new ones."""
        old = self._catalog.columns_of(connection, [known[key].name for key in wishes])
        new = {key: new_columns(old[known[key].name], wish, sources[key], self._engine) for key, wish in wishes.items()}
        self._catalog.add_columns(connection, {known[key].name: columns for key, columns in new.items()})
        return {
            key: _sort_columns({**old[known[key].name], **columns}, known[key].order) for key, columns in new.items()
        }

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


def _sort_columns(columns: Mapping[Pair, str], names: Sequence[str]) -> dict[Pair, str]:
    """Return columns in the order of their names, those without a place at the end."""
    order = {name: index for index, name in enumerate(names)}
    return dict(sorted(columns.items(), key=lambda item: order.get(item[1], len(order))))


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


def _first_name(wish: Wish, sources: Sequence[ViewSource], engine: Engine) -> str:
    """Return the wished name, or one after the table where a view shows one, otherwise after the route's filter."""
    if wish.name:
        return wish.name
    last = sources[-1]
    base = last.main[1].name if isinstance(last.layout, OwnColumns) else clean(engine.nameable(wish.destination.route))
    return f"{base}_view" if base.strip("_") else "all_view"
