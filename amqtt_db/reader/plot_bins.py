"""The bins of a plot: equal intervals of time, one for each column that the eye can tell apart."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise
from typing import Final

import attrs

from amqtt_db.record import Kind

NUMERIC: Final[frozenset[Kind]] = frozenset({"number", "int64", "bigint", "decimal"})
"""Kinds that a plot shows as a curve."""

PLOTTED: Final[frozenset[Kind]] = NUMERIC | {"bool", "text"}
"""Kinds that a plot shows; all but numbers as a band of states."""


@attrs.frozen
class Bins:
    """``count`` intervals from ``start`` on, each ``width`` long; times in microseconds since 1970."""

    start: int
    width: int
    count: int

    @classmethod
    def between(cls, start: int, end: int, count: int) -> Bins:
        """Return bins that cover the time from ``start`` to ``end``, which is inside the last one."""
        return cls(start, max(1, -(-(end + 1 - start) // count)), count)

    def after(self, count: int) -> Bins:
        """Return the bins without the first ``count``."""
        return Bins(self.start + count * self.width, self.width, self.count - count)

    @property
    def end(self) -> int:
        """The end of the last bin."""
        return self.start + self.width * self.count

    @cached_property
    def bounds(self) -> Sequence[tuple[int, int]]:
        """The start (inclusive) and the end (exclusive) of each bin."""
        return list(pairwise(range(self.start, self.end + 1, self.width)))

    def number_of(self, time: int) -> int:
        """Return the number of the bin that a time is in."""
        return (time - self.start) // self.width
