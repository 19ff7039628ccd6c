"""`rollup:` on every engine: at any rest it equals the aggregate of the records, whatever happened before."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from math import fsum
from typing import Any

import pytest

from amqtt_db.reader.rollup import Interval, read_rollup
from tests.database.engines.servers import Site
from tests.workbench import ARRIVAL, Workbench

MINUTE, HOUR = 60, 3600
START = ARRIVAL // 1_000_000 // HOUR * HOUR
"""The hour of the first arrival, in seconds since 1970."""

MODELS = ("wide", "eav", "narrow", "document")


def _route(model: Any = "wide", **more: Any) -> dict[str, Any]:
    return {"topic": "t/#", "model": model, "time": "at", "rollup": [{"every": "5 min"}, {"every": "1 h"}], **more}


def _settle(bench: Workbench, seconds: float | None = None) -> None:
    """Let the writer's time be so long after the start, and do everything that is due."""
    if seconds is not None:
        bench.now = START + seconds
    bench.writer.retention.finish()


def _said(second: float, **values: Any) -> tuple[str, dict[str, Any]]:
    return "t/a", {"at": START + second, **values}


def _aggregate(sent: list[tuple[str, dict[str, Any]]], every: int) -> Iterator[Interval]:
    """Yield the intervals that messages amount to, each computed in the plainest way."""
    for topic, path in sorted({(topic, path) for topic, data in sent for path in data if path != "at"}):
        values = sorted(
            ((data["at"], number, data[path]) for number, (of, data) in enumerate(sent) if of == topic and path in data)
        )
        if not values:
            continue
        if isinstance(values[0][2], str):
            yield from _states(topic, path, values, every)
            continue
        for start in sorted({at // every * every for at, _, _ in values}):
            here = [float(value) for at, _, value in values if start <= at < start + every]
            yield Interval(topic, path, _time(start), len(here), here[0], here[-1], fsum(here), min(here), max(here))


def _states(topic: str, path: str, values: list[tuple[float, int, str]], every: int) -> Iterator[Interval]:
    """Yield how long each state held; in an interval without a message nothing is said."""
    for start in sorted({at // every * every for at, _, _ in values}):
        here = [(at, value) for at, _, value in values if start <= at < start + every]
        before = [(start, value) for at, _, value in values if at < start][-1:]
        lengths: dict[str, float] = {}
        for (at, value), (until, _) in zip([*before, *here], [*before, *here, (start + every, "")][1:], strict=True):
            lengths[value] = lengths.get(value, 0) + until - at
        seconds = {value: length for value, length in sorted(lengths.items()) if length}
        yield Interval(topic, path, _time(start), len(here), here[0][1], here[-1][1], seconds=seconds)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _require_exact(bench: Workbench, sent: list[tuple[str, dict[str, Any]]]) -> None:
    for every in (5 * MINUTE, HOUR):
        found = [one for one in read_rollup(bench.url, every=timedelta(seconds=every)) if one.path != "at"]
        assert found == list(_aggregate(sent, every))


@pytest.mark.parametrize("model", MODELS)
def test_a_rollup_equals_the_aggregate_of_the_records(model: str, site: Site) -> None:
    """Numbers and states, messages that come late, and again after a restart."""
    bench = Workbench(site, _route(model))
    first = [_said(10 * n, temp=n * 0.1, door=("open", "shut")[n // 20 % 2]) for n in range(100)]
    bench.send(*first)
    _settle(bench, 2 * HOUR)
    _require_exact(bench, first)
    late = [_said(605, temp=-7.5, door="ajar"), _said(3 * HOUR, temp=1), _said(-9 * HOUR, door="shut")]
    bench.send(*late)
    bench.restart()
    _settle(bench)
    _require_exact(bench, first + late)
