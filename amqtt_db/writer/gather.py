"""A batch's messages on their way to records: objects with the same keys column by column, all others one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import attrs

from amqtt_db.entity.timestamp import event_times
from amqtt_db.errors import Rejected
from amqtt_db.message import Batch, Message, message_id
from amqtt_db.models.base import Destination
from amqtt_db.record import RecordBatch, RecordSlice
from amqtt_db.routing.records import FAULTS, Columns, TimedShape, TopicHandler, Values

Entry = tuple[int, TopicHandler, Values]
"""A message's index in its batch, its way, and the values of its object."""

Bury = Callable[[Message, str, Rejected], None]
"""Takes a message that cannot be stored, its topic filter and the reason."""


@attrs.define(eq=False)
class Gathered:
    """The published messages of a batch of the journal with a number; ``stored`` counts those that have a place."""

    number: int
    batch: Batch
    bury: Bury
    stored: Counter[str] = attrs.field(factory=Counter)
    _alike: dict[tuple[str, tuple[str, ...]], list[Entry]] = attrs.field(factory=dict)
    _others: dict[TimedShape, list[tuple[int, TopicHandler, Values, int]]] = attrs.field(factory=dict)
    _blocks: dict[TimedShape, list[tuple[Sequence[Destination], RecordBatch]]] = attrs.field(factory=dict)

    def add(self, index: int, handler: TopicHandler, payload: bytes) -> None:
        """Decode a message."""
        try:
            data = handler.decode(payload)
        except FAULTS as fault:
            self._refuse(index, handler, fault)
            return
        if type(data) is not dict or not data or not handler.is_plain:
            self._add(index, handler, data)
            return
        key = handler.filter, tuple(data)
        entries = self._alike.get(key)
        if entries is None:
            entries = self._alike[key] = []
        entries.append((index, handler, tuple(data.values())))

    def blocks(self) -> list[tuple[Destination, RecordBatch | RecordSlice]]:
        """The records by place and shape, in the order in which these were first met."""
        for (_, names), entries in self._alike.items():
            self._type(names, entries)
        for timed_shape, others in self._others.items():
            indexes, router, rows, parts = zip(*others, strict=True)
            self._put(timed_shape, indexes, router, list(zip(*rows, strict=True)), parts)
        found = [part for pieces in self._blocks.values() for part in _parts(pieces)]
        return sorted(found, key=lambda part: part[1].first)

    def _type(self, names: tuple[str, ...], entries: Sequence[Entry]) -> None:
        """Type objects with the same keys: all together, those of a place together, or each alone."""
        indexes, router, rows = zip(*entries, strict=True)
        groups, builder = _by_place([handler.destination for handler in router]), router[0].builder
        found = builder.columns(names, list(zip(*rows, strict=True)))
        if found is not None and (len(groups) == 1 or not builder.has_gaps(found[1])):
            self.stored[router[0].filter] += len(indexes)
            self._put(found[0], indexes, router, [*found[1], *_levels(router)], [0] * len(indexes))
            return
        for _, members in groups if len(groups) > 1 else ():
            self._type(names, [entries[member] for member in members])
        for index, handler, values in entries if len(groups) == 1 else ():
            self._add(index, handler, dict(zip(names, values, strict=True)))

    def _add(self, index: int, handler: TopicHandler, data: Any) -> None:
        """Type one message alone."""
        try:
            records = handler.typed(data)
        except FAULTS as fault:
            self._refuse(index, handler, fault)
            return
        self.stored[handler.filter] += 1
        for part, (timed_shape, values) in enumerate(records):
            self._others.setdefault(timed_shape, []).append((index, handler, values, part))

    def _refuse(self, index: int, handler: TopicHandler, fault: Exception) -> None:
        self.bury(self.batch.message(index), handler.filter, handler.reason(fault))

    def _put(
        self,
        timed_shape: TimedShape,
        indexes: Sequence[int],
        router: Sequence[TopicHandler],
        columns: Columns,
        parts: Sequence[int],
    ) -> None:
        block = self._block(timed_shape, indexes, router, columns, parts)
        self._blocks.setdefault(timed_shape, []).append(([handler.destination for handler in router], block))

    def _block(
        self,
        timed_shape: TimedShape,
        indexes: Sequence[int],
        router: Sequence[TopicHandler],
        columns: Columns,
        parts: Sequence[int],
    ) -> RecordBatch:
        base, batch = message_id(self.number, 0), self.batch
        flags = list(map(batch.flags.__getitem__, indexes))
        arrivals = list(map(batch.times.__getitem__, indexes))
        return RecordBatch(
            timed_shape.shape,
            ids=[base | batch.positions[index] for index in indexes],
            parts=parts,
            times=arrivals if timed_shape.time is None else event_times(columns[timed_shape.time], arrivals),
            topics=[handler.topic for handler in router],
            sessions=[base | session if session else None for session in map(batch.sessions.__getitem__, indexes)],
            qos=[flag >> 1 & 3 for flag in flags],
            retains=[bool(flag & 1) for flag in flags],
            columns=columns,
        )


def _levels(router: Sequence[TopicHandler]) -> Columns:
    return list(zip(*(handler.levels for handler in router), strict=True)) if router[0].levels else ()


def _parts(
    pieces: Sequence[tuple[Sequence[Destination], RecordBatch]],
) -> list[tuple[Destination, RecordBatch | RecordSlice]]:
    block = RecordBatch.joined([block for _, block in pieces])
    groups = _by_place([*chain.from_iterable(destinations for destinations, _ in pieces)])
    return [(destination, RecordSlice(block, indexes) if len(groups) > 1 else block) for destination, indexes in groups]


def _by_place(destinations: Sequence[Destination]) -> Sequence[tuple[Destination, Sequence[int]]]:
    """Each place with the indexes at which it is."""
    if destinations.count(destinations[0]) == len(destinations):
        return [(destinations[0], range(len(destinations)))]
    found: dict[str, tuple[Destination, list[int]]] = {}
    for index, destination in enumerate(destinations):
        if destination.key not in found:
            found[destination.key] = destination, []
        found[destination.key][1].append(index)
    return list(found.values())
