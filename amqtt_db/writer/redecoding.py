"""Store messages again from the payloads that were kept, as their routes want them now.

Each transaction replaces the records of some messages: a reader sees a message as it was or as it is now.  To store one
again a second time changes nothing, so the work may be stopped and started again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import CURRENT
from amqtt_db.database.raw_payloads import raw_after
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.message import POSITION_BITS, Batch, Message
from amqtt_db.record import Pair, Record, natural_kind, to_micros
from amqtt_db.routing.topics import TopicFilter
from amqtt_db.writer.decoded import DecodedBatch, decode_batch
from amqtt_db.writer.replacement import Replacer
from amqtt_db.writer.retyping import equal_records
from amqtt_db.writer.workshop import RewriteError, Workshop, records_in


@attrs.frozen
class RedecodeProgress:
    """How many messages have been stored again, as how many records, and how many are refused now, and why.

    Those that are refused stay as they were.
    """

    messages: int = 0
    records: int = 0
    refused: int = 0
    reason: str | None = None


class Redecoder:
    """Stores messages again that arrived in a range of times, with the tools of a workshop."""

    def __init__(self, shop: Workshop, since: datetime | None = None, before: datetime | None = None) -> None:
        self._shop = shop
        self._since = None if since is None else to_micros(since)
        self._before = None if before is None else to_micros(before)
        self._replacer = Replacer(shop)

    def topics(self, topic: str) -> list[str]:
        """Return the stored topics that a filter covers and that have a route; assign them as that says."""
        wanted, table = TopicFilter.parse(topic), self._shop.catalog.assignment
        with self._shop.database.begin() as connection:
            self._shop.engine.lock_schema(connection)
            stored = connection.scalars(sa.select(table.c.topic).where(table.c.state == CURRENT)).all()
            return sorted(self._shop.assign(connection, sorted(one for one in stored if wanted.match(one) is not None)))

    def redecode(self, topic: str) -> Iterator[RedecodeProgress]:
        """Store the messages of a topic again; yield how far that is.

        Raises RewriteError if it is stored in several models, or if records do not read back as they were written.
        """
        done, last = RedecodeProgress(), 0
        with self._shop.maintenance():
            if len(self._shop.in_use(topic)) > 1:
                raise RewriteError(f"topic {topic} is stored in several models; run `amqtt-db remodel` first")
            while found := self._next(topic, last):
                for number, some in groupby(found, key=lambda one: one[0] >> POSITION_BITS):
                    done = self._store(topic, number, [message for _, message in some], done)
                last = found[-1][0]
                yield done

    def _next(self, topic: str, last: int) -> list[tuple[int, Message]]:
        with self._shop.database.begin() as connection:
            return raw_after(connection, self._shop.catalog, topic, last, self._since, self._before)

    def _store(self, topic: str, number: int, messages: Sequence[Message], done: RedecodeProgress) -> RedecodeProgress:
        """Replace the records of a journal's messages; return the progress after that."""
        ids = [number << POSITION_BITS | message.position for message in messages]
        decoded = decode_batch(number, _batch_of(messages), self._shop.router)
        refused = {number << POSITION_BITS | one.message.position for one in decoded.rejected}
        (assignment,) = self._shop.in_use(topic)
        with self._shop.snapshots.take() as snapshot:
            there = list(records_in(snapshot, assignment, ids[0] - 1, ids[-1]))
        wanted = set(ids) - refused
        if self._shop.handler(topic).builder.route.only is not None:  # what said nothing new is not stored now either
            wanted &= {record.id for record in there}
        new = [record for records in decoded.groups.values() for record in records if record.id in wanted]
        new = list(map(_as_read_back, new))

        def confirm(connection: sa.Connection) -> None:
            snapshot = Snapshot(self._shop.engine, self._shop.catalog, connection)
            stored = {(one.id, one.part): one for one in records_in(snapshot, assignment, ids[0] - 1, ids[-1])}
            if not all(equal_records(record, stored.get((record.id, record.part))) for record in new):
                raise RewriteError(f"topic {topic}: messages {ids[0]} to {ids[-1]} do not read back as decoded")

        rows = self._shop.plan_rows(self._shop.handler(topic), new)
        old = [record for record in there if record.id in wanted]
        self._replacer.replace(self._shop.tables(assignment).values(), old, rows, confirm)
        return _advance(done, len(wanted), new, decoded)


def _as_read_back(record: Record) -> Record:
    """Return a decoded record with its whole numbers as a column returns them: doubles where they are exact."""
    values: dict[Pair, Any] = {}
    for path, (kind, value) in record.properties().items():
        is_whole = kind == "number" and type(value) is int
        found = natural_kind(value) if is_whole else (kind, value)
        values[path, found[0]] = found[1]
    return record.with_values(values)


def _advance(done: RedecodeProgress, messages: int, new: Sequence[Record], decoded: DecodedBatch) -> RedecodeProgress:
    reason = done.reason or next((one.reason for one in decoded.rejected), None)
    refused = done.refused + len(decoded.rejected)
    return RedecodeProgress(done.messages + messages, done.records + len(new), refused, reason)


def _batch_of(messages: Sequence[Message]) -> Batch:
    """Return messages of one journal as a batch."""
    fields = ("position", "time", "flags", "session", "topic", "payload")
    positions, times, flags, sessions, topics, payloads = (
        [getattr(one, field) for one in messages] for field in fields
    )
    return Batch("", positions, times, flags, sessions, topics, payloads, positions[-1] + 1)
