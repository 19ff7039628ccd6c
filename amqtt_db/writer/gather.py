"""A batch's messages on their way to records: objects with the same keys column by column, all others one by one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import attrs

from amqtt_db.errors import Rejected
from amqtt_db.message import Batch, Message, message_id
from amqtt_db.models.base import Place
from amqtt_db.moment import event_times
from amqtt_db.pipeline import FAULTS, Columns, Form, Lane, Values
from amqtt_db.shape import Block, Part

Entry = tuple[int, Lane, Values]
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
    _others: dict[Form, list[tuple[int, Lane, Values, int]]] = attrs.field(factory=dict)
    _blocks: dict[Form, list[tuple[Sequence[Place], Block]]] = attrs.field(factory=dict)

    def add(self, index: int, lane: Lane, payload: bytes) -> None:
        """Decode a message."""
        try:
            data = lane.decode(payload)
        except FAULTS as fault:
            self._refuse(index, lane, fault)
            return
        if type(data) is not dict or not data or not lane.is_plain:
            self._add(index, lane, data)
            return
        key = lane.filter, tuple(data)
        entries = self._alike.get(key)
        if entries is None:
            entries = self._alike[key] = []
        entries.append((index, lane, tuple(data.values())))

    def blocks(self) -> list[tuple[Place, Block | Part]]:
        """The records by place and shape, in the order in which these were first met."""
        for (_, names), entries in self._alike.items():
            self._type(names, entries)
        for form, others in self._others.items():
            indexes, lanes, rows, parts = zip(*others, strict=True)
            self._put(form, indexes, lanes, list(zip(*rows, strict=True)), parts)
        found = [part for pieces in self._blocks.values() for part in _parts(pieces)]
        return sorted(found, key=lambda part: part[1].first)

    def _type(self, names: tuple[str, ...], entries: Sequence[Entry]) -> None:
        """Type objects with the same keys: all together, those of a place together, or each alone."""
        indexes, lanes, rows = zip(*entries, strict=True)
        groups, typist = _by_place([lane.place for lane in lanes]), lanes[0].typist
        found = typist.columns(names, list(zip(*rows, strict=True)))
        if found is not None and (len(groups) == 1 or not typist.has_gaps(found[1])):
            self.stored[lanes[0].filter] += len(indexes)
            self._put(found[0], indexes, lanes, [*found[1], *_levels(lanes)], [0] * len(indexes))
            return
        for _, members in groups if len(groups) > 1 else ():
            self._type(names, [entries[member] for member in members])
        for index, lane, values in entries if len(groups) == 1 else ():
            self._add(index, lane, dict(zip(names, values, strict=True)))

    def _add(self, index: int, lane: Lane, data: Any) -> None:
        """Type one message alone."""
        try:
            records = lane.typed(data)
        except FAULTS as fault:
            self._refuse(index, lane, fault)
            return
        self.stored[lane.filter] += 1
        for part, (form, values) in enumerate(records):
            self._others.setdefault(form, []).append((index, lane, values, part))

    def _refuse(self, index: int, lane: Lane, fault: Exception) -> None:
        self.bury(self.batch.message(index), lane.filter, lane.reason(fault))

    def _put(
        self, form: Form, indexes: Sequence[int], lanes: Sequence[Lane], columns: Columns, parts: Sequence[int]
    ) -> None:
        block = self._block(form, indexes, lanes, columns, parts)
        self._blocks.setdefault(form, []).append(([lane.place for lane in lanes], block))

    def _block(
        self, form: Form, indexes: Sequence[int], lanes: Sequence[Lane], columns: Columns, parts: Sequence[int]
    ) -> Block:
        base, batch = message_id(self.number, 0), self.batch
        flags = list(map(batch.flags.__getitem__, indexes))
        arrivals = list(map(batch.times.__getitem__, indexes))
        return Block(
            form.shape,
            ids=[base | batch.positions[index] for index in indexes],
            parts=parts,
            times=arrivals if form.time is None else event_times(columns[form.time], arrivals),
            topics=[lane.topic for lane in lanes],
            sessions=[base | session if session else None for session in map(batch.sessions.__getitem__, indexes)],
            qos=[flag >> 1 & 3 for flag in flags],
            retains=[bool(flag & 1) for flag in flags],
            columns=columns,
        )


def _levels(lanes: Sequence[Lane]) -> Columns:
    return list(zip(*(lane.levels for lane in lanes), strict=True)) if lanes[0].levels else ()


def _parts(pieces: Sequence[tuple[Sequence[Place], Block]]) -> list[tuple[Place, Block | Part]]:
    block = Block.joined([block for _, block in pieces])
    groups = _by_place([*chain.from_iterable(places for places, _ in pieces)])
    return [(place, Part(block, indexes) if len(groups) > 1 else block) for place, indexes in groups]


def _by_place(places: Sequence[Place]) -> Sequence[tuple[Place, Sequence[int]]]:
    """Each place with the indexes at which it is."""
    if places.count(places[0]) == len(places):
        return [(places[0], range(len(places)))]
    found: dict[str, tuple[Place, list[int]]] = {}
    for index, place in enumerate(places):
        if place.key not in found:
            found[place.key] = place, []
        found[place.key][1].append(index)
    return list(found.values())
