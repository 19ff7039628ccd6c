"""The rounds of the upkeep of rollups: new steps of routes, what is due, and intervals that are too old."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from typing import Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import CURRENT, Catalog, key_hash
from amqtt_db.database.engines.base import batched
from amqtt_db.database.rollup_expiry import read_expiry, read_steps, write_expiry, write_steps
from amqtt_db.database.rollup_tables import FIRST_TIME, SECOND, RollupTables
from amqtt_db.models.rollup import Span, floor_time
from amqtt_db.writer.rollup_due import DueKey, add_due, is_due_before
from amqtt_db.writer.rollup_keeper import ALL_TIME, RollupKeeper
from amqtt_db.writer.rollup_notes import RollupRule
from amqtt_db.writer.view_refresh import ViewKeeper

_TOPICS_AT_ONCE: Final = 100


class RollupUpkeep:
    """Does all that rollups need; :meth:`work` is one round."""

    def __init__(self, keeper: RollupKeeper, catalog: Catalog, database: sa.Engine, views: ViewKeeper) -> None:
        self._keeper = keeper
        self._views = views
        self._catalog = catalog
        self._database = database
        self._is_ready = False
        self._expired: dict[tuple[str, int], int] = {}

    def work(self, now: int, *, everything: bool = False) -> Iterator[int]:
        """Do a round at a time in microseconds; yield 0 after each step.  Sum up everything, or what is due."""
        if not self._keeper.rules:
            return
        if not self._is_ready:
            self._views.make_rollup_views(self._keeper.rules.values())
            yield 0
            for rule in self._keeper.rules.values():
                yield from self._learn(rule, now)
            self._is_ready = True
        yield from self._keeper.work(now, everything=everything)
        for rule in self._keeper.rules.values():
            yield from self._expire(rule, now)

    def _learn(self, rule: RollupRule, now: int) -> Iterator[int]:
        """Let all topics of a route be summed up again if its steps have changed."""
        steps, table = sorted(rule.steps), self._catalog.assignment
        with self._database.begin() as connection:
            noted = read_steps(connection, self._catalog).get(key_hash(rule.route))
            here = (table.c.route == rule.route) & (table.c.state == CURRENT)
            topics = connection.scalars(sa.select(table.c.topic).where(here)).all() if noted != steps else []
        if noted == steps:
            return
        is_finer = noted is not None and rule.shortest < noted[0]
        for some in batched(sorted(topics), _TOPICS_AT_ONCE):
            with self._database.begin() as connection:
                self._start_again(connection, rule, some, now, is_finer=is_finer)
            yield 0
        with self._database.begin() as connection:
            write_steps(connection, self._catalog, rule.route, steps)

    def _start_again(
        self, connection: sa.Connection, rule: RollupRule, topics: Sequence[str], now: int, *, is_finer: bool
    ) -> None:
        """Delete the intervals of steps that are gone, and let everything be summed up that still can be.

        If the shortest intervals were longer before, those of expired records are missing.
        """
        wanted = defaultdict[DueKey, list[Span]](list)
        tables = RollupTables(self._catalog, connection)
        for topic, expiry in read_expiry(connection, self._catalog, topics).items():
            known = self._keeper.begin(connection, topic, rule, expiry)
            if is_finer and known.records > FIRST_TIME:
                known = attrs.evolve(known, intervals=-(-known.records // rule.longest) * rule.longest)
            write_expiry(connection, self._catalog, topic, known)
            for every in set(tables.steps_of(topic)) - set(rule.steps):
                tables.erase(tables.find_series(topic).values(), every, *attrs.astuple(ALL_TIME))
            for every in rule.steps:
                start = known.first_of(every, rule.shortest)
                wanted[DueKey(topic, rule.route, every)].append(Span(start, ALL_TIME.end))
        add_due(connection, self._catalog, wanted, now)

    def _expire(self, rule: RollupRule, now: int) -> Iterator[int]:
        """Delete the intervals that are older than their step keeps them."""
        for every, keep in rule.steps.items():
            if keep is None:
                continue
            before = floor_time(now - round(keep.total_seconds()) * SECOND, rule.longest)
            if self._expired.get((rule.route, every)) == before:
                continue
            table = self._catalog.rollup_series
            with self._database.begin() as connection:
                query = sa.select(table.c.topic).where(table.c.route == rule.route).distinct()
                topics = connection.scalars(query).all()
            is_done = True
            for topic in topics:
                is_done &= yield from self._expire_topic(topic, rule, every, before, now)
            if is_done:
                self._expired[rule.route, every] = before

    def _expire_topic(
        self, topic: str, rule: RollupRule, every: int, before: int, now: int
    ) -> Generator[int, None, bool]:
        """Delete the intervals of a topic; return False if they still have to be summed up."""
        yield from self._keeper.settle(topic, before, now)
        with self._database.begin() as connection:
            if any(is_due_before(connection, self._catalog, topic, one, before) for one in rule.steps):
                return False
            tables = RollupTables(self._catalog, connection)
            gone = tables.erase(tables.find_series(topic).values(), every, FIRST_TIME, before)
            if every == rule.shortest:
                expiry = read_expiry(connection, self._catalog, [topic])[topic]
                latest = max(expiry.intervals, before)
                write_expiry(connection, self._catalog, topic, attrs.evolve(expiry, intervals=latest))
            if gone:
                tables.forget_empty(topic)
        yield 0
        return True
