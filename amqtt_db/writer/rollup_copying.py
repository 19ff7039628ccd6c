"""Bring what expired records amount to into a copy of a database, where nobody can sum them up any more."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import key_hash
from amqtt_db.database.rollup_expiry import Expiry, read_expiry, write_expiry
from amqtt_db.database.rollup_tables import FIRST_TIME, SECOND, RollupTables
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.models.rollup import RollupSet, Span, floor_time, join_rollups, sum_up
from amqtt_db.reader.rollup import has_rollup_tables
from amqtt_db.routing.topics import first_match
from amqtt_db.writer.rollup_due import DueKey, add_due
from amqtt_db.writer.rollup_intervals import KnownIntervals, add_lost
from amqtt_db.writer.rollup_keeper import RollupKeeper
from amqtt_db.writer.rollup_notes import RollupNote, RollupRule, read_notes_on_new, write_rollup_note
from amqtt_db.writer.workshop import Workshop


@attrs.frozen
class ExpiredSums:
    """The sums of a topic's expired records: until when records have expired, and the intervals, which are read later.

    ``notes`` are about records that came late for such intervals, and are not summed up yet.
    """

    topic: str
    expiry: Expiry
    intervals: KnownIntervals
    notes: Sequence[RollupNote]


def read_expired_sums(
    snapshot: Snapshot, topics: Sequence[str], is_wanted: Callable[[int], bool]
) -> Iterator[ExpiredSums]:
    """Yield what the expired records of some topics amount to; ``is_wanted`` tells which ids of late ones count.

    Use each before the next one, while the snapshot is open.
    """
    found = dict(_find_expired(snapshot, topics)) if has_rollup_tables(snapshot) else {}
    notes = _read_late_notes(snapshot, found, is_wanted) if found else {}
    for topic, (expiry, intervals) in found.items():
        yield ExpiredSums(topic, expiry, intervals, notes.get(topic, ()))


_Expired = tuple[Expiry, KnownIntervals]


def _find_expired(snapshot: Snapshot, topics: Sequence[str]) -> Iterator[tuple[str, _Expired]]:
    """Yield the topics with intervals whose records have expired, each with its expiry and its intervals."""
    tables = RollupTables(snapshot.catalog, snapshot.connection)
    summed = tables.find_summed(topics)
    for topic, expiry in read_expiry(snapshot.connection, snapshot.catalog, summed).items():
        intervals = KnownIntervals.of(tables, topic, expiry.intervals)
        if intervals.steps and not expiry.route:
            expiry = add_lost(snapshot, topic, expiry, intervals.steps[0])  # noqa: PLW2901
        if expiry.records > FIRST_TIME:
            yield topic, (expiry, intervals)


def _read_late_notes(
    snapshot: Snapshot, expired: Mapping[str, _Expired], is_wanted: Callable[[int], bool]
) -> Mapping[str, Sequence[RollupNote]]:
    """Return by topic the notes on wanted records that came after their intervals had expired."""
    found = defaultdict[str, list[RollupNote]](list)
    for note in read_notes_on_new(snapshot.connection, snapshot.catalog):
        for topic in note.spans.keys() & expired.keys() if is_wanted(note.ids[0].start) else ():
            before = expired[topic][0].records
            late = [Span(span.start, min(span.end, before)) for span in note.spans[topic] if span.start < before]
            if late:
                found[topic].append(RollupNote("", {topic: late}, note.ids))
    return found


def bring_expired_sums(shop: Workshop, sums: ExpiredSums) -> None:
    """Store what a topic's expired records amount to, as its route sums up; hold the maintenance lock.

    The records that are left have been stored before; what was known of the expired ones is replaced.
    """
    match = first_match([route.filter for route in shop.routes], sums.topic)
    keeper = RollupKeeper(shop.engine, shop.catalog, shop.database, shop.routes)
    rule = None if match is None else keeper.rules.get(shop.routes[match[0]].filter.text)
    if rule is None or not any(map(sums.intervals.can_make, rule.steps)):
        return
    now = round(time.time() * SECOND)
    for _ in keeper.take_notes(now):  # before it is known that records have expired: those of a copy do not come late
        pass
    with shop.database.begin() as connection:
        expiry = _note_expiry(connection, shop, rule, sums)
        for every in rule.steps:
            until = expiry.first_of(every, rule.shortest)
            rest = Span(sums.expiry.records, min(until, floor_time(sums.expiry.records, every) + every))
            left = sum_up(keeper.read_records(connection, sums.topic, rest), rest) if rest.start < rest.end else {}
            _replace(RollupTables(shop.catalog, connection), rule, every, until, sums, left)
        add_due(connection, shop.catalog, dict(_due_after(sums.topic, rule, expiry)), now)
        for note in sums.notes:
            write_rollup_note(connection, shop.catalog, attrs.evolve(note, route=rule.route))


def _note_expiry(connection: sa.Connection, shop: Workshop, rule: RollupRule, sums: ExpiredSums) -> Expiry:
    """Return until when a route cannot sum up a topic again: whole intervals of its own; note that."""
    expiry = attrs.evolve(sums.intervals.round_expiry(sums.expiry, rule), route=key_hash(rule.route))
    known = read_expiry(connection, shop.catalog, [sums.topic])[sums.topic]
    records, intervals = max(expiry.records, known.records), max(expiry.intervals, known.intervals)
    write_expiry(connection, shop.catalog, sums.topic, attrs.evolve(expiry, records=records, intervals=intervals))
    return expiry


def _replace(
    tables: RollupTables, rule: RollupRule, every: int, until: int, sums: ExpiredSums, left: RollupSet
) -> None:
    """Replace the intervals of a step that begin before ``until`` by what their expired records amount to.

    If the last of them is longer than what has expired, ``left`` is what the rest of it amounts to.
    """
    topic, middle, rest = sums.topic, sums.expiry.records, dict(left)
    tables.erase(tables.find_series(topic).values(), every, FIRST_TIME, until)
    start = floor_time(middle, every)
    whole, before, after = Span(start, start + every), Span(start, middle), Span(middle, start + every)
    for name, found in sums.intervals.read(every, until, middle):
        rows: dict[int, RollupSet] = {begin: {name: rollup} for begin, rollup in found.items()}
        if start in found:
            parts = [(before, found[start]), *([(after, rest.pop(name))] if name in rest else [])]
            rows[start] = {name: join_rollups(parts, whole)}
        tables.write(tables.add_series(topic, rule.route, [name]), every, rows)
    alone = {name: join_rollups([(after, rollup)], whole) for name, rollup in rest.items()}
    tables.write(tables.add_series(topic, rule.route, list(alone)), every, {start: alone})


def _due_after(topic: str, rule: RollupRule, expiry: Expiry) -> Iterator[tuple[DueKey, list[Span]]]:
    """Yield the longer intervals that the shortest ones of expired records still amount to."""
    for every in rule.longer:
        start = expiry.first_of(every, rule.shortest)
        if start < expiry.records:
            yield DueKey(topic, rule.route, every), [Span(start, floor_time(expiry.records, every) + every)]
