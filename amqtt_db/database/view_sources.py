"""Where the records of views are: the tables of the models that their topics have, and had."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import CURRENT, MOVED, Catalog, PhysicalTable, key_hash
from amqtt_db.database.engines.base import batched
from amqtt_db.database.view_sql import ViewSource, is_latest, is_route
from amqtt_db.errors import Rejected
from amqtt_db.models.base import Layout, ValueRows
from amqtt_db.models.binding import BoundTable, Query
from amqtt_db.models.calls import Watch, asking
from amqtt_db.models.latest import LATEST_LAYOUT, LATEST_RECORDS, LATEST_VALUES
from amqtt_db.models.spec import bound_model

MOST_SOURCES: Final = 100
"""The most tables that one view combines: SQLite allows 500 parts in a statement, and other engines get slow."""


@attrs.frozen
class _Place:
    """A destination where records are, by its key, with their route and model, and the last assignment there."""

    key: str
    route: str
    model: str
    sequence: int


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


def find_view_sources(
    connection: sa.Connection, catalog: Catalog, routes: Mapping[str, Sequence[str]], watch: Watch
) -> tuple[dict[str, tuple[ViewSource, ...]], dict[str, Rejected]]:
    """Return where the records of each view are, oldest tables first, unless their models cannot be called.

    Also return why those cannot be called.  ``routes`` are the topic filters of the routes that each view shows, by
    its key; ``watch`` notes that a model is being called.
    """
    stored: dict[str, list[_Stored]] = {}
    faults: dict[str, Rejected] = {}
    places = _find_places(connection, catalog.assignment, routes)
    for key in routes:
        try:
            stored[key] = [_STORED_LATEST] if is_latest(key) else list(_ask_models(places.get(key, ()), watch))
        except Rejected as fault:
            faults[key] = fault
    wanted = {table.key for found in stored.values() for one in found for table in one.tables}
    known = catalog.physical_tables(connection, sorted(wanted))
    sources = {key: [_source(one, known) for one in found] for key, found in stored.items()}
    return {key: tuple(one for one in found if one is not None) for key, found in sources.items()}, faults


def _find_places(
    connection: sa.Connection, assignments: sa.Table, routes: Mapping[str, Sequence[str]]
) -> Mapping[str, Sequence[_Place]]:
    """Return where the records of each view are, by its key; topics are looked up together."""
    by_hash = {key_hash(key): key for key in routes if not key.startswith("$")}
    found: dict[str, list[_Place]] = defaultdict(list)
    for hashes in batched(by_hash):
        own = _places_statement(assignments, assignments.c.hash.in_(hashes), assignments.c.hash)
        for *place, hash_ in connection.execute(own):
            found[by_hash[hash_]].append(_Place(*place))
    for key in (key for key in routes if key.startswith("$") and not is_latest(key)):
        same = assignments.c.route.in_(routes[key]) if is_route(key) else assignments.c.key == key
        topics = sa.select(assignments.c.hash).where(same & (assignments.c.state == CURRENT))
        every = _places_statement(assignments, assignments.c.hash.in_(topics))
        found[key] = [_Place(*place) for place in connection.execute(every)]
    return found


def _places_statement(
    assignments: sa.Table, here: sa.ColumnElement[bool], *group: sa.ColumnElement[Any]
) -> sa.Select[Any]:
    """Return the statement for the places of some assignments, in groups."""
    place = (assignments.c.key, assignments.c.route, assignments.c.model)
    query = sa.select(*place, sa.func.max(assignments.c.sequence), *group)
    return query.where(here & (assignments.c.state != MOVED)).group_by(*place, *group)


def _ask_models(places: Iterable[_Place], watch: Watch) -> Iterator[_Stored]:
    """Yield what the models at some places say, oldest first, each query once."""
    seen = set()
    for place in sorted(places, key=attrgetter("sequence", "key"))[-MOST_SOURCES:]:
        with asking(place.model, watch):
            model = bound_model(place.model, place.key, place.route)
            tables = tuple(table for table in model.tables() if not table.replaces)
            stored = _Stored(model.query, tables, model.layout)
        if stored.query not in seen:
            seen.add(stored.query)
            yield stored


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
