"""Find what is stored otherwise than its route declares by now, and what `remodel` would do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import CURRENT, Assignment, PhysicalTable, key_hash
from amqtt_db.database.snapshot import Snapshot, open_snapshot, require_tables
from amqtt_db.errors import Rejected
from amqtt_db.models.calls import asking, unwatched
from amqtt_db.record import Kind, Pair, level_path
from amqtt_db.routing.records import RecordBuilder
from amqtt_db.routing.retype import typing_of
from amqtt_db.routing.route import Route
from amqtt_db.routing.topics import first_match
from amqtt_db.writer.workshop import bound

Kinds = Mapping[str, Kind]
"""The declared kind of each path."""

PairColumns = Mapping[Pair, str]
"""The columns of a table or a view by what they hold."""


@attrs.frozen
class Disagreement:
    """A column of a table or a view that holds values of another kind than its property is declared to have."""

    table: str
    column: str
    stored: Kind
    declared: Kind


@attrs.frozen
class RouteChange:
    """A route whose stored records may be typed by other declarations: in which columns that shows, and how else.

    ``topics`` is how many topics it is about, ``levels`` are named levels that no column has yet, ``time`` the property
    that the time of a record is taken from.
    """

    filter: str
    topics: int
    columns: tuple[Disagreement, ...]
    levels: tuple[str, ...]
    time: str | None


def find_changes(database: str, routes: Sequence[Route]) -> list[RouteChange]:
    """Return the routes by which `remodel` would type stored records again; nothing is changed.

    Raises NoDatabaseYet if there is no database, DatabaseError if it cannot be read.
    """
    builders = [RecordBuilder(route) for route in routes]
    with open_snapshot(database) as snapshot:
        require_tables(snapshot)
        found: dict[int, list[Assignment]] = {}
        for assignment, index in _due(snapshot, builders):
            found.setdefault(index, []).append(assignment)
        return [_change(snapshot, builders[index], some) for index, some in sorted(found.items())]


def strays(columns: PairColumns, kinds: Kinds) -> list[tuple[Pair, str]]:
    """Return the columns of properties that are declared as another kind."""
    return [
        ((path, kind), column)
        for (path, kind), column in columns.items()
        if kinds.get(path, kind) != kind and kind != "tagged"
    ]


def _due(snapshot: Snapshot, builders: Sequence[RecordBuilder]) -> Iterator[tuple[Assignment, int]]:
    """Yield the topics that are not noted to be typed as their routes declare, with the indexes of these."""
    table, texts = snapshot.catalog.assignment, list(map(typing_of, builders))
    if not any(texts):
        return
    filters = [builder.route.filter for builder in builders]
    rows = snapshot.connection.execute(sa.select(table).where(table.c.state == CURRENT)).all()
    is_there = sa.inspect(snapshot.connection).has_table(snapshot.catalog.typing.name)  # not before the next writer
    noted = snapshot.catalog.typings(snapshot.connection, [row.topic for row in rows] if is_there else [])
    for row in rows:
        match = first_match(filters, row.topic)
        text = "" if match is None else texts[match[0]]
        if match is not None and text and noted.get(row.topic) != key_hash(text):
            yield Assignment(row.topic, row.key, row.route, row.model), match[0]


def _change(snapshot: Snapshot, builder: RecordBuilder, assignments: Sequence[Assignment]) -> RouteChange:
    route = builder.route
    kinds: Kinds = {} if route.entity is None else dict(route.entity.shape.properties)
    tables = _tables_of(snapshot, assignments)
    columns = [
        Disagreement(table.name, column, kind, kinds[path])
        for table in tables
        for (path, kind), column in strays(table.columns, kinds)
    ]
    stored = {path for table in tables for path, _ in table.columns}
    levels = [name for name in builder.levels if level_path(name) not in stored]
    return RouteChange(route.filter.text, len(assignments), tuple(columns), tuple(levels), route.time)


def _tables_of(snapshot: Snapshot, assignments: Iterable[Assignment]) -> list[PhysicalTable]:
    """Return the tables of some topics that have columns for properties; where there are none, their views."""
    keys: dict[str, None] = {}
    for spec in {(one.key, one.route, one.model): one for one in assignments}.values():
        try:
            with asking(spec.model, unwatched):
                keys.update(dict.fromkeys(table.key for table in bound(spec).tables()))
        except Rejected:  # its class is gone: `remodel` will say so
            continue
    tables = [one for one in snapshot.catalog.physical_tables(snapshot.connection, keys).values() if one.columns]
    return sorted(tables or _views_of(snapshot, {one.key for one in assignments}), key=lambda table: table.name)


def _views_of(snapshot: Snapshot, keys: Iterable[str]) -> list[PhysicalTable]:
    view, hashes = snapshot.catalog.view, list(map(key_hash, keys))
    rows = snapshot.connection.execute(sa.select(view.c.key, view.c.name).where(view.c.hash.in_(hashes))).all()
    columns = snapshot.catalog.columns_of(snapshot.connection, [row.name for row in rows])
    return [PhysicalTable(row.key, row.name, columns[row.name]) for row in rows]
