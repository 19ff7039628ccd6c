"""Views are updated between batches, without delaying them.

A view is refreshed when a property or a destination is new to this process, in a separate transaction that does not
wait for locks.  An error is logged once and the refresh retried later; after a slow refresh there is a long pause.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import Assignment, Catalog, PhysicalTable
from amqtt_db.database.engines.base import Engine, Unfit, batched, driver_error, first_line, is_collision
from amqtt_db.database.engines.views import ViewSQL, view_sql
from amqtt_db.database.naming import clean
from amqtt_db.database.rollup_views import rollup_views
from amqtt_db.database.view_sql import Gather
from amqtt_db.database.views import Views, Wish
from amqtt_db.errors import OncePerCause, Rejected
from amqtt_db.models.base import Destination, Layout, OwnColumns, ValueRows
from amqtt_db.models.calls import Watch, unwatched
from amqtt_db.record import Kind, Pair, Record, RecordBatch, Shape, level_path
from amqtt_db.routing.route import Route
from amqtt_db.writer.decoded import RecordGroup, RecordGroups
from amqtt_db.writer.existing_tables import NamedTable, names_of
from amqtt_db.writer.insert_target import fitting_kind
from amqtt_db.writer.rollup_notes import RollupRule
from amqtt_db.writer.transaction import COLLISIONS
from amqtt_db.writer.views_due import DueView, DueViews

logger = logging.getLogger(__name__)

LONGEST_NAME: Final = 500  # letters of a property's path that has a column in a view: so any server takes the note
MAX_NOTED: Final = 100_000  # if there are more shapes, all are forgotten and noted again
VIEWS_AT_ONCE: Final = 50  # destinations whose views are refreshed together; the rest waits for the next batch
MOST_VIEWS: Final = 200  # views per transaction, for others wait for it, and PostgreSQL has only so many locks
REST_FACTOR: Final = 20  # times as long as the refresh took
SLOW: Final = 0.05  # seconds; a shorter refresh needs no rest
RETRY_PAUSE: Final = 10.0  # seconds to the next attempt after an error
ATTEMPTS: Final = 100  # attempts of a caller that has time
PAUSE: Final = 0.05  # seconds between them

_CHECKED: Final[tuple[Kind, ...]] = ("number", "text")
"""Kinds of undeclared values that a plain column cannot always hold."""


class ViewKeeper:
    """Notes new properties and destinations, and refreshes the views that show them."""

    def __init__(
        self,
        engine: Engine,
        catalog: Catalog,
        database: sa.Engine,
        routes: Iterable[Route],
        named: Sequence[NamedTable],
        watch: Watch = unwatched,
    ) -> None:
        """``named`` are the tables that routes name; ``watch`` notes that a stored model is being called."""
        self._engine = engine
        self._database = database
        self._routes = {route.filter.text: route for route in reversed(list(routes))}
        own = [(route, table) for route, table in named if table.exact and table.overflow is not None]
        self._sharing = _routes_by_table(own)
        self._table_names = {route.filter.text: table.name for route, table in own}
        self._views = Views(engine, catalog, names_of(named), watch)
        self._sql = view_sql(engine, database.dialect)
        self._notes = DueViews(catalog)
        self._noted: set[RecordGroup] = set()
        self._pairs: dict[str, dict[Pair, None]] = {}
        self._destinations: dict[str, Destination] = {}
        self._unchecked: dict[str, Collection[Kind]] = {}
        self._due: dict[str, Destination] = {}
        self._faulty: dict[str, Destination] = {}
        self._retry_faulty_at = 0.0
        self._not_before = 0.0
        self._causes = OncePerCause()
        self._faults = OncePerCause()
        self._collisions = 0

    def drop_conflicting(self, connection: sa.Connection) -> None:
        """Drop views whose names routes request for tables."""
        if self._sql is not None:
            self._views.drop_conflicting(connection, self._sql)

    def resume(self, connection: sa.Connection, journals: Collection[int] = ()) -> None:
        """Find the views that other processes have left to be refreshed, those that worked on some journals or all."""
        for view in self._notes.find(connection, journals):
            if view.route in self._routes:
                self._pairs.setdefault(view.key, {}).update(dict.fromkeys(view.pairs))
                destination = self._routes[view.route].destination(view.key)
                self._due[view.key] = self._destinations[view.key] = destination

    def leave_due(self, connection: sa.Connection, journal: int) -> Collection[DueView]:
        """Note, in the transaction of a batch, the views that are due; return those that were not noted before."""
        due = self._due if self._sql is not None else {}
        new = [
            DueView.of(destination, self._pairs[key])
            for key, destination in due.items()
            if not self._notes.is_noted(key, len(self._pairs[key]))
        ]
        self._notes.leave(connection, journal, new)
        return new

    def note_committed(self, views: Iterable[DueView]) -> None:
        """Learn that what :meth:`leave_due` returned is committed."""
        self._notes.note_committed(views)

    def forget(self) -> None:
        """Refresh every view again when a record that it shows is stored."""
        self._noted.clear()
        self._destinations.clear()

    def note(self, groups: RecordGroups) -> None:
        """Note records that are about to be stored."""
        if self._sql is None:
            return
        for group in groups:
            if group not in self._noted:
                self._learn(*group)
        for (destination, shape), records in groups.items() if self._unchecked else ():
            if destination.key in self._unchecked:
                self._check(destination, shape, records)

    def _check(self, destination: Destination, shape: Shape, records: Sequence[Record]) -> None:
        """Note values that belong in another kind's column of the view, although their own table accepts them."""
        for (path, kind), column in zip(shape.properties, RecordBatch.of(shape, records).columns, strict=True):
            if kind in self._unchecked[destination.key]:
                try:
                    self._engine.encoders[kind](column)
                except Unfit:
                    kinds = {fitting_kind(self._engine, kind, value) for value in column if value is not None}
                    self._learn(destination, Shape(tuple((path, other) for other in sorted(kinds))))

    def moved(self, assignments: Iterable[Assignment], known: Mapping[str, Assignment]) -> None:
        """Note topics whose records were stored elsewhere before."""
        for assignment in assignments:
            if assignment.topic in known and assignment.key in self._destinations:
                self._due[assignment.key] = self._destinations[assignment.key]

    def note_moved(self, destinations: Iterable[Destination]) -> None:
        """Note that records have moved to some destinations, so the views that show them are due.

        :meth:`leave_due` notes them even if they are noted: a writer may have deleted that note.
        """
        for destination in destinations:
            self._make_due(destination)
            self._notes.note_removed([destination.key])

    def refresh(self, *, quiet: bool = False, most: int | None = None) -> bool:
        """Refresh the views of at most some destinations that are due, unless it is too early.

        Log errors once per cause.  ``quiet`` means that no messages are waiting, so a slow refresh needs no rest.
        Returns True if views were due.
        """
        started = time.monotonic()
        if self._faulty and started >= self._retry_faulty_at:
            self._due.update(self._faulty)
            self._faulty.clear()
        if not self._due or self._sql is None or started < self._not_before:
            return False
        try:
            self._refresh(self._sql, VIEWS_AT_ONCE if most is None else most)
        except Exception as error:  # also from a user's model: no view is worth a message
            self._complain(error)
            self._not_before = time.monotonic() + RETRY_PAUSE
        else:
            self._causes.resolve()
            self._collisions = 0
            took = time.monotonic() - started
            self._not_before = time.monotonic() + (REST_FACTOR * took if took > SLOW and not quiet else 0.0)
        return True

    def finish(self, is_late: Callable[[], bool] = lambda: False) -> None:
        """Refresh all views that are due; give up when time is up, or after some seconds if others hold locks."""
        vain = 0
        while self._due and self._sql is not None and vain < ATTEMPTS and not is_late():
            before, self._not_before = len(self._due), 0.0
            self.refresh(most=MOST_VIEWS)
            if len(self._due) == before:
                vain += 1
                time.sleep(PAUSE)

    @contextmanager
    def short_transaction(self) -> Iterator[sa.Connection]:
        """Open a transaction with the schema locked that, where the database has views, waits for no lock for long."""
        if self._sql is not None:
            with self._sql.with_short_timeout(self._engine, self._database) as connection:
                yield connection
            return
        with self._database.begin() as connection:
            self._engine.lock_schema(connection)
            yield connection

    def shown(self, connection: sa.Connection, destination: Destination) -> Sequence[PhysicalTable]:
        """Return the views that show the records of a destination."""
        routes = self._sharing.get(destination.route, (destination.route,))
        return [] if self._sql is None else self._views.shown(connection, destination, routes)

    def registered(self, connection: sa.Connection, keys: Sequence[str]) -> Sequence[PhysicalTable]:
        """Return the registered views with ``keys``, those of topics or routes."""
        return [] if self._sql is None else self._views.registered(connection, keys)

    def unregister(self, connection: sa.Connection, view: PhysicalTable) -> None:
        """Drop a view for good."""
        self._views.unregister(connection, view)

    def withdraw(self, connection: sa.Connection, destination: Destination) -> None:
        """Drop the views that show the records of a destination; they are due to be made again."""
        for view in self.shown(connection, destination):
            self._views.drop(connection, view)
        self._make_due(destination)

    def _make_due(self, destination: Destination) -> None:
        self._pairs.setdefault(destination.key, {})
        self._due[destination.key] = self._destinations[destination.key] = destination

    def _refresh(self, sql: ViewSQL[Any], most: int) -> None:
        """Refresh the views of some destinations, a part of them in each transaction."""
        due = dict(islice(self._due.items(), most))
        with sql.with_short_timeout(self._engine, self._database) as connection:
            views = self._find_views(connection, due.values())
            first, *others = _divide_views(views.values())
            names, faults = self._views.refresh(connection, sql, first)
            done = [] if others else self._forget_notes(connection, views, faults)
        for part in others:
            with sql.with_short_timeout(self._engine, self._database) as connection:
                more_names, more_faults = self._views.refresh(connection, sql, part)
                names, faults = [*names, *more_names], {**faults, **more_faults}
                done = self._forget_notes(connection, views, faults) if part is others[-1] else []
        self._notes.note_removed(done)
        for name in names:
            logger.info("view %s updated", name)
        for key, destination in due.items():
            del self._due[key]
            if key not in done:
                self._faulty[key] = destination
        self._report(faults)

    def _find_views(
        self, connection: sa.Connection, destinations: Collection[Destination]
    ) -> Mapping[str, Mapping[str, Wish]]:
        """Return the views to refresh for each destination, by its key and theirs."""
        others = self._views.related(connection, destinations)
        found = {}
        for destination in destinations:
            wish = self._wish(destination)
            own = self._views.key_of(connection, destination, wish.routes)
            keys = dict.fromkeys((own, *others[destination.key]))
            found[destination.key] = {**dict.fromkeys(keys, wish), **self._wish_latest(connection, wish)}
        return found

    def _forget_notes(
        self, connection: sa.Connection, views: Mapping[str, Mapping[str, Wish]], faults: Mapping[str, Rejected]
    ) -> Sequence[str]:
        """Delete the notes of those destinations whose views are refreshed; return their keys."""
        done = [key for key, wishes in views.items() if not wishes.keys() & faults.keys()]
        self._notes.remove(connection, done)
        return done

    def _report(self, faults: Mapping[str, Rejected]) -> None:
        """Log once why views were not refreshed, and retry them later; other views need not wait."""
        if not faults:
            return
        self._retry_faulty_at = time.monotonic() + RETRY_PAUSE
        fault = min(map(str, faults.values()))
        if self._faults.is_new(fault):
            logger.error("cannot refresh a view, because its model fails: %s; messages are still stored", fault)

    def make_rollup_views(self, rules: Iterable[RollupRule]) -> None:
        """Create or replace the views of rollups.  Raises what the driver raises if a lock is held by somebody else."""
        if self._sql is None:
            return
        for rule in rules:
            base = self._name_of(rule.route)
            with self.short_transaction() as connection:
                for every in rule.steps:
                    for view in rollup_views(self._sql, rule.route, base, every):
                        name = self._views.make(connection, self._sql, *view)
                        if name is not None:
                            logger.info("view %s updated", name)

    def _name_of(self, route: str) -> str:
        """Return how the names of a route's further views begin."""
        base = self._table_names.get(route) or clean(self._engine.nameable(route))
        return base.strip("_") or "all"

    def _wish(self, destination: Destination) -> Wish:
        pairs = self._pairs[destination.key]
        columns = tuple(pair for pair in pairs if destination.gives_column(pair[0]))
        routes = self._sharing.get(destination.route, (destination.route,))
        gather = _gathering(self._routes[destination.route])
        return Wish(destination, routes, columns, self._max_columns(destination), gather=gather)

    def _wish_latest(self, connection: sa.Connection, wish: Wish) -> dict[str, Wish]:
        """Return the view of the newest values, by its key, if the route keeps them."""
        routes = tuple(text for text in wish.routes if self._routes[text].latest is not None)
        if wish.destination.route not in routes:
            return {}
        name = f"{self._name_of(routes[0])}_latest"
        key = self._views.key_of_latest(connection, wish.routes)
        return {key: attrs.evolve(wish, routes=routes, gather=None, name=name)}

    def _max_columns(self, destination: Destination) -> int:
        return self._routes[destination.route].max_columns or self._engine.max_columns

    def _learn(self, destination: Destination, shape: Shape) -> None:
        layout = self._routes[destination.route].bound(destination).layout
        if len(self._noted) >= MAX_NOTED:
            self._forget_all_but_due()
        self._noted.add((destination, shape))
        if layout is None and not self._routes[destination.route].latest_tables:
            return
        if layout is not None and destination.key not in self._unchecked:
            kinds = {kind for kind in _CHECKED if kind in self._engine.encoders and not _has_column(layout, kind)}
            self._unchecked.update({destination.key: kinds} if kinds else {})
        pairs = self._pairs.setdefault(destination.key, {})
        before, most = len(pairs), 2 * self._max_columns(destination)  # later ones get no column anyway
        new = (pair for pair in shape.properties if pair not in pairs and len(pair[0]) <= LONGEST_NAME)
        pairs.update(dict.fromkeys(islice(new, max(0, most - before))))
        if len(pairs) > before or destination.key not in self._destinations:
            self._due[destination.key] = self._destinations[destination.key] = destination

    def _forget_all_but_due(self) -> None:
        """Start noting afresh; views that are already correct are not recreated."""
        self._noted.clear()
        for noted in (self._pairs, self._destinations, self._unchecked):
            for key in noted.keys() - self._due.keys() - self._faulty.keys():
                del noted[key]

    def _complain(self, error: Exception) -> None:
        """Log an error once per cause; log that another writer was in the way only if that keeps happening."""
        self._collisions += 1
        if is_collision(self._engine, error) and self._collisions <= COLLISIONS:
            return
        complaint = first_line(driver_error(error))
        if self._causes.is_new(complaint):
            logger.error("cannot refresh a view: %s; trying again later, messages are still stored", complaint)


def _divide_views(views: Iterable[Mapping[str, Wish]]) -> Sequence[Mapping[str, Wish]]:
    """Return all views by key, with the properties of all wishes for each, in parts for a transaction."""
    wishes: dict[str, Wish] = {}
    for key, wish in chain.from_iterable(some.items() for some in views):
        before = wishes.get(key, wish)
        wishes[key] = attrs.evolve(before, pairs=tuple(dict.fromkeys((*before.pairs, *wish.pairs))))
    return [dict(some) for some in batched(wishes.items(), MOST_VIEWS)]


def _gathering(route: Route) -> Gather | None:
    """Return what a row of the route's view shows; None: a record."""
    if route.gather is None:
        return None
    names = () if route.reshaping.property is None else route.device_levels
    declared = () if route.entity is None else route.entity.declared  # a level of these is a property, if it fits
    paths = (*map(level_path, names), *(name for name in names if name in declared))
    return Gather(int(route.gather.total_seconds()), paths)


def _routes_by_table(named: Iterable[NamedTable]) -> Mapping[str, tuple[str, ...]]:
    """Return, for each topic filter whose route names a table of columns, the filters of all routes that name it."""
    by_table: dict[str, list[str]] = {}
    for route, table in named:
        by_table.setdefault(table.key, []).append(route.filter.text)
    return {text: tuple(sorted(texts)) for texts in by_table.values() for text in texts}


def _has_column(layout: Layout, kind: Kind) -> bool:
    """Return True if a model stores values of a kind in a column of that kind alone."""
    if isinstance(layout, ValueRows):
        return list(layout.columns.values()).count(layout.columns[kind]) == 1
    return isinstance(layout, OwnColumns)
