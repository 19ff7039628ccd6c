"""Keep rollups up to date between batches, in small steps, each one transaction.

Notes on changed records become spans that are due.  A step sums up a span's intervals again: the shortest ones from the
records, longer ones from the shortest.  What has expired is never summed up again: a record that comes late for it is
added to what is known.  Hold the maintenance lock.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog, key_hash
from amqtt_db.database.engines.base import Engine
from amqtt_db.database.rollup_expiry import Expiry, read_expiry, write_expiry
from amqtt_db.database.rollup_tables import FIRST_TIME, LAST_TIME, RollupTables
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.errors import OncePerCause, UnreadableRecords
from amqtt_db.models.rollup import (
    Rollup,
    RollupSet,
    SeriesName,
    Span,
    add_late,
    floor_time,
    join_rollups,
    merge_spans,
    roll_up,
    sum_up,
)
from amqtt_db.reader.records import read_records
from amqtt_db.reader.selection import Selection
from amqtt_db.record import Record
from amqtt_db.routing.route import Route
from amqtt_db.routing.topics import TopicFilter
from amqtt_db.writer.rollup_due import DueKey, DueSpan, add_due, is_due_before, list_due, read_due_again, shorten_due
from amqtt_db.writer.rollup_intervals import add_lost
from amqtt_db.writer.rollup_notes import (
    RollupNote,
    RollupRule,
    delete_rollup_notes,
    find_rollup_rules,
    read_notes_on_new,
    read_rollup_notes,
)

logger = logging.getLogger(__name__)

ALL_TIME: Final = Span(FIRST_TIME, LAST_TIME + 1)
NOTES_AT_ONCE: Final = 100
MOST_RECORDS: Final = 2000  # summed up in a step, unless one interval has more

_Wanted = defaultdict[DueKey, list[Span]]
_Late = defaultdict[tuple[str, str], list[tuple[Span, RollupNote]]]
"""By topic and route: the spans of records that came late, with the notes that say which these are."""


class RollupKeeper:
    """Keeps the rollups of the topics of ``routes``."""

    def __init__(self, engine: Engine, catalog: Catalog, database: sa.Engine, routes: Sequence[Route]) -> None:
        self.rules = find_rollup_rules(routes)
        self._engine = engine
        self._catalog = catalog
        self._database = database
        self._causes = OncePerCause()

    def work(self, now: int, *, everything: bool = False) -> Iterator[int]:
        """Sum up what is due at a time in microseconds, or all that will be; yield 0 after each step."""
        if self.rules:
            yield from self.take_notes(now)
            yield from self._sum_up_due(now, None if everything else now)

    def take_notes(self, now: int) -> Iterator[int]:
        """Turn notes into spans that are due; yield 0 after each step."""
        while True:
            with self._database.begin() as connection:
                count = self._take_some_notes(connection, now)
            yield 0
            if not count:
                return

    def settle(self, topic: str, before: int, now: int) -> Iterator[int]:
        """Sum up all intervals of a topic that begin before a time; yield 0 after each step."""
        yield from self.take_notes(now)
        yield from self._sum_up_due(now, None, topic, before)

    def let_expire(self, connection: sa.Connection, topic: str, rule: RollupRule, before: int, now: int) -> bool:
        """Note that a topic's records older than a time may be deleted; return False if that must wait.

        Call this after the records to delete have been chosen, in the transaction that deletes them.
        """
        while self._take_some_notes(connection, now):
            pass
        if is_due_before(connection, self._catalog, topic, rule.shortest, before):
            return False
        known = read_expiry(connection, self._catalog, [topic])[topic]
        if known.records < before:
            write_expiry(connection, self._catalog, topic, attrs.evolve(known, records=before))
        return True

    def _take_some_notes(self, connection: sa.Connection, now: int) -> int:
        """Turn some notes into spans that are due; return how many."""
        notes = read_rollup_notes(connection, self._catalog, self.rules, NOTES_AT_ONCE)
        if notes:
            topics = {topic for note in notes.values() for topic in note.spans}
            expiry = read_expiry(connection, self._catalog, sorted(topics))
            wanted: _Wanted = defaultdict(list)
            late: _Late = defaultdict(list)
            for note in notes.values():
                for topic, spans in note.spans.items():
                    expiry[topic] = self._meet(connection, wanted, topic, self.rules[note.route], expiry[topic])
                    self._want(wanted, late, note, topic, spans, expiry[topic])
            self._add_noted(connection, late, expiry, max(notes))
            add_due(connection, self._catalog, wanted, now)
            delete_rollup_notes(connection, self._catalog, notes)
        return len(notes)

    def _meet(self, connection: sa.Connection, wanted: _Wanted, topic: str, rule: RollupRule, expiry: Expiry) -> Expiry:
        """Let a topic that is new to its route be summed up from its beginning; return its expiry."""
        if expiry.route == key_hash(rule.route):
            return expiry
        known = self.begin(connection, topic, rule, expiry)
        write_expiry(connection, self._catalog, topic, known)
        for every in rule.steps:
            _add_span(wanted, DueKey(topic, rule.route, every), ALL_TIME, known.first_of(every, rule.shortest))
        return known

    def begin(self, connection: sa.Connection, topic: str, rule: RollupRule, expiry: Expiry) -> Expiry:
        """Return the expiry of a topic that a route sums up from now on, and let its series be that route's.

        While none did, or one that is gone, records may have been deleted: what is known of the time before the oldest
        one stays.
        """
        known = attrs.evolve(expiry.of_whole_intervals(rule.shortest, rule.longest), route=key_hash(rule.route))
        tables = RollupTables(self._catalog, connection)
        tables.move_series(topic, rule.route)
        if expiry.route in set(map(key_hash, self.rules)) or not tables.find_series(topic):
            return known
        return add_lost(Snapshot(self._engine, self._catalog, connection), topic, known, rule.shortest)

    def _want(
        self, wanted: _Wanted, late: _Late, note: RollupNote, topic: str, spans: Sequence[Span], expiry: Expiry
    ) -> None:
        """Add the spans of a topic to those that are due, and those that have expired to the late ones."""
        rule = self.rules[note.route]
        first = {every: expiry.first_of(every, rule.shortest) for every in rule.steps}
        for span in spans:
            for every in rule.steps:
                _add_span(wanted, DueKey(topic, note.route, every), span, first[every])
            if span.start < max(first.values()) and note.ids:
                late[topic, note.route].append((Span(span.start, min(span.end, max(first.values()))), note))

    def _add_noted(self, connection: sa.Connection, late: _Late, expiry: Mapping[str, Expiry], last_note: int) -> None:
        """Add the records that came late, each once: one that a later note names too is left to that note."""
        for (topic, route), noted in late.items():
            ids = Span(min(note.ids[0].start for _, note in noted), max(note.ids[-1].end for _, note in noted))
            later = [
                note for note in read_notes_on_new(connection, self._catalog, last_note, ids) if topic in note.spans
            ]
            for span in merge_spans(span for span, _ in noted):
                records = [
                    record
                    for record in self.read_records(connection, topic, span)
                    if any(note.has_new(record.id) for _, note in noted)
                    and not any(note.has_new(record.id) for note in later)
                ]
                self._add_late(connection, self.rules[route], records, expiry[topic])

    def _add_late(self, connection: sa.Connection, rule: RollupRule, records: Iterable[Record], expiry: Expiry) -> None:
        """Add records that came late to the intervals that cannot be summed up again."""
        for record in records:
            for every in rule.steps:
                start = floor_time(record.time_us, every)
                is_there = every > rule.shortest or start >= expiry.intervals
                if is_there and start < expiry.first_of(every, rule.shortest):
                    self._add_to_interval(connection, rule, record, every)

    def _add_to_interval(self, connection: sa.Connection, rule: RollupRule, record: Record, every: int) -> None:
        start = floor_time(record.time_us, every)
        span = Span(start, start + every)
        tables = RollupTables(self._catalog, connection)
        names = sum_up([record], span)
        known = tables.add_series(record.topic, rule.route, list(names))
        ids = {name: known[name] for name in names}
        before = {name: rollup for _, name, rollup in tables.read(ids, every, span.start, span.end)}
        found = {name: add_late(before.get(name), record, name, span) for name in names}
        tables.erase(ids.values(), every, span.start, span.end)
        tables.write(ids, every, {start: {name: one for name, one in found.items() if one is not None}})

    def _sum_up_due(
        self, now: int, at: int | None, topic: str | None = None, before: int | None = None
    ) -> Iterator[int]:
        """Sum up the spans for which it is time at ``at``, None: all; yield 0 after each step."""
        while True:
            with self._database.begin() as connection:
                found = list_due(connection, self._catalog, self.rules, now=at, topic=topic, before=before)
            for due in found:
                with self._database.begin() as connection:
                    there = read_due_again(connection, self._catalog, due)
                    if there is not None:
                        self._sum_up(connection, there, now)
                yield 0
            if not found:
                return

    def _sum_up(self, connection: sa.Connection, due: DueSpan, now: int) -> None:
        """Sum up some of the intervals of a span again."""
        rule, every, topic = self.rules[due.key.route], due.key.every, due.key.topic
        if every not in rule.steps:
            shorten_due(connection, self._catalog, due, due.span.end)
            return
        expiry = read_expiry(connection, self._catalog, [topic])[topic]
        start = max(due.span.start, expiry.first_of(every, rule.shortest))
        done = due.span.end
        if start < done and (every == rule.shortest or start < expiry.intervals):
            whole = Span(start, done if every == rule.shortest else min(done, expiry.intervals))
            done = self._sum_records(connection, due.key, whole)
        elif start < done:
            done = self._join_intervals(connection, due.key, rule, Span(start, done))
        if every == rule.shortest and start < done:
            wanted: _Wanted = defaultdict(list)
            for longer in rule.longer:
                key = attrs.evolve(due.key, every=longer)
                _add_span(wanted, key, Span(start, done), expiry.first_of(longer, rule.shortest))
            add_due(connection, self._catalog, wanted, now)
        shorten_due(connection, self._catalog, due, done)

    def _sum_records(self, connection: sa.Connection, key: DueKey, span: Span) -> int:
        """Sum up intervals from their records; return up to when that is done."""
        intervals: dict[int, RollupSet] = {}
        count, done = 0, span.end
        for one, records, found in roll_up(self.read_records(connection, key.topic, span), key.every):
            if count and count + records > MOST_RECORDS:
                done = one.start
                break
            intervals[one.start] = found
            count += records
        self._write(connection, key, Span(span.start, done), intervals)
        return done

    def _join_intervals(self, connection: sa.Connection, key: DueKey, rule: RollupRule, span: Span) -> int:
        """Sum up intervals from the shortest ones; return up to when that is done."""
        tables = RollupTables(self._catalog, connection)
        ids = tables.find_series(key.topic)
        first = tables.next_start(ids.values(), rule.shortest, span.start)
        done, parts = span.end, defaultdict[tuple[int, SeriesName], list[tuple[Span, Rollup]]](list)
        if first is not None and first < span.end:
            low = floor_time(first, key.every)
            done = min(span.end, low + max(key.every, floor_time(MOST_RECORDS * rule.shortest, key.every)))
            for start, name, rollup in tables.read(ids, rule.shortest, low, done):
                begin = floor_time(start, rule.shortest)
                parts[floor_time(start, key.every), name].append((Span(begin, begin + rule.shortest), rollup))
        intervals: dict[int, dict[SeriesName, Rollup]] = defaultdict(dict)
        for (start, name), some in parts.items():
            intervals[start][name] = join_rollups(some, Span(start, start + key.every))
        self._write(connection, key, Span(span.start, done), intervals)
        return done

    def _write(self, connection: sa.Connection, key: DueKey, span: Span, intervals: Mapping[int, RollupSet]) -> None:
        """Replace all intervals of a topic in a span."""
        tables = RollupTables(self._catalog, connection)
        names = list(dict.fromkeys(name for found in intervals.values() for name in found))
        ids = tables.add_series(key.topic, key.route, names)
        tables.erase(ids.values(), key.every, span.start, span.end)
        tables.write(ids, key.every, intervals)

    def read_records(self, connection: sa.Connection, topic: str, span: Span) -> Iterator[Record]:
        """Yield the records of a topic in order of time, without those that cannot be read."""
        low = span.start if span.start > FIRST_TIME else None
        high = span.end if span.end <= LAST_TIME else None
        snapshot = Snapshot(self._engine, self._catalog, connection)
        try:
            yield from read_records(snapshot, Selection(TopicFilter.exactly(topic), low, high))
        except UnreadableRecords as error:
            if self._causes.is_new(str(error)):
                logger.error("topic %s: some records cannot be summed up: %s", topic, error)


def _add_span(wanted: _Wanted, key: DueKey, span: Span, first: int) -> None:
    """Add the intervals of a span that begin from ``first`` on."""
    start, end = floor_time(span.start, key.every), -(-span.end // key.every) * key.every
    if end > max(start, first):
        wanted[key].append(Span(max(start, first), end))
