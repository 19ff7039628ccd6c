"""What a writer's process counts for its report."""

from __future__ import annotations

from collections import Counter

from amqtt_db.writer.tally import Tally


def test_counts_add_up() -> None:
    """By topic filter; batches by their size and duration."""
    tally = Tally()
    assert tally.report().committed is None
    tally.add_counts({"a": Counter(stored=2), "b": Counter(dead=1)})
    tally.add_counts({"a": Counter(stored=1, records=3)})
    tally.add_batch(4, 0.5)
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
    tally.add_batch(1, 0.1)
    due.append(tally.is_due)  # the last one is too recent
    assert due == [True, False, False]
