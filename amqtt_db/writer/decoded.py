"""A batch of the journal → typed records: the first of a batch's three values.

Objects that are alike are typed together, column by column; all other messages are typed one by one.  A message
that cannot be decoded or typed is rejected, whatever its decoder, its entity or its values raise; its neighbours are
not affected.
"""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from operator import is_
from types import MappingProxyType
from typing import Any, Final

import attrs
import orjson

from amqtt_db.decode import EMPTY
from amqtt_db.entity.timestamp import event_times
from amqtt_db.errors import DecodeError, Rejected
from amqtt_db.message import CONNECT, PUBLISH, Batch, Message, message_id
from amqtt_db.models.base import Destination
from amqtt_db.record import Record, RecordBatch, RecordSlice, Shape, columns_of
from amqtt_db.routing.columns import Alike, TypedColumns, divide, type_columns
from amqtt_db.routing.records import RecordColumns, RecordValues, TimedShape, TopicHandler, TopicMemory
from amqtt_db.writer.topic_router import Handling, IgnoredTopic, TopicRouter

FEW: Final = 3  # fewer objects are typed faster one by one than together
RARE: Final = 8  # fewer objects with the same keys are typed together with others

RecordGroup = tuple[Destination, Shape]
"""The key of records that need the same columns."""

RecordGroups = Mapping[RecordGroup, Sequence[Record]]
"""Records by destination and shape."""


@attrs.frozen
class Rejection:
    """A message that cannot be stored, the topic filter that it is counted under, the step that rejects it, and why."""

    message: Message
    filter: str
    step: str
    reason: str


@attrs.frozen
class DecodedBatch:
    """The result of decoding the entries up to ``end`` (excluded) of one generation.

    ``connections`` are the entries that say which clients connected and disconnected, ``counts`` what to add to the
    counters of each topic filter.  ``raw`` are the messages whose payloads are kept as they came.  ``memory`` is what
    decoders remember from now on, by its name in the database, as far as it has changed.
    """

    number: int
    end: int
    groups: RecordGroups = attrs.field(factory=dict)
    rejected: Sequence[Rejection] = ()
    connections: Sequence[Message] = ()
    raw: Sequence[Message] = ()
    counts: Mapping[str, Counter[str]] = attrs.field(factory=dict)
    memory: Mapping[str, str] = attrs.field(factory=dict)


def decode_batch(
    number: int, batch: Batch, router: TopicRouter, memory: Mapping[str, str] = MappingProxyType({})
) -> DecodedBatch:
    """Return the records of a batch of the journal with this number; the router must already know the topics.

    ``memory`` is what decoders remember of the messages before the batch, by its name in the database.
    """
    for builder in router.builders:
        builder.limit_memory()
    decoder = _BatchDecoder(number, batch, memory)
    connections: list[Message] = []
    handlers = router.handlers(batch.topics)
    for index, (flags, handler) in enumerate(zip(batch.flags, handlers, strict=True)):
        if flags >> 4 != PUBLISH:
            connections.append(batch.message(index))
        elif isinstance(handler, TopicHandler):
            decoder.add(index, handler)
        elif isinstance(handler, IgnoredTopic):
            decoder.count(handler.filter, ignored=1)
        else:
            decoder.refuse(index, handler.filter, handler.error)
    groups = decoder.groups()
    raw = _raw_messages(batch, handlers, decoder.rejected) if router.keeps_raw else ()
    return DecodedBatch(
        number, batch.end, groups, decoder.rejected, connections, raw, decoder.counts, decoder.changed_memory
    )


def _raw_messages(batch: Batch, handlers: Sequence[Handling], rejected: Sequence[Rejection]) -> list[Message]:
    """Return the messages that are stored, and whose routes keep their payloads."""
    dead = {rejection.message.position for rejection in rejected}
    return [
        batch.message(index)
        for index, handler in enumerate(handlers)
        if isinstance(handler, TopicHandler) and handler.builder.route.raw and batch.positions[index] not in dead
    ]


def reject_message(
    number: int, batch: Batch, filter_: str, error: Rejected, memory: Mapping[str, str] = MappingProxyType({})
) -> DecodedBatch:
    """Return the only message of a batch as rejected; ``memory`` is what its decoder remembers of it all the same."""
    rejection = Rejection(batch.message(0), filter_, error.step, str(error))
    return DecodedBatch(number, batch.end, rejected=[rejection], counts={filter_: Counter(dead=1)}, memory=memory)


def in_ascii(decoded: DecodedBatch) -> DecodedBatch:
    """Return the batch with all text outside records in ASCII, for a database that cannot hold every character."""
    rejected = [attrs.evolve(one, reason=_escape(one.reason)) for one in decoded.rejected]
    connections = [_in_ascii(message) if message.kind == CONNECT else message for message in decoded.connections]
    return attrs.evolve(decoded, rejected=rejected, connections=connections)


def _in_ascii(message: Message) -> Message:
    details = orjson.loads(message.payload)
    texts = {name: _escape(value) for name, value in details.items() if isinstance(value, str)}
    return attrs.evolve(message, payload=orjson.dumps({**details, **texts}))


def _escape(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


_Entry = tuple[int, TopicHandler, dict[str, Any]]
"""A message whose object may be typed together with others: its index in the batch, its handler and the object."""

_Typed = tuple[int, TopicHandler, RecordValues, int]
"""A record without its envelope: its message's index in the batch, the handler, its values, its part's number."""


class _BatchDecoder:
    """Collects what the published messages of a batch become; call :meth:`groups` last."""

    def __init__(self, number: int, batch: Batch, memory: Mapping[str, str]) -> None:
        self.rejected: list[Rejection] = []
        self.counts: dict[str, Counter[str]] = {}
        self.changed_memory: dict[str, str] = {}
        self._memory = ChainMap(self.changed_memory, dict(memory))
        self._number = number
        self._batch = batch
        self._same_keys: dict[tuple[str, tuple[str, ...]], list[_Entry]] = {}
        self._typed: dict[TimedShape, list[_Typed]] = {}
        self._batches: dict[TimedShape, list[tuple[Sequence[Destination], RecordBatch]]] = {}

    def count(self, filter_: str, **counts: int) -> None:
        """Add to the counts of a topic filter."""
        self.counts.setdefault(filter_, Counter()).update(counts)

    def refuse(self, index: int, filter_: str, error: Rejected) -> None:
        """Reject a message."""
        self.rejected.append(Rejection(self._batch.message(index), filter_, error.step, str(error)))
        self.count(filter_, dead=1)

    def add(self, index: int, handler: TopicHandler) -> None:
        """Decode a message; type it at once unless it may be typed together with others."""
        try:
            data = handler.decode(
                self._batch.payloads[index] if handler.takes_payload else self._decode_message(index, handler)
            )
            if type(data) is dict and data and handler.types_columns:
                key = handler.filter, tuple(data)
                entries = self._same_keys.get(key)
                if entries is None:
                    entries = self._same_keys[key] = []
                entries.append((index, handler, data))
                return
        except Exception as fault:
            self.refuse(index, handler.filter, handler.explain(fault))
            return
        if data is EMPTY:
            self.count(handler.filter, empty=1)
        else:
            self._type_alone(index, handler, data)

    def _decode_message(self, index: int, handler: TopicHandler) -> Any:
        """Return the data of a message whose decoder depends on more than the payload."""
        if handler.memory is not None:
            return self._recollect(index, handler.memory)
        message = self._batch.message(index)
        by_property = handler.by_property
        return message.payload if by_property is None else by_property.decode(message.payload, message.properties)

    def _recollect(self, index: int, memory: TopicMemory) -> Any:
        """Return the data of a message whose decoder remembers, which it does even if the data cannot be stored."""
        found = memory.decode(self._batch.payloads[index], self._batch.times[index], self._memory)
        self._memory.update(found.changes)
        if isinstance(found.data, DecodeError):
            raise found.data
        return found.data

    def groups(self) -> RecordGroups:
        """Return the records of all messages by destination and shape, in the order in which these were first met."""
        for entries in _merge_rare(self._same_keys.values()):
            self._type_together(entries)
        for timed_shape, typed in self._typed.items():
            indexes, handlers, rows, parts = zip(*typed, strict=True)
            columns = [*zip(*rows, strict=True), *self._properties(indexes, handlers)]
            self._put(timed_shape, handlers, self._record_batch(timed_shape, indexes, handlers, columns, parts))
        found = [one for batches in self._batches.values() for one in _by_destination(batches)]
        found.sort(key=lambda one: one[1].first)
        for destination, records in found:
            self.count(destination.route, records=len(records))
        return {(destination, records.shape): records for destination, records in found}

    def _type_together(self, entries: Sequence[_Entry], mismatched: frozenset[str] = frozenset()) -> None:
        """Type objects: all together, those that are alike together, or each alone."""
        parts = (
            self._try_columns(entries, mismatched) if len(entries) >= FEW else [Alike(range(len(entries)), mismatched)]
        )
        for part in parts:
            some = [entries[member] for member in part.indexes]
            if len(parts) > 1 or part.mismatched != mismatched:
                self._type_together(some, part.mismatched)
                continue
            for entry in some:
                self._type_alone(*entry)

    def _try_columns(self, entries: Sequence[_Entry], mismatched: frozenset[str]) -> Sequence[Alike]:
        """Do what :meth:`_type_columns` does; if that fails, one of the objects is to blame."""
        try:
            return self._type_columns(entries, mismatched)
        except Exception:
            return [Alike(range(len(entries)), mismatched)]

    def _type_columns(self, entries: Sequence[_Entry], mismatched: frozenset[str]) -> Sequence[Alike]:
        """Type objects column by column; return those that remain, divided."""
        indexes, handlers, objects = zip(*entries, strict=True)
        route, columns = handlers[0].builder.route, columns_of(objects)
        if columns is None:
            return [Alike(range(len(entries)), mismatched)]
        typed = type_columns(route, columns, mismatched)
        if typed is None:
            return divide(route, columns, mismatched)
        places = _indexes_by_destination([handler.destination for handler in handlers])
        if typed.has_gaps and len(places) > 1:
            return [Alike(members, mismatched) for _, members in places]
        self._put_columns(typed, indexes, handlers)
        return ()

    def _put_columns(self, typed: TypedColumns, indexes: Sequence[int], handlers: Sequence[TopicHandler]) -> None:
        timed_shape = handlers[0].builder.timed_shape(typed.pairs)
        columns = [*typed.columns, *_level_columns(handlers), *self._properties(indexes, handlers)]
        self._put(
            timed_shape, handlers, self._record_batch(timed_shape, indexes, handlers, columns, [0] * len(indexes))
        )
        self.count(handlers[0].filter, stored=len(indexes), dropped=typed.dropped, nulled=typed.nulled)

    def _type_alone(self, index: int, handler: TopicHandler, data: Any) -> None:
        try:
            records = handler.type_message(data)
        except Exception as fault:
            self.refuse(index, handler.filter, handler.explain(fault))
            return
        dropped = nulled = 0
        for part, record in enumerate(records):
            self._typed.setdefault(record.timed_shape, []).append((index, handler, record.values, part))
            dropped += record.dropped
            nulled += record.nulled
        self.count(handler.filter, stored=1, dropped=dropped, nulled=nulled)

    def _put(self, timed_shape: TimedShape, handlers: Sequence[TopicHandler], records: RecordBatch) -> None:
        destinations = [handler.destination for handler in handlers]
        self._batches.setdefault(timed_shape, []).append((destinations, records))

    def _record_batch(
        self,
        timed_shape: TimedShape,
        indexes: Sequence[int],
        handlers: Sequence[TopicHandler],
        columns: RecordColumns,
        parts: Sequence[int],
    ) -> RecordBatch:
        """Return records with their envelopes, column by column."""
        base, batch = message_id(self._number, 0), self._batch
        flags = list(map(batch.flags.__getitem__, indexes))
        arrivals = list(map(batch.times.__getitem__, indexes))
        return RecordBatch(
            timed_shape.shape,
            ids=[base | batch.positions[index] for index in indexes],
            parts=parts,
            times=self._times(timed_shape, handlers[0], columns, arrivals),
            topics=[handler.topic for handler in handlers],
            sessions=[base | session if session else None for session in map(batch.sessions.__getitem__, indexes)],
            qos=[flag >> 1 & 3 for flag in flags],
            retains=[bool(flag & 1) for flag in flags],
            columns=columns,
        )

    def _properties(self, indexes: Sequence[int], handlers: Sequence[TopicHandler]) -> RecordColumns:
        """Return the column of the messages' MQTT properties, if their route keeps them."""
        if not handlers[0].builder.property_pairs:
            return ()
        kept = self._batch.properties
        return [[orjson.loads(kept[index]) if kept and kept[index] else None for index in indexes]]

    def _times(
        self, timed_shape: TimedShape, handler: TopicHandler, columns: RecordColumns, arrivals: Sequence[int]
    ) -> Sequence[int]:
        """Return the records' times, and count the records whose own time is missing."""
        if not handler.builder.has_time:
            return arrivals
        missing, times = len(arrivals), arrivals
        if timed_shape.time is not None:
            times = event_times(columns[timed_shape.time], arrivals)
            missing = sum(map(is_, times, arrivals))
        if missing:
            self.count(handler.filter, time_missing=missing)
        return times


def _merge_rare(same_keys: Iterable[list[_Entry]]) -> Iterator[list[_Entry]]:
    """Yield the objects with the same keys; those of a destination whose keys are rare come together."""
    rare: dict[int, list[_Entry]] = {}
    for entries in same_keys:
        if len(entries) >= RARE:
            yield entries
            continue
        for entry in entries:
            rare.setdefault(id(entry[1].destination), []).append(entry)
    yield from rare.values()


def _level_columns(handlers: Sequence[TopicHandler]) -> RecordColumns:
    """Return the topics' levels of many records, column by column."""
    if not handlers[0].levels.values:
        return ()
    return list(zip(*(handler.levels.values for handler in handlers), strict=True))


def _by_destination(
    batches: Sequence[tuple[Sequence[Destination], RecordBatch]],
) -> list[tuple[Destination, RecordBatch | RecordSlice]]:
    """Return records of one shape by destination; those of several destinations share one batch."""
    records = RecordBatch.joined([records for _, records in batches])
    groups = _indexes_by_destination([*chain.from_iterable(destinations for destinations, _ in batches)])
    return [(place, RecordSlice(records, indexes) if len(groups) > 1 else records) for place, indexes in groups]


def _indexes_by_destination(destinations: Sequence[Destination]) -> Sequence[tuple[Destination, Sequence[int]]]:
    """Return each destination with the indexes at which it is."""
    if destinations.count(destinations[0]) == len(destinations):
        return [(destinations[0], range(len(destinations)))]
    found: dict[int, tuple[Destination, list[int]]] = {}  # by identity: a router has each only once
    for index, destination in enumerate(destinations):
        if id(destination) not in found:
            found[id(destination)] = destination, []
        found[id(destination)][1].append(index)
    return list(found.values())
