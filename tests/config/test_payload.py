"""The keys that change and split payloads: what they mean, and every mistake with its path."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest

from amqtt_db import config
from amqtt_db.errors import ConfigError
from amqtt_db.routing.each import Capture, Each
from amqtt_db.routing.reshape import Pairs, Reshaping
from amqtt_db.routing.route import Route
from tests.config.test_config import problems


def _route(**keys: Any) -> Route:
    (route,) = config.load_section({"routes": [{"topic": "home/{device}/{name}", **keys}]}).routes
    return route


def test_everything_of_a_payload_arrives() -> None:
    """The route holds what the YAML says."""
    route = _route(
        root="a.b", pairs={"list": "tags", "name": "n"}, property="{name}", drop=["x", "y.*"], rename={"a": "b"},
        booleans={True: [True, "open"], False: "shut"}, numbers="comma",
        timezone="Europe/Berlin", each="m.{k}.l", prefix=False,
    )  # fmt: skip
    assert route.each == Each(("m", Capture("k"), "l"), prefix=False)
    assert route.reshaping.booleans["ON"] is route.reshaping.booleans["open"] is True
    assert route.reshaping.booleans["shut"] is False
    assert route.reshaping == Reshaping(
        ("a", "b"), Pairs(("tags",), "n"), "{name}", ("x", "y.*"), {"a": "b"}, route.reshaping.booleans,
        frozenset({"text", "comma"}), ZoneInfo("Europe/Berlin"),
    )  # fmt: skip
    assert _route(zip=["t", "d.v"]).each == Each(parallel=(("t",), ("d", "v")))
    assert _route(store=False).stores is False


@pytest.mark.parametrize(
    ("keys", "path", "says"),
    [
        ({"each": 5}, "each", "expected text"),
        ({"each": "{a b}"}, "each", "is not a name"),
        ({"prefix": False}, "prefix", "has no effect without `each`"),
        ({"each": "a", "prefix": "no"}, "prefix", "expected true or false"),
        ({"each": "a", "zip": ["t", "v"]}, "zip", "cannot be used together with `each`"),
        ({"zip": ["t"]}, "zip", "two paths or more"),
        ({"pairs": {"name": "n"}}, "pairs", "expected the path of a list"),
        ({"property": "{device"}, "property", "cannot be read"),
        ({"property": "temp"}, "property", "names no level of the topic"),
        ({"property": "{nmae}"}, "property", "the topic has no level {nmae}; did you mean 'name'?"),
        ({"drop": [5]}, "drop", "expected text"),
        ({"rename": "a"}, "rename", "expected a mapping of old to new paths"),
        ({"booleans": {"on": ["ON"]}}, "booleans", "expected {true:"),
        ({"booleans": {True: ["x"], False: ["x"]}}, "booleans", "'x' cannot be both true and false"),
        ({"numbers": "yes"}, "numbers", "expected one of text, comma, unit"),
        ({"timezone": "Europe/Berlni"}, "timezone", "is not a time zone; did you mean 'Europe/Berlin'?"),
        ({"timezone": "5"}, "timezone", "is not a time zone; expected a name such as Europe/Berlin or UTC"),
        ({"timezone": "../etc/passwd"}, "timezone", "is not a time zone"),
        ({"entity": {"a": {"type": "float", "scale": "x"}}}, "entity.a.scale", "expected a number"),
        ({"entity": {"a": {"type": "float", "from": 5}}}, "entity.a.from", "expected text"),
        ({"entity": {"a": {"type": "int", "map": []}}}, "entity.a.map", "expected a mapping of values to values"),
        ({"entity": {"a": {"type": "float", "comma": 1}}}, "entity.a.comma", "expected true or false"),
        ({"entity": {"a": {"type": "float", "scael": 1}}}, "entity.a.scael", "is not an option"),
        ({"store": "no"}, "store", "expected true or false"),
        ({"store": False, "keep": "9 days"}, "keep", "has no effect with `store: false`"),
    ],
)
def test_a_mistake_in_a_payloads_keys(keys: dict[str, Any], path: str, says: str) -> None:
    """It is reported with its path."""
    found = problems({"routes": [{"topic": "home/{device}/{name}", **keys}]})
    assert says in found[f"routes[0].{path}"]


def test_a_time_zone_for_all_routes() -> None:
    """A route's own comes first."""
    section = {"timezone": "Europe/Berlin", "routes": [{"topic": "a"}, {"topic": "#", "timezone": "UTC"}]}
    zones = [str(route.reshaping.timezone) for route in config.load_section(section).routes]
    assert zones == ["Europe/Berlin", "UTC"]
    with pytest.raises(ConfigError, match="did you mean 'Europe/Berlin'"):
        config.load_section({"timezone": "Europe/Berlim"})


def test_properties_called_type_and_unit() -> None:
    """An entity declares them like all others; only below a property do such keys say how it is read."""
    entity = _route(entity={"type": "str", "unit": "str", "value": "float"}).entity
    assert entity is not None
    assert entity.declared == {"type", "unit", "value"}
