"""Routes that ignore, split, name by topic or look for times do so through the whole writer, and count it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings

from amqtt_db.testing import payload_routes
from amqtt_db.writer.replay import replay
from tests.workbench import Workbench, routes


def test_a_route_that_stores_nothing_counts_what_it_ignores(tmp_path: Path) -> None:
    """Later routes do not get its topics; dead letters of the time before it stay."""
    bench = Workbench(tmp_path, {"topic": "#", "decode": "json"})
    bench.send(("config/a", b"no json"))
    (result,) = replay(bench.url, routes({"topic": "config/#", "store": False}, {"topic": "#"}))
    assert result.reason == "its route has `store: false`"
    (tmp_path / "other").mkdir()
    other = Workbench(tmp_path / "other", {"topic": "config/#", "store": False}, {"topic": "#"})
    other.send(("config/a", {"a": 1}), ("config", b"x"), ("b", {"b": 1}))
    assert other.counts() == {"config/#": {"ignored": 2}, "#": {"stored": 1, "records": 1}}
    assert [record.topic for record in other.records()] == ["b"]


def test_a_time_that_is_missing_is_counted(tmp_path: Path) -> None:
    """Absent, null and absurd ones, typed together or alone; the arrival is taken."""
    bench = Workbench(tmp_path, {"topic": "a", "time": "t"}, {"topic": "b"})
    bench.send(("a", {"t": 100}), ("a", {"t": None}), ("a", {"n": {"m": 1}}), ("a", {"t": "soon"}), ("b", {"n": 1}))
    assert bench.counts()["a"]["time_missing"] == 3
    assert "time_missing" not in bench.counts()["b"]
    assert next(record.time_us for record in bench.records("a")) == 100_000_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "data"),
    [
        ({"each": "l"}, {"t": 5, "l": [{"t": 1}, {"v": 1}]}),
        ({"each": "l", "prefix": False}, {"t": 5, "l": [{"t": 1}, {"v": 1}]}),
        ({"each": "{k}"}, {"t": 5, "a": {"t": 1}, "b": {"v": 1}}),
    ],
)
def test_an_items_own_time_comes_first(options: dict[str, Any], data: dict[str, Any], tmp_path: Path) -> None:
    """An item without one has the message's."""
    bench = Workbench(tmp_path, {"topic": "a", "time": "t", **options})
    bench.send(("a", data))
    assert [record.time_us for record in sorted(bench.records(), key=lambda one: one.part)] == [1_000_000, 5_000_000]


def test_topics_of_a_device_share_its_table_and_view(tmp_path: Path) -> None:
    """Also those of several routes; each value is in the column of its name, and the route's levels stay."""
    bench = Workbench(
        tmp_path,
        {"topic": "s/{device}/{name}", "property": "{name}"},
        {"topic": "s/{device}/{channel}/{name}", "property": "{channel}.{name}"},
    )
    bench.send(("s/a/on", b"true"), ("s/a/0/v", b"1.5"), ("s/b/on", b"no"), ("s/a/on", b"half"))
    bench.writer.do_idle_work()
    for place in ("s_a", "s_a_view"):
        rows = bench.sql(f"SELECT device, on_, on__text, _0_v FROM {place} ORDER BY id")
        assert rows == [("a", 1, None, None), ("a", None, None, 1.5), ("a", None, "half", None)]
    assert [record.topic for record in bench.records("s/a/#")] == ["s/a/on", "s/a/0/v", "s/a/on"]
    assert [record.data() for record in bench.records("s/b/+")] == [{"on": "no"}]
    counts = bench.counts()
    assert counts["s/{device}/{name}"] == {"stored": 3, "records": 3}
    assert counts["s/{device}/{channel}/{name}"] == {"stored": 1, "records": 1}


def test_many_topics_of_few_devices_need_few_tables(tmp_path: Path) -> None:
    """``max_tables`` counts tables, not topics."""
    bench = Workbench(tmp_path, {"topic": "s/{device}/{name}", "property": "{name}", "max_tables": 2})
    bench.send(*((f"s/{number % 2}/p{number}", b"1") for number in range(40)))
    tables = bench.sql("SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 's\\_%' ESCAPE '\\'")
    assert sorted(tables) == [("s_0",), ("s_1",)]


def test_declared_properties_say_how_they_are_read(tmp_path: Path) -> None:
    """Another path, a scale, a unit, a comma, and words for values; a value that cannot be read is a mismatch."""
    entity = {
        "temp": {"type": "float", "from": "AM2301.Temperature", "scale": 0.1, "offset": -1},
        "power": {"type": "float", "unit": "W"},
        "price": {"type": "float", "comma": True},
        "count": {"type": "int", "text": True},
        "open": {"type": "bool", True: ["ON"], False: ["OFF", "shut"]},
        "mode": {"type": "str", "map": {0: "idle", 1: "heating"}},
        "inner": {"level": {"type": "float", "scale": 100}},
    }
    bench = Workbench(tmp_path, {"topic": "#", "entity": entity})
    bench.send(
        ("t", {"AM2301": {"Temperature": 215, "Humidity": 50}, "power": "12.5 W", "price": "1,5", "count": "7",
               "open": "ON", "mode": 1, "inner": {"level": 0.25}}),
        ("t", {"power": "12 kW", "open": "shut", "mode": 5, "count": 3}),
    )  # fmt: skip
    first, second = bench.data()
    assert first == {
        "temp": 20.5, "power": 12.5, "price": 1.5, "count": 7, "open": True, "mode": "heating",
        "inner": {"level": 25.0}, "AM2301": {"Humidity": 50.0},
    }  # fmt: skip
    assert second == {"power": "12 kW", "open": False, "mode": 5.0, "count": 3}
    assert bench.dead() == []


@pytest.mark.slow
@settings(deadline=None)
@given(payload_routes.route_keys(), payload_routes.published())
def test_whatever_is_sent_by_whatever_route_is_counted_once(
    keys: dict[str, Any], sent: list[payload_routes.Published]
) -> None:
    """Every message is stored, dead, empty or unchanged; only a broken one is a dead letter."""
    with TemporaryDirectory() as directory:
        bench = Workbench(Path(directory), {"topic": "s/{x}/{y}", "model": "wide", **keys})
        for messages in (sent[:3], sent[3:]):
            if messages:
                bench.send(*((one.topic, one.body) for one in messages))
        counts = bench.counts().get("s/{x}/{y}", {})
        assert sum(counts.get(name, 0) for name in ("stored", "dead", "empty", "unchanged")) == len(sent)
        assert all(letter.payload == b"[1" for letter in bench.dead())
        bench.close()
