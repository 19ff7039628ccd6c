"""The benchmarks run, briefly: they print figures and write them as JSON.  No figure is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.bridge import MOSQUITTO

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
BRIEF = {
    "arrow.py": ("--messages=300", "--rounds=1", "--engines=sqlite"),
    "bridge.py": (
        "--messages=200",
        "--rounds=1",
        "--subscribers=bridge",
        "--databases=sqlite",
        "--rate=200",
        "--seconds=0.5",
        "--idle=0.2",
        "--backlog=0",
    ),
    "broker.py": ("--messages=200", "--rounds=1", "--clients=1,4"),
    "codecs.py": ("--rounds=1", "--times=10"),
    "latency.py": ("--rate=200", "--seconds=0.5", "--rounds=1", "--clients=2", "--idle=0.2", "--databases=sqlite"),
    "endurance.py": ("--messages=50000", "--rate=500", "--keep=20"),
    "growth.py": ("--messages=300", "--topics=10", "--properties=10", "--backlog=1000", "--models=wide, one;narrow"),
    "month.py": ("--topics=1", "--properties=2", "--days=1", "--engines=sqlite"),
    "payloads.py": ("--messages=200", "--rounds=1", "--models=wide", "--forms=flat;zigbee"),
    "plots.py": ("--records=300", "--rounds=1", "--engines=sqlite", "--routes=wide;narrow;eav;document"),
    "reader.py": ("--messages=300", "--rounds=1", "--engines=sqlite"),
    "rollups.py": ("--series=1", "--days=1", "--engines=sqlite", "--routes=wide"),
    "size.py": ("--messages=300", "--engines=sqlite"),
    "small_batches.py": ("--sizes=1,2,3", "--batches=10", "--engines=sqlite"),
    "start.py": ("--tables=10", "--rounds=1", "--messages=200", "--databases=sqlite"),
    "tables.py": ("--topics=20", "--names=100", "--engines=sqlite"),
    "way.py": (
        "--rates=100",
        "--seconds=0.3",
        "--messages=200",
        "--idle=0.2",
        "--databases=sqlite",
        "--ways=plugin,bridge,batches",
    ),
    "writer.py": ("--messages=200", "--batch=100", "--rounds=1", "--engines=sqlite,postgresql", "--routes=wide;eav"),
}


def figures(found: Any) -> list[float]:
    """All numbers of a JSON document."""
    if isinstance(found, dict):
        return [number for value in found.values() for number in figures(value)]
    if isinstance(found, list):
        return [number for value in found for number in figures(value)]
    return [found] if isinstance(found, float) else []


@pytest.mark.parametrize("program", BRIEF)
def test_a_benchmark_runs(program: str, tmp_path: Path) -> None:
    """From its command line to its table and its file."""
    if program in {"bridge.py", "way.py"} and MOSQUITTO is None:
        pytest.skip("needs Mosquitto")
    command = [sys.executable, str(BENCHMARKS / program), *BRIEF[program], f"--json={tmp_path / 'figures.json'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip()
    found = figures(json.loads((tmp_path / "figures.json").read_text()))
    assert len(found) > 5
    assert all(number >= 0 for number in found)
