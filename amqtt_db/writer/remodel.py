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
from contextlib import suppress
from operator import attrgetter
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import CURRENT, MOVED, Assignment, key_hash
from amqtt_db.record import Record, Shape
from amqtt_db.routing.route import Route
from amqtt_db.routing.topics import TopicFilter
from amqtt_db.writer import workshop
from amqtt_db.writer.erase import erase
from amqtt_db.writer.insert_target import merge_rows
from amqtt_db.writer.retyping import RetypeProgress, Retyper, Retyping, equal_records
from amqtt_db.writer.tidy import tidy_columns
from amqtt_db.writer.workshop import RewriteError, Workshop, batches, records_in

PASSES: Final = 3
"""How often rows are deleted where there may be hypertables: a chunk hides its rows while it is compressed."""

_id_and_part = attrgetter("id", "part")
"""A function that returns what identifies a record."""


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
        self._shop = Workshop(database, routes)
        self._retyper = Retyper(self._shop)
        self._clock = clock

    def close(self) -> None:
        """Refresh the views that are due, and give the connections back."""
        self._shop.close()

    def moves(self, topic: str = "#") -> list[Move]:
        """Assign the topics that a filter covers as their routes say; return what to move or delete."""
        wanted, table = TopicFilter.parse(topic), self._shop.catalog.assignment
        with self._shop.database.begin() as connection:
            self._shop.engine.lock_schema(connection)
            stored = set(connection.scalars(sa.select(table.c.topic)))
            current = self._shop.assign(connection, sorted(name for name in stored if wanted.match(name) is not None))
            past = connection.execute(sa.select(table).where(table.c.state != CURRENT).order_by(table.c.sequence))
            return [_move(row, current[row.topic]) for row in past if row.topic in current]

    def move(self, move: Move) -> Iterator[MoveProgress]:
        """Rewrite, then compare.  Raises RewriteError if a record reads back differently."""
        if move.is_done:
            return
        with self._shop.maintenance():
            yield from self._rewrite(move)
            yield from self._compare(move)
            with self._shop.database.begin() as connection:
                connection.execute(self._shop.catalog.assignment.update().where(self._here(move)).values(state=MOVED))
        self._shop.views.refresh()

    def drop(self, move: Move) -> Iterator[MoveProgress]:
        """Delete the rows of a finished move, except from tables that still have records of the topic.

        Views are refreshed before that: move all topics first, then drop.
        """
        self._shop.views.finish()
        with self._shop.maintenance():
            yield from self._delete(move)
            with self._shop.database.begin() as connection:
                connection.execute(self._shop.catalog.assignment.delete().where(self._here(move)))

    def retypings(self, topic: str = "#") -> list[Retyping]:
        """Return the topics, among those that a filter covers, whose records their routes may type differently now.

        Call :meth:`moves` first, and move what there is to move.
        """
        return self._retyper.due(topic)

    def retype(self, retyping: Retyping) -> Iterator[RetypeProgress]:
        """Rewrite a topic's records in place.  Raises RewriteError if one does not read back as it was written."""
        with self._shop.maintenance():
            yield from self._retyper.retype(retyping)

    def tidy(self, retypings: Sequence[Retyping]) -> list[str]:
        """Give declared kinds the plain columns, and drop empty variants; return what could not be done."""
        with self._shop.maintenance():
            return tidy_columns(self._shop, [retyping.handler for retyping in retypings])

    def _delete(self, move: Move) -> Iterator[MoveProgress]:
        kept = {key for assignment in self._shop.in_use(move.topic) for key in self._shop.tables(assignment)}
        own = [table for key, table in self._shop.tables(move.past).items() if key not in kept]
        done = 0
        for _ in range(1 if self._shop.engine.hypertables is None else PASSES):
            last = 0
            while records := self._shop.next_batch(move.past, last):
                rows = [(one.id, one.part, self._shop.engine.bind("timestamp", one.time_us)) for one in records]
                with self._shop.database.begin() as connection:
                    done += erase(connection, self._shop.engine, own, rows)
                last = records[-1].id
                yield MoveProgress("deleted", done)

    def _rewrite(self, move: Move) -> Iterator[MoveProgress]:
        handler = self._shop.handler(move.topic)
        self._shop.make_room({(handler.destination, Shape(())): []})  # DDL waits for processes that read the table
        current = self._shop.tables(move.current)
        shared = {name for key, (_, name) in self._shop.tables(move.past).items() if key in current}
        left = self._left_behind(move) - shared
        stale = [(table, name) for table, name in current.values() if name in left]
        moved, done = move.moved, 0
        with self._shop.snapshots.take() as snapshot:
            for batch in batches(records_in(snapshot, move.past, after=moved)):
                rows = merge_rows(some for some in self._shop.plan_rows(handler, batch) if some[0].table not in shared)
                with self._shop.database.begin() as connection:
                    self._advance(connection, move, moved, batch[-1].id)
                    erase(connection, self._shop.engine, stale, [self._shop.identify(record) for record in batch])
                    self._shop.engine.insert(connection, rows)
                moved, done = batch[-1].id, done + len(batch)
                yield MoveProgress("rewritten", done)

    def _left_behind(self, move: Move) -> set[str]:
        """Return the names of the tables that still have old rows of the topic's moved records."""
        table = self._shop.catalog.assignment
        here = (table.c.hash == key_hash(move.topic)) & (table.c.state == MOVED)
        with self._shop.database.begin() as connection:
            rows = connection.execute(sa.select(table).where(here)).all()
        gone = [Assignment(row.topic, row.key, row.route, row.model) for row in rows]
        names: set[str] = set()
        for assignment in gone:
            with suppress(RewriteError):  # its model can no longer be loaded, and wrote to no table of this one
                names.update(name for _, name in self._shop.tables(assignment).values())
        return names

    def _advance(self, connection: sa.Connection, move: Move, before: int, after: int) -> None:
        table = self._shop.catalog.assignment
        here = self._here(move) & (sa.func.coalesce(table.c.moved, 0) == before)
        if connection.execute(table.update().where(here).values(moved=after)).rowcount != 1:
            raise RewriteError(f"topic {move.topic}: another remodel is working on it; wait until it ends")

    def _compare(self, move: Move) -> Iterator[MoveProgress]:
        """Raise RewriteError unless every record of the past assignment is in the current one, unchanged.

        One that is too old to be kept may be missing: the two places delete it at different times.
        """
        done, too_old = 0, self._too_old(move)
        with self._shop.snapshots.take() as snapshot:
            for old, new in side_by_side(records_in(snapshot, move.past), records_in(snapshot, move.current)):
                if new is None and old.time_us < too_old:
                    continue
                if not equal_records(old, new):
                    raise RewriteError(
                        f"topic {move.topic}: message {old.id} does not read back unchanged from its new tables; "
                        "the old rows are kept"
                    )
                done += 1
                if done % workshop.BATCH == 0:
                    yield MoveProgress("compared", done)
        yield MoveProgress("compared", done)

    def _here(self, move: Move) -> sa.ColumnElement[bool]:
        table = self._shop.catalog.assignment
        return (table.c.hash == key_hash(move.topic)) & (table.c.sequence == move.sequence)

    def _too_old(self, move: Move) -> float:
        """Return the time in microseconds since 1970 before which the topic's records are not kept."""
        keep = self._shop.handler(move.topic).builder.route.keep
        return float("-inf") if keep is None else (self._clock() - keep.total_seconds()) * 1_000_000


def _move(row: sa.Row[Any], current: Assignment) -> Move:
    past = Assignment(row.topic, row.key, row.route, row.model)
    return Move(past, row.sequence, row.moved or 0, current, row.state == MOVED)


def side_by_side(old: Iterable[Record], new: Iterator[Record]) -> Iterator[tuple[Record, Record | None]]:
    """Yield each old record with the new one of the same identity, or None; both inputs are in that order."""
    candidate = next(new, None)
    for one in old:
        while candidate is not None and _id_and_part(candidate) < _id_and_part(one):
            candidate = next(new, None)
        yield one, candidate if candidate is not None and _id_and_part(candidate) == _id_and_part(one) else None
