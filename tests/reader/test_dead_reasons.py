"""Why messages could not be stored."""

from __future__ import annotations

from pathlib import Path

import pytest

from amqtt_db.database.snapshot import open_snapshot
from amqtt_db.reader.dead_reasons import count_reasons
from tests.database.engines.servers import Site
from tests.reader.test_read import second
from tests.workbench import Sent, Workbench


def test_reasons_are_counted(site: Site) -> None:
    """The most frequent first, each with the time of its last letter."""
    bench = Workbench(site, {"topic": "a", "entity": {"n": "int"}, "mismatch": "reject"}, {"topic": "#"})
    bench.send(Sent("b", b"{"), ("a", {"n": "x"}), ("a", {"n": "y"}), ("a", {"n": 1}))
    with open_snapshot(site.url) as snapshot:
        first, other = count_reasons(snapshot)
    assert (first.filter, first.count, first.last) == ("a", 2, second(2))
    assert (other.filter, other.step, other.count, other.last) == ("#", "decode", 1, second(0))


def test_only_the_newest_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a million dead letters do not hold up a page."""
    monkeypatch.setattr("amqtt_db.reader.dead_reasons.COUNTED", 2)
    bench = Workbench(tmp_path, {"topic": "#"})
    bench.send(Sent("a", b"{"), Sent("a", b"["), Sent("a", b"["))
    with open_snapshot(bench.url) as snapshot:
        (only,) = count_reasons(snapshot)
    assert only.count == 2
