"""Sparkplug B in the database: every metric under its name and type, once, however often the writer is killed."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any, Final

import pytest

from amqtt_db.models import BUILTIN
from amqtt_db.testing.bench import PowerCut, power_cut
from amqtt_db.writer.replay import replay
from tests.decode.edge_node import EdgeNode
from tests.decode.plant import METRICS, Plant, Step, expected_of, told_by
from tests.workbench import Sent, Workbench, routes

ROUTE: Final[dict[str, Any]] = {"topic": "spBv1.0/#", "decode": "sparkplug", "model": {"wide": {"table": "t"}}}


def in_batches(steps: Sequence[Step], rng: random.Random) -> Iterator[list[Sent]]:
    """Yield messages in batches of random sizes."""
    start = 0
    while start < len(steps):
        end = start + rng.choice([1, 2, 5, 30])
        yield [Sent(*step.message) for step in steps[start:end]]
        start = end


def store_with_power_cuts(bench: Workbench, steps: Sequence[Step], rng: random.Random) -> int:
    """Store messages while the power fails at random commits; return how often it did."""
    failures = 0
    for sent in in_batches(steps, rng):
        batch = bench.batch(*sent)
        while bench.checkpoint < batch.end:
            _, rest = batch.split_at(bench.checkpoint - batch.positions[0])
            try:
                with power_cut(bench.url, rng.choice([0, 0, 1, 2, 1000])):
                    bench.store(rest)
            except PowerCut:
                failures += 1
                bench.close()
                bench.open()
    return failures


@pytest.mark.slow
@pytest.mark.parametrize(("model", "rows"), list(zip(BUILTIN, cycle(["payload", "metric"]), strict=False)))
def test_every_metric_is_stored_once_through_power_cuts(
    model: str, rows: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """With births that renumber aliases, deaths, lost and broken messages, whatever the batches are."""
    minutes = request.config.getoption("--plant-minutes")
    steps = [*Plant(7).steps(60 * minutes)]
    bench = Workbench(tmp_path, {**ROUTE, "model": model, "decode": {"sparkplug": {"rows": rows}}})
    failures = store_with_power_cuts(bench, steps, random.Random(minutes))
    records = bench.records()
    assert told_by(records) == expected_of(steps)
    assert failures >= 2 * minutes
    assert len(bench.dead()) == sum(step.missed is None for step in steps)
    missed = [found[1] for record in records if (found := record.properties().get("missed"))]
    assert missed == [step.missed for step in steps if step.missed]


def test_a_row_may_be_refused_and_its_birth_counts(tmp_path: Path) -> None:
    """The entity refuses the birth's record; the messages after it have their names and types all the same."""
    strict = {**ROUTE, "entity": {"Motor/Speed": "int"}, "unknown": "ignore", "mismatch": "reject"}
    bench, node = Workbench(tmp_path, strict), EdgeNode({"": {}, "D": {"Motor/Speed": "Double"}})
    bench.send(*(Sent(*one) for one in (node.birth(), node.device_birth("D", bool, **{"Motor/Speed": 1.5}))))
    assert len(bench.dead()) == 1
    node.metrics = {"": {}, "D": {"Other": "Float", "Motor/Speed": "Int32"}}
    bench.send(Sent(*node.device_birth("D", bool, **{"Other": 1.5, "Motor/Speed": -12})))
    bench.send(Sent(*node.data("D", bool, **{"Motor/Speed": -13})))
    assert bench.sql("SELECT motor_speed FROM t WHERE motor_speed IS NOT NULL ORDER BY id") == [(-12,), (-13,)]


def test_dead_letters_from_before_the_birth_are_mended_by_it(tmp_path: Path) -> None:
    """As the log says: `dead replay`, after the birth."""
    bench, node = Workbench(tmp_path, ROUTE), EdgeNode(METRICS)
    bench.send(Sent(*node.data("belt", Speed=-12)), Sent(*node.data(Up=True)))
    assert [letter.step for letter in bench.dead()] == ["decode", "decode"]
    bench.send(Sent(*node.birth(Up=False)), Sent(*node.device_birth("belt", Speed=1)))
    before = bench.sql("SELECT * FROM mqtt_decoder_memory ORDER BY hash")
    assert [one.reason for one in replay(bench.url, routes(ROUTE))] == [None, None]
    assert bench.sql("SELECT speed, up FROM t ORDER BY id") == [(-12, None), (None, 1), (None, 0), (1, None)]
    assert bench.sql("SELECT * FROM mqtt_decoder_memory ORDER BY hash") == before
    assert "missed" not in bench.columns("t")
