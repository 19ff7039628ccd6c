"""The tools to rewrite stored records: read a topic's records in order, and plan and insert rows of them.

A writer may be at work at the same time; the maintenance lock keeps others that move or delete records away.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import groupby, islice
from operator import attrgetter
from typing import Final, TypeVar

import sqlalchemy as sa

from amqtt_db.database.catalog import MOVED, Assignment, Catalog, key_hash
from amqtt_db.database.engines import engine_for
from amqtt_db.database.engines.base import is_collision
from amqtt_db.database.lookup import Lookups
from amqtt_db.database.schema import Schema
from amqtt_db.database.snapshot import Snapshot, Snapshots
from amqtt_db.errors import AmqttDbError, Busy
from amqtt_db.models.binding import BoundModel, BoundTable
from amqtt_db.models.spec import bound_model
from amqtt_db.reader.keys import LookupCache
from amqtt_db.reader.path import plan_paths
from amqtt_db.reader.selection import BY_ID, BY_TIME, Selection
from amqtt_db.reader.sources import Source
from amqtt_db.reader.walk import walk
from amqtt_db.record import Record
from amqtt_db.routing.records import TopicHandler
from amqtt_db.routing.route import Route
from amqtt_db.routing.topics import TopicFilter
from amqtt_db.writer.decoded import RecordGroup, RecordGroups
from amqtt_db.writer.erase import Identity
from amqtt_db.writer.existing_tables import check_existing_tables, named_tables, names_of
from amqtt_db.writer.insert_plan import InsertPlanner, Misfits, fit, plan_rows
from amqtt_db.writer.insert_target import TargetRows
from amqtt_db.writer.topic_router import TopicRouter
from amqtt_db.writer.view_refresh import ViewKeeper
from amqtt_db.writer.views_due import NO_JOURNAL

BATCH: Final = 2000  # messages in a transaction
PAGE: Final = 2000  # rows read at a time
PATIENCE: Final = 10.0  # seconds to wait for whoever deletes or moves records

LOCK_ATTEMPTS: Final = 20  # while somebody else holds a lock
LOCK_PAUSE: Final = 0.1  # seconds between them

Outcome = TypeVar("Outcome")

_ALL: Final = TopicFilter.parse("#")


class RewriteError(AmqttDbError):
    """Stored records cannot be rewritten as asked; nothing is lost, and it may be tried again."""


class Workshop:
    """A database whose records are rewritten as ``routes`` say; ``database`` is a URL.  Close it at the end."""

    def __init__(self, database: str, routes: Sequence[Route]) -> None:
        """Raise DatabaseError for a table that a route names, and that cannot hold the rows of the route's model."""
        self.routes = routes
        self.snapshots = Snapshots(database)
        self.engine = engine_for(database)
        self.catalog = Catalog(self.engine)
        self.database = self.engine.open(write=True)
        self.named = named_tables(routes)
        self.schema = Schema(self.engine, self.catalog, names_of(self.named))
        self.lookups = Lookups(self.engine, self.database)
        self.planner = InsertPlanner(self.engine, self.schema, self.lookups, routes)
        self.router = TopicRouter(routes)
        self.views = ViewKeeper(self.engine, self.catalog, self.database, routes, self.named)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        with self.database.begin() as connection:
            self.engine.lock_schema(connection)
            self.catalog.create(connection)
            self.schema.load(connection)
            self.views.resume(connection, [NO_JOURNAL])
            self.schema.mark_incomplete(check_existing_tables(self.engine, self.catalog, connection, self.named))

    def close(self) -> None:
        """Refresh the views that are due, and give the connections back."""
        self.views.finish()
        self.snapshots.close()
        self.database.dispose()

    @contextmanager
    def maintenance(self) -> Iterator[None]:
        """Hold the maintenance lock.  Raises RewriteError if somebody else holds it for long."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with self.engine.maintenance(self.database) as is_mine:
                if is_mine:
                    self.lookups.forget()  # a writer may have deleted some since the last time
                    yield
                    return
            if time.monotonic() > deadline:
                raise RewriteError("another remodel is running on this database; wait until it ends")
            time.sleep(0.1)

    def attempt(self, work: Callable[[], Outcome]) -> Outcome:
        """Do something, again if a lock is held by somebody else; at last raise what was in the way."""
        for _ in range(LOCK_ATTEMPTS - 1):
            try:
                return work()
            except (sa.exc.DBAPIError, Busy) as error:
                if not is_collision(self.engine, error):
                    raise
            time.sleep(LOCK_PAUSE)
        return work()

    def assign(self, connection: sa.Connection, topics: Iterable[str]) -> dict[str, Assignment]:
        """Assign topics as their routes say, if they are not yet; return the assignments of those with a route."""
        self.router = TopicRouter(self.routes)
        found = self.router.unassigned(topic.encode() for topic in topics)
        known = self.catalog.assignments(connection, found)
        assignments = self.router.assign(found, known, self.catalog.tables_per_route(connection))
        self.catalog.add_assignments(connection, [one for one in assignments if known.get(one.topic) != one])
        self.router.learn(found, assignments)
        return {assignment.topic: assignment for assignment in assignments}

    def handler(self, topic: str) -> TopicHandler:
        """Return the handler of an assigned topic.  Raises RewriteError if it has no route."""
        (handler,) = self.router.handlers([topic.encode()])
        if not isinstance(handler, TopicHandler):
            raise RewriteError(f"topic {topic} has no route")
        return handler

    def plan_rows(self, batch: Sequence[Record]) -> Sequence[TargetRows]:
        """Return the rows of records where their topics are now, which are assigned; create the tables if missing."""
        groups: dict[RecordGroup, list[Record]] = {}
        for record in batch:
            groups.setdefault((self.handler(record.topic).destination, record.shape), []).append(record)
        rows = self.plan_groups(groups)
        if isinstance(rows, Misfits):
            topics = {record.topic for group in rows.groups for record in groups[group]}
            raise RewriteError(f"topic {min(topics)}: the database cannot hold a value of its records")
        return rows

    def plan_groups(self, groups: RecordGroups) -> Sequence[TargetRows] | Misfits:
        """Return the rows of records, or those that the database cannot hold; create the tables if they are missing."""
        self.views.note(groups)
        self.make_room(groups)
        rows = plan_rows(groups, self.planner)
        if isinstance(rows, Misfits):
            fitted = fit(groups, rows, self.planner)
            self.make_room(fitted)
            rows = plan_rows(fitted, self.planner)
        return rows

    def make_room(self, groups: RecordGroups) -> None:
        """Run the DDL for what records need; it waits for processes that read the tables."""
        missing = self.planner.missing(groups)
        if missing:
            with self.database.begin() as connection:
                self.schema.ensure(connection, missing)
            with self.database.begin() as connection:
                self.schema.learn(connection, {wish.table.key for wish in missing})

    def learn_columns(self, keys: Iterable[str]) -> None:
        """Learn the columns of tables again, which have changed."""
        with self.database.begin() as connection:
            self.schema.learn(connection, keys)
        self.planner = InsertPlanner(self.engine, self.schema, self.lookups, self.routes)

    def in_use(self, topic: str) -> list[Assignment]:
        """Return the assignments to search for a topic's records."""
        table = self.catalog.assignment
        query = sa.select(table).where((table.c.hash == key_hash(topic)) & (table.c.state != MOVED))
        with self.database.begin() as connection:
            return [Assignment(row.topic, row.key, row.route, row.model) for row in connection.execute(query)]

    def tables(self, assignment: Assignment) -> Mapping[str, tuple[BoundTable, str]]:
        """Return the existing tables of an assignment's records, by key, each with its name; their own table first."""
        (found,) = self.tables_of([assignment])
        return found

    def tables_of(self, assignments: Sequence[Assignment]) -> list[Mapping[str, tuple[BoundTable, str]]]:
        """Return the same for several assignments."""
        wanted = [[table for table in bound(one).tables() if not table.replaces] for one in assignments]
        with self.database.begin() as connection:
            known = self.catalog.physical_tables(connection, {table.key for some in wanted for table in some})
        return [{table.key: (table, known[table.key].name) for table in some if table.key in known} for some in wanted]

    def assignments_of(self, topic: str) -> list[Assignment]:
        """Return all assignments of a topic, those first whose records have moved to a later one."""
        table = self.catalog.assignment
        query = sa.select(table).where(table.c.hash == key_hash(topic)).order_by(table.c.state != MOVED)
        with self.database.begin() as connection:
            rows = connection.execute(query).all()
        return [Assignment(row.topic, row.key, row.route, row.model) for row in rows]

    def identify(self, record: Record) -> Identity:
        """Return what identifies a record's rows."""
        return record.id, record.part, self.engine.bind("timestamp", record.time_us)

    def next_batch(self, assignment: Assignment, after: int) -> list[Record]:
        """Return the records of a topic's next messages in an assignment, behind an id."""
        with self.snapshots.take() as snapshot:
            return next(batches(records_in(snapshot, assignment, after)), [])

    def next_before(self, assignment: Assignment, before: int | None) -> list[Record]:
        """Return some of the topic's records in an assignment that are older than a time, or of all of them."""
        order = BY_ID if before is None else BY_TIME
        wanted = Selection(_ALL, high=before, order=order)
        with self.snapshots.take() as snapshot:
            return list(islice(_records(snapshot, assignment, wanted), BATCH))


def create_database(url: str) -> None:
    """Create the file of an SQLite database, unless it exists.  Raises DatabaseError if that is impossible."""
    engine_for(url).open(write=True).dispose()


def bound(assignment: Assignment) -> BoundModel:
    """Return the model of an assignment with its tables.  Raises RewriteError if it cannot be loaded."""
    try:
        return bound_model(assignment.model, assignment.key, assignment.route)
    except ValueError as error:
        topic = assignment.topic
        raise RewriteError(f"topic {topic} is stored in a model that cannot be loaded: {error}") from error


def records_in(
    snapshot: Snapshot,
    assignment: Assignment,
    after: int = 0,
    until: int | None = None,
    topics: frozenset[str] = frozenset(),
) -> Iterator[Record]:
    """Yield a topic's records in an assignment in the order of their ids, from behind ``after`` up to ``until``.

    ``topics`` are others that are assigned alike, and wanted as well; then there is no order among the topics.
    """
    high = None if until is None else until + 1
    return _records(snapshot, assignment, Selection(_ALL, low=after + 1, high=high, order=BY_ID), topics)


def _records(
    snapshot: Snapshot, assignment: Assignment, wanted: Selection, topics: frozenset[str] = frozenset()
) -> Iterator[Record]:
    keys = LookupCache(snapshot)
    source = Source(bound(assignment), topics | {assignment.topic}, frozenset(), complete=False)
    for path in plan_paths(snapshot, keys, [source], scan=False):
        yield from walk(snapshot, keys, path, wanted, PAGE)


def records_in_each(snapshot: Snapshot, places: Sequence[tuple[Assignment, int]]) -> Iterator[Iterator[Record]]:
    """Yield, for each of some assignments, its topic's records behind an id, in the order of their ids.

    The tables of all of them are looked up together.
    """
    keys = LookupCache(snapshot)
    sources = [Source(bound(one), frozenset({one.topic}), frozenset(), complete=False) for one, _ in places]
    paths = {path.source: path for path in plan_paths(snapshot, keys, sources, scan=False)}
    for source, (_, after) in zip(sources, places, strict=True):
        wanted = Selection(_ALL, low=after + 1, order=BY_ID)
        yield walk(snapshot, keys, paths[source], wanted, PAGE) if source in paths else iter(())


def batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield a few thousand records at a time, keeping those of one message together."""
    messages = (list(parts) for _, parts in groupby(records, key=attrgetter("id")))
    while batch := [record for parts in islice(messages, BATCH) for record in parts]:
        yield batch
