"""A configuration made from messages: what it says, and that it stores all of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db import config
from amqtt_db.draft import TEMPLATE, Heard, draft_routes, find_families, write_yaml
from amqtt_db.draft.types import declare_object, declare_type
from amqtt_db.writer.preview import find_rejected
from tests.workbench import Workbench

FIXTURE: Final = Path(__file__).parents[1] / "fixtures" / "payloads.jsonl"
REAL: Final = [
    Heard(one["topic"], one["payload"].encode()) for one in map(json.loads, FIXTURE.read_text().splitlines())
]


def draft(*messages: tuple[str, Any], seconds: float = 30) -> str:
    """Return the YAML for messages that come evenly; a payload that is not bytes is written as JSON."""
    heard = [
        Heard(topic, one if isinstance(one, bytes) else orjson.dumps(one), index * seconds / len(messages))
        for index, (topic, one) in enumerate(messages)
    ]
    return write_yaml("mqtt://localhost", draft_routes(find_families(heard), seconds), len(heard), seconds)


def routes(*messages: tuple[str, Any], seconds: float = 30) -> dict[str, dict[str, Any]]:
    """Return the routes for messages by topic filter, without the one for everything else."""
    found = yaml.safe_load(draft(*messages, seconds=seconds))["routes"]
    assert found[-1] == {"topic": "#"}
    return {route.pop("topic"): route for route in found[:-1]}


def test_the_template_is_valid() -> None:
    """It has no mistakes and no useless routes, and each line that is commented out would be valid too."""
    assert config.load_document(yaml.safe_load(TEMPLATE)).notes == ()
    for line in ("metrics: 127.0.0.1:9641", "keep: {sessions: 90 days, dead_letters: 90 days}", "keep: 365 days"):
        assert f"# {line}\n" in TEMPLATE
        config.load_document(yaml.safe_load(TEMPLATE.replace(f"# {line}\n", f"{line}\n")))


def test_levels_that_differ_get_names() -> None:
    """Topics with the same properties share a filter and a table, named after what is above."""
    climate = {"temp": 21.5, "rh": 40}
    found = routes(*((f"home/{room}/climate", climate) for room in ("bath", "hall")), ("meters/7/power", {"w": 1}))
    assert found == {
        "home/{room}/climate": {
            "model": {"wide": {"table": "home_climate"}}, "entity": {"temp": "float", "rh": "float"}, "unknown": "add",
        }
    }  # fmt: skip


def test_a_value_per_topic_becomes_a_property() -> None:
    """The last level names it; the topics of a device share a table."""
    values = {"power": 21.5, "voltage": 230, "state": "ON"}
    found = routes(*((f"solar/{device}/{name}", value) for device in ("a", "b") for name, value in values.items()))
    assert found == {
        "solar/{device}/{property}": {
            "property": "{property}", "latest": True, "unknown": "add",
            "entity": {"power": "float", "state": {"type": "bool", True: ["ON"], False: ["OFF"]}, "voltage": "float"},
        }
    }  # fmt: skip


def test_devices_of_several_kinds_share_a_filter() -> None:
    """Even if each has some properties of its own; a topic of another form keeps its own."""
    found = routes(
        ("zigbee2mqtt/plug", {"linkquality": 5, "state": "ON", "power": 1.5}),
        ("zigbee2mqtt/lamp", {"linkquality": 5, "state": "OFF", "brightness": 200}),
        ("zigbee2mqtt/bridge/info", {"version": "1.2", "coordinator": {"meta": {"fixed": {"a": {"b": 1}}}}}),
    )
    assert list(found) == ["zigbee2mqtt/bridge/info", "zigbee2mqtt/{device}"]
    assert found["zigbee2mqtt/bridge/info"] == {"model": "document"}


def test_models_are_proposed_with_a_reason() -> None:
    """Each reason is a comment above its route."""
    many = [(f"m/{n % 3}/x", {f"p{n}_{i}": i for i in range(4)} | {"kind": 1}) for n in range(60)]
    assert routes(*many)["m/{device}/x"]["model"] == "eav"
    fast = [("grid/phase", {"u": 230.5, "i": 1.5})] * 100
    assert routes(*fast, seconds=10)["grid/phase"] == {"model": "narrow"}
    assert "# 100 messages of 1 topic; only numbers, and 10 messages a second" in draft(*fast, seconds=10)
    assert routes(("list", [{"t": 1}, {"t": 2}])) == {"list": {"each": ""}}
    assert routes(("cut", b'{"temp": 2')) == {"cut": {"decode": "bytes"}}


@pytest.mark.parametrize(
    ("name", "values", "declared"),
    [
        ("temp", [21, 21.5], "float"),
        ("count", [1, 2], "int"),
        ("big", [2**60], "int"),
        ("on", [True, False], "bool"),
        ("note", ["hello"], "str"),
        ("serial", ["123"], "str"),
        ("temp", ["21.5", "22"], {"type": "float", "text": True}),
        ("temp", ["21,5"], {"type": "float", "comma": True}),
        ("power", ["12.5 W", "13 W"], {"type": "float", "unit": "W"}),
        ("mode", ["11n"], "str"),
        ("door", ["open", "closed"], {"type": "bool", True: ["open"], False: ["closed"]}),
        ("lwt", ["Online"], {"type": "bool", True: ["Online"], False: ["Offline"]}),
        ("when", ["2026-01-31T12:00:00"], "datetime"),
        ("ts", [1_700_000_000.5], {"type": "datetime", "format": "epoch_s"}),
        ("last_seen", [1_700_000_000_000], {"type": "datetime", "format": "epoch_ms"}),
        ("ts", [20], "float"),
        ("items", [[1, 2]], "list"),
        ("mixed", [1, "a"], None),
        ("nothing", [None], None),
    ],
)
def test_types(name: str, values: list[Any], declared: Any) -> None:
    """Numbers, times, numbers in text and words for states are recognized; what is not alike is not declared."""
    assert declare_type(name, values) == declared


def test_objects_are_declared_with_what_is_in_them() -> None:
    """A nested property called type is told from the type of a property."""
    assert declare_object([{"type": "a", "pos": {"type": "b", "lat": 1.5}}, {"pos": {"lat": 1}}]) == {
        "type": "str", "pos": {"type": {"type": "str"}, "lat": "float"},
    }  # fmt: skip


@pytest.mark.slow
def test_real_messages_are_all_stored(tmp_path: Path) -> None:
    """What devices of many makers send: no dead letter, and no route that never matches."""
    text = write_yaml("mqtt://localhost", draft_routes(find_families(REAL), 30), len(REAL), 30)
    document = yaml.safe_load(text)
    assert config.load_document(document).notes == ()
    bench = Workbench(tmp_path, *document["routes"])
    bench.send(*((one.topic, one.payload) for one in REAL))
    assert bench.dead() == []
    assert sum(count.get("stored", 0) for count in bench.counts().values()) == sum(bool(one.payload) for one in REAL)


LEVELS: Final = st.sampled_from(["home", "a", "b", "state", "", "{x}", "é", "on", "7", "null", "a b", "#x".strip("#")])
KEYS: Final = st.sampled_from(["temp", "type", "time", "on", "", "a.b", "unit", "state", "null", "{x}", "ü", "value"])
VALUES: Final = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False, allow_infinity=False),
        st.sampled_from(["ON", "OFF", "21,5", "3 W", "2026-01-31T12:00:00", "1e999", "x", "", "12:00", "\x07"]),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(KEYS, inner, max_size=4)),
    max_leaves=8,
)  # fmt: skip
PAYLOADS: Final = st.one_of(
    VALUES.map(lambda value: json.dumps(value).encode()),
    st.sampled_from([b"", b"ON", b"21.5", b'{"cut": ', b"\xff\x00", b"[1, 2"]),
    st.sampled_from([one.payload for one in REAL]),
)
TOPICS: Final = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)


@given(st.lists(st.tuples(TOPICS, PAYLOADS), max_size=30))
def test_no_message_would_become_a_dead_letter(messages: list[tuple[str, bytes]]) -> None:
    """Whatever is heard: the YAML is valid, and would store it."""
    settings = config.load_document(yaml.safe_load(draft(*messages)))
    assert [one.reason for one in find_rejected(settings, messages)] == []
