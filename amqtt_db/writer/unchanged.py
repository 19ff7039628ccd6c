"""Records that say nothing new, left out for the routes with ``only: changes``.

Each record is judged by the newest values of its device, as they are stored, in the order of arrival.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import attrs
import orjson

from amqtt_db.models.base import Destination
from amqtt_db.record import Kind, Record, RecordBatch, RecordSlice
from amqtt_db.routing.route import OnlyChanges
from amqtt_db.tagged import dumps
from amqtt_db.writer.decoded import DecodedBatch, RecordGroups


@attrs.frozen
class StoredValue:
    """A value with its kind, and the time in microseconds since 1970 of the record that it is from."""

    kind: Kind
    value: Any
    time_us: int


@attrs.frozen
class LatestState:
    """The newest value of each property of a device by path, and the time of its newest record."""

    time_us: int = -(2**63)
    values: Mapping[str, StoredValue] = attrs.field(factory=dict)

    def updated_by(self, record: Record) -> LatestState:
        """Return the state after one more record, which may be a late one."""
        values = dict(self.values)
        for path, (kind, value) in record.properties().items():
            if path not in values or record.time_us >= values[path].time_us:
                values[path] = StoredValue(kind, value, record.time_us)
        return LatestState(max(self.time_us, record.time_us), values)


DeviceName = tuple[str, str]
"""A route's topic filter and a device of it."""

States = Mapping[DeviceName, LatestState]
"""The newest values of devices; devices without stored records are missing."""

_NUMERIC_KINDS: Final[frozenset[Kind]] = frozenset({"number", "int64", "bigint", "decimal"})


@attrs.frozen
class Judged:
    """A record of a device, and where in the groups it is."""

    record: Record
    device: DeviceName
    group: int
    index: int


def drop_unchanged(
    decoded: DecodedBatch, devices: Mapping[int, Sequence[str | None]], only: Mapping[str, OnlyChanges], states: States
) -> DecodedBatch:
    """Return a batch without the records that say nothing new, and with its messages counted as ``unchanged``.

    ``devices`` names the device of each record of some groups, by the group's number; records without a device stay.
    ``only`` has the settings of those groups' routes.
    """
    groups = list(decoded.groups.items())
    judged = [
        Judged(record, (destination.route, device), number, index)
        for number, names in devices.items()
        for (destination, _), records in [groups[number]]
        for index, (record, device) in enumerate(zip(records, names, strict=True))
        if device is not None
    ]
    judged.sort(key=lambda one: (one.record.id, one.record.part))
    dropped = _find_unchanged(judged, only, states)
    left = dict(_leave_out(groups, dropped))
    return attrs.evolve(decoded, groups=left, counts=_counts_without(decoded, groups, left, dropped))


def is_change(record: Record, state: LatestState | None, only: OnlyChanges) -> bool:
    """Return True if a record must be stored: it says something new, comes late, or the last one is long ago."""
    if state is None or record.time_us < state.time_us:
        return True
    pause = only.at_least_every
    if pause is not None and record.time_us - state.time_us >= pause.total_seconds() * 1_000_000:
        return True
    return any(
        _differs(known, kind, value, only.deadband.get(path, 0.0))
        for path, (kind, value) in record.properties().items()
        for known in [state.values.get(path)]
    )


def _find_unchanged(judged: Iterable[Judged], only: Mapping[str, OnlyChanges], states: States) -> list[Judged]:
    now, dropped = dict(states), []
    for one in judged:
        state = now.get(one.device)
        if is_change(one.record, state, only[one.device[0]]):
            now[one.device] = (state or LatestState()).updated_by(one.record)
        else:
            dropped.append(one)
    return dropped


def _differs(known: StoredValue | None, kind: Kind, value: Any, width: float) -> bool:
    if known is None:
        return True
    if kind in _NUMERIC_KINDS and known.kind in _NUMERIC_KINDS:
        return not _is_near(known.value, value, width)
    if known.kind != kind:
        return True
    return bool(_sorted_json(known.value) != _sorted_json(value) if kind == "json" else known.value != value)


def _sorted_json(value: Any) -> bytes:
    """Return a list or an object as text: to Python ``[1]`` equals ``[True]``, and a list with NaN not its copy."""
    return orjson.dumps(orjson.loads(dumps(value)), option=orjson.OPT_SORT_KEYS)


def _is_near(old: Any, new: Any, width: float) -> bool:
    """Return True if two numbers are equal, or differ by no more than a deadband; NaN is equal to itself."""
    try:
        if old == new or (old != old and new != new):  # noqa: PLR0124 - only NaN differs from itself
            return True
        return abs(Decimal(old) - Decimal(new)) <= Decimal(repr(width))
    except ArithmeticError:  # NaN, two infinities, or a difference beyond all decimals
        return False


def _leave_out(
    groups: Sequence[tuple[tuple[Destination, Any], Sequence[Record]]], dropped: Iterable[Judged]
) -> Iterable[tuple[Any, Sequence[Record]]]:
    """Yield the groups that keep some record."""
    gone: dict[int, set[int]] = {}
    for one in dropped:
        gone.setdefault(one.group, set()).add(one.index)
    for number, (group, records) in enumerate(groups):
        kept = [index for index in range(len(records)) if index not in gone.get(number, ())]
        if len(kept) == len(records):
            yield group, records
        elif kept:
            yield group, _pick_records(records, kept)


def _pick_records(records: Sequence[Record], kept: Sequence[int]) -> Sequence[Record]:
    if isinstance(records, RecordBatch):
        return records.at(kept)
    if isinstance(records, RecordSlice):
        return RecordSlice(records.whole, [records.indexes[index] for index in kept])
    return [records[index] for index in kept]


def _counts_without(
    decoded: DecodedBatch, groups: Sequence[Any], left: RecordGroups, dropped: Sequence[Judged]
) -> Mapping[str, Counter[str]]:
    """Return the counts of a batch: a message without any record left is unchanged, and not stored."""
    kept = {record_id for records in left.values() for record_id in _ids(records)}
    counts = {text: Counter(some) for text, some in decoded.counts.items()}
    for one in dropped:
        counts[one.device[0]]["records"] -= 1
    gone = {one.record.id: one.device[0] for one in dropped if one.record.id not in kept}
    for text in gone.values():
        counts[text].update(stored=-1, unchanged=1)
    return counts


def _ids(records: Sequence[Record]) -> Sequence[int]:
    if isinstance(records, RecordBatch):
        return records.ids
    return [record.id for record in records]
