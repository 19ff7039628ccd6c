"""Read what records amount to over intervals of time, for the routes with ``rollup``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from typing import Final

import attrs
import sqlalchemy as sa

from amqtt_db.config import Settings
from amqtt_db.database.rollup_tables import FIRST_TIME, LAST_TIME, SECOND, RollupTables
from amqtt_db.database.snapshot import Snapshot, open_snapshot, require_tables
from amqtt_db.entity.duration import read_duration
from amqtt_db.models.rollup import NumberRollup, Rollup, SeriesName, StateRollup
from amqtt_db.reader import url_of
from amqtt_db.reader.selection import Selection
from amqtt_db.record import EPOCH

_NO_STATES: Final[Mapping[str, float]] = {}


@attrs.frozen
class RollupInterval:
    """What the values of the property at ``path`` amount to in the interval that starts at ``time``.

    For numbers, ``sum``, ``mean``, ``min`` and ``max`` are set; ``sum`` and ``mean`` are None if the sum is beyond all
    doubles.  For states, which are texts and truth values, ``seconds`` says how long each value held.
    """

    topic: str
    path: str
    time: datetime
    count: int
    first: float | str
    last: float | str
    sum: float | None = None
    min: float | None = None
    max: float | None = None
    seconds: Mapping[str, float] = _NO_STATES

    @property
    def mean(self) -> float | None:
        """The mean of the numbers."""
        return None if self.sum is None else self.sum / self.count


def read_rollup(
    database: str | Settings,
    topic: str = "#",
    *,
    every: str | timedelta,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
) -> Iterator[RollupInterval]:
    """Return what the properties of the topics that a filter covers amount to in intervals of a step of their routes.

    ``database`` is a SQLAlchemy URL, or the settings that name one.  ``every`` is the length of the intervals, such as
    ``5 min``; ``since`` (inclusive) and ``until`` (exclusive) limit their starts, as for
    :func:`amqtt_db.reader.read`.  They are ordered by topic, property and time.

    Raises ValueError for a wrong argument, and DatabaseError if the database cannot be read.
    """
    selection, step = Selection.of(topic, since, until), _to_step(every)
    with open_snapshot(url_of(database)) as snapshot:
        require_tables(snapshot)
        found = [
            one for name in summed_topics(snapshot, selection) for one in _intervals(snapshot, name, step, selection)
        ]
    return iter(found)


def has_rollup_tables(snapshot: Snapshot) -> bool:
    """Return True unless an older version has made the tables."""
    return bool(sa.inspect(snapshot.connection).has_table(snapshot.catalog.rollup_series.name))


def summed_topics(snapshot: Snapshot, selection: Selection) -> list[str]:
    """Return the topics with rollups that a filter covers, sorted."""
    if not has_rollup_tables(snapshot):
        return []
    table = snapshot.catalog.rollup_series
    topics = snapshot.connection.scalars(sa.select(table.c.topic).distinct())
    return sorted(topic for topic in topics if selection.topic.match(topic) is not None)


def _intervals(snapshot: Snapshot, topic: str, every: int, selection: Selection) -> Iterator[RollupInterval]:
    tables = RollupTables(snapshot.catalog, snapshot.connection)
    low = FIRST_TIME if selection.low is None else selection.low
    high = LAST_TIME + 1 if selection.high is None else selection.high
    for name, id_ in sorted(tables.find_series(topic).items()):
        found = sorted(tables.read({name: id_}, every, low, high), key=lambda one: one[0])
        before = _state_before(tables, {name: id_}, every, low)
        for start, _, rollup in found:
            yield _to_interval(topic, name[0], start, rollup, before)
            before = rollup.last if isinstance(rollup, StateRollup) else None


def _state_before(tables: RollupTables, ids: Mapping[SeriesName, int], every: int, time: int) -> str | None:
    """Return the state that held when the first interval began; None if nothing was said before."""
    start = tables.last_start(list(ids.values()), every, time) if time > FIRST_TIME else None
    found = [] if start is None else [one for _, _, one in tables.read(ids, every, start, start + 1)]
    return found[0].last if found and isinstance(found[0], StateRollup) else None


def _to_interval(topic: str, path: str, start: int, rollup: Rollup, before: str | None) -> RollupInterval:
    time = EPOCH + timedelta(microseconds=start)
    if isinstance(rollup, NumberRollup):
        low, high = rollup.low, rollup.high
        return RollupInterval(topic, path, time, rollup.count, rollup.first, rollup.last, rollup.total, low, high)
    count = sum(stay.count for stay in rollup.stays.values())
    first = min(rollup.stays, key=lambda value: rollup.stays[value].first_time)
    return RollupInterval(topic, path, time, count, first, rollup.last, seconds=_seconds(rollup, before))


def _seconds(states: StateRollup, before: str | None) -> Mapping[str, float]:
    """Return how long each state held in an interval; ``before`` is the one that held when it began."""
    lengths = {value: stay.length for value, stay in states.stays.items()}
    if before is not None:
        lengths[before] = lengths.get(before, 0) + states.wait
    return {value: length / SECOND for value, length in sorted(lengths.items()) if length}


def _to_step(every: str | timedelta) -> int:
    length = read_duration(every) if isinstance(every, str) else every
    if length is None or length <= timedelta(0):
        raise ValueError(f"every is {every!r}; expected a length of time such as 5 min")
    return round(length / timedelta(microseconds=1))
