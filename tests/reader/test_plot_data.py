"""What a plot shows of each property: the same from every model, on every engine."""

from __future__ import annotations

import math
from typing import Any

import pytest

from amqtt_db.database.snapshot import open_snapshot
from amqtt_db.reader.bin_sql import DEPTH
from amqtt_db.reader.plot_bins import NUMERIC, Bins
from amqtt_db.reader.plot_data import Extremes, PlotData, read_plot
from amqtt_db.record import Record
from tests.database.engines.servers import Site
from tests.workbench import ARRIVAL, Workbench

MODELS: dict[str, Any] = {
    "own": "wide",
    "shared": {"wide": {"table": "shared"}},
    "eav": "eav",
    "narrow": "narrow",
    "document": "document",
}
ENTITY = {"whole": "int", "price": "decimal", "unit": "str", "on": "bool", "day": "date"}


def payload(number: int) -> dict[str, Any]:
    """Values of every kind; some are absent now and then."""
    values = {"temp": math.sin(number / 7), "whole": number, "big": 2**70 + number, "price": f"{number}.25"}
    states = {"on": number % 9 < 4, "unit": "lab" if number % 20 < 10 else "roof", "day": "2026-01-31", "list": [1]}
    return {**values, **states, "deep": {"n": -number}} if number % 5 else {"temp": float(number), "mixed": "text"}


def plotted(url: str, bins: Bins, topic: str) -> PlotData:
    """The plot of a topic."""
    with open_snapshot(url) as snapshot:
        return read_plot(snapshot, topic, bins)


def expected(records: list[Record], bins: Bins) -> dict[tuple[str, bool], dict[int, Extremes]]:
    """The extremes, found record by record."""
    found: dict[tuple[str, bool], dict[int, Extremes]] = {}
    for record in records:
        number = bins.number_of(record.time_us)
        for path, (kind, value) in record.properties().items():
            if 0 <= number < bins.count and kind in {*NUMERIC, "bool", "text"} and not path.startswith("{"):
                shown = float(value) if kind in NUMERIC else value
                series = found.setdefault((path, kind in NUMERIC), {})
                series[number] = series.get(number, Extremes(shown, shown)) | Extremes(shown, shown)
    return found


@pytest.mark.slow
def test_a_plot_shows_the_extremes(site: Site) -> None:
    """From each model: of every bin and property, and of no other topic; nothing before or after its time."""
    routes = [
        {"topic": f"{name}/+", "model": model, "entity": ENTITY, "unknown": "add"} for name, model in MODELS.items()
    ]
    bench = Workbench(site, *routes)
    for number in range(0, 100, 50):
        bench.send(*((f"{name}/{one % 3}", payload(one)) for one in range(number, number + 50) for name in MODELS))
    bins = Bins.between(ARRIVAL + 50_000_000, ARRIVAL + 450_000_000, 37)
    for name in MODELS:
        found = plotted(site.url, bins, f"{name}/1")
        assert not found.is_sampled
        series = {(one.path, one.is_numeric): one.bins for one in found.series}
        assert series == expected(bench.records(f"{name}/1"), bins), name
        assert {"temp", "whole", "big", "price", "deep.n"} == {path for path, is_numeric in series if is_numeric}
        assert {"on", "unit", "mixed"} == {path for path, is_numeric in series if not is_numeric}


@pytest.mark.parametrize("model", ["wide", "eav", "narrow"])
def test_a_full_bin_says_so(model: str, tmp_path: Any) -> None:
    """What has more records than are read is marked, and what was read is shown."""
    bench = Workbench(tmp_path, {"topic": "#", "model": model})
    bench.send(*(("a", {"n": number}) for number in range(DEPTH + 50)))
    found = plotted(bench.url, Bins.between(ARRIVAL, ARRIVAL + 3_600_000_000, 2), "a")
    assert found.is_sampled
    assert found.series[0].bins == {0: Extremes(0.0, float(DEPTH - 1))}


def test_documents_are_sampled_if_there_are_many(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of every bin are read."""
    monkeypatch.setattr("amqtt_db.reader.plot_data._FEW", 100)
    bench = Workbench(tmp_path, {"topic": "#", "model": "document"})
    bench.send(*(("a", {"n": number}) for number in range(300)))
    found = plotted(bench.url, Bins.between(ARRIVAL, ARRIVAL + 299_000_000, 10), "a")
    assert found.is_sampled
    assert [one.low for one in found.series[0].bins.values()] == pytest.approx(range(0, 300, 30), abs=1)


def test_old_and_new_models_are_plotted_together(tmp_path: Any) -> None:
    """A topic whose route has got another model has one curve."""
    bench = Workbench(tmp_path, {"topic": "#", "model": "wide"})
    bench.send(("a", {"n": 1}), ("a", {"n": 2}))
    bench.restart({"topic": "#", "model": "narrow"})
    bench.send(("a", {"n": 3}), ("a", {"n": 4}))
    (series,) = plotted(bench.url, Bins.between(ARRIVAL, ARRIVAL + 3_000_000, 2), "a").series
    assert series.bins == {0: Extremes(1.0, 2.0), 1: Extremes(3.0, 4.0)}


def test_what_cannot_be_compared_is_plotted(postgresql: Site) -> None:
    """A property that is true or false at one time and text at another; a number beyond all doubles is left out."""
    bench = Workbench(postgresql)
    bench.send(("t", {"v": True}), ("t", {"v": "hot"}), ("t", {"n": 10**400}), ("t", {"n": -(10**30)}))
    found = {one.path: one.bins for one in plotted(bench.url, Bins(ARRIVAL, 3_600_000_000, 1), "t").series}
    assert found == {"v": {0: Extremes(True, "hot")}, "n": {0: Extremes(-1e30, -1e30)}}
