"""What a batch becomes in the database, gathered before the transaction begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
from sqlalchemy.exc import SQLAlchemyError

from amqtt_db.database.engines.base import Unfit
from amqtt_db.errors import DatabaseError, Rejected, StructureError
from amqtt_db.message import PUBLISH, Batch, Message
from amqtt_db.record import Record, RecordSlice
from amqtt_db.routing.records import TopicHandler
from amqtt_db.writer.gather import Gathered
from amqtt_db.writer.insert_plan import InsertPlanner, InsertTarget, RecordGroup
from amqtt_db.writer.topic_router import TopicRouter

NO_ROUTE = ""
"""The topic filter under which messages without a route are counted."""


@attrs.frozen
class Dead:
    """A message that cannot be stored as it is, under which topic filter, and why."""

    message: Message
    filter: str
    step: str
    reason: str


@attrs.define
class Harvest:
    """Rows, dead letters, sessions and counts of the messages from ``start`` to ``end`` (excluded) of a journal."""

    number: int
    start: int
    end: int
    rows: list[tuple[InsertTarget, Sequence[Any]]] = attrs.field(factory=list)
    dead: list[Dead] = attrs.field(factory=list)
    sessions: list[Message] = attrs.field(factory=list)
    counts: dict[str, Counter[str]] = attrs.field(factory=dict)

    def count(self, text: str, **counts: int) -> None:
        """Add to the counters of a topic filter."""
        self.counts.setdefault(text, Counter()).update(counts)

    def bury(self, message: Message, text: str, error: Rejected) -> None:
        """Make a message a dead letter."""
        self.dead.append(Dead(message, text, error.step, str(error)))
        self.count(text, dead=1)


@attrs.define
class Decoded:
    """A batch's records by place and shape."""

    buckets: dict[RecordGroup, Sequence[Record]] = attrs.field(factory=dict)


def decode(harvest: Harvest, batch: Batch, router: TopicRouter) -> Decoded:
    """Records of a batch; dead letters, ignored messages, sessions and counts go to the harvest."""
    gathered, ignored = Gathered(harvest.number, batch, harvest.bury), 0
    for builder in router.builders:
        builder.begin()
    for index, (flags, topic, payload) in enumerate(zip(batch.flags, batch.topics, batch.payloads, strict=True)):
        if flags >> 4 != PUBLISH:
            harvest.sessions.append(batch.message(index))
            continue
        handler = router.get(topic)
        if isinstance(handler, TopicHandler):
            gathered.add(index, handler, payload)
        elif handler is None:
            ignored += 1
        else:
            harvest.bury(batch.message(index), NO_ROUTE, handler)
    decoded = Decoded({(destination, some.shape): some for destination, some in gathered.blocks()})
    _count(harvest, decoded, gathered.stored, router, ignored)
    return decoded


def _count(harvest: Harvest, decoded: Decoded, stored: Mapping[str, int], router: TopicRouter, ignored: int) -> None:
    for text, count in stored.items():
        harvest.count(text, stored=count)
    made = Counter[str]()
    for (destination, _), records in decoded.buckets.items():
        made[destination.route] += len(records)
    for text, count in made.items():
        harvest.count(text, records=count)
    for builder in router.builders:
        if builder.counts:
            harvest.count(builder.route.filter.text, **builder.counts)
    if ignored:
        harvest.count(NO_ROUTE, ignored=ignored)


def lay(harvest: Harvest, decoded: Decoded, planner: InsertPlanner) -> list[RecordGroup]:
    """Rows of all records into the harvest; returns the buckets that hold a value that does not fit its column."""
    harvest.rows.clear()
    unfit: list[RecordGroup] = []
    together: dict[int, list[tuple[RecordGroup, Sequence[Record]]]] = {}
    for bucket, records in decoded.buckets.items():
        whole = records.whole if isinstance(records, RecordSlice) else records
        together.setdefault(id(whole), []).append((bucket, records))
    for some in together.values():
        harvest.rows += _rows(some, planner, unfit)
    return unfit


def _rows(
    some: Sequence[tuple[RecordGroup, Sequence[Record]]], planner: InsertPlanner, unfit: list[RecordGroup]
) -> list[tuple[InsertTarget, Sequence[Any]]]:
    """The rows of buckets, halved where a value does not fit until the one that holds it is alone."""
    try:
        return planner.rows(some)
    except Unfit:
        if len(some) > 1:
            middle = len(some) // 2
            return [*_rows(some[:middle], planner, unfit), *_rows(some[middle:], planner, unfit)]
        unfit.append(some[0][0])
        return []
    except (Rejected, DatabaseError, SQLAlchemyError):
        raise
    except Exception as error:  # a model's own code may raise anything
        raise StructureError(f"{type(error).__name__}: {error}") from error


def refit(decoded: Decoded, buckets: Iterable[RecordGroup], planner: InsertPlanner) -> None:
    """Give every record of some buckets the shape whose columns return all its values identically."""
    fitted: dict[RecordGroup, list[Record]] = {}
    for destination, shape in buckets:
        for record in map(planner.refit, decoded.buckets.pop((destination, shape))):
            fitted.setdefault((destination, record.shape), []).append(record)
    for bucket, records in fitted.items():
        decoded.buckets[bucket] = [*decoded.buckets.get(bucket, ()), *records]
