"""List the stored topics: each with its models, its tables, the number of its records and their times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

import attrs
import sqlalchemy as sa

from amqtt_db.config import Settings
from amqtt_db.database.catalog import CURRENT, Assignment, key_hash
from amqtt_db.database.engines.base import batched
from amqtt_db.database.rollup_expiry import read_steps
from amqtt_db.database.rollup_views import name_rollup_keys
from amqtt_db.database.snapshot import Snapshot, open_snapshot, require_tables
from amqtt_db.database.view_sql import latest_key
from amqtt_db.models import BUILTIN
from amqtt_db.models.base import Model
from amqtt_db.reader import url_of
from amqtt_db.reader.keys import LookupCache
from amqtt_db.reader.path import MAX_SINGLE_TOPICS, RecordPath, plan_paths
from amqtt_db.reader.selection import Selection
from amqtt_db.reader.sources import Source, find_sources
from amqtt_db.reader.statement import fetch_rows
from amqtt_db.record import EPOCH

_NAMES: Final = {path: name for name, path in BUILTIN.items()}


@attrs.frozen
class StoredTopic:
    """A stored topic.

    ``route`` is the filter of its route, ``models`` its models, the current one first, and ``tables`` all their tables.
    ``read_from`` are the views that show its records, its newest values and its sums, or its tables if it has none.
    ``rows`` counts its records; ``first`` and ``last`` are their times.
    """

    topic: str
    route: str
    models: tuple[str, ...]
    tables: tuple[str, ...]
    rows: int
    first: datetime | None
    last: datetime | None
    read_from: tuple[str, ...] = ()


@attrs.frozen
class _Extent:
    """A number of records, and their first and last times in microseconds since 1970."""

    rows: int = 0
    first: int | None = None
    last: int | None = None

    def __add__(self, other: _Extent) -> _Extent:
        firsts = [time for time in (self.first, other.first) if time is not None]
        lasts = [time for time in (self.last, other.last) if time is not None]
        return _Extent(self.rows + other.rows, min(firsts, default=None), max(lasts, default=None))


def list_topics(database: str | Settings, topic: str = "#") -> list[StoredTopic]:
    """Return the topics that a filter covers, sorted; ``database`` is a URL, or the settings that name one.

    Every record is counted.  Raises ValueError for a malformed filter, DatabaseError if the database cannot be read.
    """
    wanted = Selection.of(topic)
    with open_snapshot(url_of(database)) as snapshot:
        found, keys = find_sources(snapshot, wanted), LookupCache(snapshot)
        paths = {path.source: path for path in plan_paths(snapshot, keys, found, scan=True)}
        routes = snapshot.catalog.assignments(
            snapshot.connection, {topic for source in found for topic in source.topics}
        )
        views = _find_views(snapshot, routes.values())
        extents: dict[str, dict[str, _Extent]] = {}
        for path in paths.values():  # several models may share a main table, each with its own topics
            extents.setdefault(path.main.target.name, {}).update(_extents(snapshot, keys, path))
    by_topic: dict[str, list[Source]] = {}
    for source in found:
        for name in source.topics:
            by_topic.setdefault(name, []).append(source)
    found_topics = [_summarize(name, routes[name].route, by_topic[name], paths, extents) for name in sorted(by_topic)]
    return [attrs.evolve(one, read_from=views[one.topic] or one.tables) for one in found_topics]


def _find_views(snapshot: Snapshot, assignments: Iterable[Assignment]) -> dict[str, tuple[str, ...]]:
    """Return the names of the views that show each topic."""
    found, steps = list(assignments), read_steps(snapshot.connection, snapshot.catalog)
    keys = {one.topic: dict.fromkeys(_view_keys(one, steps.get(key_hash(one.route), ()))) for one in found}
    view, names = snapshot.catalog.view, dict[str, str]()
    for some in batched({key_hash(key) for found in keys.values() for key in found}):
        rows = snapshot.connection.execute(sa.select(view.c.hash, view.c.name).where(view.c.hash.in_(some)))
        names.update({row.hash: row.name for row in rows})
    return {
        topic: tuple(names[hashed] for hashed in map(key_hash, found) if hashed in names)
        for topic, found in keys.items()
    }


def _view_keys(one: Assignment, steps: Iterable[int]) -> Iterator[str]:
    """Yield the keys of the views that may show a topic, whose route sums up over ``steps``."""
    yield from (one.key, f"$route/{one.route}", latest_key(one.route))
    for every in steps:
        yield from name_rollup_keys(one.route, every)


def topic_names(snapshot: Snapshot) -> list[str]:
    """Return all stored topics, sorted, without looking at a record.  Raises NoDatabaseYet."""
    require_tables(snapshot)
    table = snapshot.catalog.assignment
    return sorted(snapshot.connection.scalars(sa.select(table.c.topic).where(table.c.state == CURRENT)))


def _summarize(
    topic: str,
    route: str,
    sources: list[Source],
    paths: Mapping[Source, RecordPath],
    extents: Mapping[str, Mapping[str, _Extent]],
) -> StoredTopic:
    sources = sorted(sources, key=lambda source: topic not in source.current)
    walked = [paths[source] for source in sources if source in paths]
    mains = dict.fromkeys(path.main.target.name for path in walked)
    extent = sum((extents[name].get(topic, _Extent()) for name in mains), _Extent())
    return StoredTopic(
        topic=topic,
        route=route,
        models=tuple(dict.fromkeys(_model_name(source.model.model) for source in sources)),
        tables=tuple(dict.fromkeys(name for path in walked for name in path.tables)),
        rows=extent.rows,
        first=_to_datetime(extent.first),
        last=_to_datetime(extent.last),
    )


def _extents(snapshot: Snapshot, keys: LookupCache, path: RecordPath) -> dict[str, _Extent]:
    """Return the extent of each topic in the main table of a path."""
    columns, topics = path.main.target.c, path.topics or frozenset()
    times = sa.func.min(columns.time), sa.func.max(columns.time)
    query = sa.select(columns.topic, sa.func.count(), *times).group_by(columns.topic)
    if 0 < len(topics) <= MAX_SINGLE_TOPICS:
        query = query.where(columns.topic.in_(topics))
    rows = fetch_rows(snapshot.engine, snapshot.connection, query, {})
    lookup = path.main.lookup("topic")
    names = keys.get_keys(lookup, [row[0] for row in rows]) if lookup else {row[0]: row[0] for row in rows}
    decode = path.main.decoder("time", snapshot.engine, keys, repeats=False)
    bounds = [[row[index] for row in rows] for index in (2, 3)]
    firsts, lasts = bounds if decode is None else map(decode, bounds)
    return {names[row[0]]: _Extent(row[1], first, last) for row, first, last in zip(rows, firsts, lasts, strict=True)}


def _model_name(model: Model) -> str:
    path = f"{type(model).__module__}.{type(model).__qualname__}"
    return _NAMES.get(path, path)


def _to_datetime(time: int | None) -> datetime | None:
    return None if time is None else EPOCH + timedelta(microseconds=time)
