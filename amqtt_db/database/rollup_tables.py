"""The tables of rollups: which properties are summed up, and what they amount to in each interval."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog, key_hash
from amqtt_db.database.engines.base import batched
from amqtt_db.models.rollup import NumberRollup, Rollup, RollupSet, SeriesName, StateRollup, Stay

SECOND: Final = 1_000_000
"""Microseconds in a second."""

FIRST_TIME: Final = -62_135_596_800 * SECOND
"""The first microsecond of the year 1, before which no column has a time."""

LAST_TIME: Final = 253_402_300_800 * SECOND - 1
"""The last microsecond of the year 9999."""

_NUMBER_COLUMNS: Final = ("count", "total", "low", "high", "first", "last", "first_time", "last_time")
_STAY_COLUMNS: Final = ("count", "length", "first_time", "last_time")


@attrs.frozen
class RollupTables:
    """The tables in a database, in the connection's transaction.  Times and lengths are in microseconds."""

    catalog: Catalog
    connection: sa.Connection

    def find_series(self, topic: str) -> dict[SeriesName, int]:
        """Return the ids of a topic's series."""
        table = self.catalog.rollup_series
        query = sa.select(table.c.property, table.c.kind, table.c.id).where(table.c.topic_hash == key_hash(topic))
        return {(row[0], row[1]): row[2] for row in self.connection.execute(query)}

    def find_summed(self, topics: Iterable[str]) -> set[str]:
        """Return which of some topics have any series."""
        table, by_hash = self.catalog.rollup_series, {key_hash(topic): topic for topic in topics}
        found: set[str] = set()
        for hashes in batched(by_hash):
            query = sa.select(table.c.topic_hash).where(table.c.topic_hash.in_(hashes)).distinct()
            found.update(by_hash[hash_] for hash_ in self.connection.scalars(query))
        return found

    def add_series(self, topic: str, route: str, names: Collection[SeriesName]) -> dict[SeriesName, int]:
        """Return the ids of a topic's series, new ones among them."""
        known = self.find_series(topic)
        new = [name for name in names if name not in known]
        rows = [
            {
                "hash": _hash_of(topic, path, kind),
                "topic_hash": key_hash(topic),
                "topic": topic,
                "property": path,
                "kind": kind,
                "route": route,
            }
            for path, kind in new
        ]
        if rows:
            self.connection.execute(self.catalog.rollup_series.insert(), rows)
        return self.find_series(topic) if rows else known

    def move_series(self, topic: str, route: str) -> None:
        """Let a topic's series be those of a route."""
        table = self.catalog.rollup_series
        here = (table.c.topic_hash == key_hash(topic)) & (table.c.route != route)
        self.connection.execute(table.update().where(here).values(route=route))

    def write(self, ids: Mapping[SeriesName, int], every: int, intervals: Mapping[int, RollupSet]) -> None:
        """Add what intervals of a topic amount to, by their starts."""
        numbers, states = [], []
        for start, found in intervals.items():
            for name, rollup in found.items():
                key = {"series": ids[name], "every": every // SECOND, "start": max(start, FIRST_TIME)}
                if isinstance(rollup, NumberRollup):
                    numbers.append({**key, **attrs.asdict(rollup)})
                else:
                    states += [{**key, **row} for row in _state_rows(rollup)]
        for table, rows in ((self.catalog.rollup, numbers), (self.catalog.rollup_state, states)):
            for some in batched(rows):
                self.connection.execute(table.insert(), some)

    def erase(self, ids: Iterable[int], every: int, low: int, high: int) -> int:
        """Delete what series amount to in the intervals that start from ``low`` on and before ``high``."""
        gone = 0
        for some in batched(ids):
            for table in (self.catalog.rollup, self.catalog.rollup_state):
                gone += self.connection.execute(table.delete().where(*_within(table, some, every, low, high))).rowcount
        return gone

    def read(
        self, ids: Mapping[SeriesName, int], every: int, low: int, high: int
    ) -> Iterator[tuple[int, SeriesName, Rollup]]:
        """Yield what series amount to in the intervals that start from ``low`` on and before ``high``.

        Those of each series come in order.
        """
        names = {id_: name for name, id_ in ids.items()}
        for some in batched(names):
            for row in self._rows(self.catalog.rollup, some, every, low, high):
                yield row["start"], names[row["series"]], NumberRollup(*(row[name] for name in _NUMBER_COLUMNS))
            states = self._rows(self.catalog.rollup_state, some, every, low, high)
            for (series, start), rows in groupby(states, key=itemgetter("series", "start")):
                yield start, names[series], _states_of(list(rows))

    def read_extremes(
        self, ids: Sequence[int], every: int, low: int, high: int, interval: str | None
    ) -> Iterator[tuple[int, int, float | str, float | str]]:
        """Yield series, start, lowest and highest value of the intervals that start in a time.

        ``interval`` is SQL that tells the interval of a longer step from ``start``, None: each on its own.
        """
        for table, low_name, high_name in (
            (self.catalog.rollup, "low", "high"),
            (self.catalog.rollup_state, "value", "value"),
        ):
            group = table.c.start if interval is None else sa.literal_column(interval)
            extremes = sa.func.min(table.c[low_name]), sa.func.max(table.c[high_name])
            query = sa.select(table.c.series, sa.func.min(table.c.start), *extremes)
            for some in batched(ids):
                here = query.where(*_within(table, some, every, low, high)).group_by(table.c.series, group)
                yield from map(tuple, self.connection.execute(here))

    def steps_of(self, topic: str) -> list[int]:
        """Return the lengths of the intervals that a topic has."""
        ids = list(self.find_series(topic).values())
        found: set[int] = set()
        for table in (self.catalog.rollup, self.catalog.rollup_state):
            query = sa.select(table.c.every).where(table.c.series.in_(ids)).distinct()
            found.update(self.connection.scalars(query))
        return sorted(every * SECOND for every in found)

    def erase_ended(self, topic: str, time: int) -> None:
        """Delete the intervals of a topic that ended before a time."""
        ids = self.find_series(topic).values()
        for every in self.steps_of(topic):
            self.erase(ids, every, FIRST_TIME, time - every + 1)

    def next_start(self, ids: Collection[int], every: int, low: int) -> int | None:
        """Return the start of the first interval from ``low`` on that any series has."""
        return min(self._extremes(ids, sa.func.min, every, low, LAST_TIME + 1), default=None)

    def last_start(self, ids: Collection[int], every: int, high: int) -> int | None:
        """Return the start of the last interval before ``high`` that any series has."""
        return max(self._extremes(ids, sa.func.max, every, FIRST_TIME, high), default=None)

    def end_of(self, topic: str) -> int:
        """Return the end of the last interval that a topic has."""
        ids = self.find_series(topic).values()
        last = {every: self.last_start(ids, every, LAST_TIME + 1) for every in self.steps_of(topic)}
        return max((start + every for every, start in last.items() if start is not None), default=FIRST_TIME)

    def forget(self, topic: str) -> None:
        """Delete all that is known of a topic."""
        ids = list(self.find_series(topic).values())
        tables = self.catalog.rollup, self.catalog.rollup_state
        for some in batched(ids):
            for table in tables:
                self.connection.execute(table.delete().where(table.c.series.in_(some)))
        series, here = self.catalog.rollup_series, key_hash(topic)
        self.connection.execute(series.delete().where(series.c.topic_hash == here))
        for other in (self.catalog.rollup_due, self.catalog.rollup_expired):
            self.connection.execute(other.delete().where(other.c.hash == here))

    def forget_empty(self, topic: str) -> None:
        """Delete the series of a topic that have no interval any more."""
        table = self.catalog.rollup_series
        for id_ in self.find_series(topic).values():
            found = [
                self.connection.execute(sa.select(one.c.every).where(one.c.series == id_).limit(1)).first()
                for one in (self.catalog.rollup, self.catalog.rollup_state)
            ]
            if found == [None, None]:
                self.connection.execute(table.delete().where(table.c.id == id_))

    def _rows(self, table: sa.Table, ids: Sequence[int], every: int, low: int, high: int) -> Sequence[Any]:
        query = sa.select(table).where(*_within(table, ids, every, low, high))
        return self.connection.execute(query.order_by(table.c.series, table.c.start)).mappings().all()

    def _extremes(self, ids: Collection[int], choose: Any, every: int, low: int, high: int) -> Iterator[int]:
        """Yield the first or the last start of each series, found by a look into the index."""
        for id_ in ids:
            for table in (self.catalog.rollup, self.catalog.rollup_state):
                query = sa.select(choose(table.c.start)).where(*_within(table, [id_], every, low, high))
                found = self.connection.scalar(query)
                if found is not None:
                    yield found


def has_rollups(connection: sa.Connection, catalog: Catalog, topic: str) -> bool:
    """Return True if a topic has rollups."""
    return bool(RollupTables(catalog, connection).find_series(topic))


def _hash_of(topic: str, path: str, kind: str) -> str:
    return key_hash("\x00".join((topic, path, kind)))


def _within(table: sa.Table, ids: Sequence[int], every: int, low: int, high: int) -> Iterator[sa.ColumnElement[bool]]:
    yield table.c.series.in_(list(ids))
    yield table.c.every == every // SECOND
    if low > FIRST_TIME:
        yield table.c.start >= low
    if high <= LAST_TIME:
        yield table.c.start < high


def _state_rows(states: StateRollup) -> Iterator[Mapping[str, Any]]:
    for value, stay in states.stays.items():
        is_last = int(value == states.last)
        yield {"hash": key_hash(value), "value": value, "wait": states.wait, "is_last": is_last, **attrs.asdict(stay)}


def _states_of(rows: Sequence[Mapping[str, Any]]) -> StateRollup:
    last = next(row["value"] for row in rows if row["is_last"])
    stays = {row["value"]: Stay(*(row[name] for name in _STAY_COLUMNS)) for row in rows}
    return StateRollup(rows[0]["wait"], last, stays)
