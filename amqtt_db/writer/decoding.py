"""A batch of the journal → typed records.

Objects that are alike are typed together, column by column; all other messages are typed one by one.  A message
that cannot be decoded or typed is rejected, whatever its decoder, its entity or its values raise; its neighbours are
not affected.
"""

from __future__ import annotations

from collections import ChainMap, Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import chain
from operator import is_
from types import MappingProxyType
from typing import Any, Final

import attrs
import orjson

from amqtt_db.decode import EMPTY, decode_many
from amqtt_db.entity.timestamp import event_times
from amqtt_db.errors import DecodeError, Rejected
from amqtt_db.message import PUBLISH, Batch, Message
from amqtt_db.models.base import Destination
from amqtt_db.record import Record, RecordBatch, RecordSlice, columns_of, even_columns
from amqtt_db.routing.columns import Alike, ObjectColumns, TypedColumns, divide, type_columns
from amqtt_db.routing.records import RecordColumns, RecordValues, TimedShape, TopicHandler, TopicMemory
from amqtt_db.writer.decoded import DecodedBatch, RecordGroups, Rejection
from amqtt_db.writer.envelopes import envelopes_at, values_at
from amqtt_db.writer.topic_router import Handling, IgnoredTopic, TopicRouter

FEW: Final = 3  # fewer objects are typed faster one by one than together
RARE: Final = 8  # fewer objects with the same keys are typed together with others


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
    together, rest = _plain_json(batch, handlers)
    for indexes in together:
        decoder.add_together(indexes, values_at(handlers, indexes))
    for index in rest:
        handler = handlers[index]
        if batch.flags[index] >> 4 != PUBLISH:
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


def _plain_json(batch: Batch, handlers: Sequence[Handling]) -> tuple[Iterable[Sequence[int]], Sequence[int]]:
    """Return the indexes of messages that may be decoded together, and those of all other messages."""
    everything = range(len(handlers))
    kinds = {getattr(handler, "plain_json", None) for handler in set(handlers)}
    if len(kinds) == 1 and None not in kinds and max(batch.flags) >> 4 == PUBLISH:
        return [everything], ()
    together: dict[Any, list[int]] = {}
    rest: list[int] = []
    for index, (flags, handler) in enumerate(zip(batch.flags, handlers, strict=True)):
        kind = getattr(handler, "plain_json", None) if flags >> 4 == PUBLISH else None
        (rest if kind is None else together.setdefault(kind, [])).append(index)
    return together.values(), rest


def _raw_messages(batch: Batch, handlers: Sequence[Handling], rejected: Sequence[Rejection]) -> list[Message]:
    """Return the messages that are stored, and whose routes keep their payloads."""
    dead = {rejection.message.position for rejection in rejected}
    return [
        batch.message(index)
        for index, handler in enumerate(handlers)
        if isinstance(handler, TopicHandler) and handler.builder.route.raw and batch.positions[index] not in dead
    ]


@attrs.frozen
class _Objects:
    """Messages of a route whose objects may be typed together: their indexes in the batch, handlers and objects.

    ``columns`` are the values of the objects by key; None if these are too few or too different.
    """

    indexes: Sequence[int]
    handlers: Sequence[TopicHandler]
    objects: Sequence[dict[str, Any]]
    columns: ObjectColumns | None

    @classmethod
    def of(
        cls, indexes: Sequence[int], handlers: Sequence[TopicHandler], objects: Sequence[dict[str, Any]]
    ) -> _Objects:
        """Return objects with their columns."""
        with suppress(TypeError):  # keys that are not text cannot be sorted
            return cls(indexes, handlers, objects, columns_of(objects) if len(indexes) >= FEW else None)
        return cls(indexes, handlers, objects, None)

    def at(self, members: Sequence[int]) -> _Objects:
        """Return some of them."""
        return self.of(*(values_at(column, members) for column in (self.indexes, self.handlers, self.objects)))


_Entry = tuple[int, TopicHandler, dict[str, Any]]
"""One of them."""

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
        self._even: list[_Objects] = []
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

    def add_together(self, indexes: Sequence[int], handlers: Sequence[TopicHandler]) -> None:
        """Decode messages that may be decoded together; type them at once unless they may be typed together."""
        objects = self._decode_together(indexes, handlers)
        if objects.columns is not None:
            self._even.append(objects)
            return
        for members in _places_by_keys(objects.objects):
            if len(members) >= RARE and objects.objects[members[0]]:
                self._even.append(objects.at(members))
                continue
            for member in members:
                self._take(objects.indexes[member], objects.handlers[member], objects.objects[member])

    def _decode_together(self, indexes: Sequence[int], handlers: Sequence[TopicHandler]) -> _Objects:
        """Return the messages that are objects, with columns if all have the same keys; take all others one by one."""
        decoded: Sequence[Any] = decode_many(handlers[0].decode, values_at(self._batch.payloads, indexes))
        odd = [place for place, data in enumerate(decoded) if type(data) is not dict]
        if odd:
            for place in odd:
                self._take(indexes[place], handlers[place], decoded[place])
            rest = sorted(set(range(len(decoded))).difference(odd))
            indexes, handlers, decoded = (values_at(column, rest) for column in (indexes, handlers, decoded))
        return _Objects(indexes, handlers, decoded, even_columns(decoded) if len(decoded) >= FEW else None)

    def add(self, index: int, handler: TopicHandler) -> None:
        """Decode a message; type it at once unless it may be typed together with others."""
        try:
            data = handler.decode(
                self._batch.payloads[index] if handler.takes_payload else self._decode_message(index, handler)
            )
            self._take(index, handler, data)
        except Exception as fault:
            self.refuse(index, handler.filter, handler.explain(fault))

    def _take(self, index: int, handler: TopicHandler, data: Any) -> None:
        """Take what a message has been decoded to, or the DecodeError."""
        if type(data) is dict and data and handler.types_columns:
            key = handler.filter, tuple(data)
            entries = self._same_keys.get(key)
            if entries is None:
                entries = self._same_keys[key] = []
            entries.append((index, handler, data))
        elif data is EMPTY:
            self.count(handler.filter, empty=1)
        elif isinstance(data, DecodeError):
            self.refuse(index, handler.filter, handler.explain(data))
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
        rare = (_Objects.of(*zip(*entries, strict=True)) for entries in _merge_rare(self._same_keys.values()))
        for some in chain(self._even, rare):
            self._type_together(some)
        for timed_shape, typed in self._typed.items():
            indexes, handlers, rows, parts = zip(*typed, strict=True)
            columns = [*zip(*rows, strict=True), *self._properties(indexes, handlers)]
            self._put(timed_shape, handlers, self._record_batch(timed_shape, indexes, handlers, columns, parts))
        found = [one for batches in self._batches.values() for one in _by_destination(batches)]
        found.sort(key=lambda one: one[1].first)
        self._count_records(found)
        return {(destination, records.shape): records for destination, records in found}

    def _count_records(self, found: Iterable[tuple[Destination, Sequence[Record]]]) -> None:
        """Count records by route; destinations may be thousands, so they are summed up first."""
        records = Counter[str]()
        for destination, some in found:
            records[destination.route] += len(some)
        for route, count in records.items():
            self.count(route, records=count)

    def _type_together(self, objects: _Objects, mismatched: frozenset[str] = frozenset()) -> None:
        """Type objects: all together, those that are alike together, or each alone."""
        parts = self._try_columns(objects, mismatched)
        for part in parts:
            some = objects.at(part.indexes)
            if len(parts) > 1 or part.mismatched != mismatched:
                self._type_together(some, part.mismatched)
                continue
            for entry in zip(some.indexes, some.handlers, some.objects, strict=True):
                self._type_alone(*entry)

    def _try_columns(self, objects: _Objects, mismatched: frozenset[str]) -> Sequence[Alike]:
        """Do what :meth:`_type_columns` does; if that fails, one of the objects is to blame."""
        if objects.columns is not None:
            with suppress(Exception):
                return self._type_columns(objects, objects.columns, mismatched)
        return [Alike(range(len(objects.indexes)), mismatched)]

    def _type_columns(self, objects: _Objects, columns: ObjectColumns, mismatched: frozenset[str]) -> Sequence[Alike]:
        """Type objects column by column; return those that remain, divided."""
        route = objects.handlers[0].builder.route
        typed = type_columns(route, columns, mismatched)
        if typed is None:
            return divide(route, columns, mismatched)
        if typed.has_gaps:
            places = _indexes_by_destination([handler.destination for handler in objects.handlers])
            if len(places) > 1:
                return [Alike(members, mismatched) for _, members in places]
        self._put_columns(typed, objects.indexes, objects.handlers)
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
        envelopes = envelopes_at(self._number, self._batch, indexes)
        return RecordBatch(
            timed_shape.shape,
            envelopes.ids,
            parts,
            self._times(timed_shape, handlers[0], columns, envelopes.arrivals),
            [handler.topic for handler in handlers],
            envelopes.sessions,
            envelopes.qos,
            envelopes.retains,
            columns,
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


def _places_by_keys(objects: Sequence[dict[str, Any]]) -> Iterable[Sequence[int]]:
    """Return the indexes of objects that have the same keys in the same order, for each of these orders."""
    found: dict[tuple[str, ...], list[int]] = {}
    for place, keys in enumerate(map(tuple, objects)):
        found.setdefault(keys, []).append(place)
    return found.values()


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
