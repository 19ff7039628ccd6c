"""Give the rollups of expired records another topic, when the records that are left get it too."""

from __future__ import annotations

import time
from collections.abc import Mapping

import sqlalchemy as sa

from amqtt_db.database.catalog import key_hash
from amqtt_db.database.rollup_expiry import Expiry, read_expiry, write_expiry
from amqtt_db.database.rollup_tables import FIRST_TIME, LAST_TIME, SECOND, RollupTables
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.models.rollup import Rollup, SeriesName, Span, floor_time, merge_rollups
from amqtt_db.routing.topics import first_match
from amqtt_db.writer.rollup_due import DueKey, add_due
from amqtt_db.writer.rollup_intervals import KnownIntervals, add_lost
from amqtt_db.writer.rollup_keeper import RollupKeeper
from amqtt_db.writer.rollup_notes import RollupRule, RollupRules, find_rollup_rules
from amqtt_db.writer.workshop import Workshop


def would_lose_sums(shop: Workshop, old: str, new: str) -> bool:
    """Return True if a topic has sums of deleted records that the route of another one cannot take."""
    rules, match = find_rollup_rules(shop.routes), first_match([route.filter for route in shop.routes], new)
    rule = None if match is None else rules.get(shop.routes[match[0]].filter.text)
    with shop.database.begin() as connection:
        expiry, known = _find_known(shop, connection, old, rules)
        return expiry.records > FIRST_TIME and bool(known.steps) and not _can_take(rule, known)


def move_rollups(shop: Workshop, old: str, new: str, route: str) -> None:
    """Add what is known of the expired records of a topic to another one of a route; hold the maintenance lock.

    What the records that are left amount to follows from these.
    """
    keeper, now = RollupKeeper(shop.engine, shop.catalog, shop.database, shop.routes), round(time.time() * SECOND)
    for topic in (old, new):
        for _ in keeper.settle(topic, LAST_TIME, now):
            pass
    rule = keeper.rules.get(route)
    with shop.database.begin() as connection:
        tables = RollupTables(shop.catalog, connection)
        expiry, known = _find_known(shop, connection, old, keeper.rules)
        if rule is not None and _can_take(rule, known):
            there = keeper.begin(connection, new, rule, read_expiry(connection, shop.catalog, [new])[new])
            both = _join_expiry(known.round_expiry(expiry, rule), there, rule)
            write_expiry(connection, shop.catalog, new, both)
            _move_rows(known, new, rule, both, now)
        tables.forget(old)


def _find_known(
    shop: Workshop, connection: sa.Connection, topic: str, rules: RollupRules
) -> tuple[Expiry, KnownIntervals]:
    """Return until when a topic's records are gone, and its intervals."""
    expiry = read_expiry(connection, shop.catalog, [topic])[topic]
    known = KnownIntervals.of(RollupTables(shop.catalog, connection), topic, expiry.intervals)
    if known.steps and expiry.route not in set(map(key_hash, rules)):
        expiry = add_lost(Snapshot(shop.engine, shop.catalog, connection), topic, expiry, known.steps[0])
    return expiry, known


def _can_take(rule: RollupRule | None, known: KnownIntervals) -> bool:
    return rule is not None and any(map(known.can_make, rule.steps))


def _join_expiry(one: Expiry, other: Expiry, rule: RollupRule) -> Expiry:
    """Let what has expired of one topic count as expired of the other."""
    records, intervals = max(one.records, other.records), max(one.intervals, other.intervals)
    return Expiry(key_hash(rule.route), records, intervals)


def _move_rows(known: KnownIntervals, new: str, rule: RollupRule, expiry: Expiry, now: int) -> None:
    """Add the intervals that cannot be summed up again to those of another topic."""
    wanted = {}
    for every in rule.steps:
        until = expiry.first_of(every, rule.shortest)
        for name, found in known.read(every, until, LAST_TIME + 1):
            ids = known.tables.add_series(new, rule.route, [name])
            _add_rows(known.tables, {name: ids[name]}, every, found)
        if every > rule.shortest and until < expiry.records:
            wanted[DueKey(new, rule.route, every)] = [Span(until, floor_time(expiry.records, every) + every)]
    add_due(known.tables.connection, known.tables.catalog, wanted, now)


def _add_rows(tables: RollupTables, ids: Mapping[SeriesName, int], every: int, found: Mapping[int, Rollup]) -> None:
    """Add intervals of a series, by their starts, to those that are there."""
    merged = {start: dict.fromkeys(ids, rollup) for start, rollup in found.items()}
    for begin, name, rollup in list(tables.read(ids, every, min(found), max(found) + every)):
        start = floor_time(begin, every)
        if start in found:
            merged[start][name] = merge_rollups(rollup, found[start], Span(start, start + every))
            tables.erase(ids.values(), every, begin, begin + 1)
    tables.write(ids, every, merged)
