"""A route reaches into messages, leaves out, renames and reads text as values, and loses nothing else."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.record import flatten
from amqtt_db.routing.reshape import Pairs, Reshaping, hoist, reshape_message, reshape_record
from tests.values import json_values, same, texts

objects = st.dictionaries(texts, json_values, max_size=4)


def message(data: Any, levels: dict[str, str] | None = None, **options: Any) -> Any:
    """Return a message as a route with these options wants it."""
    return reshape_message(Reshaping(**options), levels or {}, data)


def record(data: dict[str, Any], **options: Any) -> dict[str, Any]:
    """Return a record as a route with these options wants it."""
    return reshape_record(Reshaping(**options), data)


def test_the_root_becomes_the_message_and_the_rest_stays_beside() -> None:
    """The properties below the root move up; others keep their paths."""
    data = {"id": 1, "up": {"port": 2, "payload": {"temp": 21.5, "id": "x"}}}
    assert message(data, root=("up", "payload")) == {"up": {"port": 2}, "temp": 21.5, "id": "x", "outside": {"id": 1}}


@pytest.mark.parametrize("data", [{"a": 1}, {"up": 5}, {"up": {"payload": [1]}}, [1], "text", None])
def test_a_message_without_the_root_is_left_as_it_is(data: Any) -> None:
    """Other kinds of messages on the same topic are not harmed."""
    assert message(data, root=("up", "payload")) == data


def test_pairs_become_properties() -> None:
    """Further keys of a pair are named after both; items that are not pairs stay in the list."""
    left = [{"name": "t", "value": 3}, {"value": 4}, 5]
    tags = [{"name": "t", "value": 1, "q": True}, {"name": "p", "value": 2.5}, *left]
    assert message({"node": "n", "tags": tags}, pairs=Pairs(("tags",))) == {
        "node": "n",
        "tags": left,
        "t": 1,
        "t_q": True,
        "p": 2.5,
    }
    found = message({"d": {"l": [{"k": "a", "v": 1}]}}, pairs=Pairs(("d", "l"), "k", "v"))
    assert found == {"a": 1}


def test_levels_name_the_property() -> None:
    """A single value gets the name; an object's properties go below it.  A dot in a level does not make a path."""
    levels = {"kind": "relay.x", "name": "power"}
    assert message(5, levels, property="{name}") == {"power": 5}
    assert message({"a": 1}, levels, property="{kind}.{name}") == {"relay.x": {"power": {"a": 1}}}
    assert message("ON", levels, property="{kind}_{name}") == {"relay.x_power": "ON"}


def test_dropped_properties_take_along_what_is_below_them() -> None:
    """``*`` stands for anything."""
    data = {"linkquality": 5, "update": {"state": "idle", "v": {"n": 1}}, "a": {"rssi": 1, "b": 2}, "update_time": 1}
    assert record(data, drop=("linkquality", "update", "*.rssi")) == {"a": {"b": 2}, "update_time": 1}
    assert record(data, drop=("update.*", "a.*")) == {"linkquality": 5, "update_time": 1}


def test_renamed_properties_never_replace_others() -> None:
    """A path that is taken is not replaced."""
    data = {"AM2301": {"Temperature": 20, "Humidity": 50}, "hum": 1}
    assert record(data, rename={"AM2301.Temperature": "temp", "AM2301.Humidity": "hum", "gone": "x"}) == {
        "AM2301": {"Humidity": 50},
        "temp": 20,
        "hum": 1,
    }


def test_texts_are_read_as_truth_and_numbers() -> None:
    """Only text that matches exactly; identifiers with leading zeros and very long numbers stay text."""
    booleans = {"ON": True, "OFF": False}
    data = {"a": "ON", "b": {"c": "OFF", "d": "on"}, "n": "21.50", "i": "-7", "e": "1e3", "z": "007", "l": "9" * 80}
    assert record(data, booleans=booleans, numbers={"text"}) == {
        "a": True,
        "b": {"c": False, "d": "on"},
        "n": 21.5,
        "i": -7,
        "e": 1000.0,
        "z": "007",
        "l": "9" * 80,
    }
    assert record({"v": "1,5", "w": "1.5"}, numbers={"text", "comma"}) == {"v": 1.5, "w": 1.5}
    assert record({"v": "1,5"}, numbers={"text"}) == {"v": "1,5"}
    units = {"t": "30.11 °C", "b": "3.384V", "p": "-7 %", "w": "12:30", "x": "5 6", "c": "1,5 V"}
    assert record(units, numbers={"text", "unit"}) == {**units, "t": 30.11, "b": 3.384, "p": -7}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-07-01T12:00:00", "2026-07-01T12:00:00+02:00"),
        ("2026-01-01 12:00:00.5", "2026-01-01 12:00:00.5+01:00"),
        ("2026-10-25T02:30:00", "2026-10-25T02:30:00+02:00"),
        ("2026-07-01T12:00:00Z", "2026-07-01T12:00:00Z"),
        ("2026-07-01T12:00:00+00:00", "2026-07-01T12:00:00+00:00"),
        ("2026-13-01T12:00:00", "2026-13-01T12:00:00"),
        ("2026-07-01", "2026-07-01"),
    ],
)
def test_times_without_a_zone_get_the_offset(text: str, expected: str) -> None:
    """If a time occurs twice in autumn, the first one; other text is unchanged."""
    assert record({"a": {"t": text}}, timezone=ZoneInfo("Europe/Berlin")) == {"a": {"t": expected}}


@given(objects)
def test_a_reshaping_that_matches_nothing_changes_nothing(data: dict[str, Any]) -> None:
    """Every value stays at its path, with its type."""
    found = record(data, drop=("no such path",), rename={"no such": "path"}, booleans={"no such text": True})
    assert same(flatten(found), flatten(data))


@given(objects, objects)
def test_hoisting_loses_nothing(outer: dict[str, Any], inner: dict[str, Any]) -> None:
    """All values of both objects are in the result, and those of the inner one under their own names."""
    found = hoist(outer, inner)
    assert same({name: found[name] for name in inner}, inner)
    rest = {name: value for name, value in found.items() if name not in inner}
    clashing = [name for name in outer if name in inner]
    assert len(rest) == len(outer) - len(clashing) + bool(clashing)
