"""The page for operators: its metrics are those that there are, and Prometheus takes its examples."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import attrs
import pytest

from amqtt_db.ingest.monitor.measures import measure_all
from amqtt_db.journal import Backlog
from tests.docs.test_docs import ROOT, blocks
from tests.ingest.monitor.test_exposition import LINKS, OF_A_BROKER, PROMTOOL, REPORT

PAGE = ROOT / "docs" / "operating.md"
SCRAPE, ALERTS = (block.text for block in blocks(PAGE) if block.language == "yml")


def _metrics() -> dict[str, str]:
    """Return the type of each metric that a process may have."""
    everything = attrs.evolve(OF_A_BROKER, links=LINKS)
    return {metric.name: metric.kind for metric in measure_all(everything, Backlog(0, None), REPORT, 5.0)}


def test_the_table_has_every_metric() -> None:
    """With its type, and no other."""
    table = dict(re.findall(r"^\| `(amqtt_db_\w+)` \| (\w+) \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    assert table == _metrics()


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
