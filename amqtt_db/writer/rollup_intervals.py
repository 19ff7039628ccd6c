"""The intervals that a topic has, and longer ones that can be made of them, a few thousand at a time."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import attrs

from amqtt_db.database.rollup_expiry import Expiry
from amqtt_db.database.rollup_tables import FIRST_TIME, RollupTables
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.models.rollup import Rollup, SeriesName, Span, floor_time, join_rollups
from amqtt_db.reader.records import read_records
from amqtt_db.reader.selection import Selection
from amqtt_db.routing.topics import TopicFilter
from amqtt_db.writer.rollup_notes import RollupRule

_INTERVALS_AT_ONCE: Final = 2000  # of the shortest intervals


@attrs.frozen
class KnownIntervals:
    """What a topic amounts to: its series, and its steps, the shortest first.

    From the time ``changed`` on, its shortest intervals are there, and longer ones are made of them; before that, only
    longer ones may be left.
    """

    tables: RollupTables
    series: Mapping[SeriesName, int]
    steps: Sequence[int]
    changed: int

    @classmethod
    def of(cls, tables: RollupTables, topic: str, changed: int) -> KnownIntervals:
        """Find the intervals of a topic."""
        return cls(tables, tables.find_series(topic), tables.steps_of(topic), changed)

    def can_make(self, every: int) -> bool:
        """Return True if intervals of a step can be made of the shortest ones, or of longer ones if need be."""
        return any(every % step == 0 for step in self.steps)

    def round_expiry(self, expiry: Expiry, rule: RollupRule) -> Expiry:
        """Return until when a route with these intervals cannot sum up again: the end of one of its own intervals."""
        if self.can_make(rule.shortest):
            return expiry.of_whole_intervals(rule.shortest, rule.longest)
        end = expiry.of_whole_intervals(rule.longest, rule.longest).records
        return attrs.evolve(expiry, records=end, intervals=end)

    def read(self, every: int, until: int, end: int) -> Iterator[tuple[SeriesName, Mapping[int, Rollup]]]:
        """Yield the intervals of a step that begin before ``until``, made of what lies before ``end``.

        Each item has some intervals of a series, by their starts.  An interval begins at ``until``; one
        that contains ``end`` has only what lies before it.
        """
        fitting = [step for step in self.steps if every % step == 0]
        for name, id_ in self.series.items() if fitting else ():
            for whole in self._windows(id_, fitting, every, until):
                found = self._make({name: id_}, fitting, every, Span(whole.start, min(whole.end, end)))
                if found:
                    yield name, found

    def _windows(self, id_: int, steps: Sequence[int], every: int, until: int) -> Iterator[Span]:
        """Yield spans of whole intervals of a step, one after the other, in which a series has anything."""
        low, length = FIRST_TIME, max(every, floor_time(_INTERVALS_AT_ONCE * steps[0], every))
        while True:
            starts = [self.tables.next_start([id_], step, low) for step in {steps[0], steps[-1]}]
            first = min((start for start in starts if start is not None), default=until)
            if first >= until:
                return
            start = floor_time(first, every)
            low = min(start + length, until)
            yield Span(start, low)

    def _make(
        self, ids: Mapping[SeriesName, int], steps: Sequence[int], every: int, span: Span
    ) -> Mapping[int, Rollup]:
        """Return the intervals of a step in a span, by their starts."""
        parts = defaultdict[int, list[tuple[Span, Rollup]]](list)
        middle = max(span.start, floor_time(min(span.end, self.changed), steps[-1]))
        for step, low, high in ((steps[-1], span.start, middle), (steps[0], middle, span.end)):
            for start, _, rollup in self.tables.read(ids, step, low, high) if low < high else ():
                begin = floor_time(start, step)
                parts[floor_time(start, every)].append((Span(begin, begin + step), rollup))
        return {start: _make_interval(some, Span(start, min(start + every, span.end))) for start, some in parts.items()}


def _make_interval(parts: Sequence[tuple[Span, Rollup]], whole: Span) -> Rollup:
    return parts[0][1] if parts[0][0] == whole else join_rollups(parts, whole)


def add_lost(snapshot: Snapshot, topic: str, expiry: Expiry, every: int) -> Expiry:
    """Return the expiry of a topic that no route sums up, so that nobody has noted what was deleted.

    Intervals before the oldest record stay; ``every`` is the length of the shortest intervals.
    """
    tables = RollupTables(snapshot.catalog, snapshot.connection)
    oldest = next(read_records(snapshot, Selection(TopicFilter.exactly(topic))), None)
    gone = tables.end_of(topic) if oldest is None else floor_time(oldest.time_us, every)
    return attrs.evolve(expiry, records=max(expiry.records, gone))
