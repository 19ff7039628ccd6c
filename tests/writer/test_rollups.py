"""`rollup:` on every engine: at any rest it equals the aggregate of the records, whatever happened before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from itertools import islice
from math import fsum
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqtt_db.database.snapshot import open_snapshot
from amqtt_db.reader.plot_bins import Bins
from amqtt_db.reader.plot_data import Extremes, read_plot
from amqtt_db.reader.rollup import RollupInterval, read_rollup
from amqtt_db.writer.deletion import Deleter
from amqtt_db.writer.redecoding import Redecoder
from amqtt_db.writer.remodel import Remodel
from amqtt_db.writer.renaming import Renamer
from amqtt_db.writer.workshop import RewriteError, Workshop
from tests.database.engines.servers import Site
from tests.workbench import ARRIVAL, Workbench, routes

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


def _aggregate(sent: list[tuple[str, dict[str, Any]]], every: int) -> Iterator[RollupInterval]:
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
            yield RollupInterval(
                topic, path, _time(start), len(here), here[0], here[-1], fsum(here), min(here), max(here)
            )


def _states(topic: str, path: str, values: list[tuple[float, int, str]], every: int) -> Iterator[RollupInterval]:
    """Yield how long each state held; in an interval without a message nothing is said."""
    for start in sorted({at // every * every for at, _, _ in values}):
        here = [(at, value) for at, _, value in values if start <= at < start + every]
        before = [(start, value) for at, _, value in values if at < start][-1:]
        lengths: dict[str, float] = {}
        for (at, value), (until, _) in zip([*before, *here], [*before, *here, (start + every, "")][1:], strict=True):
            lengths[value] = lengths.get(value, 0) + until - at
        seconds = {value: length for value, length in sorted(lengths.items()) if length}
        yield RollupInterval(topic, path, _time(start), len(here), here[0][1], here[-1][1], seconds=seconds)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _require_exact(bench: Workbench, sent: list[tuple[str, dict[str, Any]]], *steps: int) -> None:
    for every in steps or (5 * MINUTE, HOUR):
        found = [one for one in read_rollup(bench.url, every=timedelta(seconds=every)) if one.path != "at"]
        assert found == list(_aggregate(sent, every))


@pytest.mark.slow
def test_a_rollup_equals_the_aggregate_of_the_records(site: Site) -> None:
    """Numbers and states, messages that come late, and again after a restart; another model on each engine."""
    model = MODELS[["sqlite", "postgresql", "mysql"].index(site.url.split(":")[0].split("+")[0])]
    bench = Workbench(site, _route(model))
    first = [_said(10 * n, temp=n * 0.1, door=("open", "shut")[n // 20 % 2]) for n in range(100)]
    bench.send(*first)
    _settle(bench, 2 * HOUR)
    _require_exact(bench, first)
    late = [_said(605, temp=-7.5, door="ajar"), _said(3 * HOUR, temp=1), _said(-9 * HOUR, door="shut")]
    bench.send(*late)
    bench.restart(_route(model, keep="30 min"))
    _settle(bench, 4 * HOUR)
    assert len(bench.records()) == 0
    bench.send(_said(30 * MINUTE, temp=5.5))
    _settle(bench)
    _require_exact(bench, sent := [*first, *late, _said(30 * MINUTE, temp=5.5)])
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
    wanted = [one for one in _aggregate(sent, 5 * MINUTE) if one.min is not None]
    rows = [(one.path, one.count, one.mean, one.min, one.max, one.first, one.last) for one in wanted]
    assert sorted(found) == sorted(rows)
    states = bench.sql("SELECT topic, time, value, seconds FROM t_1h_states WHERE seconds > 0 ORDER BY time, value")
    both = [(value, seconds) for one in _aggregate(sent, HOUR) for value, seconds in one.seconds.items()]
    assert [(value, float(seconds)) for _, _, value, seconds in states] == both


@pytest.mark.slow
def test_what_rewrites_records_is_followed(tmp_path: Path) -> None:
    """A replayed dead letter, another model, messages that are decoded again, and other steps."""
    old = _route(raw=True, entity={"temp": "float", "load": "float", "mode": "float", "at": "float"}, mismatch="reject")
    bench = Workbench(tmp_path, old)
    sent = [_said(60 * n, temp=n, load=-n) for n in range(20)]
    bench.send(*sent, bad := _said(630, mode="hot"))
    _settle(bench, HOUR)
    _require_exact(bench, sent)
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
    _require_exact(bench, [*sent, said, bad])
    bench.close()
    shop = Workshop(bench.url, routes(without := {**now, "drop": ["load"]}))
    redecoder = Redecoder(shop)
    list(redecoder.redecode(*redecoder.topics("#")))
    shop.close()
    bench.restart(without)
    _settle(bench)
    left = [(topic, {path: value for path, value in data.items() if path != "load"}) for topic, data in sent]
    _require_exact(bench, [*left, said, bad])
    bench.restart({**without, "rollup": [{"every": "10 min"}]})
    _settle(bench)
    _require_exact(bench, [*left, said, bad], 10 * MINUTE)
    assert list(read_rollup(bench.url, every="5 min")) == []


class _Life:
    """A database with rollups and two writers, and a plain list of the messages that they must equal."""

    def __init__(self, directory: Path, **more: Any) -> None:
        self.route = _route(keep="2 h", **more)
        self.bench = Workbench(directory, self.route)
        self.other = Workbench(directory, self.route, token="b")
        self.sent: list[tuple[str, dict[str, Any]]] = []
        self.count = 0

    def send(self, topic: str, minutes: list[int], writer: str) -> None:
        """Store a message for each of some minutes, no two at the same time."""
        said = []
        for minute in minutes:
            self.count += 1
            at = START + minute * 60 + self.count / 1024
            said.append((topic, {"at": at, "temp": float(minute % 7 - 3), "load": minute}))
        getattr(self, writer).send(*said)
        self.sent += said

    def settle(self, hours: int) -> None:
        """Let time pass, delete records that are too old, and compare."""
        self.bench.now = max(self.bench.now, START + hours * HOUR)
        self.check()

    def restart(self, steps: int) -> None:
        """Let a writer die after some steps of its upkeep; a new one starts."""
        with self.bench.writer._engine.maintenance(self.bench.writer._database) as is_mine:
            assert is_mine
            deque(islice(self.bench.writer.retention._round(everything=True), steps), 0)
        self.bench.restart()

    def delete(self, topic: str, hours: int | None) -> None:
        """Delete a topic, or what is older than a time."""
        with_before = None if hours is None else _time(START + hours * HOUR)
        end = float("inf") if hours is None else START + hours * HOUR
        with self.workshop() as shop:
            list(Deleter(shop, topic, with_before).delete(topic))
        self.sent = [one for one in self.sent if one[0] != topic or one[1]["at"] >= end]
        self.check()

    def rename(self, _: int) -> None:
        """Give what is stored of one topic the name of the other."""
        if any(topic == "t/a" for topic, _ in self.sent):
            with self.workshop() as shop:
                try:
                    list(Renamer(shop).rename("t/a", "t/b"))
                except RewriteError:  # nothing is left of it but what it amounts to
                    return
            self.sent = [("t/b", data) for _, data in self.sent]
            self.check()

    @contextmanager
    def workshop(self) -> Iterator[Workshop]:
        """Open the database to rewrite what it has; the writer stops meanwhile."""
        self.close()
        shop = Workshop(self.bench.url, routes(self.route, url=self.bench.url))
        try:
            yield shop
        finally:
            shop.close()
            self.bench.open()
            self.other.open()

    def close(self) -> None:
        """Stop both writers."""
        self.bench.close()
        self.other.close()

    def check(self) -> None:
        """Compare, when everything that is due is done."""
        self.bench.writer.retention.finish()
        _require_exact(self.bench, self.sent)


TOPIC = st.sampled_from(["t/a", "t/b"])
EVENT = st.one_of(
    st.tuples(
        st.just("send"),
        TOPIC,
        st.lists(st.integers(-60, 360), min_size=1, max_size=6),
        st.sampled_from(["bench", "other"]),
    ),
    st.tuples(st.just("settle"), st.integers(0, 8)),
    st.tuples(st.just("restart"), st.integers(0, 12)),
    st.tuples(st.just("delete"), TOPIC, st.none() | st.integers(0, 4)),
    st.tuples(st.just("rename"), st.just(0)),
)


@pytest.mark.slow
@settings(max_examples=6, deadline=None)
@given(events=st.lists(EVENT, min_size=2, max_size=8), model=st.sampled_from(MODELS))
def test_rollups_are_exact_whatever_happens(events: list[tuple[Any, ...]], model: str) -> None:
    """Late records, also of intervals whose records have expired, restarts, deletions, renamings."""
    with TemporaryDirectory() as directory:
        life = _Life(Path(directory), model=model)
        try:
            for name, *given_ in events:
                getattr(life, name)(*given_)
            life.check()
        finally:
            life.close()
