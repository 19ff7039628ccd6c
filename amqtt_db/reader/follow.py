"""Records as they arrive: what was stored since the last query."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from time import sleep
from typing import Final

import attrs
import sqlalchemy as sa

from amqtt_db.config import Settings
from amqtt_db.database.snapshot import Snapshot, open_snapshot
from amqtt_db.message import message_id
from amqtt_db.reader import url_of
from amqtt_db.reader.records import read_records
from amqtt_db.reader.selection import BY_ID, NEWEST, Selection
from amqtt_db.record import Record
from amqtt_db.routing.topics import TopicFilter

_RECORDS_A_TURN: Final = 500  # records that a thread reads before the event loop gets them
_BEFORE: Final = (-1, -1)  # not the id and part of any record


def follow(database: str | Settings, topic: str = "#", *, last: int = 0, interval: float = 1.0) -> Following:
    """Return the ``last`` newest records of the topics that a filter covers, then each new one as it is stored.

    Go through them with ``for``, or in an event loop with ``async for``, which reads in a thread.  ``database`` is a
    SQLAlchemy URL, or the settings that name one.  It never ends by itself: it queries again after ``interval``
    seconds.  Raises ValueError at once for a wrong argument, and, on the way, DatabaseError if the database cannot be
    read; if so, call ``follow`` again.
    """
    make_follower = partial(Follower, database, topic)
    make_follower()  # finds wrong arguments
    return Following(make_follower, last, interval)


@attrs.frozen(eq=False)
class Following:
    """Records as they are stored, for ``for`` and for ``async for``; each loop begins with the newest records."""

    make_follower: Callable[[], Follower]
    last: int
    interval: float

    def __iter__(self) -> Iterator[Record]:
        follower = self.make_follower()
        yield from follower.newest(self.last)
        while True:
            yield from follower.news()
            sleep(self.interval)

    async def __aiter__(self) -> AsyncIterator[Record]:
        follower, loop = self.make_follower(), asyncio.get_running_loop()
        reader = ThreadPoolExecutor(1, "amqtt_db.follow")  # one thread, so that closing waits for its turn
        found = follower.news()
        try:
            for record in await loop.run_in_executor(reader, follower.newest, self.last):
                yield record
            while True:
                found = follower.news()
                while page := await loop.run_in_executor(reader, list, islice(found, _RECORDS_A_TURN)):
                    for record in page:
                        yield record
                await asyncio.sleep(self.interval)
        finally:
            reader.submit(found.close)
            reader.shutdown(wait=False)


class Follower:
    """The newest records of the topics that a filter covers, then those that are stored after them, each once.

    The checkpoints show what is new: they move in the transaction that stores records, so neither late times nor
    several journals cause confusion.  A replayed dead letter is not new.
    """

    def __init__(self, database: str | Settings, topic: str = "#") -> None:
        self._url = url_of(database)
        self._topic = TopicFilter.parse(topic)
        self._seen: dict[int, int] = {}
        self._last: dict[int, tuple[int, int]] = {}

    def newest(self, count: int) -> list[Record]:
        """Return the ``count`` newest records in time order; :meth:`news` continues from here.

        Raises DatabaseError if the database cannot be read.
        """
        with open_snapshot(self._url) as snapshot:
            self._seen = _stored_positions(snapshot)
            found = list(read_records(snapshot, Selection(self._topic, limit=count, order=NEWEST)))
        return found[::-1]

    def news(self) -> Generator[Record]:
        """Yield what was stored since the last call, journal by journal in order of arrival.

        Raises as :meth:`newest`; the next call continues after the last record.
        """
        with open_snapshot(self._url) as snapshot:
            for number, position in _stored_positions(snapshot).items():
                seen = self._seen.get(number, 0)
                if position > seen:
                    new = Selection(self._topic, message_id(number, seen), message_id(number, position), order=BY_ID)
                    yield from self._behind_last(number, read_records(snapshot, new))
                    self._seen[number] = position

    def _behind_last(self, number: int, found: Iterable[Record]) -> Iterator[Record]:
        """Yield those records of a journal that were not yielded before an error."""
        last = self._last.get(number, _BEFORE)
        for record in found:
            if (record.id, record.part) > last:
                self._last[number] = record.id, record.part
                yield record


def _stored_positions(snapshot: Snapshot) -> dict[int, int]:
    table = snapshot.catalog.journal
    if not sa.inspect(snapshot.connection).has_table(table.name):
        return {}
    rows = snapshot.connection.execute(sa.select(table.c.number, table.c.position).order_by(table.c.number))
    return {row.number: row.position for row in rows}
