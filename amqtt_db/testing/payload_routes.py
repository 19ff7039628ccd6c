"""Hypothesis generators for routes that reshape payloads, and for the payloads, as the YAML and devices have them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
import orjson
from hypothesis import strategies as st

from amqtt_db.config import load_section
from amqtt_db.models.base import Model
from amqtt_db.routing.route import Route
from amqtt_db.testing.history import Sent

RouteKeys = Mapping[str, Any]
"""RouteKeys of a route as in the YAML, without topic and model."""

_KEY_NAMES = st.sampled_from(["a", "b", "t", "l", "name", "value", "v.w", "", "outside", "{x}"])
_LEAVES = (
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["ON", "1,5", "7 V", "2026-01-01T00:00:00", "x"])
)
_DATA = st.recursive(
    _LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEY_NAMES, inner, max_size=4), max_leaves=12
)
_RAW = st.sampled_from([b"", b"ON", b"\xff", b"[1", b"7\x00", b"\xef\xbb\xbf1", b'{"a": {"b": [{"t": 5}, {"t": 6}]}}'])


@attrs.frozen
class Published(Sent):
    """A message with the payload that a device sends."""

    body: bytes = b""

    def payload(self) -> bytes:
        """The device's bytes."""
        return self.body


def published(prefix: str = "s") -> st.SearchStrategy[Sequence[Published]]:
    """Messages of a few topics ``<prefix>/{x}/{y}``: JSON of all forms, text, bytes, empty and broken ones."""
    topics = st.sampled_from([f"{prefix}/1/p", f"{prefix}/2/q", f"{prefix}/1/q"])
    bodies = _DATA.map(orjson.dumps) | _RAW
    return st.lists(st.builds(Published, topics, st.just(()), body=bodies), max_size=8)


def route_keys() -> st.SearchStrategy[RouteKeys]:
    """RouteKeys that say what becomes of a payload before its model stores it, in any combination."""
    paths = st.sampled_from(["a", "a.b", "t"])
    entity = {"a": {"type": "float", "from": "t", "scale": 0.1, "unit": "V"}, "b": {"type": "bool", True: ["ON"]}}
    drawn = st.fixed_dictionaries(
        {},
        optional={
            "each": st.sampled_from(["", "l", "a.b", "{k}", "a.{k}.l", "a.b.t"]),
            "prefix": st.booleans(),
            "root": st.sampled_from(["a", "a.b", "value"]),
            "pairs": st.sampled_from(["l", {"list": "a.b", "name": "t", "value": "v"}]),
            "property": st.sampled_from(["{y}", "{x}.{y}", "{y}_{x}"]),
            "drop": st.lists(st.sampled_from(["a", "*.t", "b*", "l"]), max_size=2),
            "rename": st.dictionaries(paths, st.sampled_from(["b", "z", "a.c"]), max_size=2),
            "booleans": st.just({True: ["ON"], False: ["OFF"]}),
            "numbers": st.sampled_from(["text", ["comma", "unit"]]),
            "timezone": st.just("Europe/Berlin"),
            "time": st.sampled_from(["t", "a.t"]),
            "entity": st.just(entity),
            "latest": st.sampled_from([True, ["x"]]),
            "only": st.just("changes"),
        },
    )
    return drawn.map(_without_conflicts)


def make_route(topic: str, model: Model, keys: RouteKeys, *, timed: bool = False) -> Route:
    """Return a route with a model."""
    (route,) = load_section({"routes": [{"topic": topic, **keys}]}).routes
    return attrs.evolve(route, model=model, timed=timed)


def _without_conflicts(keys: dict[str, Any]) -> RouteKeys:
    """Return keys that may stand together."""
    without = set() if "each" in keys else {"prefix"}
    without |= {"time"} if "entity" in keys else set()
    return {key: value for key, value in keys.items() if key not in without}
