"""Stored records are deleted and renamed: in steps, in every model, with all that belongs to them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from amqtt_db.reader.latest import latest
from amqtt_db.reader.topics import list_topics
from amqtt_db.testing.bench import PowerCut, power_cut
from amqtt_db.writer.deletion import Deleter, Doomed
from amqtt_db.writer.forgetting import forget_topics
from amqtt_db.writer.renaming import Renamer
from amqtt_db.writer.transaction import CheckpointMoved
from amqtt_db.writer.workshop import RewriteError, Workshop
from tests.database.engines.servers import Site
from tests.workbench import ARRIVAL, Sent, Workbench, routes

MODELS = ("wide", "eav", "document", "narrow")


@contextmanager
def workshop(bench: Workbench, *entries: dict[str, Any]) -> Iterator[Workshop]:
    """The tools on a bench's database."""
    shop = Workshop(bench.url, routes(*entries, url=bench.url))
    try:
        yield shop
    finally:
        shop.close()


def arrival(index: int) -> datetime:
    """When the message with an index arrives."""
    return datetime.fromtimestamp(ARRIVAL / 1_000_000 + index, timezone.utc)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_topics_are_deleted_and_forgotten(model: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """With their rows in every table, newest values and assignments; others stay, and the writer goes on."""
    monkeypatch.setattr("amqtt_db.writer.workshop.BATCH", 3)
    route = {"topic": "x/{room}", "model": model, "latest": True}
    bench = Workbench(site, route)
    bench.send(*((f"x/{'ab'[n % 2]}", {"n": n, "s": str(n)}) for n in range(10)))
    with workshop(bench, route) as shop:
        deleter = Deleter(shop, "x/a")
        assert deleter.find() == [Doomed("x/a", 5)]
        assert list(deleter.delete("x/a")) == [3, 2]
    assert [record.topic for record in bench.records()] == ["x/b"] * 5
    assert [one.topic for one in list_topics(bench.url)] == ["x/b"]
    assert [state.device for state in latest(bench.url)] == ["x/b"]
    late = bench.batch(Sent("x/a", {"n": 10}))
    with pytest.raises(CheckpointMoved):
        bench.store(late)
    bench.restart()
    bench.store(late)
    assert [record["n"] for record in bench.records("x/a")] == [10.0]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_what_is_older_than_a_time_is_deleted(model: str, tmp_path: Path) -> None:
    """The newest values of what stays are as they were; the topic keeps its assignment.

    So do payloads, but not those of messages whose records are gone, although these arrived later.
    """
    route = {"topic": "x/{room}", "model": model, "latest": True, "raw": True, "time": "at"}
    bench = Workbench(tmp_path, route)
    times = [arrival(second).isoformat() for second in (-200, 1, 2)]
    bench.send(("x/a", {"n": 0, "old": 1, "at": times[0]}), *(("x/a", {"n": n, "at": times[n]}) for n in (1, 2)))
    with workshop(bench, route) as shop:
        deleter = Deleter(shop, "#", arrival(-100))
        assert deleter.find() == [Doomed("x/a", 1)]
        assert sum(deleter.delete("x/a")) == 1
        assert deleter.find() == []
    assert [record["n"] for record in bench.records()] == [1.0, 2.0]
    assert bench.sql("SELECT count(*) FROM mqtt_raw") == [(2,)]
    (state,) = latest(bench.url)
    assert state.values["n"] == 2.0
    bench.send(("x/a", {"n": 3}))


@pytest.mark.parametrize("route", [{"latest": True}, {"latest": ["room"], "model": "eav"}], ids=str)
def test_newest_values_go_also_if_their_records_have_expired(route: dict[str, Any], site: Site) -> None:
    """And if the topic is forgotten; those of other topics stay."""
    route = {"topic": "x/{room}", "keep": "1 h", **route}
    bench = Workbench(site, route)
    bench.send(("x/b", {"n": 1}), ("x/a", {"n": 2}), ("x/c", {"n": 3}))
    bench.now += 8000
    bench.writer.retention.finish()
    assert bench.records() == []
    with workshop(bench, route) as shop:
        assert forget_topics(shop.engine, shop.catalog, shop.views, ["x/c"]) == ["x/c"]
        deleter = Deleter(shop, "#")
        assert deleter.find() == [Doomed(f"x/{room}", 0) for room in "ab"]
        assert list(deleter.delete("x/a")) == []
        assert deleter.find() == [Doomed("x/b", 0)]
    assert [(state.topic, state.values) for state in latest(bench.url)] == [("x/b", {"n": 1.0})]
    assert bench.sql("SELECT number_value FROM mqtt_latest_value WHERE number_value IS NOT NULL") == [(1.0,)]


def test_a_table_of_its_own_goes_with_the_topic(site: Site) -> None:
    """And its view; a table that topics share stays."""
    entries = {"topic": "own/+", "model": "wide"}, {"topic": "all/+", "model": {"wide": {"table": "shared"}}}
    bench = Workbench(site, *entries)
    bench.send(("own/a", {"n": 1}), ("all/a", {"n": 1}))
    bench.writer._views.finish()
    assert "n" in bench.columns("own_a_view")
    with workshop(bench, *entries) as shop:
        for topic in ("own/a", "all/a"):
            list(Deleter(shop, topic).delete(topic))
    with pytest.raises(Exception, match="own_a"):
        bench.sql("SELECT * FROM own_a")
    with pytest.raises(Exception, match="own_a"):
        bench.sql("SELECT * FROM own_a_view")
    assert bench.sql("SELECT * FROM shared") == []
    bench.restart()
    bench.send(("own/a", {"n": 2}), ("all/a", {"n": 2}))
    assert [record["n"] for record in bench.records()] == [2.0, 2.0]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_topic_is_renamed(model: str, site: Site) -> None:
    """Its records are where the new topic's route wants them, with its levels and newest values."""
    entries = {"topic": "new/{room}", "latest": True}, {"topic": "x/{room}", "model": model, "latest": True}
    bench = Workbench(site, *entries)
    bench.send(("x/a", {"n": 1, "s": "q"}), ("new/b", {"n": 2}), ("x/a", {"n": 3}), ("x/c", {"n": 4}))
    before = bench.records("x/a")
    with workshop(bench, *entries) as shop:
        assert list(Renamer(shop).rename("x/a", "new/b")) == [2]
    assert bench.records("x/a") == []
    after = bench.records("new/b")
    assert [record.id for record in after] == [before[0].id, bench.records()[1].id, before[1].id]
    assert [(record["n"], record.levels()) for record in after] == [(n, {"room": "b"}) for n in (1.0, 2.0, 3.0)]
    assert after[0].time == before[0].time
    assert {state.device: state.values["n"] for state in latest(bench.url)} == {"new/b": 3.0, "x/c": 4.0}


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_a_renaming_that_is_killed_goes_on(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At any time each record is there once, under one topic or the other."""
    monkeypatch.setattr("amqtt_db.writer.workshop.BATCH", 4)
    route = {"topic": "x/{room}", "model": model}
    bench = Workbench(tmp_path, route)
    bench.send(*(("x/a", {"n": n}) for n in range(10)), ("x/c", {"n": -1}))
    bench.close()
    for commits in range(50):
        with workshop(bench, route) as shop:
            try:
                with power_cut(bench.url, commits):
                    list(Renamer(shop).rename("x/a", "x/b"))
                break
            except PowerCut:
                shop.views._due.clear()
        assert [record["n"] for record in bench.records()] == [*map(float, range(10)), -1.0]
        if not bench.records("x/a"):
            break
    assert commits > 3
    assert [record["n"] for record in bench.records("x/b")] == list(map(float, range(10)))


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [("none", "x/b", "nothing is stored"), ("x/a", "y", "no route"), ("x/a", "x/+", "not another topic")],
)
def test_what_cannot_be_renamed(old: str, new: str, says: str, tmp_path: Path) -> None:
    """One line says why, and nothing changes."""
    bench = Workbench(tmp_path, {"topic": "x/+"})
    bench.send(("x/a", {"n": 1}))
    with workshop(bench, {"topic": "x/+"}) as shop, pytest.raises(RewriteError, match=says):
        list(Renamer(shop).rename(old, new))
    assert [record.topic for record in bench.records()] == ["x/a"]


def test_a_model_that_cannot_be_loaded_is_said_in_a_line(tmp_path: Path) -> None:
    """Nothing is deleted of its topic; others can be deleted."""
    bench = Workbench(tmp_path, {"topic": "x/+", "model": "eav"})
    bench.send(("x/a", {"n": 1}), ("x/b", {"n": 1}))
    bench.sql("""UPDATE mqtt_assignment SET model = '{"gone.Model": {}}' WHERE topic = 'x/a'""")
    with workshop(bench, {"topic": "x/+", "model": "eav"}) as shop:
        with pytest.raises(RewriteError, match="topic x/a is stored in a model that cannot be loaded"):
            Deleter(shop, "x/a").find()
        assert list(Deleter(shop, "x/b").delete("x/b")) == [1]
