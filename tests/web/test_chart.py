"""Plots as shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.reader.plot_bins import Bins
from amqtt_db.reader.plot_data import Extremes, Series
from amqtt_db.web.chart import HEIGHT, make_band, make_curve, make_sparkline, time_marks

HOUR = 3_600_000_000
numbers = st.floats(allow_nan=False, allow_infinity=False)


def series(values: Mapping[int, tuple[object, object]], *, is_numeric: bool = True) -> Series:
    """A series of extremes by bin."""
    return Series("p", is_numeric, {number: Extremes(low, high) for number, (low, high) in values.items()})


@given(st.dictionaries(st.integers(0, 479), st.tuples(numbers, numbers).map(sorted).map(tuple), min_size=1))
def test_every_curve_is_inside_its_plot(values: dict[int, tuple[float, float]]) -> None:
    """Whatever the numbers; the marks are too, and are few."""
    curve = make_curve(series(values))
    for outline in curve.outlines:
        for point in outline.strip("MZ").split("L"):
            x, y = map(float, point.split())
            assert 0 <= x <= 480
            assert -0.01 <= y <= HEIGHT + 0.01
    assert len(curve.marks) <= 7
    assert all(0 <= mark.place <= 100 for mark in curve.marks)


def test_a_long_gap_is_not_crossed() -> None:
    """A sensor that was away has two curves; an irregular one still has one."""
    values = dict.fromkeys([*range(100), *range(300, 400)], (1.0, 1.0))
    assert len(make_curve(series(values)).outlines) == 2
    assert len(make_curve(series(dict.fromkeys((0, 90, 200, 310), (1.0, 2.0)))).outlines) == 1


def test_states_last_until_the_next_one() -> None:
    """Bins without a record keep the state; a bin with several says so."""
    band = make_band(series({0: (False, False), 5: (True, True), 8: (False, True), 9: (True, True)}, is_numeric=False))
    assert [(part.start, part.length, part.text) for part in band.segments] == [
        (0, 5, "false"), (5, 3, "true"), (8, 1, None), (9, 1, "true"),
    ]  # fmt: skip
    assert [text for text, _ in band.states] == ["false", "true"]


@pytest.mark.parametrize("length", [1, 10**6, HOUR, 24 * HOUR, 400 * 24 * HOUR, 90 * 365 * 24 * HOUR])
def test_time_marks_are_round_and_few(length: int) -> None:
    """From a microsecond to a lifetime."""
    marks = time_marks(Bins.between(1_700_000_000_000_000, 1_700_000_000_000_000 + length, 480))
    assert len(marks) <= 10
    assert all(0 <= mark.place <= 94 for mark in marks)


def test_bins_cover_their_time() -> None:
    """The start is in the first, the end in the last, and none overlap."""
    bins = Bins.between(100, 1000, 7)
    assert bins.number_of(100) == 0
    assert bins.number_of(1000) == 6
    assert [high for _, high in bins.bounds[:-1]] == [low for low, _ in bins.bounds[1:]]
    assert len(bins.bounds) == 7


def test_a_sparkline_ends_at_the_right() -> None:
    """The last value is at its end, the highest near the top."""
    line = make_sparkline([0.0, 5.0, 10.0], 10)
    assert line.startswith("M7 100.0L")
    assert math.isclose(float(line.split(" ")[-1]), 5.0)
    assert make_sparkline([], 10) == ""
