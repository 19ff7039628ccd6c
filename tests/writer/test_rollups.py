"""`rollup:` on every engine: at any rest it equals the aggregate of the records, whatever happened before."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqtt_db.database.snapshot import open_snapshot
from amqtt_db.reader.plot_bins import Bins
from amqtt_db.reader.plot_data import Extremes, read_plot
from amqtt_db.reader.rollup import read_rollup
from amqtt_db.testing.servers import Servers
from amqtt_db.writer.redecoding import Redecoder
from amqtt_db.writer.remodel import Remodel
from amqtt_db.writer.renaming import Renamer
from amqtt_db.writer.workshop import Workshop
from tests.database.engines.servers import ENGINES, Site, make_site
from tests.workbench import Workbench, routes
from tests.writer.rollup_life import (
    EVENTS,
    HOUR,
    MINUTE,
    MODELS,
    START,
    Life,
    aggregate,
    make_route,
    require_exact,
)

ROOT = Path(__file__).parents[2]


def _settle(bench: Workbench, seconds: float | None = None) -> None:
    """Let the writer's time be so long after the start, and do everything that is due."""
    if seconds is not None:
        bench.now = START + seconds
    bench.writer.retention.finish()


def _said(second: float, **values: Any) -> tuple[str, dict[str, Any]]:
    return "t/a", {"at": START + second, **values}


@pytest.mark.slow
def test_a_rollup_equals_the_aggregate_of_the_records(site: Site) -> None:
    """Numbers and states, messages that come late, and again after a restart; another model on each engine.

    The last one, 5.5, is a multiple of the sum's last binary digit, so adding it rounds nothing.
    """
    model = MODELS[["sqlite", "postgresql", "mysql"].index(site.url.split(":")[0].split("+")[0])]
    bench = Workbench(site, make_route(model))
    first = [_said(10 * n, temp=n * 0.1, door=("open", "shut")[n // 20 % 2]) for n in range(100)]
    bench.send(*first)
    _settle(bench, 2 * HOUR)
    require_exact(bench.url, first)
    late = [_said(605, temp=-7.5, door="ajar"), _said(3 * HOUR, temp=1), _said(-9 * HOUR, door="shut")]
    bench.send(*late)
    bench.restart(make_route(model, keep="30 min"))
    _settle(bench, 4 * HOUR)
    assert len(bench.records()) == 0
    bench.send(_said(30 * MINUTE, temp=5.5))
    _settle(bench)
    require_exact(bench.url, sent := [*first, *late, _said(30 * MINUTE, temp=5.5)])
    _require_views(bench, sent)
    _require_plot(bench, sent)


def _require_plot(bench: Workbench, sent: list[tuple[str, dict[str, Any]]]) -> None:
    """A plot shows the extremes, although the records are gone."""
    bins = Bins((START - 9 * HOUR) * 1_000_000, 5 * MINUTE * 1_000_000, 12 * 12)
    with open_snapshot(bench.url) as snapshot:
        found = {series.path: series.bins for series in read_plot(snapshot, "t/a", bins).series}
    for path in ("temp", "door"):
        wanted: dict[int, Extremes] = {}
        for _, data in sent:
            number = bins.number_of(data["at"] * 1_000_000)
            if path in data and number < bins.count:
                here = Extremes(data[path], data[path])
                wanted[number] = wanted.get(number, here) | here
        assert found[path] == wanted


def _require_views(bench: Workbench, sent: list[tuple[str, dict[str, Any]]]) -> None:
    """The views show the same: numbers with their mean, states with the one that held when the interval began."""
    found = bench.sql("SELECT property, count, mean, min, max, first, last FROM t_5min WHERE property <> 'at'")
    wanted = [one for one in aggregate(sent, 5 * MINUTE) if one.min is not None]
    rows = [(one.path, one.count, one.mean, one.min, one.max, one.first, one.last) for one in wanted]
    assert sorted(found) == sorted(rows)
    states = bench.sql("SELECT topic, time, value, seconds FROM t_1h_states WHERE seconds > 0 ORDER BY time, value")
    both = [(value, seconds) for one in aggregate(sent, HOUR) for value, seconds in one.seconds.items()]
    assert [(value, float(seconds)) for _, _, value, seconds in states] == both


@pytest.mark.slow
def test_what_rewrites_records_is_followed(tmp_path: Path) -> None:
    """A replayed dead letter, another model, messages that are decoded again, and other steps."""
    old = make_route(
        raw=True, entity={"temp": "float", "load": "float", "mode": "float", "at": "float"}, mismatch="reject"
    )
    bench = Workbench(tmp_path, old)
    sent = [_said(60 * n, temp=n, load=-n) for n in range(20)]
    bench.send(*sent, bad := _said(630, mode="hot"))
    _settle(bench, HOUR)
    require_exact(bench.url, sent)
    now = {**old, "mismatch": "variant", "model": "narrow", "rollup": [{"every": "1 h"}, {"every": "5 min"}]}
    bench.restart(now)
    assert bench.writer.replay_one(bench.dead()[0].id) is None
    bench.send(said := _said(90, temp=3))
    remodel = Remodel(bench.url, routes(now))
    for move in remodel.moves():
        list(remodel.move(move))
    remodel.close()
    bench.restart()
    _settle(bench)
    require_exact(bench.url, [*sent, said, bad])
    bench.close()
    shop = Workshop(bench.url, routes(without := {**now, "drop": ["load"]}))
    redecoder = Redecoder(shop)
    list(redecoder.redecode(*redecoder.topics("#")))
    shop.close()
    bench.restart(without)
    _settle(bench)
    left = [(topic, {path: value for path, value in data.items() if path != "load"}) for topic, data in sent]
    require_exact(bench.url, [*left, said, bad])
    bench.restart({**without, "rollup": [{"every": "10 min"}]})
    _settle(bench)
    require_exact(bench.url, [*left, said, bad], 10 * MINUTE)
    assert list(read_rollup(bench.url, every="5 min")) == []


@pytest.mark.slow
def test_what_came_while_no_route_summed_up_is_summed_up_later(tmp_path: Path) -> None:
    """`rollup` was left out for a while, or another route was responsible; what was deleted meanwhile stays known."""
    on = make_route()
    off = {key: value for key, value in on.items() if key != "rollup"}
    bench = Workbench(tmp_path, on)
    bench.send(*(sent := [_said(0, temp=1), _said(400, temp=2)]))
    _settle(bench, HOUR)
    for number, between in enumerate(([off], [{"topic": "t/+", "time": "at"}, on], [{**off, "keep": "1 h"}])):
        bench.restart(*between)
        bench.send(*(more := [_said(100 + 5500 * number, temp=9), _said(5000 + 5500 * number, temp=4)]))
        sent += more
        _settle(bench, (2 + number) * HOUR)
        bench.restart(on)
        bench.send(said := _said(5100 + 5500 * number, temp=7))
        sent.append(said)
        _settle(bench)
        require_exact(bench.url, sent)
    assert len(bench.records()) < len(sent)


@pytest.mark.slow
def test_sums_follow_a_route_whose_filter_changes(tmp_path: Path) -> None:
    """With another filter and without `rollup` it let records expire; what they amounted to belongs to it now."""
    on, other = make_route(), make_route(topic="t/+")
    bench = Workbench(tmp_path, on)
    bench.send(*(sent := [_said(0, temp=1), _said(400, temp=2)]))
    _settle(bench, HOUR)
    bench.restart({**{key: value for key, value in other.items() if key != "rollup"}, "keep": "1 h"})
    bench.send(said := _said(5 * HOUR, temp=3))
    _settle(bench, 5 * HOUR)
    assert len(bench.records()) == 1
    bench.restart(other)
    bench.send(more := _said(5 * HOUR + 10, temp=4))
    _settle(bench)
    require_exact(bench.url, [*sent, said, more])
    assert bench.sql("SELECT DISTINCT route FROM mqtt_rollup_series") == [("t/+",)]


@pytest.mark.slow
def test_nothing_is_summed_up_again_from_a_part_of_it(site: Site) -> None:
    """`keep` without `rollup` deletes whole intervals of what has been summed up, so it leaves no part of one."""
    on = make_route()
    bench = Workbench(site, on)
    bench.send(*(sent := [_said(20 * n, temp=n, door="open") for n in range(60)]))
    _settle(bench, HOUR)
    bench.restart({**{key: value for key, value in on.items() if key != "rollup"}, "keep": "1 h"})
    _settle(bench, HOUR + 450)
    assert len(bench.records()) == 45
    bench.restart(on)
    _settle(bench)
    require_exact(bench.url, sent)


def test_a_longer_step_is_added_when_short_intervals_are_gone(tmp_path: Path) -> None:
    """Where these end within one of its intervals, that is summed up from the records."""
    short = {"every": "5 min", "keep": "1 h"}
    bench = Workbench(tmp_path, make_route(rollup=[short]))
    bench.send(*(sent := [_said(100 * n, temp=n, door="open") for n in range(72)]))
    _settle(bench, 2 * HOUR + 400)
    bench.restart(make_route(rollup=[short, {"every": "1 h"}]))
    bench.send(said := _said(200, temp=100))
    _settle(bench)
    require_exact(bench.url, [*sent, said], HOUR)


def test_states_of_two_topics_become_one(tmp_path: Path) -> None:
    """When their records are gone, nobody knows what held when: the states of the renamed topic are as if said late."""
    route = make_route(keep="30 min")
    bench = Workbench(tmp_path, route)
    doors = {"t/a": [(0, "open"), (60, "shut"), (4000, "open")], "t/b": [(30, "ajar"), (90, "open")]}
    bench.send(*((topic, {"at": START + at, "door": door}) for topic, some in doors.items() for at, door in some))
    _settle(bench, 4 * HOUR)
    assert not bench.records()
    bench.close()
    shop = Workshop(bench.url, routes(route, url=bench.url))
    assert list(Renamer(shop).rename("t/a", "t/b")) == []
    shop.close()
    bench.open()
    _settle(bench)
    found = [one for one in read_rollup(bench.url, every="1 h") if one.path == "door"]
    assert [(one.topic, one.count, one.first, one.last) for one in found] == [
        ("t/b", 4, "open", "open"),
        ("t/b", 1, "open", "open"),
    ]
    assert [one.seconds for one in found] == [{"ajar": 60.0, "open": 3540.0}, {"open": 3600.0}]


def test_the_first_interval_may_begin_before_time(tmp_path: Path) -> None:
    """Intervals are counted from 1970, so the first one of the year 1 is not whole."""
    bench = Workbench(tmp_path, {**make_route(entity={"at": "datetime"}), "rollup": [{"every": "7 s"}]})
    bench.send(*(("t/a", {"at": f"0001-01-01T00:00:0{second}Z", "temp": second}) for second in (0, 3, 5)))
    _settle(bench, HOUR)
    found = [(one.time.second, one.count, one.max) for one in read_rollup(bench.url, every="7 s") if one.path == "temp"]
    assert found == [(0, 2, 3.0), (4, 1, 5.0)]


@pytest.mark.slow
def test_a_writer_that_is_killed_while_it_sums_up(site: Site) -> None:
    """`kill -9` between notes, sums and deletions, again and again: nothing is lost, and nothing counts twice."""
    bench = Workbench(site, route := make_route("narrow", keep="2 h"))
    sent = [_said(40 * n, temp=n * 0.5, door=("open", "shut")[n // 15 % 2]) for n in range(450)]
    for part in (sent[200:], sent[:100], sent[100:200]):
        bench.send(*part)
    bench.now = START + 5 * HOUR
    bench.close()
    command = [sys.executable, "-m", "tests.writer.killed_upkeep", bench.url, json.dumps(route), str(bench.now), "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    assert int(done.stdout) >= 2
    bench.open()
    bench.send(*(late := [_said(30, temp=-7.5), _said(4 * HOUR, temp=1)]))
    _settle(bench)
    assert len(bench.records()) < len(sent)
    require_exact(bench.url, [*sent, *late])


_EXAMPLES = max(1, settings().max_examples // 5)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
@settings(max_examples=_EXAMPLES, deadline=None)
@given(events=EVENTS, model=st.sampled_from(MODELS))
def test_rollups_are_exact_whatever_happens(
    servers: Servers, engine: str, events: list[tuple[Any, ...]], model: str
) -> None:
    """Late records, also of intervals whose records have expired, restarts, deletions, renamings, copies."""
    with TemporaryDirectory() as directory, make_site(servers, engine, Path(directory)) as site:
        life = Life(site, model=model)
        try:
            for name, *given_ in events:
                getattr(life, name)(*given_)
            life.check()
        finally:
            life.close()
