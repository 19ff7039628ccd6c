"""Nothing grows for ever: ever new clients, topics, properties and shapes, and `keep` everywhere.

``--soak 10000`` runs it with so many clients, and prints what it measured.
"""

from __future__ import annotations

import asyncio
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from tests.faults.load import Connection
from tests.faults.scene import Scene
from tests.integration.broker import PATIENCE

FEW: Final = 50  # clients of a cycle, each with a topic and properties of its own
NAMES: Final = 10  # new properties per client

QUICKLY: Final = """
import sys
if any("amqtt_db.writer.process" in text for text in sys.orig_argv):
    from amqtt_db.writer import retention
    retention.ROUND, retention.FORGET_EVERY = 0.2, 0.5
"""
"""Deletes and forgets every moment instead of every minute and every day; for the module ``sitecustomize``."""

KEEP: Final = {"keep": "1 s", "max_columns": 20}
ROUTES: Final[Sequence[Mapping[str, Any]]] = [
    {"topic": "own/+", "raw": True, **KEEP},
    {"topic": "eav/+", "model": "eav", **KEEP},
    {"topic": "narrow/+", "model": "narrow", **KEEP},
    {"topic": "shape/+", "model": {"wide": {"table": "shapes"}}, **KEEP},
    {"topic": "document/+", "model": "document", "latest": True, **KEEP},
]
TABLES: Final = 8
"""The tables of the routes' models that all topics of a route share."""
LASTING: Final = {"mqtt_meta", "mqtt_journal", "mqtt_counter", "mqtt_catalog", "mqtt_table", "mqtt_view"}
"""System tables with rows that stay, and whose number does not depend on how much was ever published."""


@attrs.frozen
class Sample:
    """What there is after a cycle: rows by system table, other tables, bytes of the journal's files and of memory."""

    rows: Mapping[str, int]
    tables: int
    files: int
    broker: int
    writer: int


def _messages(client: int) -> Iterator[tuple[str, bytes]]:
    """What a client publishes: a topic, properties and a shape that were never there before, and a dead letter."""
    kind = ("own", "eav", "narrow", "shape", "document")[client % len(ROUTES)]
    yield f"{kind}/{client}", json.dumps({f"p{client}_{number}": number for number in range(NAMES)}).encode()
    yield f"eav/{client}", b"{broken"


async def _publish(port: int, clients: range) -> None:
    for client in clients:
        async with Connection(port, f"client{client}") as connection:
            await connection.publish(list(_messages(client)), 1)


def _memory(process: int) -> int:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096


def _sample(scene: Scene) -> Sample:
    names = [
        name for (name,) in scene.sql("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'")
    ]
    system = [name for name in names if name.startswith("mqtt_")]
    assert scene.process is not None
    return Sample(
        {name: scene.sql(f"SELECT count(*) FROM {name}")[0][0] for name in sorted(system)},
        len(names) - len(system),
        sum(file.stat().st_size for file in scene.directory.glob("mqtt.journal*")),
        _memory(scene.process.pid),
        _memory(scene.writer()),
    )


def _report(samples: Sequence[Sample]) -> None:
    for number in sorted({0, len(samples) // 4, len(samples) // 2, 3 * len(samples) // 4, len(samples) - 1}):
        one = samples[number]
        rows = ", ".join(f"{name} {count}" for name, count in one.rows.items())
        print(  # noqa: T201
            f"\ncycle {number + 1}: broker {one.broker >> 20} MB, writer {one.writer >> 20} MB, beside the journal"
            f" {one.files >> 10} KB, {one.tables} tables; {rows}"
        )


def _are_level(values: Sequence[int], room: int) -> bool:
    """Return True if the last quarter is not above the second one."""
    quarter = len(values) // 4
    early, late = values[quarter : 2 * quarter], values[-quarter:]
    return statistics.median(late) <= 1.1 * statistics.median(early) + room


@pytest.mark.slow
def test_everything_levels_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """When all that some clients sent has grown old, nothing is left of it; the next ones find no more than they did.

    The journal's log may grow to 16 MB before SQLite begins it again.
    """
    (tmp_path / "sitecustomize.py").write_text(QUICKLY)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    clients = request.config.getoption("--soak") or FEW
    samples: list[Sample] = []
    with Scene(tmp_path / "scene", routes=ROUTES, keep="1 s") as scene:
        for first in range(0, clients, FEW):
            asyncio.run(_publish(scene.port, range(first, first + FEW)))
            scene.until(lambda: _is_all_gone(scene), "all that is too old is gone", 2 * PATIENCE)
            samples.append(_sample(scene))
    assert all(one.rows[name] <= 200 for one in samples for name in LASTING & one.rows.keys())
    if len(samples) >= 8:
        _report(samples)
        assert _are_level([one.files for one in samples], 2**24)
        assert _are_level([one.broker for one in samples], 2**23)
        assert _are_level([one.writer for one in samples], 2**23)


def _is_all_gone(scene: Scene) -> bool:
    """Return True if nothing waits, and neither a row nor a table is left of any client."""
    if scene.status().pending != 0:
        return False
    sample = _sample(scene)
    left = max(count for name, count in sample.rows.items() if name not in LASTING)
    return left <= 1 and sample.tables <= TABLES
