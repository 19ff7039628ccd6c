"""Move a topic's stored records from one model to another, as the current routes say.

A topic whose route's model differs from its records' gets a new current assignment; the old one becomes past.  Records
of past assignments are written, in order, to the tables of the current one; each transaction moves a batch and notes
how far it has got, so the work can be stopped and started again at any time, while new messages keep arriving.  Readers
find each record once, wherever it is.  When all are moved, every one is read back from both places and compared; only
then is the past assignment done, and its rows are deleted on request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import groupby, islice
from operator import attrgetter
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import CURRENT, MOVED, Assignment, Catalog, key_hash
from amqtt_db.database.engines import engine_for
from amqtt_db.database.lookup import Lookups
from amqtt_db.database.schema import Schema
from amqtt_db.database.snapshot import Snapshot, Snapshots
from amqtt_db.errors import AmqttDbError
from amqtt_db.models.binding import BoundModel, BoundTable
from amqtt_db.models.spec import bound_model
from amqtt_db.reader.keys import LookupCache
from amqtt_db.reader.path import plan_paths
from amqtt_db.reader.selection import BY_ID, Selection
from amqtt_db.reader.sources import Source
from amqtt_db.reader.walk import walk
from amqtt_db.record import Kind, Record, Shape
from amqtt_db.routing.records import TopicHandler
from amqtt_db.routing.route import Route
from amqtt_db.routing.topics import TopicFilter
from amqtt_db.writer.decoded import RecordGroup, RecordGroups
from amqtt_db.writer.erase import Identity, erase
from amqtt_db.writer.existing_tables import check_existing_tables, named_tables, names_of
from amqtt_db.writer.insert_plan import InsertPlanner
from amqtt_db.writer.insert_target import TargetRows, merge_rows
from amqtt_db.writer.rows import Misfits, fit, plan_rows
from amqtt_db.writer.topic_router import TopicRouter
from amqtt_db.writer.view_refresh import ViewKeeper

BATCH: Final = 2000  # messages per transaction
PAGE: Final = 2000  # rows read at a time
PASSES: Final = 3
"""How often rows are deleted if there may be hypertables: a chunk that is being compressed hides its rows."""

PATIENCE: Final = 10.0  # seconds to wait for other processes that delete or move records

_id_and_part = attrgetter("id", "part")
"""A function that returns what identifies a record."""


class RemodelError(AmqttDbError):
    """Records cannot be moved as requested; nothing is lost, and it may be tried again."""


@attrs.frozen
class Move:
    """A topic's records in a past assignment, its ``sequence``-th; those up to id ``moved`` have been moved.

    ``is_done`` is true if all have been moved, and only their old rows are left.
    """

    past: Assignment
    sequence: int
    moved: int
    current: Assignment
    is_done: bool

    @property
    def topic(self) -> str:
        """The topic whose records are moved."""
        return self.past.topic


@attrs.frozen
class MoveProgress:
    """The state of a move: what is being done, and for how many records so far."""

    step: str
    records: int


class Remodel:
    """Moves stored records to the models that ``routes`` name; ``database`` is a URL.  Close it at the end."""

    def __init__(self, database: str, routes: Sequence[Route], clock: Callable[[], float] = time.time) -> None:
        """``clock`` returns seconds since 1970, by which the age of records is measured.

        Raises DatabaseError if a table that a route names cannot hold the rows of the route's model.
        """
        self._snapshots = Snapshots(database)
        self._clock = clock
        self._routes = routes
        self._engine = engine_for(database)
        self._catalog = Catalog(self._engine)
        self._database = self._engine.open(write=True)
        self._named = named_tables(routes)
        self._schema = Schema(self._engine, self._catalog, names_of(self._named))
        self._planner = InsertPlanner(self._engine, self._schema, Lookups(self._engine, self._database), routes)
        self._router = TopicRouter(routes)
        self._views = ViewKeeper(self._engine, self._catalog, self._database, routes, self._named)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise

    def _prepare(self) -> None:
        with self._database.begin() as connection:
            self._engine.lock_schema(connection)
            self._catalog.create(connection)
            self._schema.load(connection)
            self._schema.mark_incomplete(check_existing_tables(self._engine, self._catalog, connection, self._named))

    def close(self) -> None:
        """Refresh the views that are due, and release the connections."""
        self._views.finish()
        self._snapshots.close()
        self._database.dispose()

    def moves(self, topic: str = "#") -> list[Move]:
        """Assign the topics that a filter covers as their routes say; return what to move or delete."""
        wanted, table = TopicFilter.parse(topic), self._catalog.assignment
        with self._database.begin() as connection:
            self._engine.lock_schema(connection)
            stored = set(connection.scalars(sa.select(table.c.topic)))
            current = self._assign(connection, sorted(name for name in stored if wanted.match(name) is not None))
            past = connection.execute(sa.select(table).where(table.c.state != CURRENT).order_by(table.c.sequence))
            return [_move(row, current[row.topic]) for row in past if row.topic in current]

    def move(self, move: Move) -> Iterator[MoveProgress]:
        """Rewrite, then compare.  Raises RemodelError if a record reads back differently."""
        if move.is_done:
            return
        with self._maintenance():
            yield from self._rewrite(move)
            yield from self._compare(move)
            with self._database.begin() as connection:
                connection.execute(self._catalog.assignment.update().where(self._here(move)).values(state=MOVED))
        self._views.refresh()

    def drop(self, move: Move) -> Iterator[MoveProgress]:
        """Delete the rows of a finished move, except from tables that still have records of the topic.

        Views are refreshed before that: move all topics first, then drop.
        """
        self._views.finish()
        with self._maintenance():
            yield from self._delete(move)
            with self._database.begin() as connection:
                connection.execute(self._catalog.assignment.delete().where(self._here(move)))

    @contextmanager
    def _maintenance(self) -> Iterator[None]:
        """Hold the maintenance lock.  Raises RemodelError if another process holds it for long."""
        deadline = time.monotonic() + PATIENCE
        while True:
            with self._engine.maintenance(self._database) as is_mine:
                if is_mine:
                    yield
                    return
            if time.monotonic() > deadline:
                raise RemodelError("another remodel is running on this database; wait until it ends")
            time.sleep(0.1)

    def _delete(self, move: Move) -> Iterator[MoveProgress]:
        kept = {key for assignment in self._in_use(move.topic) for key in self._tables(assignment)}
        own = [table for key, table in self._tables(move.past).items() if key not in kept]
        done = 0
        for _ in range(1 if self._engine.hypertables is None else PASSES):
            last = 0
            while records := self._next(move, last):
                rows = [(one.id, one.part, self._engine.bind("timestamp", one.time_us)) for one in records]
                with self._database.begin() as connection:
                    done += erase(connection, self._engine, own, rows)
                last = records[-1].id
                yield MoveProgress("deleted", done)

    def _assign(self, connection: sa.Connection, topics: Sequence[str]) -> dict[str, Assignment]:
        """Assign topics as their routes say, if they are not yet; return the assignments of those with a route."""
        self._router = TopicRouter(self._routes)
        found = self._router.unassigned(topic.encode() for topic in topics)
        known = self._catalog.assignments(connection, found)
        assignments = self._router.assign(found, known, self._catalog.tables_per_route(connection))
        self._catalog.add_assignments(connection, [one for one in assignments if known.get(one.topic) != one])
        self._router.learn(found, assignments)
        return {assignment.topic: assignment for assignment in assignments}

    def _rewrite(self, move: Move) -> Iterator[MoveProgress]:
        self._make_room(
            {(self._handler(move).destination, Shape(())): []}
        )  # DDL waits for processes that read the table
        current = self._tables(move.current)
        shared = {name for key, (_, name) in self._tables(move.past).items() if key in current}
        left = self._left_behind(move) - shared
        stale = [(table, name) for table, name in current.values() if name in left]
        moved, done = move.moved, 0
        with self._snapshots.take() as snapshot:
            for batch in _batches(_records(snapshot, move.past, after=moved)):
                rows = merge_rows(some for some in self._plan_rows(move, batch) if some[0].table not in shared)
                with self._database.begin() as connection:
                    self._advance(connection, move, moved, batch[-1].id)
                    erase(connection, self._engine, stale, [self._identified(record) for record in batch])
                    self._engine.insert(connection, rows)
                moved, done = batch[-1].id, done + len(batch)
                yield MoveProgress("rewritten", done)

    def _left_behind(self, move: Move) -> set[str]:
        """Return the names of the tables that still have old rows of the topic's moved records."""
        table = self._catalog.assignment
        here = (table.c.hash == key_hash(move.topic)) & (table.c.state == MOVED)
        with self._database.begin() as connection:
            rows = connection.execute(sa.select(table).where(here)).all()
        gone = [Assignment(row.topic, row.key, row.route, row.model) for row in rows]
        names: set[str] = set()
        for assignment in gone:
            with suppress(ValueError):  # its model can no longer be loaded, and wrote to no table of this one
                names.update(name for _, name in self._tables(assignment).values())
        return names

    def _identified(self, record: Record) -> Identity:
        return record.id, record.part, self._engine.bind("timestamp", record.time_us)

    def _plan_rows(self, move: Move, batch: Sequence[Record]) -> Sequence[TargetRows]:
        """Return the rows of records in the current assignment's tables; create these if they are missing."""
        destination = self._handler(move).destination
        groups: dict[RecordGroup, list[Record]] = {}
        for record in batch:
            groups.setdefault((destination, record.shape), []).append(record)
        self._views.note(groups)
        self._make_room(groups)
        rows = plan_rows(groups, self._planner)
        if isinstance(rows, Misfits):
            fitted = fit(groups, rows, self._planner)
            self._make_room(fitted)
            rows = plan_rows(fitted, self._planner)
            if isinstance(rows, Misfits):
                raise RemodelError(f"topic {move.topic}: the database cannot hold a value of its records")
        return rows

    def _handler(self, move: Move) -> TopicHandler:
        (handler,) = self._router.handlers([move.topic.encode()])
        if not isinstance(handler, TopicHandler):
            raise RemodelError(f"topic {move.topic} has no route")
        return handler

    def _make_room(self, groups: RecordGroups) -> None:
        missing = self._planner.missing(groups)
        if missing:
            with self._database.begin() as connection:
                self._schema.ensure(connection, missing)
            with self._database.begin() as connection:
                self._schema.learn(connection, {wish.table.key for wish in missing})

    def _advance(self, connection: sa.Connection, move: Move, before: int, after: int) -> None:
        table = self._catalog.assignment
        here = self._here(move) & (sa.func.coalesce(table.c.moved, 0) == before)
        if connection.execute(table.update().where(here).values(moved=after)).rowcount != 1:
            raise RemodelError(f"topic {move.topic}: another remodel is working on it; wait until it ends")

    def _compare(self, move: Move) -> Iterator[MoveProgress]:
        """Raise RemodelError unless every record of the past assignment is in the current one, unchanged.

        One that is too old to be kept may be missing: the two places delete it at different times.
        """
        done, too_old = 0, self._too_old(move)
        with self._snapshots.take() as snapshot:
            for old, new in _side_by_side(_records(snapshot, move.past), _records(snapshot, move.current)):
                if new is None and old.time_us < too_old:
                    continue
                if new is None or not _equal(old, new):
                    raise RemodelError(
                        f"topic {move.topic}: message {old.id} does not read back unchanged from its new tables; "
                        "the old rows are kept"
                    )
                done += 1
                if done % BATCH == 0:
                    yield MoveProgress("compared", done)
        yield MoveProgress("compared", done)

    def _in_use(self, topic: str) -> list[Assignment]:
        """Return the assignments to search for a topic's records."""
        table = self._catalog.assignment
        query = sa.select(table).where((table.c.hash == key_hash(topic)) & (table.c.state != MOVED))
        with self._database.begin() as connection:
            return [Assignment(row.topic, row.key, row.route, row.model) for row in connection.execute(query)]

    def _here(self, move: Move) -> sa.ColumnElement[bool]:
        table = self._catalog.assignment
        return (table.c.hash == key_hash(move.topic)) & (table.c.sequence == move.sequence)

    def _tables(self, assignment: Assignment) -> dict[str, tuple[BoundTable, str]]:
        """Return the existing tables of an assignment's records, by key, each with its name."""
        tables = {table.key: table for table in _bound(assignment).tables() if not table.replaces}
        with self._database.begin() as connection:
            known = self._catalog.physical_tables(connection, tables)
        return {key: (tables[key], found.name) for key, found in known.items()}

    def _next(self, move: Move, after: int) -> list[Record]:
        """Return the records of the topic's next messages in the past assignment."""
        with self._snapshots.take() as snapshot:
            return next(_batches(_records(snapshot, move.past, after)), [])

    def _too_old(self, move: Move) -> float:
        """Return the time in microseconds since 1970 before which the topic's records are not kept."""
        keep = self._handler(move).builder.route.keep
        return float("-inf") if keep is None else (self._clock() - keep.total_seconds()) * 1_000_000


def _move(row: sa.Row[Any], current: Assignment) -> Move:
    past = Assignment(row.topic, row.key, row.route, row.model)
    return Move(past, row.sequence, row.moved or 0, current, row.state == MOVED)


def _bound(assignment: Assignment) -> BoundModel:
    return bound_model(assignment.model, assignment.key, assignment.route)


def _by_id(topic: str, after: int) -> Selection:
    return Selection(TopicFilter.parse(topic), low=after + 1, order=BY_ID)


def _records(snapshot: Snapshot, assignment: Assignment, after: int = 0) -> Iterator[Record]:
    """Yield a topic's records in an assignment, in the order of their ids."""
    return _walked(snapshot, assignment, _by_id(assignment.topic, after))


def _walked(snapshot: Snapshot, assignment: Assignment, wanted: Selection) -> Iterator[Record]:
    keys = LookupCache(snapshot)
    source = Source(
        _bound(assignment),
        frozenset({assignment.topic}),
        frozenset(),
        complete=False,
    )
    for path in plan_paths(snapshot, keys, [source], scan=False):
        yield from walk(snapshot, keys, path, wanted, PAGE)


def _side_by_side(old: Iterable[Record], new: Iterator[Record]) -> Iterator[tuple[Record, Record | None]]:
    """Yield each old record with the new one of the same identity, or None; both inputs are in that order."""
    candidate = next(new, None)
    for one in old:
        while candidate is not None and _id_and_part(candidate) < _id_and_part(one):
            candidate = next(new, None)
        yield one, candidate if candidate is not None and _id_and_part(candidate) == _id_and_part(one) else None


def _batches(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Yield a few thousand records at a time, keeping those of one message together."""
    messages = (list(parts) for _, parts in groupby(records, key=attrgetter("id")))
    while batch := [record for parts in islice(messages, BATCH) for record in parts]:
        yield batch


def _equal(old: Record, new: Record) -> bool:
    """Return True if two records are equal; an old one without values is not compared."""
    envelope = attrgetter("id", "part", "time_us", "topic", "session", "qos", "retain")
    if envelope(old) != envelope(new):
        return False
    left, right = old.properties(), new.properties()
    return not left or {path: _exact(*pair) for path, pair in left.items()} == {
        path: _exact(*pair) for path, pair in right.items()
    }


def _exact(kind: Kind, value: Any) -> tuple[Kind, Any]:
    """Return a value in a form that differs for −0.0 and 0.0, and is equal for NaN and NaN."""
    return kind, repr(value) if kind in {"number", "json"} else value
