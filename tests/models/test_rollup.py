"""Sums of longer intervals are as near as the documentation says."""

from __future__ import annotations

from fractions import Fraction
from math import fsum

from hypothesis import example, given
from hypothesis import strategies as st

from amqtt_db.models.rollup import NumberRollup, Span, join_rollups

_TENTHS = st.integers(-10_000, 10_000).map(lambda number: number / 10)
_NUMBERS = st.floats(-1e300, 1e300)


@given(parts=st.lists(st.lists(_TENTHS | _NUMBERS, min_size=1, max_size=10), min_size=1, max_size=6))
@example(parts=[[0.1, 0.2], [0.3]])
def test_a_longer_interval_rounds_once_more(parts: list[list[float]]) -> None:
    """It is the nearest double to the sum of the rounded sums, off by 2⁻⁵² of the absolute values at most."""
    shorts = [NumberRollup.of(list(enumerate(part, 10 * number))) for number, part in enumerate(parts)]
    spans = [Span(10 * number, 10 * number + 10) for number in range(len(parts))]
    whole = join_rollups(list(zip(spans, shorts, strict=True)), Span(0, 60))
    assert isinstance(whole, NumberRollup)
    assert whole.total is not None
    assert [short.total for short in shorts] == [fsum(part) for part in parts]
    assert whole.total == fsum(fsum(part) for part in parts)
    numbers = [Fraction(number) for part in parts for number in part]
    assert abs(Fraction(whole.total) - sum(numbers)) <= sum(map(abs, numbers)) / 2**52
