"""What a writer says about itself beside its journal, and what waits there."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.journal import (
    Backlog,
    Failure,
    Journal,
    Progress,
    WriterReport,
    read_backlog,
    read_report,
    write_progress,
    write_report,
)
from amqtt_db.journal.report import Distribution
from amqtt_db.message import CONNECT, PUBLISH, flags

SECOND = 1_000_000


def test_a_report_reads_as_it_was_written(tmp_path: Path) -> None:
    """With all its parts."""
    report = WriterReport(
        started=1, committed=2, counts={"a/{b}": {"stored": 3}}, tables=4, columns=5,
        sizes=Distribution.empty((1.0,)).add(2), seconds=Distribution.empty((0.5,)).add(0.25),
        failures=(Failure("no", 6, 7, 8),), is_failing=True,
    )  # fmt: skip
    write_report(tmp_path / "journal", report)
    assert read_report(tmp_path / "journal") == report


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"started": "x"}', b'{"started": 1, "failures": 3}'])
def test_a_report_that_is_none(content: bytes, tmp_path: Path) -> None:
    """A damaged file is as good as none."""
    assert read_report(tmp_path / "journal") is None
    (tmp_path / "journal.report").write_bytes(content)
    assert read_report(tmp_path / "journal") is None


@given(st.lists(st.floats(0, 10)))
def test_a_distribution_counts_every_value_once(values: list[float]) -> None:
    """In the first place whose bound it does not exceed."""
    bounds, found = (1.0, 2.5, 5.0), Distribution.empty((1.0, 2.5, 5.0))
    for value in values:
        found = found.add(value)
    edges = (-1.0, *bounds, float("inf"))
    assert found.counts == tuple(sum(low < value <= high for value in values) for low, high in pairwise(edges))
    assert found.total == pytest.approx(sum(values))


def test_what_waits(tmp_path: Path) -> None:
    """Messages count, and connections do not; what is reported as stored waits no longer, even within a group."""
    path = tmp_path / "journal"
    journal = Journal.open(path, max_size=2**20, sync="never")
    assert read_backlog(path) == Backlog(0, None)
    journal.append(flags(CONNECT), 1 * SECOND, 0, b"", b"{}")
    first = journal.next
    for second in (2, 3, 4):
        journal.append(flags(PUBLISH, 1), second * SECOND, 0, b"t", b"1")
    journal.commit()
    assert (journal.received, read_backlog(path)) == (3, Backlog(3, 2 * SECOND))
    write_progress(path, journal.token, first + 1)
    assert read_backlog(path) == Backlog(2, 3 * SECOND)
    write_progress(path, journal.token, journal.next)
    assert read_backlog(path) == Backlog(0, None)
    journal.close()


def test_what_waits_from_an_earlier_opening(tmp_path: Path) -> None:
    """It is older than what this one has taken."""
    path = tmp_path / "journal"
    for second in (1, 2):
        journal = Journal.open(path, max_size=2**20, sync="never")
        journal.append(flags(PUBLISH, 1), second * SECOND, 0, b"t", b"1")
        journal.commit()
        journal.close()
    assert read_backlog(path) == Backlog(2, SECOND)
    progress = Progress(journal.token, 0)
    write_progress(path, **attrs.asdict(progress))
    assert read_backlog(path) == Backlog(1, 2 * SECOND)
