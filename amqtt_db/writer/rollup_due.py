"""What has to be summed up again: intervals of topics, as few spans as possible, each with the time for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog, key_hash
from amqtt_db.database.engines.base import batched
from amqtt_db.database.rollup_tables import SECOND
from amqtt_db.models.rollup import Span, merge_spans

_SOONEST: Final = 300 * SECOND  # the time until an interval that is not over yet is summed up
_DUE_AT_ONCE: Final = 100
_PART: Final = 10  # or this part of it, if that is longer


@attrs.frozen
class DueKey:
    """A topic, its route's topic filter, and the length of the intervals in microseconds."""

    topic: str
    route: str
    every: int


@attrs.frozen
class DueSpan:
    """A span to sum up again."""

    key: DueKey
    span: Span


def add_due(connection: sa.Connection, catalog: Catalog, wanted: Mapping[DueKey, Sequence[Span]], now: int) -> None:
    """Add spans; what touches is joined.  An interval that lasts until after ``now`` can wait."""
    known = _read_known(connection, catalog, {key.topic for key in wanted})
    gone: list[dict[str, Any]] = []
    rows: list[dict[str, Any]] = []
    for key, spans in wanted.items():
        hash_, every = key_hash(key.topic), key.every // SECOND
        there = known.get((hash_, every), {})
        timed = {span: _after(span, key.every, now) for span in spans} | there
        merged = merge_spans(timed)
        if merged == list(there):
            continue
        gone.append({"of": hash_, "step": every})
        for span in merged:
            after = min(time for one, time in timed.items() if span.start <= one.start < span.end)
            names = {"topic": key.topic, "route": key.route}
            rows.append({"hash": hash_, "every": every, "low": span.start, "high": span.end, "after": after, **names})
    table = catalog.rollup_due
    if gone:
        here = (table.c.hash == sa.bindparam("of")) & (table.c.every == sa.bindparam("step"))
        connection.execute(table.delete().where(here), gone)
        connection.execute(table.insert(), rows)


def list_due(
    connection: sa.Connection,
    catalog: Catalog,
    routes: Iterable[str],
    *,
    now: int | None = None,
    topic: str | None = None,
    before: int | None = None,
) -> list[DueSpan]:
    """Return some spans of routes, those of the shortest intervals first.

    Only spans for which it is time, if there is a ``now``; only those of one ``topic`` that begin ``before`` a time.
    """
    table = catalog.rollup_due
    query = sa.select(table).where(table.c.route.in_(list(routes))).order_by(table.c.every, table.c.hash, table.c.low)
    query = query if now is None else query.where(table.c.after <= now)
    query = query if topic is None else query.where(table.c.hash == key_hash(topic))
    query = query if before is None else query.where(table.c.low < before)
    return [
        DueSpan(DueKey(row["topic"], row["route"], row["every"] * SECOND), Span(row["low"], row["high"]))
        for row in connection.execute(query.limit(_DUE_AT_ONCE)).mappings()
    ]


def is_due_before(connection: sa.Connection, catalog: Catalog, topic: str, every: int, time: int) -> bool:
    """Return True if intervals of a topic that start before a time have to be summed up."""
    table = catalog.rollup_due
    here = (table.c.hash == key_hash(topic)) & (table.c.every == every // SECOND) & (table.c.low < time)
    return connection.execute(sa.select(table.c.every).where(here).limit(1)).first() is not None


def read_due_again(connection: sa.Connection, catalog: Catalog, due: DueSpan) -> DueSpan | None:
    """Return a span as it is now, None if it is gone: others may have been joined to it since it was listed."""
    high = connection.scalar(sa.select(catalog.rollup_due.c.high).where(_is_here(catalog, due)))
    return None if high is None else attrs.evolve(due, span=Span(due.span.start, high))


def shorten_due(connection: sa.Connection, catalog: Catalog, due: DueSpan, done: int) -> None:
    """Note that a span is summed up until a time."""
    table = catalog.rollup_due
    change = table.delete() if done >= due.span.end else table.update().values(low=done)
    connection.execute(change.where(_is_here(catalog, due)))


def _is_here(catalog: Catalog, due: DueSpan) -> sa.ColumnElement[bool]:
    columns = catalog.rollup_due.c
    topic, every = columns.hash == key_hash(due.key.topic), columns.every == due.key.every // SECOND
    return topic & every & (columns.low == due.span.start)


def _read_known(
    connection: sa.Connection, catalog: Catalog, topics: Iterable[str]
) -> Mapping[tuple[str, int], dict[Span, int]]:
    """Return the spans by topic and step, in order, each with the time for it."""
    table = catalog.rollup_due
    known: dict[tuple[str, int], dict[Span, int]] = defaultdict(dict)
    for hashes in batched(map(key_hash, topics)):
        query = sa.select(table).where(table.c.hash.in_(hashes)).order_by(table.c.low)
        for row in connection.execute(query).mappings():
            known[row["hash"], row["every"]][Span(row["low"], row["high"])] = row["after"]
    return known


def _after(span: Span, every: int, now: int) -> int:
    """Return the time for a span: if its first interval is over, now; else its end, or sooner if intervals are long."""
    if span.start + every <= now:
        return now
    return min(span.end, now + max(_SOONEST, every // _PART))
