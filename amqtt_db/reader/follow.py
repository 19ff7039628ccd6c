"""Records as they come: what was stored since the last look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import sqlalchemy as sa

from amqtt_db.config import Settings
from amqtt_db.database.snapshot import Snapshot, open_snapshot
from amqtt_db.message import message_id
from amqtt_db.reader import url_of
from amqtt_db.reader.records import records
from amqtt_db.reader.selection import BY_ID, NEWEST, Selection
from amqtt_db.record import Record
from amqtt_db.routing.topics import TopicFilter

_BEFORE: Final = (-1, -1)  # no record's id and part


class Follower:
    """The newest records of the topics that a filter covers, and then those that are stored after them, each once.

    What is new is told by the checkpoints, which move in the transaction that stores records: neither late times nor
    several journals confuse it.  A dead letter that is replayed is not new.  Raises ValueError for no filter.
    """

    def __init__(self, database: str | Settings, topic: str = "#") -> None:
        self._url = url_of(database)
        self._topic = TopicFilter.parse(topic)
        self._seen: dict[int, int] = {}
        self._last: dict[int, tuple[int, int]] = {}

    def newest(self, count: int) -> list[Record]:
        """The ``count`` newest records in the order of their times; :meth:`news` goes on from here.

        Raises DatabaseError if the database cannot be read.
        """
        with open_snapshot(self._url) as snapshot:
            self._seen = _checkpoints(snapshot)
            found = list(records(snapshot, Selection(self._topic, limit=count, order=NEWEST)))
        return found[::-1]

    def news(self) -> Iterator[Record]:
        """What was stored since the last call, journal by journal in order of arrival.

        Raises as :meth:`newest`; the next call goes on behind the last record.
        """
        with open_snapshot(self._url) as snapshot:
            for number, position in _checkpoints(snapshot).items():
                seen = self._seen.get(number, 0)
                if position > seen:
                    new = Selection(self._topic, message_id(number, seen), message_id(number, position), order=BY_ID)
                    yield from self._behind_last(number, records(snapshot, new))
                    self._seen[number] = position

    def _behind_last(self, number: int, found: Iterable[Record]) -> Iterator[Record]:
        """Those of a journal that were not seen before an error."""
        last = self._last.get(number, _BEFORE)
        for record in found:
            if (record.id, record.part) > last:
                self._last[number] = record.id, record.part
                yield record


def _checkpoints(snapshot: Snapshot) -> dict[int, int]:
    table = snapshot.catalog.journal
    if not sa.inspect(snapshot.connection).has_table(table.name):
        return {}
    rows = snapshot.connection.execute(sa.select(table.c.number, table.c.position).order_by(table.c.number))
    return {row.number: row.position for row in rows}
