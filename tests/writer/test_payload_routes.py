"""Routes that ignore, split, name by topic or look for times do so through the whole writer, and count it."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


KEYS = st.sampled_from(["a", "b", "t", "l", "name", "value", "v.w", "", "outside", "{x}"])
PLAIN = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["ON", "1,5", "7 V", "2026-01-01T00:00:00", "x"])
)
DATA = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=12
)
PAYLOADS = DATA.map(orjson.dumps) | st.sampled_from([b"", b"ON", b"\xff", b"[1", b'{"a": {"b": [{"t": 5}, {"t": 6}]}}'])
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "each": st.sampled_from(["", "l", "a.b", "{k}", "a.{k}.l", "a.b.t"]),
        "prefix": st.booleans(),
        "root": st.sampled_from(["a", "a.b", "value"]),
        "pairs": st.sampled_from(["l", {"list": "a.b", "name": "t", "value": "v"}]),
        "property": st.sampled_from(["{y}", "{x}.{y}", "{y}_{x}"]),
        "drop": st.lists(st.sampled_from(["a", "*.t", "b*", "l"]), max_size=2),
        "rename": st.dictionaries(st.sampled_from(["a", "a.b", "t"]), st.sampled_from(["b", "z", "a.c"]), max_size=2),
        "booleans": st.just({True: ["ON"], False: ["OFF"]}),
        "numbers": st.sampled_from(["text", ["comma", "unit"]]),
        "timezone": st.just("Europe/Berlin"),
        "time": st.sampled_from(["t", "a.t"]),
    },
)


@pytest.mark.slow
@settings(deadline=None)
@given(OPTIONS, st.lists(st.tuples(st.sampled_from(["s/1/p", "s/2/q", "s/1/q"]), PAYLOADS), max_size=8))
def test_whatever_is_sent_by_whatever_route_is_counted_once(
    options: dict[str, Any], sent: list[tuple[str, bytes]]
) -> None:
    """Every message is stored, dead or empty, and all models read back the same."""
    if "each" not in options:
        options.pop("prefix", None)
    found = []
    for model in ("wide", "eav", "document"):
        with TemporaryDirectory() as directory:
            bench = Workbench(Path(directory), {"topic": "s/{x}/{y}", "model": model, **options})
            for messages in (sent[:3], sent[3:]):
                if messages:
                    bench.send(*messages)
            counts = bench.counts().get("s/{x}/{y}", {})
            assert sum(counts.get(name, 0) for name in ("stored", "dead", "empty")) == len(sent)
            assert all(letter.payload in (b"[1",) for letter in bench.dead())
            records = [(one.id, one.part, one.time_us, one.data(), one.levels()) for one in bench.records()]
            found.append((counts, records))
            bench.close()
    assert found[0] == found[1] == found[2]
