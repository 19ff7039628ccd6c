"""What a writer's process counts for its report."""

from __future__ import annotations

import time
from collections import Counter

import pytest

from amqtt_db.journal import WriterReport
from amqtt_db.writer import tally as tally_module
from amqtt_db.writer.tally import Tally


def test_counts_add_up() -> None:
    """By topic filter; batches by their size and duration."""
    tally = Tally()
    assert tally.report().committed is None
    tally.add_counts({"a": Counter(stored=2), "b": Counter(dead=1)})
    tally.add_counts({"a": Counter(stored=1, records=3)})
    tally.add_batch(4, 0.5, 0)
    tally.add_schema_changes(1, 2)
    report = tally.report()
    assert report.counts == {"a": {"stored": 3, "records": 3}, "b": {"dead": 1}}
    assert (report.tables, report.columns) == (1, 2)
    assert (report.sizes.total, sum(report.sizes.counts), report.seconds.total) == (4, 1, 0.5)
    assert report.committed is not None
    assert report.committed >= report.started


def test_each_cause_is_kept_once() -> None:
    """With its attempts; the newest is last, and the oldest of too many are forgotten."""
    tally = Tally()
    for cause in ("a", "b", "a", "c", "d", "e", "f"):
        tally.add_failure(cause)
    report = tally.report()
    assert [(failure.cause, failure.attempts) for failure in report.failures] == [
        ("a", 2), ("c", 1), ("d", 1), ("e", 1), ("f", 1),
    ]  # fmt: skip
    assert report.is_failing
    tally.note_relief()
    later = tally.report()
    assert (later.is_failing, len(later.failures)) == (False, 5)


def test_a_report_is_due_once_there_is_news() -> None:
    """And not again at once."""
    tally = Tally()
    due = [tally.is_due]
    tally.report()
    due.append(tally.is_due)
    tally.add_batch(1, 0.1, 0)
    due.append(tally.is_due)  # the last one is too recent
    assert due == [True, False, False]


def test_the_rate_of_the_last_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages, not records; what is older does not count, however old the report is."""
    clock = iter(range(1000, 2000, 10))
    now = 1000

    def tick() -> int:
        nonlocal now
        now = next(clock)
        return now * 1_000_000

    monkeypatch.setattr(tally_module, "_microseconds_now", tick)
    tally = Tally()  # at 1000
    for _ in range(10):  # from 1010 to 1100
        tally.add_counts({"a": Counter(stored=30, dead=2, records=99), "": Counter(ignored=28)})
    report = tally.report()
    assert len(report.recent) == 6
    assert report.rate(1_100_000_000) == 6.0
    assert report.rate(1_130_000_000) == 3.0
    assert report.rate(9_999_000_000) == 0.0
    assert WriterReport(started=1_100_000_000, recent=((1100, 50),)).rate(1_102_000_000) == 10.0


def test_the_wait_of_a_batch_is_that_of_its_first_entry() -> None:
    """Even if the clock goes back."""
    tally = Tally()
    tally.add_batch(1, 0.1, time.time_ns() // 1000 - 3_000_000)
    tally.add_batch(1, 0.1, time.time_ns() // 1000 + 3_000_000)
    waits = tally.report().waits
    assert (sum(waits.counts), 3 <= waits.total < 4) == (2, True)
