"""SQL views in wide form: the same columns of a route's records, whatever model they lie in.

A view belongs to the key of a place: a route's, or a topic's where a topic has tables of its own.  Its name and its
columns' names are given once and remembered in the catalogue, so a dashboard survives a change of model: the view then
unites what lies here and there.  Of which topics a route's view has the records is looked up whenever it is asked.
"""

# ruff: noqa: S608 - every name and every literal is quoted

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Final

import attrs
import orjson
import sqlalchemy as sa

from amqtt_db.catalog import CURRENT, Catalog, PhysicalTable, key_hash
from amqtt_db.engines.base import Engine
from amqtt_db.engines.views import ViewSQL, property_key
from amqtt_db.lookup import lookup_table
from amqtt_db.models.base import ENVELOPE, Documents, Layout, Lookup, Model, OwnColumns, Place, Table, ValueRows
from amqtt_db.naming import clean, column_name, fold, table_name
from amqtt_db.shape import Kind, Pair, Shape

EXTRA: Final = "extra"
SPILLED: Final[Pair] = ("{}", "json")
"""What the catalogue notes of a view whose records have properties without a column; no property has this path."""

MOST_SOURCES: Final = 100
"""A view unites so many places at most: SQLite takes 500 parts of a statement, the others grow slow."""


@attrs.frozen
class Wish:
    """What a view shall have: the properties met at a place, as far as a column may be given to them.

    ``max_columns`` bounds how many columns are given to properties; ``spills`` tells that some shall have none.
    """

    place: Place
    pairs: tuple[Pair, ...] = ()
    spills: bool = False
    max_columns: int = 1000


@attrs.frozen
class Source:
    """Tables with records of a view, as a model lays them out.

    ``main`` is the table of the model's query, ``values`` the one that it joins in by the columns ``on``.  ``ids`` are
    those of property paths, where the lookup has one for each.
    """

    layout: Layout
    main: tuple[Table, PhysicalTable]
    values: tuple[Table, PhysicalTable] | None = None
    on: tuple[str, ...] = ()
    ids: Mapping[str, int] | None = None


@attrs.frozen
class View:
    """A view to make: ``columns`` in the order that it has them."""

    key: str
    name: str
    columns: Mapping[Pair, str]
    sources: tuple[Source, ...]

    @property
    def spills(self) -> bool:
        """Whether there are properties without a column."""
        return SPILLED in self.columns

    @property
    def pairs(self) -> Mapping[Pair, str]:
        """The properties' columns."""
        return {pair: name for pair, name in self.columns.items() if pair != SPILLED}


def select(view: View, sql: ViewSQL) -> str:
    """The statement that a view stands for."""
    return "\nUNION ALL\n".join(_select(view, source, sql) for source in view.sources)


def _select(view: View, source: Source, sql: ViewSQL) -> str:
    table, known = source.main
    fixed = {column.name: column for column in table.columns}
    lookup = fixed["topic"].lookup
    columns = {column.name: f"m.{sql.name(column.name)}" for column in ENVELOPE}
    origin = f"{sql.name(known.name)} m"
    if lookup is not None:
        columns["topic"] = f"t.{sql.name(lookup.columns[0])}"
        origin += f" JOIN {sql.name(lookup.name)} t ON t.id = m.{sql.name('topic')}"
    columns[EXTRA] = _extra(view, source, sql)
    columns.update((name, _property(source, pair, sql)) for pair, name in view.pairs.items())
    listed = ",\n  ".join(f"{expression} AS {sql.name(name)}" for name, expression in columns.items())
    return f"SELECT {listed}\nFROM {origin}{_condition(view, known, lookup, sql)}"


def _condition(view: View, table: PhysicalTable, lookup: Lookup | None, sql: ViewSQL) -> str:
    """Of which topics: those whose current place the view is for, and a topic's own whatever its place."""
    if view.key == table.key:
        return ""
    column = f"m.{sql.name('topic')}"
    if not view.key.startswith("$"):
        own = f"(SELECT id FROM {sql.name(lookup.name)} WHERE hash = {sql.text(key_hash(view.key))})" if lookup else ""
        return f"\nWHERE {column} = {own or sql.text(view.key)}"
    column_, value = ("route", view.key.removeprefix("$route/")) if is_route(view.key) else ("key", view.key)
    here = f"p.state = {sql.text(CURRENT)} AND p.{sql.name(column_)} = {sql.text(value)}"
    placements = f"{sql.name('mqtt_placement')} p"
    if lookup is None:
        return f"\nWHERE {column} IN (SELECT p.topic FROM {placements} WHERE {here})"
    topics = f"{sql.name(lookup.name)} x JOIN {placements} ON p.hash = x.hash"
    return f"\nWHERE {column} IN (SELECT x.id FROM {topics} WHERE {here})"


def is_route(key: str) -> bool:
    """Whether a place's key stands for a whole route."""
    return key.startswith("$route/")


def _property(source: Source, pair: Pair, sql: ViewSQL) -> str:
    layout, (path, kind) = source.layout, pair
    if isinstance(layout, OwnColumns):
        name = source.main[1].columns.get(pair)
        return sql.null(kind) if name is None else f"m.{sql.name(name)}"
    if isinstance(layout, ValueRows):
        return _value(source, layout, pair, sql)
    if path.startswith("{"):
        return sql.level(f"m.{sql.name(layout.levels)}", path[1:-1]) if kind == "text" else sql.null(kind)
    return sql.member(kind, f"m.{sql.name(layout.data)}", f"m.{sql.name(layout.kinds)}", path)


def _value(source: Source, layout: ValueRows, pair: Pair, sql: ViewSQL) -> str:
    """A look into the rows of values: no join for each property, and nothing at all for a column nobody asks for."""
    path, kind = pair
    name = layout.columns.get(kind)
    if name is None or (source.ids is not None and path not in source.ids):
        return sql.null(kind)
    column = f"v.{sql.name(name)}"
    shared = list(layout.columns.values()).count(name) > 1
    found = sql.untagged(kind, column) if shared else column
    if source.ids is not None:
        same = f"v.{sql.name(layout.path)} = {source.ids[path]}"
        return f"(SELECT {found} FROM {_values(source, sql)} WHERE {_same_record(source, sql)} AND {same})"
    origin, there = _values_with_paths(source, layout, sql)
    return f"(SELECT {found} FROM {origin} WHERE {_same_record(source, sql)} AND {there} = {sql.text(path)})"


def _extra(view: View, source: Source, sql: ViewSQL) -> str:
    layout, known = source.layout, [property_key(*pair) for pair in view.pairs]
    if isinstance(layout, OwnColumns):
        overflow = source.main[0].overflow
        return sql.null("json") if overflow is None else f"m.{sql.name(overflow)}"
    if not view.spills:
        return sql.null("json")
    if isinstance(layout, Documents):
        data, named, levels = (f"m.{sql.name(name)}" for name in (layout.data, layout.kinds, layout.levels))
        return sql.rest_of_document(data, named, levels, known)
    kinds: dict[str, list[Kind]] = {}
    for kind, name in layout.columns.items():
        kinds.setdefault(f"v.{sql.name(name)}", []).append(kind)
    origin, path = _values_with_paths(source, layout, sql)
    return sql.rest_of_rows(path, kinds, f"FROM {origin} WHERE {_same_record(source, sql)}", known)


def _values(source: Source, sql: ViewSQL) -> str:
    assert source.values is not None  # noqa: S101 - rows of values are in a table
    return f"{sql.name(source.values[1].name)} v"


def _values_with_paths(source: Source, layout: ValueRows, sql: ViewSQL) -> tuple[str, str]:
    """The rows of values joined with the names of their properties, and the expression for the path."""
    lookup = path_lookup(source, layout)
    joined = f"{_values(source, sql)} JOIN {sql.name(lookup.name)} n ON n.id = v.{sql.name(layout.path)}"
    return joined, f"n.{sql.name(lookup.columns[-1])}"


def path_lookup(source: Source, layout: ValueRows) -> Lookup:
    """The lookup that names the properties of rows of values."""
    assert source.values is not None  # noqa: S101 - rows of values are in a table
    column = next(column for column in source.values[0].columns if column.name == layout.path)
    assert column.lookup is not None  # noqa: S101 - it is what a layout of rows says
    return column.lookup


def _same_record(source: Source, sql: ViewSQL) -> str:
    return " AND ".join(f"v.{sql.name(name)} = m.{sql.name(name)}" for name in source.on)


@attrs.frozen
class _Known:
    """A view as it is registered: its name, its columns' order, and the hash of its definition."""

    name: str
    order: tuple[str, ...] = ()
    definition: str = ""


class Views:
    """The views in a database; :meth:`refresh` makes them what they have to be.

    ``model_of`` makes a model of what a placement says of it; ``reserved`` are names that no view may have.
    """

    def __init__(
        self, engine: Engine, catalog: Catalog, model_of: Callable[[str], Model], reserved: Iterable[str] = ()
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._model_of = model_of
        self._reserved = {fold(name) for name in reserved}

    def vacate(self, connection: sa.Connection, sql: ViewSQL) -> None:
        """Drop views whose names are wanted for tables; they get another name when they are refreshed."""
        present = set(sa.inspect(connection).get_view_names())
        for name in connection.scalars(sa.select(self._catalog.view.c.name)).all():
            if fold(name) in self._reserved and name in present:
                connection.exec_driver_sql(f"DROP VIEW {sql.name(name)}")

    def related(self, connection: sa.Connection, place: Place) -> list[str]:
        """The keys of further views with records of a place: its route's, and those of topics that moved here."""
        view, placement = self._catalog.view, self._catalog.placement
        here = (placement.c.state == CURRENT) & (placement.c.key == place.key)
        route = sa.select(view.c.key).where(view.c.hash == key_hash(f"$route/{place.route}"))
        moved = sa.select(view.c.key).join(placement, placement.c.hash == view.c.hash).where(here)
        found = [*connection.scalars(route), *connection.scalars(moved)]
        return [key for key in dict.fromkeys(found) if key != place.key]

    def refresh(self, connection: sa.Connection, sql: ViewSQL, wishes: Mapping[str, Wish]) -> list[str]:
        """Make the views for keys anew where that changes anything, with the schema locked; returns their names."""
        sources = self._sources(connection, wishes)
        known = self._known(connection, wishes)
        inspector = sa.inspect(connection)
        tables, views = set(inspector.get_table_names()), set(inspector.get_view_names())
        taken = {*self._reserved, *map(fold, (*tables, *views)), *self._catalog.table_folds(connection)}
        taken.update(map(fold, connection.scalars(sa.select(self._catalog.view.c.name))))
        made = []
        for key, wish in wishes.items():
            if not sources[key]:
                continue
            there = known.get(key)
            if there is None or there.name in tables or fold(there.name) in self._reserved:
                name = _name(key, wish, sources[key], self._engine, taken)
                there = self._rename(connection, key, there, name)
                taken.add(fold(name))
            if self._remake(connection, sql, wish, there, key, sources[key], is_there=there.name in views):
                made.append(there.name)
        return made

    def _remake(
        self,
        connection: sa.Connection,
        sql: ViewSQL,
        wish: Wish,
        known: _Known,
        key: str,
        sources: Sequence[Source],
        *,
        is_there: bool,
    ) -> bool:
        columns = self._columns(connection, known, wish, sources)
        view = View(key, known.name, columns, tuple(self._with_ids(connection, source, columns) for source in sources))
        statement = select(view, sql)
        definition = key_hash(statement)
        if is_there and definition == known.definition:
            return False
        sql.replace(connection, known.name, statement)
        table = self._catalog.view
        row = {"columns": orjson.dumps(list(view.pairs.values())).decode(), "definition": definition}
        connection.execute(table.update().where(table.c.hash == key_hash(key)).values(**row))
        return True

    def _sources(self, connection: sa.Connection, keys: Collection[str]) -> dict[str, tuple[Source, ...]]:
        """Where the records of each view lie, oldest places first."""
        stays = {key: list(self._stays(connection, key)) for key in keys}
        wanted = {table.key for found in stays.values() for stay in found for table in stay[1].values()}
        known = self._catalog.physical_tables(connection, sorted(wanted))
        return {
            key: tuple(_source(*stay, known) for stay in found if _is_there(*stay, known))
            for key, found in stays.items()
        }

    def _stays(self, connection: sa.Connection, key: str) -> Iterator[tuple[Model, dict[str, Table], Place]]:
        placement = self._catalog.placement
        if not key.startswith("$"):
            here = placement.c.hash == key_hash(key)
        else:
            same = placement.c.route == key.removeprefix("$route/") if is_route(key) else placement.c.key == key
            topics = sa.select(placement.c.hash).where(same & (placement.c.state == CURRENT))
            here = placement.c.hash.in_(topics)
        group = (placement.c.key, placement.c.route, placement.c.model)
        rows = connection.execute(sa.select(*group, sa.func.max(placement.c.sequence)).where(here).group_by(*group))
        seen = set()
        for row in sorted(rows, key=itemgetter(3, 0))[-MOST_SOURCES:]:
            model, place = self._model_of(row[2]), Place(row[0], row[1])
            if model.query(place) not in seen:
                seen.add(model.query(place))
                yield model, {table.key: table for table in model.tables(place, Shape(()))}, place

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
        self, connection: sa.Connection, known: _Known, wish: Wish, sources: Iterable[Source]
    ) -> dict[Pair, str]:
        """The columns of a view in their order; new ones go into the catalogue."""
        column = self._catalog.column
        query = sa.select(column.c.property, column.c.kind, column.c.column_name)
        old = {(row[0], row[1]): row[2] for row in connection.execute(query.where(column.c.table_name == known.name))}
        new = new_columns(old, wish, sources, self._engine)
        self._catalog.add_columns(connection, known.name, new)
        order = {name: index for index, name in enumerate(known.order)}
        return dict(sorted((old | new).items(), key=lambda item: order.get(item[1], len(order))))

    def _with_ids(self, connection: sa.Connection, source: Source, pairs: Iterable[Pair]) -> Source:
        """With the ids of the properties, where each has one for all topics."""
        if not isinstance(source.layout, ValueRows):
            return source
        lookup = path_lookup(source, source.layout)
        if len(lookup.columns) > 1:
            return source
        table = lookup_table(self._engine, lookup, sa.MetaData())
        paths = {key_hash(path): path for path, _ in pairs}
        query = sa.select(table.c.hash, table.c.id).where(table.c.hash.in_(list(paths)))
        return attrs.evolve(source, ids={paths[row[0]]: row[1] for row in connection.execute(query)})


def new_columns(known: Mapping[Pair, str], wish: Wish, sources: Iterable[Source], engine: Engine) -> dict[Pair, str]:
    """Columns that a view needs beside those that are known; tables' own columns keep their names where they can."""
    own = {
        pair: name
        for source in sources
        if isinstance(source.layout, OwnColumns)
        for pair, name in source.main[1].columns.items()
    }
    taken = {*map(fold, known.values()), *(fold(column.name) for column in ENVELOPE), EXTRA}
    owned = {path for path, kind in known if kind != "tagged"}
    room = wish.max_columns - len(known.keys() - {SPILLED})
    new: dict[Pair, str] = {}
    for pair in dict.fromkeys((*wish.pairs, *sorted(own, key=own.__getitem__))):
        path, kind = pair
        if pair in known or (pair not in own and len(new) >= room):
            continue
        plain = kind != "tagged" and path not in owned
        name = own.get(pair)
        if name is None or fold(name) in taken:
            name = column_name(engine.nameable(path), kind, plain=plain, taken=taken, limit=engine.name_limit)
        new[pair] = name
        taken.add(fold(name))
        owned.update([path] if plain else [])
    if SPILLED not in known and (wish.spills or any(pair not in known and pair not in new for pair in wish.pairs)):
        new[SPILLED] = EXTRA
    return new


def _is_there(model: Model, tables: Mapping[str, Table], place: Place, known: Mapping[str, PhysicalTable]) -> bool:
    """Whether a model has a layout, and its tables are there and have what every view has."""
    query = model.query(place)
    if model.layout() is None or query.table not in known or (query.values is not None and query.values not in known):
        return False
    return {column.name for column in ENVELOPE} <= {column.name for column in tables[query.table].columns}


def _source(model: Model, tables: Mapping[str, Table], place: Place, known: Mapping[str, PhysicalTable]) -> Source:
    query, layout = model.query(place), model.layout()
    assert layout is not None  # noqa: S101 - see _is_there
    values = None if query.values is None else (tables[query.values], known[query.values])
    return Source(layout, (tables[query.table], known[query.table]), values, query.on)


def _name(key: str, wish: Wish, sources: Sequence[Source], engine: Engine, taken: Collection[str]) -> str:
    """After the table where a view shows one, otherwise after the route's topic filter."""
    last = sources[-1]
    base = clean(engine.nameable(wish.place.route))
    if isinstance(last.layout, OwnColumns):
        base = last.main[1].name
    base = "all" if not base.strip("_") else base
    return table_name(f"{base}_view", is_taken=lambda name: fold(name) in taken, limit=engine.name_limit)
