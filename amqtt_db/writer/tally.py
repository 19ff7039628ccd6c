"""What a writer's process has done so far, for its report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from time import monotonic, time_ns
from typing import Final

from amqtt_db.decode.sparkplug.topics import find_rebirths
from amqtt_db.journal import Failure, WriterReport
from amqtt_db.journal.report import MESSAGES_BOUNDS, RATE_SECONDS, SECONDS_BOUNDS, STRETCH_SECONDS, Distribution

_REPORT_SECONDS: Final = 1.0  # between reports
_CAUSES: Final = 5  # that are remembered
_REBIRTHS: Final = 1000  # that are remembered
_OUTCOME_NAMES: Final = ("stored", "dead", "ignored", "empty", "unchanged")


class Tally:
    """Counts of one process; it outlives the writers that the process replaces after errors."""

    def __init__(self) -> None:
        self._started = _microseconds_now()
        self._committed: int | None = None
        self._counts: dict[str, Counter[str]] = {}
        self._tables = self._columns = 0
        self._sizes, self._seconds = Distribution.empty(MESSAGES_BOUNDS), Distribution.empty(SECONDS_BOUNDS)
        self._waits = Distribution.empty(SECONDS_BOUNDS)
        self._recent = Counter[int]()
        self._rebirths: dict[str, int] = {}
        self._failures: dict[str, Failure] = {}
        self._is_failing = False
        self._is_new = True
        self._reported_at = -_REPORT_SECONDS

    @property
    def is_due(self) -> bool:
        """True if something has changed, and the last report is not too recent."""
        return self._is_new and monotonic() - self._reported_at >= _REPORT_SECONDS

    def add_counts(self, counts: Mapping[str, Mapping[str, int]]) -> None:
        """Count what was committed, by topic filter."""
        now = _microseconds_now() // 1_000_000
        for topic_filter, added in counts.items():
            self._counts.setdefault(topic_filter, Counter()).update(added)
            self._recent[now - now % STRETCH_SECONDS] += sum(added.get(name, 0) for name in _OUTCOME_NAMES)
        for began in [began for began in self._recent if began <= now - RATE_SECONDS]:
            del self._recent[began]

    def add_batch(self, messages: int, seconds: float, arrived: int) -> None:
        """Count a stored batch, and how long ago its first entry ``arrived``, in microseconds since 1970."""
        self._sizes, self._seconds = self._sizes.add(messages), self._seconds.add(seconds)
        self._committed, self._is_new = _microseconds_now(), True
        self._waits = self._waits.add(max(0, self._committed - arrived) / 1e6)

    def note_memory(self, changes: Mapping[str, str]) -> None:
        """Note which births of Sparkplug's edge nodes are wanted, by what decoders remember from now on."""
        self._rebirths.update(find_rebirths(changes))
        for topic in [*self._rebirths][:-_REBIRTHS]:
            del self._rebirths[topic]

    def add_schema_changes(self, tables: int, columns: int) -> None:
        """Count tables and columns that were created."""
        self._tables, self._columns = self._tables + tables, self._columns + columns

    def add_failure(self, cause: str) -> None:
        """Count a failed attempt."""
        now = _microseconds_now()
        known = self._failures.pop(cause, Failure(cause, 0, now, now))
        self._failures[cause] = Failure(cause, known.attempts + 1, known.first, now)
        if len(self._failures) > _CAUSES:
            del self._failures[next(iter(self._failures))]
        self._is_failing = self._is_new = True

    def note_relief(self) -> None:
        """Note that storing works, again or still."""
        if self._is_failing:
            self._is_failing, self._is_new = False, True

    def report(self) -> WriterReport:
        """Return what was counted."""
        self._reported_at, self._is_new = monotonic(), False
        return WriterReport(
            self._started, self._committed, {key: dict(+found) for key, found in self._counts.items()},
            self._tables, self._columns, self._sizes, self._seconds, tuple(self._failures.values()), self._is_failing,
            self._waits, tuple(self._recent.items()), dict(self._rebirths),
        )  # fmt: skip


def _microseconds_now() -> int:
    return time_ns() // 1000
