"""Plots as shapes: where a curve, a band of states, and the marks of the axes are; the templates draw them as SVG.

Horizontal places are numbers of bins, vertical ones run from 0 (top) to :data:`HEIGHT`; marks are in per cent.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import pairwise
from math import ceil, floor, isfinite, log10
from typing import Any, Final

import attrs

from amqtt_db.reader.plot_bins import Bins
from amqtt_db.reader.plot_data import Extremes, Series
from amqtt_db.record import EPOCH

HEIGHT: Final = 100.0
COLORS: Final = 8
"""How many states have a colour of their own."""

_MARGIN: Final = 0.08  # of the height, above and below a curve
_MOST_GAPS: Final = 6.0  # typical gaps between two bins with values that a curve still crosses
_SECOND_US: Final = 1_000_000
_TIME_STEPS: Final = [
    step * _SECOND_US
    for step in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200)
] + [days * 86_400 * _SECOND_US for days in (1, 2, 7, 14, 30, 60, 90, 180, 365, 730, 1825, 3650)]


@attrs.frozen
class Mark:
    """A mark on an axis: its place in per cent, and its text."""

    place: float
    text: str


@attrs.frozen
class Curve:
    """A numeric property: the outlines of its extremes, as SVG paths, and marks on the axis of values."""

    path: str
    outlines: tuple[str, ...]
    marks: tuple[Mark, ...]
    low: float
    high: float


@attrs.frozen
class Segment:
    """A stretch of time with one state, or with several if ``text`` is None; ``color`` numbers the states."""

    start: int
    length: int
    text: str | None
    color: int


@attrs.frozen
class Band:
    """The states of a property over time."""

    path: str
    segments: tuple[Segment, ...]
    states: tuple[tuple[str, int], ...]


def make_curve(series: Series) -> Curve:
    """Return the shapes of a numeric property that has at least one value."""
    low, high = min(one.low for one in series.bins.values()), max(one.high for one in series.bins.values())
    bottom, top = _widened(low, high)

    def place(value: float) -> float:
        return HEIGHT * (1 - (value / 2 - bottom / 2) / (top / 2 - bottom / 2))  # halves do not overflow

    outlines = tuple(_outline(run, series.bins, place) for run in _runs(sorted(series.bins)))
    marks = tuple(Mark(round(place(value), 2), text) for value, text in _value_marks(bottom, top))
    return Curve(series.path, outlines, marks, low, high)


def make_band(series: Series) -> Band:
    """Return the stretches of a property's states; each lasts until the next one."""
    texts = {text for one in series.bins.values() for text in (state_text(one.low), state_text(one.high))}
    colors = {text: number % COLORS for number, text in enumerate(sorted(texts))}
    return Band(series.path, tuple(_segments(series.bins, colors)), tuple(colors.items()))


def state_text(value: Any) -> str:
    """Return how a state is written: as in JSON, but text without quotes."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def time_marks(bins: Bins, most: int = 6) -> tuple[Mark, ...]:
    """Return marks at round times (UTC)."""
    length = bins.end - bins.start
    step = next((step for step in _TIME_STEPS if length / step <= most), _TIME_STEPS[-1])
    first = -(-bins.start // step) * step
    form = "%H:%M:%S" if step < 60 * _SECOND_US else "%H:%M" if step < 86_400 * _SECOND_US else "%-d %b %Y"
    marks = (
        Mark(round(100 * (time - bins.start) / length, 2), _at(time).strftime(form))
        for time in range(first, bins.end, step)
    )
    return tuple(mark for mark in marks if mark.place <= 94)


def _at(time: int) -> datetime:
    return EPOCH + timedelta(microseconds=time)


def _widened(low: float, high: float) -> tuple[float, float]:
    """Return the ends of the axis, with a margin around the values."""
    margin = (high / 2 - low / 2) * 2 * _MARGIN or abs(high) * _MARGIN or 1.0
    bottom, top = low - margin, high + margin
    return (bottom, top) if isfinite(bottom) and isfinite(top) and bottom < top else (low, high or 1.0)


def _runs(numbers: Sequence[int]) -> Iterator[Sequence[int]]:
    """Yield the bins with values, split where the gap is much longer than usual."""
    gaps = sorted(later - earlier for earlier, later in pairwise(numbers))
    longest = max(_MOST_GAPS * gaps[len(gaps) // 2], 12.0) if gaps else 0.0
    start = 0
    for index in range(1, len(numbers)):
        if numbers[index] - numbers[index - 1] > longest:
            yield numbers[start:index]
            start = index
    yield numbers[start:]


def _outline(run: Sequence[int], bins: Mapping[int, Extremes], place: Any) -> str:
    """Return a path along the highest values, and back along the lowest; a bin that is alone is drawn wider."""
    middles = [(number, number + 0.5) for number in run]
    ends = [(run[0], max(0.0, run[0] - 1.0)), (run[0], run[0] + 1.0)]
    places = ends if len(run) == 1 else middles
    there = [(x, place(bins[number].high)) for number, x in places]
    back = [(x, place(bins[number].low)) for number, x in reversed(places)]
    points = [*there, *back]
    return "M" + "L".join(f"{x:g} {y:.2f}" for x, y in points) + "Z"


def _value_marks(bottom: float, top: float) -> Iterator[tuple[float, str]]:
    """Yield two to five round values inside the axis."""
    span = top - bottom
    if not (isfinite(span) and span > 0):
        return
    step = _round_step(span / 3)
    digits = max(0, -floor(log10(step)))
    for number in range(ceil(bottom / step), floor(top / step) + 1):
        value = number * step
        large = abs(value) >= 1e7 or digits > 6
        yield value, f"{value:.3g}" if large else f"{value:,.{digits}f}".replace(",", "\u202f")


def _round_step(rough: float) -> float:
    """Return the nearest of 1, 2, 5 and 10 times a power of ten that is not less."""
    power = 10.0 ** floor(log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * 0.999)


def _segments(bins: Mapping[int, Extremes], colors: Mapping[str, int]) -> Iterator[Segment]:
    numbers = sorted(bins)
    stretches = [(number, _state_in(bins[number])) for number in numbers]
    changes = [one for index, one in enumerate(stretches) if index == 0 or one[1] != stretches[index - 1][1]]
    ends = [*(number for number, _ in changes[1:]), numbers[-1] + 1]
    for (start, text), end in zip(changes, ends, strict=True):
        yield Segment(start, end - start, text, COLORS if text is None else colors[text])


def _state_in(extremes: Extremes) -> str | None:
    """Return the only state in a bin, None if there are several."""
    return state_text(extremes.low) if extremes.low == extremes.high else None


def make_sparkline(values: Iterable[float], width: int) -> str:
    """Return a path through values that are at least 0, on a line ``width`` long that ends with the last of them."""
    points = list(values)[-width:]
    most = max(points, default=0.0) or 1.0
    start = width - len(points)
    places = (f"{start + index} {HEIGHT * (1 - 0.95 * value / most):.1f}" for index, value in enumerate(points))
    return "M" + "L".join(places) if points else ""
