"""Give the rollups of expired records another topic, when the records that are left get it too."""

from __future__ import annotations

import time
from collections import defaultdict

from amqtt_db.database.catalog import key_hash
from amqtt_db.database.rollup_expiry import Expiry, read_expiry, write_expiry
from amqtt_db.database.rollup_tables import FIRST_TIME, LAST_TIME, SECOND, RollupTables
from amqtt_db.models.rollup import Rollup, SeriesName, Span, floor_time, merge_rollups
from amqtt_db.writer.rollup_due import DueKey, add_due
from amqtt_db.writer.rollup_keeper import RollupKeeper
from amqtt_db.writer.rollup_notes import RollupRule
from amqtt_db.writer.workshop import Workshop


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
        if rule is not None and tables.find_series(old):
            _move_rows(tables, old, new, rule, now)
        tables.forget(old)


def _move_rows(tables: RollupTables, old: str, new: str, rule: RollupRule, now: int) -> None:
    expiry = _join_expiry(tables, old, new, rule)
    for every in rule.steps:
        _move_step(tables, old, new, rule, every, expiry)
    wanted = {
        DueKey(new, rule.route, every): [Span(start, floor_time(expiry.records, every) + every)]
        for every in rule.longer
        for start in [expiry.first_of(every, rule.shortest)]
        if start < expiry.records
    }
    add_due(tables.connection, tables.catalog, wanted, now)


def _join_expiry(tables: RollupTables, old: str, new: str, rule: RollupRule) -> Expiry:
    """Let what has expired of one topic count as expired of the other."""
    found = read_expiry(tables.connection, tables.catalog, [old, new])
    both = Expiry(
        key_hash(rule.route),
        floor_time(max(found[old].records, found[new].records), rule.shortest),
        max(found[old].intervals, found[new].intervals),
    )
    write_expiry(tables.connection, tables.catalog, new, both)
    return both


def _move_step(tables: RollupTables, old: str, new: str, rule: RollupRule, every: int, expiry: Expiry) -> None:
    """Move the intervals that cannot be summed up again."""
    until, source = expiry.first_of(every, rule.shortest), tables.find_series(old)
    found = defaultdict[int, dict[SeriesName, Rollup]](dict)
    for start, name, rollup in tables.read(source, every, FIRST_TIME, until):
        found[start][name] = rollup
    ids = tables.add_series(new, rule.route, list({name for some in found.values() for name in some}))
    for start, name, rollup in list(tables.read(ids, every, FIRST_TIME, until)):
        if start in found:
            before = found[start].get(name)
            span = Span(start, floor_time(start, every) + every)
            found[start][name] = rollup if before is None else merge_rollups(rollup, before, span)
            tables.erase([ids[name]], every, start, start + 1)
    tables.write(ids, every, found)
