"""Lists, objects of objects and parallel lists become records; nothing of the message is left out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from amqtt_db.routing.each import Each, parse_each, spread
from tests.values import json_values


def records(path: str, data: Any, *, prefix: bool = True) -> list[Any]:
    """Return the data of the records."""
    return list(spread(Each(parse_each(path), prefix), data))


def test_items_take_the_place_of_their_list() -> None:
    """The rest of the message is in every record."""
    assert records("readings", {"gw": "a", "readings": [{"t": 1}, 2]}) == [
        {"gw": "a", "readings": {"t": 1}},
        {"gw": "a", "readings": 2},
    ]
    assert records("", [{"t": 1}, {"t": 2}]) == [{"t": 1}, {"t": 2}]
    assert records("", {"t": 1}) == [{"t": 1}]


def test_lists_in_lists() -> None:
    """Each item of the inner lists is a record, with what belongs to the outer item."""
    data = {"machines": [{"m": 1, "readings": [{"t": 1}, {"t": 2}]}, {"m": 2, "readings": [{"t": 3}]}]}
    assert records("machines.readings", data) == [
        {"machines": {"m": 1, "readings": {"t": 1}}},
        {"machines": {"m": 1, "readings": {"t": 2}}},
        {"machines": {"m": 2, "readings": {"t": 3}}},
    ]


def test_without_prefix_items_come_up() -> None:
    """The item's own properties take precedence; those they would hide go under ``outside``."""
    assert records("values", {"t": 9, "gw": 1, "values": [{"t": 1}, 5]}, prefix=False) == [
        {"gw": 1, "t": 1, "outside": {"t": 9}},
        {"t": 9, "gw": 1, "value": 5},
    ]


def test_keys_become_a_property() -> None:
    """The path names it; single values next to objects belong to every record."""
    assert records("{sensor}", {"3c61": {"temp": 1}, "a1b2": {"temp": 2}, "gw": "x"}) == [
        {"gw": "x", "temp": 1, "sensor": "3c61"},
        {"gw": "x", "temp": 2, "sensor": "a1b2"},
    ]
    assert records("{name}", {"temp": 1, "hum": 2}) == [{"value": 1, "name": "temp"}, {"value": 2, "name": "hum"}]
    data = {"devices": {"d1": {"readings": [{"t": 1}, {"t": 2}]}}}
    assert records("devices.{device}.readings", data, prefix=False) == [
        {"t": 1, "device": "d1"},
        {"t": 2, "device": "d1"},
    ]
    assert records("{id}", {"k": {"id": 5}}) == [{"id": 5, "id_": "k"}]


def test_parallel_lists() -> None:
    """Items at the same position belong together; beyond the end of a shorter list they are absent."""
    each = Each(parallel=(("t",), ("d", "v")))
    assert list(spread(each, {"m": 1, "t": [1, 2], "d": {"v": [5]}})) == [
        {"m": 1, "t": 1, "d": {"v": 5}},
        {"m": 1, "t": 2},
    ]
    assert list(spread(each, {"m": 1})) == [{"m": 1}]
    assert list(spread(each, {"m": 1, "t": []})) == []


@pytest.mark.parametrize("path", ["a", "a.b", "", "{k}", "a.{k}.b"])
@given(data=json_values)
def test_whatever_comes_is_spread(path: str, data: Any) -> None:
    """A message that has no such list is one record, as it came."""
    found = records(path, data)
    assert found or data in ([], {}) or isinstance(data, (list, dict))
