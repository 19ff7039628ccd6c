"""A writer's report on its own work, in a small file next to the journal: for metrics, health and `status`.

Everything is counted since the writer's process started; times are in microseconds since 1970 (UTC).
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import attrs
import cattrs
import orjson

from amqtt_db.journal.file import read_beside, replace_beside

SECONDS_BOUNDS: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
MESSAGES_BOUNDS: Final = (1.0, 10.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0, 20_000.0, 40_000.0)

RATE_SECONDS: Final = 60
"""The time of which a report knows the rate of messages."""
STRETCH_SECONDS: Final = 5
"""The time in which messages are counted together for that."""

_REPORT_FILE: Final = ".report"


@attrs.frozen
class Distribution:
    """How many values lie between consecutive ``bounds``; the last count is of values above all bounds."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float = 0.0

    @classmethod
    def empty(cls, bounds: tuple[float, ...]) -> Distribution:
        """Return an empty distribution."""
        return cls(bounds, (0,) * (len(bounds) + 1))

    def add(self, *values: float) -> Distribution:
        """Return this distribution with more values."""
        counts = list(self.counts)
        for value in values:
            counts[bisect_left(self.bounds, value)] += 1
        return Distribution(self.bounds, tuple(counts), self.total + sum(values))


_NO_SIZES: Final = Distribution.empty(MESSAGES_BOUNDS)
_NO_SECONDS: Final = Distribution.empty(SECONDS_BOUNDS)


@attrs.frozen
class Failure:
    """A cause that has kept a writer from storing: how many attempts failed, and when the first and the last did."""

    cause: str
    attempts: int
    first: int
    last: int


@attrs.frozen
class WriterReport:
    """What a writer has done: ``counts`` of messages and records by topic filter, the sizes and durations of batches.

    ``waits`` are the seconds from the arrival of a batch's first entry to its commit.  ``recent`` says how many
    messages were done with in the last minute, by the second in which each stretch of 5 s began.  ``committed`` is when
    it last stored something.  ``rebirths`` says when births of Sparkplug's edge nodes were last wanted, in microseconds
    since 1970, by the topic of the command that asks for them.  ``failures`` are the last few causes, newest last, and
    ``is_failing`` is true as long as the newest one lasts.
    """

    started: int
    committed: int | None = None
    counts: Mapping[str, Mapping[str, int]] = attrs.field(factory=dict)
    tables: int = 0
    columns: int = 0
    sizes: Distribution = _NO_SIZES
    seconds: Distribution = _NO_SECONDS
    failures: tuple[Failure, ...] = ()
    is_failing: bool = False
    waits: Distribution = _NO_SECONDS
    recent: tuple[tuple[int, int], ...] = ()
    rebirths: Mapping[str, int] = attrs.field(factory=dict)

    def rate(self, now: int) -> float:
        """Return the messages per second in the minute before ``now``, in microseconds since 1970."""
        second = now // 1_000_000
        window = min(RATE_SECONDS, max(STRETCH_SECONDS, second - self.started // 1_000_000))
        return sum(count for began, count in self.recent if began > second - window) / window


def write_report(path: Path, report: WriterReport) -> None:
    """Write a report next to the journal at ``path``.  Raises JournalError."""
    replace_beside(path, _REPORT_FILE, orjson.dumps(attrs.asdict(report)))


def read_report(path: Path) -> WriterReport | None:
    """Return the last report next to the journal at ``path``; None if there is none, or it cannot be read."""
    try:
        return cattrs.structure(orjson.loads(read_beside(path, _REPORT_FILE)), WriterReport)
    except (OSError, ValueError, TypeError, KeyError, cattrs.BaseValidationError):
        return None
