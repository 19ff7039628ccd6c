"""Columns after a change of declared kinds: the declared kind gets the plain name, and empty variants are dropped.

A table's or a view's plain column belongs to the kind that came first.  When a declaration has made that another kind,
and the records are rewritten, the columns change their names, and what holds no value any more goes.  Each change is a
short transaction that keeps writers out; one that would have to wait for readers is left for another time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import sqlalchemy as sa

from amqtt_db.database.catalog import PhysicalTable
from amqtt_db.database.column_change import change_column, rename_in_catalog
from amqtt_db.database.indexes import make_indexes
from amqtt_db.database.naming import clean, column_name, fold
from amqtt_db.database.snapshot import answer
from amqtt_db.errors import Busy
from amqtt_db.models.base import ENVELOPE
from amqtt_db.models.wide import EXTRA
from amqtt_db.record import Kind, Shape
from amqtt_db.routing.records import TopicHandler
from amqtt_db.writer.disagreements import Kinds, PairColumns, strays
from amqtt_db.writer.workshop import Workshop


def tidy_columns(shop: Workshop, handlers: Iterable[TopicHandler]) -> list[str]:
    """Tidy the tables and views of some topics; return a line for each that has to stay as it is."""
    left: list[str] = []
    shop.views.finish()
    for handler in {handler.destination: handler for handler in handlers}.values():
        tidier = _Tidier(shop, handler)
        for work in (tidier.rename, tidier.drop):
            try:
                shop.attempt(work)
            except (sa.exc.DBAPIError, Busy) as error:
                why = answer(error) if isinstance(error, sa.exc.DBAPIError) else str(error)
                left.append(f"columns of {handler.filter} stay as they are for now: {why}")
    shop.views.finish()
    return list(dict.fromkeys(left))


def plan_renames(
    columns: PairColumns, kinds: Kinds, name: Callable[[str, Kind, set[str]], str]
) -> list[tuple[str, str]]:
    """Return which columns get which names, in this order, so that declared kinds have the plain ones.

    ``name`` makes a name for the variant of a path and a kind that is not among those that are taken.
    """
    taken = set(map(fold, columns.values()))
    steps = []
    for path in dict.fromkeys(path for path, _ in columns if path in kinds):
        own: dict[Kind, str] = {}
        for (of, kind), column in columns.items():
            if of == path and kind != "tagged":
                own[kind] = column
        plain = [kind for kind, column in own.items() if not is_variant(path, kind, column)]
        if kinds[path] in own and len(plain) == 1 and plain[0] != kinds[path]:
            other = name(path, plain[0], taken)
            taken.add(fold(other))
            steps += [(own[plain[0]], other), (own[kinds[path]], own[plain[0]])]
    return steps


def is_variant(path: str, kind: Kind, column: str) -> bool:
    """Return True if a column has a name that tells its kind."""
    return fold(column).startswith(fold(f"{clean(path.strip('{}'))}__{kind}"))


class _Tidier:
    """Tidies the table and the views of one destination."""

    def __init__(self, shop: Workshop, handler: TopicHandler) -> None:
        self._shop = shop
        self._place = handler.destination
        self._tables_of_model = handler.builder.route.bound(self._place).tables()
        self._keys = [table.key for table in self._tables_of_model]
        self._indexes = handler.builder.route.indexes
        entity = handler.builder.route.entity
        kinds = {} if entity is None else dict(entity.shape.properties)
        self._kinds: Kinds = {path: kind for path, kind in kinds.items() if path not in self._contested(kinds)}

    def rename(self) -> None:
        """Give the plain names to the columns of the declared kinds."""
        shop = self._shop
        with shop.database.begin() as connection:
            odd = {path for table in self._tables(connection) for (path, _), _ in strays(table.columns, self._kinds)}
        if odd:
            shop.make_room({(self._place, Shape(tuple((path, self._kinds[path]) for path in sorted(odd)))): []})
        with shop.database.begin() as connection:
            both = (*self._tables(connection), *shop.views.shown(connection, self._place))
        if not any(map(self._renames, both)):
            return
        with shop.views.short_transaction() as connection:
            shop.catalog.raise_routing_versions(connection)
            for view in shop.views.shown(connection, self._place):
                for old, new in self._renames(view):
                    rename_in_catalog(connection, shop.catalog.column, view.name, old, new)
            shop.views.withdraw(connection, self._place)
            for table in self._tables(connection):
                self._change(connection, table, self._renames(table))
        shop.learn_columns(self._keys)

    def drop(self) -> None:
        """Drop columns of other kinds than the declared ones that hold no value."""
        shop = self._shop
        shop.views.finish()
        with shop.database.begin() as connection:
            views = [(view, self._empty(connection, view)) for view in shop.views.shown(connection, self._place)]
            has_empty = any(self._empty(connection, table) for table in self._tables(connection))
        if not has_empty and not any(columns for _, columns in views):
            return
        with shop.views.short_transaction() as connection:
            shop.catalog.raise_routing_versions(connection)  # from now on no writer fills what is empty
            tables = [(table, self._empty(connection, table)) for table in self._tables(connection)]
            shop.views.withdraw(connection, self._place)
            for view, columns in views:
                for column in columns:
                    rename_in_catalog(connection, shop.catalog.column, view.name, column, "")
            for table, columns in tables:
                self._change(connection, table, [(column, "") for column in columns])
        shop.learn_columns(self._keys)

    def _contested(self, kinds: Kinds) -> set[str]:
        """Return the paths that another route with the same table declares as another kind."""
        others = [route.entity for route, table in self._shop.named if table.key in self._keys and route.entity]
        pairs = [pair for entity in others for pair in entity.shape.properties]
        return {path for path, kind in pairs if kinds.get(path, kind) != kind}

    def _tables(self, connection: sa.Connection) -> Sequence[PhysicalTable]:
        return list(self._shop.catalog.physical_tables(connection, self._keys).values())

    def _renames(self, table: PhysicalTable) -> list[tuple[str, str]]:
        engine = self._shop.engine
        fixed = {EXTRA, *(column.name for column in ENVELOPE)}

        def name(path: str, kind: Kind, taken: set[str]) -> str:
            wish = engine.nameable(path)
            return column_name(wish, kind, plain=False, taken=taken | fixed, limit=engine.name_limit)

        return plan_renames(table.columns, self._kinds, name)

    def _empty(self, connection: sa.Connection, table: PhysicalTable) -> list[str]:
        """Return the columns of other kinds than the declared ones that hold no value."""
        quote = connection.dialect.identifier_preparer.quote
        found = []
        for _, column in strays(table.columns, self._kinds):
            query = f"SELECT 1 FROM {quote(table.name)} WHERE {quote(column)} IS NOT NULL LIMIT 1"  # noqa: S608 - quoted
            if connection.execution_options(no_parameters=True).exec_driver_sql(query).first() is None:
                found.append(column)
        return found

    def _change(self, connection: sa.Connection, table: PhysicalTable, steps: Sequence[tuple[str, str]]) -> None:
        """Rename and drop columns of a table, whose indexes on them are dropped, and made again for the new names."""
        shop, names = self._shop, {name for step in steps for name in step}
        for index in sa.inspect(connection).get_indexes(table.name) if steps else ():
            columns = [name for name in index["column_names"] if name is not None]
            if not names.isdisjoint(columns):
                target = sa.Table(table.name, sa.MetaData(), *map(sa.Column, columns))
                connection.execute(sa.schema.DropIndex(sa.Index(index["name"], *target.c)))
        for old, new in steps:
            change_column(connection, shop.catalog.meta, shop.catalog.column, table.name, old, new)
        bound = next((one for one in self._tables_of_model if one.key == table.key), None)
        known = shop.catalog.physical_tables(connection, [table.key])[table.key]
        if steps and bound is not None:
            make_indexes(shop.engine, connection, bound, known, self._indexes)
