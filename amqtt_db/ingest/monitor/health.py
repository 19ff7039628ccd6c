"""Whether messages are accepted and stored."""

from __future__ import annotations

from collections.abc import Iterator

from amqtt_db.errors import format_count
from amqtt_db.journal import Backlog, WriterReport


def seconds_waiting(backlog: Backlog, report: WriterReport | None, now: float) -> float:
    """Return how long messages have been waiting while nothing was stored; ``now`` is in seconds since 1970."""
    if backlog.oldest is None:
        return 0.0
    committed = 0 if report is None else report.committed or 0
    return max(0.0, now - max(backlog.oldest, committed) / 1e6)


def find_faults(
    backlog: Backlog, report: WriterReport | None, max_lag: float, now: float, *, is_blocked: bool
) -> Iterator[str]:
    """Yield why this is not ready, one line each."""
    if is_blocked:
        yield "the journal is full or cannot be written: QoS 1 and 2 are not acknowledged, QoS 0 is refused"
    waiting = seconds_waiting(backlog, report, now)
    if waiting > max_lag:
        why = f"; the writer says: {report.failures[-1].cause}" if report is not None and report.is_failing else ""
        messages = format_count(backlog.pending, "message waits", "messages wait")
        yield f"{messages}, and nothing was stored for {waiting:.0f} s (max_lag is {max_lag:g} s){why}"
