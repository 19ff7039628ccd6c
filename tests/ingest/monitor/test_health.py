"""Ready means: messages are taken, and those that wait are being stored."""

from __future__ import annotations

import pytest

from amqtt_db.ingest.monitor.health import find_faults, seconds_waiting
from amqtt_db.journal import Backlog, Failure, WriterReport

SECOND = 1_000_000


def at_work(committed: int | None) -> WriterReport:
    """Return the report of a writer that last stored something in that second."""
    return WriterReport(started=0, committed=None if committed is None else committed * SECOND)


@pytest.mark.parametrize(
    ("oldest", "report", "seconds"),
    [
        (None, None, 0),
        (None, at_work(5), 0),
        (40, None, 60),
        (40, at_work(None), 60),
        (40, at_work(90), 10),
        (99, at_work(5), 1),
        (120, at_work(5), 0),
    ],
)
def test_how_long_messages_have_waited(oldest: int | None, report: WriterReport | None, seconds: float) -> None:
    """Since the oldest arrived, or since the last commit if that was later; a message that waits is what counts."""
    backlog = Backlog(0 if oldest is None else 1, None if oldest is None else oldest * SECOND)
    assert seconds_waiting(backlog, report, 100.0) == seconds


def test_what_is_wrong_is_said() -> None:
    """One line for each fault, with the writer's own words if it has any."""
    waiting, refused = Backlog(7, 40 * SECOND), Failure("the database answers: no", 3, 0, 0)
    assert list(find_faults(waiting, None, 60.0, 100.0, is_blocked=False)) == []
    assert list(find_faults(waiting, None, 59.0, 100.0, is_blocked=False)) == [
        "7 messages wait, and nothing was stored for 60 s (max_lag is 59 s)"
    ]
    report = WriterReport(started=0, failures=(refused,), is_failing=True)
    full, lag = find_faults(waiting, report, 30.0, 100.0, is_blocked=True)
    assert full.startswith("the journal is full or cannot be written")
    assert lag.endswith("; the writer says: the database answers: no")
