"""``latest``: the newest value of each property of a device, whatever the model, the engine and the order."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db import latest
from amqtt_db.config import load_section
from amqtt_db.errors import ConfigError, DatabaseError
from amqtt_db.reader.latest import DeviceState
from amqtt_db.record import Record
from amqtt_db.writer.deletion import Deleter
from amqtt_db.writer.fill_latest import fill_latest, refill_latest
from amqtt_db.writer.workshop import Workshop
from tests.database.engines.servers import Site
from tests.workbench import Sent, Workbench

MODELS: list[Any] = ["wide", {"wide": {"table": "climate"}}, "eav", "narrow", "document"]
ODD = (1, 2.5, -0.0, float("nan"), 2**70, True, "on", "2026-01-01", [1, "x"], {"y": 1}, None)

Newest = dict[str, dict[str, tuple[datetime, str]]]


def newest_of(records: Iterable[Record], device: str) -> Newest:
    """What the stored records say: by device and path the time and the value of the newest one that has it."""
    found: Newest = {}
    for record in sorted(records, key=lambda one: (one.time_us, one.id, one.part)):
        name = record.topic if device == "topic" else record.levels()[device]
        for path, (kind, value) in record.properties().items():
            if not path.startswith("{"):
                found.setdefault(name, {})[path] = record.time, repr((kind, value))
    return found


def as_stored(states: Iterable[DeviceState]) -> Newest:
    """The same from the tables of newest values."""
    return {
        state.device: {path: (state.times[path], repr(pair)) for path, pair in state.properties.items()}
        for state in states
        if state.properties
    }


def odd_messages(seed: int, count: int) -> list[Sent]:
    """Messages of three rooms, a third of them late, with values of all sorts under few names."""
    chance = random.Random(seed)
    return [
        Sent(
            f"home/{chance.choice(['a', 'b', 'c'])}/climate",
            {
                "at": number - chance.choice([0, 0, 7]),
                **{name: chance.choice(ODD) for name in chance.sample("xyzw", 2)},
            },
        )
        for number in range(10, 10 + count)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_newest_values_are_those_of_the_records(model: Any, site: Site) -> None:
    """Late messages, odd values, changing kinds, several batches, a restart, and the same messages once more."""
    route = {"topic": "home/{room}/climate", "model": model, "time": "at", "latest": True}
    bench = Workbench(site, route)
    messages = odd_messages(3, 60)
    for first in range(0, 60, 20):
        bench.send(*messages[first : first + 20])
        bench.restart()
    expected = newest_of(bench.records(), "topic")
    assert len(expected) == 3
    assert as_stored(latest(bench.url)) == expected
    assert as_stored(latest(bench.url, "home/a/#")) == {"home/a/climate": expected["home/a/climate"]}
    assert not bench.dead()


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_the_view_shows_a_row_per_device(model: Any, site: Site) -> None:
    """With the columns of the route's view, whatever the model."""
    bench = Workbench(site, {"topic": "home/{room}/climate", "model": model, "latest": True})
    bench.send(
        ("home/a/climate", {"temp": 1.5, "rh": 40}), ("home/b/climate", {"temp": 2.5}), ("home/a/climate", {"temp": 3})
    )
    bench.writer.finish_views(lambda: False)
    name = "climate_latest" if isinstance(model, dict) else "home_room_climate_latest"
    assert bench.sql(f"SELECT topic, room, temp, rh FROM {name} ORDER BY topic") == [
        ("home/a/climate", "a", 3.0, 40.0),
        ("home/b/climate", "b", 2.5, None),
    ]
    bench.send(("home/b/climate", {"fresh": "x"}))
    bench.writer.finish_views(lambda: False)
    assert bench.sql(f"SELECT room, temp, fresh FROM {name} ORDER BY topic") == [("a", 3.0, None), ("b", 2.5, "x")]


@pytest.mark.parametrize("model", ["wide", "eav"])
def test_a_property_per_topic_makes_a_row_per_device(model: str, site: Site) -> None:
    """The device is the topic without the level that names the property."""
    route = {"topic": "sh/{device}/{name}", "property": "{name}", "model": model, "latest": True}
    bench = Workbench(site, route)
    bench.send(("sh/a/temp", b"21.5"), ("sh/a/state", b"on"), ("sh/b/temp", b"3"), ("sh/a/temp", b"22"))
    bench.writer.finish_views(lambda: False)
    assert bench.sql("SELECT device, temp, state FROM sh_device_name_latest ORDER BY 1") == [
        ("a", 22.0, "on"),
        ("b", 3.0, None),
    ]
    assert [(state.device, state.topic, state.values) for state in latest(bench.url)] == [
        ("sh/a", "sh/a/temp", {"state": "on", "temp": 22.0}),
        ("sh/b", "sh/b/temp", {"temp": 3.0}),
    ]


def test_levels_and_captured_keys_name_devices(tmp_path: Path) -> None:
    """One names a device by its value, several by a list; a record without a value names none."""
    bench = Workbench(
        tmp_path,
        {"topic": "site/{site}/{node}/#", "latest": ["{site}", {"node": None}]},
        {"topic": "sensors", "each": "{sensor}", "latest": ["sensor"]},
        {"topic": "meters", "latest": ["meter"]},
    )
    bench.send(
        ("site/s/n/x", {"a": 1}),
        ("site/s/n/y", {"a": 2, "b": 3}),
        ("sensors", {"in": {"t": 1}, "out": {"t": 2}}),
        ("sensors", {"out": {"t": 3}}),
        ("meters", {"meter": 7, "kwh": 1}),
        ("meters", {"kwh": 2}),
        ("meters", {"meter": 7.0, "kwh": [3]}),
    )
    assert {state.device: state.values for state in latest(bench.url)} == {
        '["s", "n"]': {"a": 2.0, "b": 3.0},
        "in": {"sensor": "in", "t": 1.0},
        "out": {"sensor": "out", "t": 3.0},
        "7": {"meter": 7.0, "kwh": [3]},
    }


@pytest.mark.parametrize("model", ["wide", "eav", "document"])
def test_a_level_names_a_device_whatever_the_entity_makes_of_it(model: str, site: Site) -> None:
    """A level that the entity declares is a property, unless it does not have the declared type."""
    route = {"topic": "t/{n}/{name}", "latest": ["n"], "entity": {"n": "int", "v": "float"}, "model": model}
    bench = Workbench(site, route)
    bench.send(("t/07/a", {"v": 1}), ("t/x/a", {"v": 2}), ("t/07/b", {"v": 3}), ("t/x/a", {"v": 4}))
    assert [(state.device, state.values["v"]) for state in latest(bench.url)] == [("07", 3.0), ("x", 4.0)]


def test_a_device_may_have_any_name(site: Site) -> None:
    """Also one that some database cannot hold as it is."""
    bench = Workbench(site, {"topic": "t", "each": "{k}", "latest": ["k"]}, {"topic": "u", "latest": ["k", "n"]})
    names = ["a\x00b", "\ud800", "x" * 70_000, "ä ", "ä", "A", "a", '["s"]', ""]
    bench.send(("t", {name: {"v": number} for number, name in enumerate(names)}), ("u", {"k": "\udfff", "n": 2**70}))
    assert not bench.dead()
    assert sorted(state.values.get("v", -1) for state in latest(bench.url)) == [-1, *range(len(names))]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"latest": ["{zz}"]}, "the topic has no level {zz}, and `each` captures none; valid: n"),
        ({"latest": [{"zz": None}], "each": "{k}"}, "no level {zz}, and `each` captures none; valid: k, n"),
        ({"latest": ["zz"], "entity": {"v": "float"}}, "declares no property 'zz'; valid: n, v"),
    ],
    ids=str,
)
def test_a_device_by_what_there_is_not_is_a_mistake(keys: dict[str, Any], message: str) -> None:
    """Braces mean a level of the topic, or a key that ``each`` captures; those may have an entity beside them."""
    load_section({"routes": [{"topic": "t/{n}", "each": "{k}", "latest": ["k", "{n}"], "entity": {"v": "float"}}]})
    with pytest.raises(ConfigError) as caught:
        load_section({"routes": [{"topic": "t/{n}", **keys}]})
    assert message in str(caught.value)


def test_newest_values_outlive_the_records_that_they_are_from(site: Site) -> None:
    """``keep`` deletes records only."""
    bench = Workbench(site, {"topic": "t", "keep": "1 h", "latest": True})
    bench.send(("t", {"v": 1}), ("t", {"v": 2}))
    bench.now += 8000
    bench.writer.retention.finish()
    assert bench.records() == []
    assert [state.values for state in latest(bench.url)] == [{"v": 2.0}]


def test_two_journals_share_the_newest_values(site: Site) -> None:
    """A writer that stores an older value later changes nothing."""
    route = {"topic": "t", "time": "at", "latest": True}
    first, second = Workbench(site, route), Workbench(site, route, token="b")
    first.send(("t", {"at": 10, "v": 1, "w": 1}))
    second.send(("t", {"at": 20, "v": 2}))
    first.send(("t", {"at": 15, "v": 3, "w": 3}))
    assert [state.values for state in latest(first.url)] == [{"at": 20.0, "v": 2.0, "w": 3.0}]


def test_routes_of_one_table_share_a_view(tmp_path: Path) -> None:
    """A route of them that does not ask for newest values is not in it."""
    table = {"wide": {"table": "climate"}}
    bench = Workbench(
        tmp_path,
        {"topic": "a/+", "model": table, "latest": True},
        {"topic": "b/+", "model": table, "latest": True},
        {"topic": "c/+", "model": table},
    )
    bench.send(("a/1", {"t": 1}), ("b/1", {"t": 2}), ("c/1", {"t": 3}), ("a/1", {"t": 4}))
    bench.writer.finish_views(lambda: False)
    assert bench.sql("SELECT topic, t FROM climate_latest ORDER BY 1") == [("a/1", 4.0), ("b/1", 2.0)]
    assert len(bench.sql("SELECT * FROM climate_view")) == 4


def test_a_shared_view_keeps_its_name(site: Site) -> None:
    """Whichever of the routes that share a table begins or ceases to keep newest values."""
    a, b = ({"topic": f"{name}/+", "model": {"wide": {"table": "climate"}}} for name in "ab")
    bench = Workbench(site, a, {**b, "latest": True})
    for number, (more, still) in enumerate([(False, True), (True, True), (True, False)]):
        bench.restart({**a, "latest": more}, {**b, "latest": still})
        bench.send(("a/1", {"t": number}), ("b/1", {"t": number}))
        bench.writer.finish_views(lambda: False)
        expected = [topic for topic, kept in (("a/1", more), ("b/1", still)) if kept]
        assert [topic for (topic,) in bench.sql("SELECT topic FROM climate_latest ORDER BY 1")] == expected
    assert sorted(bench.sql("SELECT name FROM mqtt_view")) == [("climate_latest",), ("climate_view",)]


def test_newest_values_that_nobody_keeps_are_an_error(tmp_path: Path) -> None:
    """It says what to do."""
    bench = Workbench(tmp_path, {"topic": "#"})
    with pytest.raises(DatabaseError, match="a route that has `latest: true`"):
        list(latest(bench.url))


VALUES = st.sampled_from([0, 1, 2.5, float("nan"), 2**60, True, "x", None, [1], {"b": 1}])
MESSAGES = st.lists(
    st.tuples(
        st.sampled_from(["t/1", "t/2"]),
        st.integers(0, 5),
        st.dictionaries(st.sampled_from(["a", "c"]), VALUES, max_size=2),
    ),
    max_size=12,
)


@pytest.mark.slow
@given(MESSAGES, st.integers(1, 12), st.sampled_from(MODELS), st.sampled_from(["topic", "n"]))
def test_whatever_comes_in_whatever_order(
    sent: Sequence[tuple[str, int, dict[str, Any]]], size: int, model: Any, device: str
) -> None:
    """Any messages in batches of any size leave what the records say."""
    with TemporaryDirectory() as directory:
        by = True if device == "topic" else [device]
        route = {"topic": "t/{n}", "model": model, "time": "at", "latest": by}
        bench = Workbench(Path(directory), route)
        messages = [Sent(topic, {"at": at, **values}) for topic, at, values in sent]
        for first in range(0, len(messages), size):
            bench.send(*messages[first : first + size])
        if sent:
            assert as_stored(latest(bench.url)) == newest_of(bench.records(), device)
        bench.close()


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_what_was_stored_before_is_added(model: Any, site: Site) -> None:
    """Also records of an earlier model; newer values that came since stay, and the view has all columns."""
    route = {"topic": "t/+", "model": model}
    bench = Workbench(site, {"topic": "t/+", "model": "document"})
    bench.send(("t/1", {"v": float("nan"), "old": 1}), ("t/2", {"v": 2**70}))
    bench.restart(route)
    bench.send(("t/1", {"v": 3, "w": "x"}))
    bench.restart({**route, "latest": True})
    bench.send(("t/1", {"v": 4}))
    bench.close()
    settings = load_section(
        {"database": bench.url, "journal": {"path": str(site.path / "j")}, "routes": [{**route, "latest": True}]}
    )
    fill_latest(settings, "#")
    fill_latest(settings, "#")
    assert {state.device: state.values for state in latest(settings)} == {
        "t/1": {"old": 1.0, "v": 4.0, "w": "x"},
        "t/2": {"v": 2**70},
    }
    name = "climate_latest" if isinstance(model, dict) else "t_latest"
    assert bench.sql(f"SELECT topic, old, w FROM {name} ORDER BY 1") == [("t/1", 1.0, "x"), ("t/2", None, None)]


def test_a_device_stays_when_one_of_its_topics_is_deleted(site: Site) -> None:
    """Its newest record is then the newest that is left."""
    route = {"topic": "sh/{device}/{name}", "property": "{name}", "latest": True}
    bench = Workbench(site, route)
    bench.send(("sh/a/temp", b"1"), ("sh/a/state", b"on"), ("sh/b/state", b"on"))
    bench.close()
    section = {"database": bench.url, "journal": {"path": str(site.path / "j")}, "routes": [route]}
    settings = load_section(section)
    shop = Workshop(bench.url, settings.routes)
    for topic in ("sh/a/state", "sh/b/state"):
        sum(Deleter(shop, topic).delete(topic))
    shop.close()
    refill_latest(settings, ["sh/a/state", "sh/b/state"])
    assert [(state.device, state.topic, state.values) for state in latest(settings)] == [
        ("sh/a", "sh/a/temp", {"temp": 1.0})
    ]
    assert len(list(latest(settings, "sh/a"))) == 1
    assert len(list(latest(settings, "sh/+/temp"))) == 1
    assert not list(latest(settings, "sh/b/#"))
