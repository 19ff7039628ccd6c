"""Move a topic's stored records from one model to another, as the current routes say.

A topic whose route's model differs from its records' gets a new current assignment; the old one becomes past.  Records
of past assignments are written, in order, to the tables of the current one; each transaction moves a batch, of one
topic or many, and notes how far it has got, so the work can be stopped and started again at any time, while new
messages keep arriving.  Readers find each record once, wherever it is.  When all are moved, every one is read back from
both places and compared; only then is the past assignment done, and its rows are deleted on request.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import CURRENT, MOVED, Assignment
from amqtt_db.routing.route import Route
from amqtt_db.routing.topics import TopicFilter
from amqtt_db.writer.erase import erase
from amqtt_db.writer.moving import Move, MoveProgress, Mover, group_moves, match_past
from amqtt_db.writer.retyping import RetypeProgress, Retyper, Retyping
from amqtt_db.writer.tidy import tidy_columns
from amqtt_db.writer.workshop import Workshop

PASSES: Final = 3
"""How often rows are deleted where there may be hypertables: a chunk hides its rows while it is compressed."""


class Remodel:
    """Moves stored records to the models that ``routes`` name; ``database`` is a URL.  Close it at the end."""

    def __init__(self, database: str, routes: Sequence[Route], clock: Callable[[], float] = time.time) -> None:
        """``clock`` returns seconds since 1970, by which the age of records is measured.

        Raises DatabaseError if a table that a route names cannot hold the rows of the route's model.
        """
        self._shop = Workshop(database, routes)
        self._retyper = Retyper(self._shop)
        self._mover = Mover(self._shop, clock)

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

    def move(self, *moves: Move) -> Generator[MoveProgress]:
        """Rewrite, then compare; the records of many topics share a transaction.  Refresh the views at the end.

        Raises RewriteError if a record reads back differently.
        """
        topics = records = 0
        for some in group_moves(move for move in moves if not move.is_done):
            with self._shop.maintenance():
                for progress in self._mover.move(some):
                    yield attrs.evolve(progress, records=records + progress.records, topics=topics + progress.topics)
            topics, records = topics + progress.topics, records + progress.records
        self._shop.views.finish()

    def drop(self, move: Move) -> Iterator[MoveProgress]:
        """Delete the rows of a finished move, except from tables that still have records of the topic.

        Views are refreshed before that: move all topics first, then drop.
        """
        self._shop.views.finish()
        with self._shop.maintenance():
            yield from self._delete(move)
            table = self._shop.catalog.assignment
            with self._shop.database.begin() as connection:
                connection.execute(table.delete().where(match_past(table)), move.place)

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


def _move(row: sa.Row[Any], current: Assignment) -> Move:
    past = Assignment(row.topic, row.key, row.route, row.model)
    return Move(past, row.sequence, row.moved or 0, current, row.state == MOVED)
