"""Carry out ``keep:`` between batches: delete older records in small steps.

A round visits every group of tables with records of the routes' topics, current or past.  A hypertable whose rows are
all kept equally long is left to the database, whose retention policy is kept up to date.  From all other tables, one
transaction deletes a limited number of records with all their rows, so that a reader sees a record completely or not at
all.  Each step holds the database's maintenance lock, so nothing is deleted while it is being moved.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Final

import sqlalchemy as sa

from amqtt_db.config.operation import KEEP_ALL, SystemKeep
from amqtt_db.database.catalog import Catalog
from amqtt_db.database.engines.base import Engine, driver_error, first_line, is_collision
from amqtt_db.database.raw_payloads import delete_raw, has_raw
from amqtt_db.entity.duration import format_duration
from amqtt_db.errors import OncePerCause, format_count
from amqtt_db.models.binding import BoundTable
from amqtt_db.models.calls import Watch, unwatched
from amqtt_db.models.rollup import floor_time
from amqtt_db.routing.route import Route
from amqtt_db.writer.erase import RAW, erase, topic_cell
from amqtt_db.writer.forgetting import forget_topics
from amqtt_db.writer.retention_groups import Keep, RetentionGroup, retention_groups
from amqtt_db.writer.retention_system import delete_old_rows
from amqtt_db.writer.rollup_keeper import RollupKeeper
from amqtt_db.writer.rollup_notes import RollupRule
from amqtt_db.writer.rollup_upkeep import RollupUpkeep
from amqtt_db.writer.stale_keys import forget_stale_keys
from amqtt_db.writer.steady_clock import SteadyClock
from amqtt_db.writer.view_refresh import ViewKeeper

logger = logging.getLogger(__name__)

STEP: Final = 500  # records deleted per transaction
SLICE: Final = 0.02  # seconds after which a step starts nothing new
REST: Final = 9  # times as long as the step took, while messages wait
ROUND: Final = 60.0  # seconds from the end of a round to the next
PENALTY: Final = 10.0  # seconds to the next attempt after an error, or while another process has the lock
FORGET_EVERY: Final = 86_400.0  # seconds, for a writer at work starts afresh when topics are forgotten
FORGET_AT_ONCE: Final = 100  # topics
_FORGOTTEN: Final = "retention forgot topics"
_CLOCK: Final = "retention clock"
DELAY: Final = timedelta(days=1)
"""The extra time that the database keeps chunks of values, compared with those of their messages.

Policies are carried out at different times: a message without its values would be visible, but values without their
message are not.
"""


class Retention:
    """Deletes records that are too old; :meth:`step` does a little of the work.  ``clock`` returns the time."""

    def __init__(
        self,
        engine: Engine,
        catalog: Catalog,
        database: sa.Engine,
        routes: Sequence[Route],
        clock: SteadyClock,
        views: ViewKeeper,
        keep: SystemKeep = KEEP_ALL,
        watch: Watch = unwatched,
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._database = database
        self._routes = routes
        self._views = views
        self._system_keep = keep
        self._rollups = RollupKeeper(engine, catalog, database, routes)
        self._upkeep = RollupUpkeep(self._rollups, catalog, database, views)
        keeps = any(route.keep is not None for route in routes)
        self._has_work = keep.has_limit or keeps or bool(self._rollups.rules)
        self._has_hypertables = any(route.hypertable is not None for route in routes)
        self._clock = clock
        self._is_clock_set = False
        self._watch = watch
        self._work: Iterator[int] | None = None
        self._is_due_again = False
        self._not_before = 0.0 if self._has_work or engine.hypertables is not None else float("inf")
        self._causes = OncePerCause()

    def look_again(self) -> None:
        """Start the next round as soon as this one ends, because there are new tables."""
        self._is_due_again = self._has_hypertables

    def step(self, *, quiet: bool) -> bool:
        """Work for a moment, unless it is too early; ``quiet`` means that no messages wait.  Errors are logged.

        Returns True if it was not too early.
        """
        started = time.monotonic()
        if self._is_due_again and self._work is None:
            self._is_due_again, self._not_before = False, min(self._not_before, started)
        if started < self._not_before:
            return False
        try:
            pause = self._step(started + SLICE)
        except Exception as error:  # also from a user's model: old records can wait
            self._complain(error)
            self._work, pause = None, PENALTY
        took = time.monotonic() - started
        self._not_before = time.monotonic() + max(pause, 0.0 if quiet else REST * took)
        return True

    def finish(self) -> None:
        """Do one whole round at once, with all rollups.  Raises whatever the database raises."""
        with self._engine.maintenance(self._database) as is_mine:
            for _ in self._round(everything=True) if is_mine else ():
                pass

    def _step(self, deadline: float) -> float:
        """Work until the deadline; return the seconds until there is more to do."""
        if not self._has_work and not self._policies():
            return float("inf")
        with self._engine.maintenance(self._database) as is_mine:
            if not is_mine:
                return PENALTY
            self._work = self._work or self._round()
            for _ in self._work:
                if time.monotonic() > deadline:
                    return 0.0
        self._work = None
        self._causes.resolve()
        return ROUND if self._has_work else float("inf")

    def _round(self, *, everything: bool = False) -> Iterator[int]:
        """Do what is due, or everything, in small pieces; yield how many records each deleted."""
        self._set_clock()
        yield from self._upkeep.work(self._now(), everything=everything)
        found, fault = yield from retention_groups(self._catalog, self._database, self._routes, self._watch)
        policies, holds_raw = self._policies(), self._holds_raw()
        deleted = 0
        for group in found:
            for count in self._keep(group, policies):
                deleted += count
                yield count
            yield from self._delete_payloads(group) if holds_raw else ()
        if deleted:
            logger.info("%s deleted, older than `keep` allows", format_count(deleted, "record"))
        yield from self._delete_system_rows()
        if fault is None and self._is_time_to_forget():
            yield from self._forget_idle_topics(found)
            yield from self._forget_keys(found)
            self._note_forgetting()
        if fault is not None:
            raise fault.__cause__ or fault

    def _is_time_to_forget(self) -> bool:
        """Return True if it is a day since everything was forgotten that could be, by any writer."""
        meta = self._catalog.meta
        with self._database.begin() as connection:
            noted = connection.scalar(sa.select(meta.c.value).where(meta.c.name == _FORGOTTEN))
        if noted is None:
            self._note_forgetting()
        return noted is not None and self._clock.now() >= float(noted) + FORGET_EVERY

    def _note_forgetting(self) -> None:
        """Note the time; not before all is done, for a writer that has forgotten something starts afresh."""
        meta = self._catalog.meta
        with self._database.begin() as connection:
            connection.execute(meta.delete().where(meta.c.name == _FORGOTTEN))
            connection.execute(meta.insert(), {"name": _FORGOTTEN, "value": str(round(self._clock.now()))})

    def _forget_idle_topics(self, groups: Sequence[RetentionGroup]) -> Iterator[int]:
        """Forget topics whose records have all grown old; yield 0 after each step."""
        idle: dict[str, None] = {}
        for group in groups:
            for topic in [topic for topic, keep in group.keeps.items() if keep is not None]:
                if self._is_idle(group, topic):
                    idle[topic] = None
                yield 0
                if len(idle) == FORGET_AT_ONCE:
                    self._forget(idle)
                    idle.clear()
                    yield 0
        self._forget(idle)

    def _forget(self, topics: Collection[str]) -> None:
        """Forget topics, unless somebody is reading or writing: there is time."""
        gone: Sequence[str] = ()
        try:
            gone = forget_topics(self._engine, self._catalog, self._views, topics) if topics else ()
        except Exception as error:
            if not is_collision(self._engine, error):
                raise
        if gone:
            logger.info("%s forgotten: all records were older than `keep` allows", format_count(len(gone), "topic"))

    def _forget_keys(self, groups: Sequence[RetentionGroup]) -> Iterator[int]:
        """Forget keys of lookups that nothing refers to any more; yield 0 after each step."""
        tables = [table for group in groups for table in group.all_tables]
        gone = 0
        try:
            for count in forget_stale_keys(self._catalog, self._database, self._views.short_transaction, tables):
                gone += count
                yield 0
        except Exception as error:
            if not is_collision(self._engine, error):
                raise
        if gone:
            logger.info(
                "%s forgotten, to which no record refers",
                format_count(gone, "topic, property or other key", "topics, properties and other keys"),
            )

    def _is_idle(self, group: RetentionGroup, topic: str) -> bool:
        """Return True if a table of records exists and has none of a topic."""
        with self._database.begin() as connection:
            known = self._catalog.physical_tables(connection, [group.main.key]).get(group.main.key)
            if known is None:
                return False
            target = sa.table(known.name, sa.column("topic", RAW))
            cell = topic_cell(self._engine, group.main, topic)
            query: sa.Select[Any] = sa.select(target.c.topic).where(target.c.topic == cell).limit(1)
            return connection.execute(query).first() is None

    def _holds_raw(self) -> bool:
        """Return True if payloads are kept, also by routes that have `raw` no more."""
        with self._database.begin() as connection:
            return has_raw(connection, self._catalog)

    def _delete_payloads(self, group: RetentionGroup) -> Iterator[int]:
        """Delete kept payloads that arrived before what is kept of their topics; yield 0 after each step."""
        for topic, keep in group.keeps.items():
            before = round((self._clock.now() - keep.total_seconds()) * 1_000_000) if keep is not None else None
            while before is not None:
                with self._database.begin() as connection:
                    count = delete_raw(connection, self._catalog, topic, before)
                yield 0
                if not count:
                    break

    def _delete_system_rows(self) -> Iterator[int]:
        """Delete old sessions and dead letters; yield how many each step deleted."""
        deleted = 0
        for count in delete_old_rows(self._catalog, self._database, self._system_keep, self._clock.now()):
            deleted += count
            yield count
        if deleted:
            logger.info(
                "%s deleted, older than `keep` allows",
                format_count(deleted, "session or dead letter", "sessions and dead letters"),
            )

    def _set_clock(self) -> None:
        """Start the clock from the time noted in the database; note the current time."""
        meta = self._catalog.meta
        here = meta.c.name == _CLOCK
        with self._database.begin() as connection:
            noted = connection.scalar(sa.select(meta.c.value).where(here))
            if not self._is_clock_set:
                self._clock.start(None if noted is None else float(noted))
                self._is_clock_set = True
            time_ = {"value": str(round(self._clock.now()))}
            if noted is None:
                connection.execute(meta.insert(), {"name": _CLOCK, **time_})
            else:
                connection.execute(meta.update().where(here).values(time_))

    def _policies(self) -> Mapping[str, Keep]:
        """Return the hypertables by name, and how long the database keeps their rows."""
        if self._engine.hypertables is None:
            return {}
        with self._database.begin() as connection:
            return self._engine.hypertables.retention_policies(connection)

    def _keep(self, group: RetentionGroup, policies: Mapping[str, Keep]) -> Iterator[int]:
        """Delete records that are too old from a group; yield how many each step deleted."""
        if not policies and not any(group.keeps.values()):
            return
        with self._database.begin() as connection:
            known = self._catalog.physical_tables(connection, group.tables)
        if group.main.key not in known:
            return
        names = {key: table.name for key, table in known.items()}
        main = names[group.main.key]
        if main in policies and not group.is_shared:
            self._entrust(group, names, policies)
            policies = {**policies, main: group.longest}
        for topic, keep in group.sweeps(policies.get(main)):
            if topic in group.rules:
                yield from self._rollups.settle(topic, self._before(keep, group.intervals[topic]), self._now())
            while count := self._delete(group, names, topic, keep):
                yield count
            yield 0

    def _entrust(self, group: RetentionGroup, names: Mapping[str, str], policies: Mapping[str, Keep]) -> None:
        """Set the retention policies of hypertables that hold no other writer's topics."""
        wanted = {names[key]: group.longest and group.longest + DELAY for key in group.values if key in names}
        wanted[names[group.main.key]] = group.longest
        changed = {name: keep for name, keep in wanted.items() if name in policies and policies[name] != keep}
        if self._engine.hypertables is None or not changed:
            return
        with self._database.begin() as connection:
            for name, keep in changed.items():
                self._engine.hypertables.set_retention(connection, name, keep)
                logger.info("the chunks of %s are kept %s", name, "forever" if keep is None else format_duration(keep))

    def _delete(self, group: RetentionGroup, names: Mapping[str, str], topic: str | None, keep: timedelta) -> int:
        """Delete the oldest records that are too old, up to STEP of them; return how many."""
        tables = [(table, names[key]) for key, table in group.tables.items() if key in names]
        rule = None if topic is None else group.rules.get(topic)
        before = self._before(keep, None if topic is None else group.intervals.get(topic))
        with self._database.begin() as connection:
            records = connection.execute(self._oldest(group.main, names[group.main.key], topic, before)).all()
            if not (records and self._may_expire(connection, topic, rule, before)):
                return 0
            erase(connection, self._engine, tables, [(row.id, row.part, row.time) for row in records])
        return len(records)

    def _may_expire(self, connection: sa.Connection, topic: str | None, rule: RollupRule | None, before: int) -> bool:
        """Return True unless a topic's records older than a time have to be summed up first."""
        if topic is None or rule is None:
            return True
        return self._rollups.let_expire(connection, topic, rule, before, self._now())

    def _now(self) -> int:
        """Return the time in microseconds since 1970."""
        return int(self._clock.now() * 1_000_000)

    def _before(self, keep: timedelta, interval: int | None) -> int:
        """Return the time before which records are too old; for topics with sums, where an interval ends."""
        before = int((self._clock.now() - keep.total_seconds()) * 1_000_000)
        return before if interval is None else floor_time(before, interval)

    def _oldest(self, table: BoundTable, name: str, topic: str | None, before: int) -> sa.Select[Any]:
        target = sa.table(name, *(sa.column(column, RAW) for column in ("id", "part", "time", "topic")))
        where = [target.c.time < sa.literal(self._engine.bind("timestamp", before), RAW)]
        if topic is not None:
            where.append(target.c.topic == topic_cell(self._engine, table, topic))
        return sa.select(target.c.id, target.c.part, target.c.time).where(*where).order_by(target.c.time).limit(STEP)

    def _complain(self, error: Exception) -> None:
        complaint = first_line(driver_error(error))
        if self._causes.is_new(complaint):
            logger.error("cannot delete old records: %s; trying again later, messages are still stored", complaint)
