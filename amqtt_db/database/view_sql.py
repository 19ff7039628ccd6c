"""The SELECT of a view, as text, made from the layouts of models."""

# ruff: noqa: S608 - every name and every literal is quoted

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs

from amqtt_db.database.catalog import CURRENT, PhysicalTable, key_hash
from amqtt_db.database.engines.views import ViewSQL
from amqtt_db.models.base import ENVELOPE, Column, Documents, Layout, Lookup, OwnColumns, ValueRows
from amqtt_db.models.binding import BoundTable
from amqtt_db.models.latest import LATEST_DEVICES
from amqtt_db.models.wide import EXTRA
from amqtt_db.record import Pair, split_path
from amqtt_db.tagged import is_clean

_FIXED: Final = "{}"  # followed by a name: no property has such a path


@attrs.frozen
class ViewSource:
    """Tables that a view reads, with their layout.

    ``main`` is the table of the model's query, ``values`` the one joined by the columns ``on``.  ``ids`` are the ids of
    property paths, if the lookup has one for each.
    """

    layout: Layout
    main: tuple[BoundTable, PhysicalTable]
    values: tuple[BoundTable, PhysicalTable] | None = None
    on: tuple[str, ...] = ()
    ids: Mapping[str, int] | None = None

    @property
    def fixed(self) -> Mapping[Pair, Column]:
        """The columns that the model adds to the envelope, by their entries in the catalogue."""
        table, layout = self.main[0], self.layout
        known = {table.overflow, *self.on, *(column.name for column in ENVELOPE)}
        if isinstance(layout, Documents):
            known.update((layout.data, layout.kinds, layout.levels))
        return {
            (_FIXED + column.name, "text" if column.lookup else column.kind): column
            for column in table.columns
            if column.name not in known
        }


@attrs.frozen
class Gather:
    """What becomes one row of a view: all records of a device in an interval of some seconds.

    Records with equal values at ``paths`` are of one device; without paths, those of one topic.
    """

    seconds: int
    paths: tuple[str, ...] = ()


@attrs.frozen
class View:
    """A view to create, with its ``columns`` in order.

    ``routes`` are the topic filters of the routes that it shows, if it shows whole routes.  Without ``gather`` it has a
    row per record.
    """

    key: str
    name: str
    routes: tuple[str, ...]
    columns: Mapping[Pair, str]
    sources: tuple[ViewSource, ...]
    gather: Gather | None = None


def select(view: View, sql: ViewSQL[Any]) -> str:
    """Return a view's SELECT."""
    by_table: dict[str, list[ViewSource]] = {}
    for source in view.sources:
        by_table.setdefault(source.main[1].name, []).append(source)
    names = list(by_table)
    selects = [_select(view, by_table[name], names[index + 1 :], sql) for index, name in enumerate(names)]
    records = "\nUNION ALL\n".join(selects)
    return records if view.gather is None else _gather(view, view.gather, records, sql)


def _gather(view: View, gather: Gather, records: str, sql: ViewSQL[Any]) -> str:
    """Return a SELECT with a row per device and interval, and the last value of each property in it."""
    envelope = [sql.name(column.name) for column in ENVELOPE]
    values = [sql.name(name) for name in (EXTRA, *view.columns.values())]
    device = [sql.name(name) for (path, _), name in view.columns.items() if path in gather.paths] or [sql.name("topic")]
    time, newest = sql.name("time"), "r.time DESC, r.id DESC, r.part DESC"
    interval = sql.interval_start(f"r.{time}", gather.seconds)
    group = f"PARTITION BY {', '.join(f'r.{name}' for name in device)}, {interval}"
    last = [f"FIRST_VALUE(r.{name}) OVER ({group} ORDER BY r.{name} IS NULL, {newest}) AS {name}" for name in values]
    own = [f"{interval} AS {name}" if name == time else f"r.{name}" for name in envelope]
    number = f"ROW_NUMBER() OVER ({group} ORDER BY {newest}) AS nth"
    inner = ",\n  ".join((*own, *last, number))
    return f"SELECT {', '.join((*envelope, *values))}\nFROM (SELECT {inner}\nFROM (\n{records}\n) r) g WHERE g.nth = 1"


def _select(view: View, sources: Sequence[ViewSource], newer: Sequence[str], sql: ViewSQL[Any]) -> str:
    """Return the SELECT for one table of envelopes, without records that have been moved to newer tables."""
    table, known = sources[0].main
    fixed = {column.name: column for column in table.columns}
    lookup = fixed["topic"].lookup
    columns = {column.name: f"m.{sql.name(column.name)}" for column in ENVELOPE}
    origin = f"{sql.name(known.name)} m"
    if lookup is not None:
        columns["topic"] = f"t.{sql.name(lookup.columns[0])}"
        origin += f" JOIN {sql.name(lookup.name)} t ON t.id = m.{sql.name('topic')}"
    columns[EXTRA] = _first(_extra(source, sql) for source in sources)
    for pair, name in view.columns.items():
        columns[name] = _first(_view_column(source, pair, sql) for source in sources)
    listed = ",\n  ".join(f"{expression} AS {sql.name(name)}" for name, expression in columns.items())
    conditions = [*_of_topics(view, known, lookup, sql), *(_is_not_in(name, sql) for name in newer)]
    where = "\nWHERE " + "\n  AND ".join(conditions) if conditions else ""
    return f"SELECT {listed}\nFROM {origin}{where}"


def _is_not_in(table: str, sql: ViewSQL[Any]) -> str:
    """Return a condition: true for a record that is not in another table; while records move, some are in both."""
    same = " AND ".join(f"n.{sql.name(name)} = m.{sql.name(name)}" for name in ("id", "part"))
    return f"NOT EXISTS (SELECT 1 FROM {sql.name(table)} n WHERE {same})"


def _first(expressions: Iterable[str]) -> str:
    """Return the first value that is not NULL."""
    first, *more = expressions
    return f"coalesce({', '.join((first, *more))})" if more else first


def _of_topics(view: View, table: PhysicalTable, lookup: Lookup | None, sql: ViewSQL[Any]) -> Iterator[str]:
    """Yield the WHERE conditions that restrict the view to its topics."""
    column = f"m.{sql.name('topic')}"
    if view.key == table.key:
        return
    if is_latest(view.key):
        own_routes = " OR ".join(sql.is_text("d.route", route) for route in view.routes)
        devices = f"{sql.name(LATEST_DEVICES.name)} d WHERE {own_routes}"
        yield f"m.{sql.name('device')} IN (SELECT d.id FROM {devices})"
        return
    if not view.key.startswith("$"):
        own = f"(SELECT id FROM {sql.name(lookup.name)} WHERE hash = {sql.text(key_hash(view.key))})" if lookup else ""
        yield f"{column} = {own}" if own else sql.is_text(column, view.key)
        return
    column_, values = ("route", view.routes) if is_route(view.key) else ("key", (view.key,))
    same = " OR ".join(sql.is_text(f"p.{sql.name(column_)}", value) for value in values)
    here = f"p.state = {sql.text(CURRENT)} AND ({same})"
    assignments = f"{sql.name('mqtt_assignment')} p"
    if lookup is None:
        yield f"{column} IN (SELECT p.topic FROM {assignments} WHERE {here})"
        return
    topics = f"{sql.name(lookup.name)} x JOIN {assignments} ON p.hash = x.hash"
    yield f"{column} IN (SELECT x.id FROM {topics} WHERE {here})"


def latest_key(route: str) -> str:
    """Return the key of the view of a route's newest values."""
    return f"$latest/{route}"


def is_latest(key: str) -> bool:
    """Return True if a view's key means newest values."""
    return key.startswith("$latest/")


def is_route(key: str) -> bool:
    """Return True if a destination's key stands for a whole route."""
    return key.startswith("$route/")


def _view_column(source: ViewSource, pair: Pair, sql: ViewSQL[Any]) -> str:
    if is_property(pair):
        return _property(source, pair, sql)
    column = source.fixed.get(pair)
    if column is None:
        return sql.null(pair[1])
    value = f"m.{sql.name(column.name)}"
    if column.lookup is None:
        return value
    return (
        f"(SELECT x.{sql.name(column.lookup.columns[-1])} FROM {sql.name(column.lookup.name)} x WHERE x.id = {value})"
    )


def is_property(pair: Pair) -> bool:
    """Return True if a column of a view shows a property, and False for a model's own column."""
    return not pair[0].startswith(_FIXED)


def _property(source: ViewSource, pair: Pair, sql: ViewSQL[Any]) -> str:
    layout, (path, kind) = source.layout, pair
    if isinstance(layout, OwnColumns):
        name = source.main[1].columns.get(pair)
        return sql.null(kind) if name is None else sql.shown(kind, f"m.{sql.name(name)}")
    if isinstance(layout, ValueRows):
        return _value_subquery(source, layout, pair, sql)
    if path.startswith("{"):
        level = sql.at(f"m.{sql.name(layout.levels)}", [path[1:-1]])
        return sql.untagged("text", level) if kind == "text" else sql.null(kind)
    if not all(map(is_clean, split_path(path))):  # no key in a database's JSON looks like this
        return sql.null(kind)
    return sql.member(kind, f"m.{sql.name(layout.data)}", f"m.{sql.name(layout.kinds)}", path)


def _value_subquery(source: ViewSource, layout: ValueRows, pair: Pair, sql: ViewSQL[Any]) -> str:
    """Return a subquery for one property, which costs nothing if a query does not use the column."""
    path, kind = pair
    name = layout.columns.get(kind)
    if name is None or (source.ids is not None and path not in source.ids):
        return sql.null(kind)
    column = _cell(layout, name, sql)
    shared = list(layout.columns.values()).count(name) > 1
    found = sql.untagged(kind, sql.at(column, ())) if shared else sql.shown(kind, column)
    if source.ids is not None:
        same = f"v.{sql.name(layout.path)} = {source.ids[path]}"
        return f"(SELECT {found} FROM {_values(source, sql)} WHERE {_is_same_record(source, sql)} AND {same})"
    origin, there = _values_with_paths(source, layout, sql)
    return f"(SELECT {found} FROM {origin} WHERE {_is_same_record(source, sql)} AND {sql.is_text(there, path)})"


def _cell(layout: ValueRows, name: str, sql: ViewSQL[Any]) -> str:
    """Return a column of the rows of values, NULL if the exact value is in another column."""
    column = f"v.{sql.name(name)}"
    if layout.exact in {None, name}:
        return column
    return f"(CASE WHEN v.{sql.name(layout.exact)} IS NULL THEN {column} END)"


def _extra(source: ViewSource, sql: ViewSQL[Any]) -> str:
    """Return the JSON that a table stores with each record, NULL if it stores none."""
    layout = source.layout
    column = layout.data if isinstance(layout, Documents) else source.main[0].overflow
    return sql.null("json") if column is None else sql.shown("json", f"m.{sql.name(column)}")


def _values(source: ViewSource, sql: ViewSQL[Any]) -> str:
    assert source.values is not None  # noqa: S101 - rows of values are in a table
    return f"{sql.name(source.values[1].name)} v"


def _values_with_paths(source: ViewSource, layout: ValueRows, sql: ViewSQL[Any]) -> tuple[str, str]:
    """Return the rows of values joined with the lookup of properties, and the expression for the path."""
    lookup = path_lookup(source, layout)
    joined = f"{_values(source, sql)} JOIN {sql.name(lookup.name)} n ON n.id = v.{sql.name(layout.path)}"
    return joined, f"n.{sql.name(lookup.columns[-1])}"


def path_lookup(source: ViewSource, layout: ValueRows) -> Lookup:
    """Return the lookup of the properties."""
    assert source.values is not None  # noqa: S101 - rows of values are in a table
    column = next(column for column in source.values[0].columns if column.name == layout.path)
    assert column.lookup is not None  # noqa: S101 - a layout of rows has one
    return column.lookup


def _is_same_record(source: ViewSource, sql: ViewSQL[Any]) -> str:
    return " AND ".join(f"v.{sql.name(name)} = m.{sql.name(name)}" for name in source.on)
