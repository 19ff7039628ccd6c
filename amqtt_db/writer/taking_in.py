"""Store records that another database or a file has, each once by its id and part, where their topics' routes say."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import partial

import attrs

from amqtt_db.database.catalog import key_hash
from amqtt_db.database.engines.base import batched
from amqtt_db.errors import Rejected
from amqtt_db.record import Record
from amqtt_db.routing.route import Route
from amqtt_db.routing.topics import first_match
from amqtt_db.writer.decoded import RecordGroup
from amqtt_db.writer.insert_plan import Misfits
from amqtt_db.writer.insert_target import TargetRows
from amqtt_db.writer.places import Places
from amqtt_db.writer.replacement import Replacer
from amqtt_db.writer.retyping import equal_records
from amqtt_db.writer.workshop import RewriteError, Workshop


@attrs.frozen
class TakenIn:
    """What became of records: how many are new, how many were there, and which are there with other contents."""

    new: int = 0
    same: int = 0
    different: tuple[Record, ...] = ()

    def __add__(self, other: TakenIn) -> TakenIn:
        return TakenIn(self.new + other.new, self.same + other.same, (*self.different, *other.different))


class RecordTaker:
    """Takes records of some topics into a database, with the tools of a workshop.

    Hold the maintenance lock.  The ids must lie before the checkpoints of all writers, so that none of them stores the
    same message at the same time.
    """

    def __init__(self, shop: Workshop, topics: Collection[str]) -> None:
        """Raise RewriteError if a topic has no route."""
        self._shop = shop
        self._topics = topics
        self._replacer = Replacer(shop)
        require_routes(shop.routes, topics)
        self._places = Places(shop, frozenset(topics))

    def assign(self) -> None:
        """Assign the topics as their routes say; their records may not be typed as these declare."""
        table = self._shop.catalog.typing
        with self._shop.database.begin() as connection:
            self._shop.engine.lock_schema(connection)
            self._shop.assign(connection, sorted(self._topics))
            for hashes in batched(map(key_hash, self._topics)):
                connection.execute(table.delete().where(table.c.hash.in_(hashes)))
        self._places = Places(self._shop, frozenset(self._topics))

    def compare(self, records: Sequence[Record]) -> tuple[list[Record], TakenIn]:
        """Return the records that are not stored yet, and what is to be said of the others."""
        topics, ids = {record.topic for record in records}, {record.id for record in records}
        known = {_identity(record): record for _, record in self._places.find(topics, ids).live} if records else {}
        before = [known.setdefault(_identity(record), record) for record in records]  # stored, or earlier in the batch
        new = [record for record, other in zip(records, before, strict=True) if other is record]
        there = [(record, other) for record, other in zip(records, before, strict=True) if other is not record]
        different = tuple(record for record, other in there if not equal_records(record, other))
        return new, TakenIn(0, len(there) - len(different), different)

    def take(self, records: Sequence[Record]) -> TakenIn:
        """Store the records of assigned topics that are not stored yet.

        Raises RewriteError if the database cannot hold one.
        """
        new, told = self.compare(records)
        if new:
            self._store(new)
        return told + TakenIn(len(new))

    def _store(self, records: Sequence[Record]) -> None:
        """Store records in one transaction, or in several, to find the one that cannot be stored."""
        engine = self._shop.engine
        try:
            self._shop.attempt(partial(self._insert, records))
            return
        except Exception as error:
            if not (isinstance(error, Rejected) or engine.is_value_fault(error) or engine.is_size_fault(error)):
                raise
            if len(records) == 1:
                what = f"topic {records[0].topic!r}: the database cannot hold the record of message {records[0].id}"
                raise RewriteError(what) from error
        middle = len(records) // 2
        self._store(records[:middle])
        self._store(records[middle:])

    def _insert(self, records: Sequence[Record]) -> None:
        self._replacer.replace((), (), plan_records(self._shop, records), new=records)


def plan_records(shop: Workshop, records: Sequence[Record]) -> Sequence[TargetRows]:
    """Return the rows of records of assigned topics.  Raises RewriteError if the database cannot hold a value."""
    groups: dict[RecordGroup, list[Record]] = {}
    for record in records:
        groups.setdefault((shop.handler(record.topic).destination, record.shape), []).append(record)
    rows = shop.plan_groups(groups)
    if isinstance(rows, Misfits):
        raise RewriteError(f"topic {records[0].topic!r}: the database cannot hold a value of its records")
    return rows


def require_routes(routes: Sequence[Route], topics: Iterable[str]) -> None:
    """Raise RewriteError if a topic has no route."""
    lost = next(find_topics_without_route(routes, sorted(topics)), None)
    if lost is not None:
        raise RewriteError(f"no route stores topic {lost!r}; add one to the configuration first")


def find_topics_without_route(routes: Sequence[Route], topics: Iterable[str]) -> Iterator[str]:
    """Yield the topics that no route stores."""
    filters = [route.filter for route in routes]
    for topic in topics:
        match = first_match(filters, topic)
        if match is None or not routes[match[0]].stores:
            yield topic


def _identity(record: Record) -> tuple[int, int]:
    return record.id, record.part
