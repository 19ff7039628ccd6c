"""The page for operators: its metrics are those that there are, and Prometheus takes its examples."""

from __future__ import annotations

import re
import subprocess
from datetime import datetime, timezone
from pathlib import Path

import attrs
import pytest
from rich.console import Console

from amqtt_db.cli.show_status import render_status
from amqtt_db.ingest.monitor.measures import measure_all
from amqtt_db.journal import Backlog
from amqtt_db.reader.status import CauseStatus, JournalStatus, Status, TopicCounts, WriterStatus
from tests.docs.test_docs import ROOT, blocks
from tests.ingest.monitor.test_exposition import LINKS, OF_A_BROKER, PROMTOOL, REPORT

PAGE = ROOT / "docs" / "operating.md"
SCRAPE, ALERTS = (block.text for block in blocks(PAGE) if block.language == "yml")


def _metrics() -> dict[str, str]:
    """Return the type of each metric that a process may have."""
    everything = attrs.evolve(OF_A_BROKER, links=LINKS, delays=REPORT.waits)
    return {metric.name: metric.kind for metric in measure_all(everything, Backlog(0, None), REPORT, 5.0)}


def test_the_table_has_every_metric() -> None:
    """With its type, and no other."""
    table = dict(re.findall(r"^\| `(amqtt_db_\w+)` \| (\w+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert table == _metrics()


def test_the_example_of_status() -> None:
    """It looks as the page shows it."""
    (shown,) = (block.text for block in blocks(PAGE) if block.language == "text")
    stored, waiting = (datetime(2026, 1, 31, 12, 0, second, tzinfo=timezone.utc) for second in (2, 3))
    cause = CauseStatus("the database answers: FATAL: the database system is shutting down", 11, waiting, waiting)
    status = Status(
        database="postgresql://mqtt:***@localhost/mqtt", journal="mqtt.journal", refused=0, denied=0,
        journals=(JournalStatus(1, 90_411, 240),), counters=(TopicCounts("home/#", 90_000, dead=3, records=90_000),),
        oldest=waiting, lag=41.3, writer=WriterStatus(True, stored, True, (cause,), 152.4),
    )  # fmt: skip
    console = Console(width=200)
    with console.capture() as captured:
        console.print(render_status(status))
    assert [line.rstrip() for line in captured.get().splitlines()] == shown.splitlines()


def test_alerts_name_metrics_that_there_are() -> None:
    """And no misspelt ones, which would never fire."""
    assert set(re.findall(r"amqtt_db_\w+", ALERTS)) - {"amqtt_db"} <= set(_metrics())


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (on Debian: prometheus)")
@pytest.mark.parametrize(("kind", "text"), [("config", SCRAPE), ("rules", ALERTS)], ids=["config", "rules"])
def test_prometheus_takes_the_examples(kind: str, text: str, tmp_path: Path) -> None:
    """As they are."""
    (tmp_path / "example.yml").write_text(text, encoding="utf-8")
    command = [str(PROMTOOL), "check", kind, str(tmp_path / "example.yml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
