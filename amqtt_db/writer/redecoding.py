"""Store messages again from the payloads that were kept, as their routes want them now.

Each transaction replaces the records of some messages: a reader sees a message as it was or as it is now.  To store one
again a second time changes nothing, so the work may be stopped and started again.  A message that is refused now keeps
its records.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import groupby

import attrs
import orjson
import sqlalchemy as sa

from amqtt_db.database.catalog import CURRENT, key_hash
from amqtt_db.database.raw_payloads import raw_after
from amqtt_db.errors import StructureError
from amqtt_db.message import POSITION_BITS, Batch, Message, message_id
from amqtt_db.record import Record, to_micros
from amqtt_db.routing.topics import TopicFilter
from amqtt_db.writer.blame import blame_data, rejection
from amqtt_db.writer.decoded import DecodedBatch, RecordGroups
from amqtt_db.writer.decoding import decode_batch
from amqtt_db.writer.insert_plan import Misfits
from amqtt_db.writer.insert_target import TargetRows
from amqtt_db.writer.latest_states import ChangeFilter
from amqtt_db.writer.memory import DecoderMemory
from amqtt_db.writer.places import FoundRecords, Places
from amqtt_db.writer.replacement import Replacer
from amqtt_db.writer.transaction import TransactionWriter
from amqtt_db.writer.unchanged import States
from amqtt_db.writer.workshop import Workshop


@attrs.frozen
class RedecodeProgress:
    """How many messages have been stored again, as how many records, and which are refused now.

    ``refusals`` counts the latter by topic, each with the reason of the first; they stay as they were.
    """

    messages: int = 0
    records: int = 0
    refusals: Mapping[str, tuple[int, str]] = attrs.field(factory=dict)

    @property
    def refused(self) -> int:
        """How many messages are refused."""
        return sum(count for count, _ in self.refusals.values())

    def __add__(self, other: RedecodeProgress) -> RedecodeProgress:
        refusals = dict(self.refusals)
        for topic, (count, reason) in other.refusals.items():
            before, first = refusals.get(topic, (0, reason))
            refusals[topic] = before + count, first
        return RedecodeProgress(self.messages + other.messages, self.records + other.records, refusals)


class Redecoder:
    """Stores messages again that arrived in a range of times, with the tools of a workshop."""

    def __init__(self, shop: Workshop, since: datetime | None = None, before: datetime | None = None) -> None:
        self._shop = shop
        self._since = None if since is None else to_micros(since)
        self._before = None if before is None else to_micros(before)
        self._replacer = Replacer(shop)
        self._target = TransactionWriter(shop.engine, shop.catalog)
        self._changes = ChangeFilter(shop.engine, shop.catalog, shop.database, shop.schema, shop.lookups, shop.routes)
        self._states: States = {}
        self._stored_memory = DecoderMemory(shop.catalog, shop.database)
        self._memory: dict[str, str] = {}

    def topics(self, topic: str) -> list[str]:
        """Return the stored topics that a filter covers and that have a route; assign them as that says."""
        with self._shop.database.begin() as connection:
            return self._assign(connection, topic)

    def preview(self, topic: str) -> RedecodeProgress:
        """Return what would become of the messages of the topics that a filter covers; nothing is changed."""
        with self._shop.database.connect() as connection:
            topics = self._assign(connection, topic)
            connection.rollback()
        done = RedecodeProgress()
        for number, batch in self._batches(topics):
            decoded = self._decode(number, batch)
            self._go_on(decoded)
            done += _progress(len(batch) - len(decoded.rejected), decoded)
        return done

    def redecode(self, *topics: str) -> Iterator[RedecodeProgress]:
        """Store the messages of topics again, in the order in which they came; yield how far that is.

        Afterwards an older record may have the newest value of a property: see :mod:`amqtt_db.writer.fill_latest`.
        """
        done = RedecodeProgress()
        with self._shop.maintenance():
            places = Places(self._shop, frozenset(topics))
            for number, batch in self._batches(topics):
                done += self._store(places, number, batch)
                yield done

    def _assign(self, connection: sa.Connection, topic: str) -> list[str]:
        wanted, table = TopicFilter.parse(topic), self._shop.catalog.assignment
        self._shop.engine.lock_schema(connection)
        stored = connection.scalars(sa.select(table.c.topic).where(table.c.state == CURRENT)).all()
        return sorted(self._shop.assign(connection, sorted(one for one in stored if wanted.match(one) is not None)))

    def _batches(self, topics: Sequence[str]) -> Iterator[tuple[int, Batch]]:
        """Yield the messages of topics in batches, each with the number of the journal that they came through."""
        by_hash, last = {key_hash(topic): topic for topic in topics}, 0
        while True:
            with self._shop.database.begin() as connection:
                found = raw_after(connection, self._shop.catalog, by_hash, last, self._since, self._before)
            if not found:
                return
            for number, some in groupby(found, key=lambda one: one[0] >> POSITION_BITS):
                yield number, _batch_of([message for _, message in some])
            last = found[-1][0]

    def _decode(self, number: int, batch: Batch) -> DecodedBatch:
        """Decode a batch again; what its decoders remember of it is not stored, for they have gone on since."""
        names = self._shop.router.memory_names(batch.topics)
        memory = {**self._stored_memory.recall(names), **self._memory} if names else {}
        return self._changes.apply(decode_batch(number, batch, self._shop.router, memory), self._states)

    def _store(self, places: Places, number: int, batch: Batch) -> RedecodeProgress:
        """Store a batch again, halving it if a message is at fault, which stays as it was."""
        try:
            return self._shop.attempt(partial(self._replace, places, number, batch))
        except Exception as error:
            reason = rejection(self._shop.engine, error)
            if reason is None and self._shop.engine.is_size_fault(error):
                reason = StructureError("the database has no room for its records")
            if reason is None:
                raise
        if len(batch) == 1:
            return RedecodeProgress(refusals={batch.topics[0].decode(): (1, str(reason))})
        left, right = batch.split_at(len(batch) // 2)
        return self._store(places, number, left) + self._store(places, number, right)

    def _replace(self, places: Places, number: int, batch: Batch) -> RedecodeProgress:
        """Replace the records of a batch in one transaction, the newest values that came from them included."""
        topics = frozenset(topic.decode() for topic in batch.topics)
        found = places.find(topics, {message_id(number, position) for position in batch.positions})
        decoded = self._decode(number, _with_properties(number, batch, found))
        refused = {one.message.position for one in decoded.rejected}
        ids = {message_id(number, position) for position in batch.positions if position not in refused}
        old, rows = found.of(ids), self._plan(decoded.groups)
        count = partial(self._count, number, _changed_counts(old, decoded.groups))
        new = [record for records in decoded.groups.values() for record in records]
        self._replacer.replace(places.tables(topics), old.everything, rows, count, new)
        self._go_on(decoded)
        return _progress(len(ids), decoded)

    def _go_on(self, decoded: DecodedBatch) -> None:
        """Learn what the next batch needs to know of this one."""
        self._states = self._changes.states_after(decoded, self._states)
        self._memory.update(decoded.memory)

    def _plan(self, groups: RecordGroups) -> Sequence[TargetRows]:
        with blame_data(self._shop.database):
            rows = self._shop.plan_groups(groups)
        if isinstance(rows, Misfits):
            raise StructureError("the database cannot hold a value of the message")
        return rows

    def _count(self, number: int, counts: Mapping[str, Counter[str]], connection: sa.Connection) -> None:
        self._target.add_counts(connection, number, counts)


def _with_properties(number: int, batch: Batch, found: FoundRecords) -> Batch:
    """Return a batch with the MQTT properties that its stored records have, where the payload was kept without them.

    Older versions kept payloads without.
    """
    stored = {record.id: record.mqtt_properties() for _, record in found.live}
    known = (stored.get(message_id(number, position)) for position in batch.positions)
    pairs = zip(batch.properties, known, strict=True)
    return attrs.evolve(batch, properties=[kept or (orjson.dumps(some) if some else b"") for kept, some in pairs])


def _changed_counts(old: FoundRecords, groups: RecordGroups) -> dict[str, Counter[str]]:
    """Return what to add to the counters of each topic filter if records are replaced by others."""
    before: dict[str, list[Record]] = {}
    for route, record in old.live:
        before.setdefault(route, []).append(record)
    after: dict[str, list[Record]] = {}
    for (destination, _), records in groups.items():
        after.setdefault(destination.route, []).extend(records)
    counts: dict[str, Counter[str]] = {route: Counter() for route in (*before, *after)}
    for route, records in before.items():
        counts[route].update(stored=-len({one.id for one in records}), records=-len(records))
    for route, records in after.items():
        counts[route].update(stored=len({one.id for one in records}), records=len(records))
    return counts


def _progress(messages: int, decoded: DecodedBatch) -> RedecodeProgress:
    total = RedecodeProgress(messages, sum(map(len, decoded.groups.values())))
    for one in decoded.rejected:
        total += RedecodeProgress(refusals={one.message.topic.decode(): (1, one.reason)})
    return total


def _batch_of(messages: Sequence[Message]) -> Batch:
    """Return messages of one journal as a batch."""
    fields = ("position", "time", "flags", "session", "topic", "payload", "properties")
    positions, times, flags, sessions, topics, payloads, properties = (
        [getattr(one, field) for one in messages] for field in fields
    )
    return Batch("", positions, times, flags, sessions, topics, payloads, positions[-1] + 1, properties)
