"""Bring what expired records amount to into a copy of a database, where nobody can sum them up any more."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import attrs

from amqtt_db.database.catalog import key_hash
from amqtt_db.database.rollup_expiry import Expiry, read_expiry, write_expiry
from amqtt_db.database.rollup_tables import FIRST_TIME, LAST_TIME, SECOND, RollupTables
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.models.rollup import Rollup, RollupSet, SeriesName, Span, floor_time, join_rollups
from amqtt_db.reader.rollup import has_rollup_tables
from amqtt_db.routing.topics import first_match
from amqtt_db.writer.rollup_due import DueKey, add_due
from amqtt_db.writer.rollup_keeper import RollupKeeper
from amqtt_db.writer.rollup_notes import RollupNote, RollupRule, read_topic_notes, write_rollup_note
from amqtt_db.writer.workshop import Workshop

_HIGHEST_ID = 2**63 - 1


@attrs.frozen
class ExpiredSums:
    """What the expired records of a topic amount to: until when, and the intervals of each step by their starts.

    ``notes`` are about records that came late for such intervals, and are not summed up yet.
    """

    expiry: Expiry
    steps: Mapping[int, Mapping[int, RollupSet]]
    notes: Sequence[RollupNote]

    def join(self, every: int) -> Mapping[int, RollupSet] | None:
        """Return the intervals of a step, made of shorter ones if need be; None if there are none short enough."""
        fitting = [step for step in self.steps if every % step == 0]
        if not fitting or max(fitting) == every:
            return self.steps[every] if fitting else None
        return _join_shorter(self.steps[max(fitting)], max(fitting), every)


def read_expired_sums(snapshot: Snapshot, topic: str) -> ExpiredSums | None:
    """Return what the expired records of a topic amount to, None if none have expired."""
    if not has_rollup_tables(snapshot):
        return None
    expiry = read_expiry(snapshot.connection, snapshot.catalog, [topic])[topic]
    if expiry.records == FIRST_TIME:
        return None
    tables = RollupTables(snapshot.catalog, snapshot.connection)
    ids = tables.find_series(topic)
    steps = {every: _group_by_start(tables.read(ids, every, FIRST_TIME, LAST_TIME)) for every in tables.steps_of(topic)}
    notes = read_topic_notes(snapshot.connection, snapshot.catalog, topic, expiry.records)
    return ExpiredSums(expiry, steps, list(notes))


def bring_expired_sums(shop: Workshop, topic: str, sums: ExpiredSums) -> None:
    """Store what a topic's expired records amount to, as its route sums up; hold the maintenance lock.

    The records that are left have been stored before; what was known of the expired ones is replaced.
    """
    match = first_match([route.filter for route in shop.routes], topic)
    keeper = RollupKeeper(shop.engine, shop.catalog, shop.database, shop.routes)
    rule = None if match is None else keeper.rules.get(shop.routes[match[0]].filter.text)
    if rule is None:
        return
    now = round(time.time() * SECOND)
    for _ in keeper.take_notes(now):  # before it is known that records have expired: those of a copy do not come late
        pass
    with shop.database.begin() as connection:
        tables = RollupTables(shop.catalog, connection)
        expiry = _expiry_of(sums, rule)
        known = read_expiry(connection, shop.catalog, [topic])[topic]
        latest = attrs.evolve(
            expiry, records=max(expiry.records, known.records), intervals=max(expiry.intervals, known.intervals)
        )
        write_expiry(connection, shop.catalog, topic, latest)
        for every in rule.steps:
            _replace(tables, topic, rule, every, sums.join(every), expiry.first_of(every, rule.shortest))
        add_due(connection, shop.catalog, dict(_due_after(topic, rule, expiry)), now)
        for note in _notes_on_late(topic, rule, sums, expiry):
            write_rollup_note(connection, shop.catalog, note)


def _expiry_of(sums: ExpiredSums, rule: RollupRule) -> Expiry:
    """Return until when a route cannot sum up a topic again: whole intervals of its own."""
    records = -(-sums.expiry.records // rule.shortest) * rule.shortest
    intervals = sums.expiry.intervals
    if sums.join(rule.shortest) is None:
        intervals = -(-records // rule.longest) * rule.longest
    return Expiry(key_hash(rule.route), records, intervals)


def _replace(
    tables: RollupTables,
    topic: str,
    rule: RollupRule,
    every: int,
    intervals: Mapping[int, RollupSet] | None,
    until: int,
) -> None:
    """Replace the intervals of a step that begin before a time."""
    tables.erase(tables.find_series(topic).values(), every, FIRST_TIME, until)
    found = {start: some for start, some in (intervals or {}).items() if start < until}
    ids = tables.add_series(topic, rule.route, list({name for some in found.values() for name in some}))
    tables.write(ids, every, found)


def _due_after(topic: str, rule: RollupRule, expiry: Expiry) -> Iterator[tuple[DueKey, list[Span]]]:
    """Yield the longer intervals that the shortest ones of expired records still amount to."""
    for every in rule.longer:
        start = expiry.first_of(every, rule.shortest)
        if start < expiry.records:
            yield DueKey(topic, rule.route, every), [Span(start, floor_time(expiry.records, every) + every)]


def _notes_on_late(topic: str, rule: RollupRule, sums: ExpiredSums, expiry: Expiry) -> Iterator[RollupNote]:
    """Yield notes on the records of expired intervals that are not in the sums yet."""
    for note in sums.notes:
        yield attrs.evolve(note, route=rule.route)
    if sums.expiry.records < expiry.records:  # the route's intervals are longer than those that have expired
        yield RollupNote(rule.route, {topic: [Span(sums.expiry.records, expiry.records)]}, 0, _HIGHEST_ID)


def _group_by_start(found: Iterable[tuple[int, SeriesName, Rollup]]) -> Mapping[int, RollupSet]:
    """Return what series amount to by the start of each interval."""
    intervals = defaultdict[int, dict[SeriesName, Rollup]](dict)
    for start, name, rollup in found:
        intervals[start][name] = rollup
    return intervals


def _join_shorter(intervals: Mapping[int, RollupSet], step: int, every: int) -> Mapping[int, RollupSet]:
    """Return longer intervals, each joined from shorter ones."""
    parts = defaultdict[tuple[int, SeriesName], list[tuple[Span, Rollup]]](list)
    for start in sorted(intervals):
        begin = floor_time(start, step)
        for name, rollup in intervals[start].items():
            parts[floor_time(start, every), name].append((Span(begin, begin + step), rollup))
    return _group_by_start(
        (start, name, join_rollups(some, Span(start, start + every))) for (start, name), some in parts.items()
    )
