"""Records summed up over intervals of time: numbers by count, sum and extremes, states by how long each value held.

Everything here is pure.  Times and lengths are in microseconds, so that lengths of time are exact; sums are the doubles
nearest to the sum of what was added: of the values as doubles, or of the sums of shorter intervals.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import groupby, pairwise
from math import fsum, isfinite
from operator import add, attrgetter
from typing import Any, Final

import attrs

from amqtt_db.record import Kind, Record
from amqtt_db.tagged import is_clean

LONGEST_STATE: Final = 200
"""Characters of a text that count as a state; the rest is left out."""

_SUMMED_KINDS: Final[frozenset[Kind]] = frozenset({"number", "int64", "bigint", "decimal"})
_STATE_KINDS: Final[frozenset[Kind]] = frozenset({"bool", "text"})

SeriesName = tuple[str, Kind]
"""A property's path and what is summed up of it: ``number``, ``bool`` or ``text``."""


@attrs.frozen
class NumberRollup:
    """The finite numbers of a property in an interval.  ``total`` is None if their sum is beyond all doubles."""

    count: int
    total: float | None
    low: float
    high: float
    first: float
    last: float
    first_time: int
    last_time: int

    @classmethod
    def of(cls, values: Sequence[tuple[int, float]]) -> NumberRollup:
        """Return what some values with their times amount to, the oldest first."""
        numbers = [value for _, value in values]
        first, last = values[0], values[-1]
        return cls(len(values), _add_exactly(numbers), min(numbers), max(numbers), first[1], last[1], first[0], last[0])

    def __add__(self, later: NumberRollup) -> NumberRollup:
        """Return both together; what has the same time as the other's is the later one's."""
        old = self if self.first_time <= later.first_time else later
        end = later if later.last_time >= self.last_time else self
        total = None if self.total is None or later.total is None else _add_exactly([self.total, later.total])
        low, high = min(self.low, later.low), max(self.high, later.high)
        count = self.count + later.count
        return NumberRollup(count, total, low, high, old.first, end.last, old.first_time, end.last_time)


@attrs.frozen
class Stay:
    """How often a value was said in an interval, when first and last, and how long it held."""

    count: int
    length: int
    first_time: int
    last_time: int


@attrs.frozen
class StateRollup:
    """The values of a state in an interval: each holds until the next one is said, the last one to the interval's end.

    ``wait`` is how long the interval had lasted when the first one was said.
    """

    wait: int
    last: str
    stays: Mapping[str, Stay]

    @classmethod
    def of(cls, values: Sequence[tuple[int, str]], start: int, end: int) -> StateRollup:
        """Return what some values with their times amount to, the oldest first."""
        stays: dict[str, Stay] = {}
        for (time, value), (until, _) in pairwise([*values, (end, "")]):
            stay = Stay(1, until - time, time, time)
            stays[value] = _join_stays(stays.get(value), stay)
        return cls(values[0][0] - start, values[-1][1], stays)

    @property
    def last_time(self) -> int:
        """When a value was last said."""
        return self.stays[self.last].last_time

    def followed_by(self, later: StateRollup, gap: int) -> StateRollup:
        """Return the states of two intervals; ``gap`` is how long the last value holds from the first one's end on."""
        stays = dict(self.stays)
        stays[self.last] = _lengthen(stays[self.last], gap)
        for value, stay in later.stays.items():
            stays[value] = _join_stays(stays.get(value), stay)
        return StateRollup(self.wait, later.last, stays)

    def with_late(self, time: int, value: str, start: int, end: int) -> StateRollup:
        """Return the states with one that was said late, as far as that can be known.

        Between the first and the last one, what held at that time is not known any more: it only counts.
        """
        stays, wait, last = dict(self.stays), self.wait, self.last
        length = 0
        if time >= self.last_time:
            length, last = end - time, value
            stays[self.last] = _lengthen(stays[self.last], time - end)
        elif time < start + wait:
            length, wait = start + wait - time, time - start
        stay = Stay(1, length, time, time)
        stays[value] = _join_stays(stays.get(value), stay)
        return StateRollup(wait, last, stays)

    def merged_with(self, other: StateRollup, span: Span) -> StateRollup:
        """Return the states of two topics that became one, as if the other's had been said late."""
        said = sorted(
            (time, value) for value, stay in other.stays.items() for time in {stay.first_time, stay.last_time}
        )
        merged = self
        for time, value in said:
            merged = merged.with_late(time, value, span.start, span.end)
        counts = {
            value: sum(one.stays[value].count for one in (self, other) if value in one.stays) for value in merged.stays
        }
        return attrs.evolve(
            merged, stays={value: attrs.evolve(stay, count=counts[value]) for value, stay in merged.stays.items()}
        )


Rollup = NumberRollup | StateRollup
"""What the values of a property in an interval amount to."""

RollupSet = Mapping[SeriesName, Rollup]
"""What the records of a topic in an interval amount to."""


@attrs.frozen
class Span:
    """An interval of time, from ``start`` (inclusive) to ``end`` (exclusive)."""

    start: int
    end: int


def floor_time(time: int, every: int) -> int:
    """Return the start of the interval that a time is in; intervals are counted from 1970."""
    return time - time % every


def roll_up(records: Iterable[Record], every: int) -> Iterator[tuple[Span, int, RollupSet]]:
    """Yield each interval with the number of its records, and what they amount to; records come in order of time."""
    for start, some in groupby(records, key=lambda record: floor_time(record.time_us, every)):
        found, span = list(some), Span(start, start + every)
        yield span, len(found), sum_up(found, span)


def sum_up(records: Iterable[Record], span: Span) -> RollupSet:
    """Return what the records of an interval amount to."""
    numbers: dict[SeriesName, list[tuple[int, float]]] = {}
    states: dict[SeriesName, list[tuple[int, str]]] = {}
    for record in records:
        for path, (kind, value) in record.properties().items():
            if path.startswith("{"):
                continue
            number = _round_to_double(value) if kind in _SUMMED_KINDS else None
            if number is not None:
                numbers.setdefault((path, "number"), []).append((record.time_us, number))
            elif kind in _STATE_KINDS:
                states.setdefault((path, kind), []).append((record.time_us, name_state(value)))
    found: dict[SeriesName, Rollup] = {name: NumberRollup.of(values) for name, values in numbers.items()}
    return found | {name: StateRollup.of(values, span.start, span.end) for name, values in states.items()}


def add_late(known: Rollup | None, record: Record, name: SeriesName, span: Span) -> Rollup | None:
    """Return what an interval amounts to with a record that came late, whose neighbours have expired."""
    late = sum_up([record], span).get(name)
    if known is None or late is None:
        return late if known is None else known
    if isinstance(known, NumberRollup):
        return known + late if isinstance(late, NumberRollup) else known
    return known.with_late(record.time_us, late.last, span.start, span.end) if isinstance(late, StateRollup) else known


def merge_rollups(rollup: Rollup, other: Rollup, span: Span) -> Rollup:
    """Return what the same interval of two topics amounts to when they become one."""
    if isinstance(rollup, NumberRollup) and isinstance(other, NumberRollup):
        return rollup + other
    if isinstance(rollup, StateRollup) and isinstance(other, StateRollup):
        return rollup.merged_with(other, span)
    return rollup


def join_rollups(parts: Sequence[tuple[Span, Rollup]], whole: Span) -> Rollup:
    """Return what an interval amounts to, from shorter ones in it, the oldest first.

    Their sums are rounded already; they are added exactly, so that only one more rounding follows.
    """
    numbers = [part for _, part in parts if isinstance(part, NumberRollup)]
    if numbers:
        total = (
            None
            if any(part.total is None for part in numbers)
            else _add_exactly([part.total or 0.0 for part in numbers])
        )
        return attrs.evolve(reduce(add, numbers), total=total)
    states = [(span, part) for span, part in parts if isinstance(part, StateRollup)]
    joined = states[0][1]
    for (before, _), (after, part) in pairwise(states):
        joined = joined.followed_by(part, after.start + part.wait - before.end)
    stays = {**joined.stays, joined.last: _lengthen(joined.stays[joined.last], whole.end - states[-1][0].end)}
    return StateRollup(states[0][0].start + joined.wait - whole.start, joined.last, stays)


def name_state(value: Any) -> str:
    """Return a state as text that every database can hold."""
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value)[:LONGEST_STATE]
    return text if is_clean(text) else text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def merge_spans(spans: Iterable[Span]) -> list[Span]:
    """Return the same time as few spans, in order."""
    merged: list[Span] = []
    for span in sorted(spans, key=attrgetter("start", "end")):
        if merged and span.start <= merged[-1].end:
            merged[-1] = Span(merged[-1].start, max(merged[-1].end, span.end))
        else:
            merged.append(span)
    return merged


def _round_to_double(value: Any) -> float | None:
    """Return the double nearest to a number; None for NaN, and for a number beyond all doubles."""
    try:
        number = float(value) + 0.0  # which turns −0.0 into zero
    except (OverflowError, ValueError):  # too large; a signalling NaN
        return None
    return number if isfinite(number) else None


def _add_exactly(numbers: Sequence[float]) -> float | None:
    try:
        return fsum(numbers) + 0.0
    except OverflowError:
        return None


def _join_stays(stay: Stay | None, other: Stay) -> Stay:
    if stay is None:
        return other
    first, last = min(stay.first_time, other.first_time), max(stay.last_time, other.last_time)
    return Stay(stay.count + other.count, stay.length + other.length, first, last)


def _lengthen(stay: Stay, by: int) -> Stay:
    return attrs.evolve(stay, length=stay.length + by)
