"""`properties: true`: the MQTT 5 properties of messages are kept in every model, and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.writer.redecoding import Redecoder
from amqtt_db.writer.renaming import Renamer
from amqtt_db.writer.replay import replay
from amqtt_db.writer.workshop import Workshop
from tests.workbench import Sent, Workbench, routes
from tests.writer.test_deletion import workshop

MODELS = ["wide", "eav", "document", "narrow"]

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=8)
PROPERTIES = st.fixed_dictionaries(
    {},
    optional={
        "content_type": TEXT,
        "response_topic": TEXT,
        "correlation_data": TEXT,
        "message_expiry": st.integers(0, 2**32 - 1),
        "user_properties": st.lists(st.lists(TEXT, min_size=2, max_size=2), min_size=1, max_size=3),
    },
)


def send(bench: Workbench, payloads: list[Any], kept: list[dict[str, Any]], topic: str = "home/hall/t") -> None:
    """Store messages with properties."""
    batch = bench.batch(*(Sent(topic, payload) for payload in payloads))
    properties = [orjson.dumps(one) if one else b"" for one in kept]
    bench.store(attrs.evolve(batch, properties=properties if any(properties) else ()))


@pytest.mark.parametrize("model", MODELS)
@given(st.lists(st.tuples(PROPERTIES, st.sampled_from([{"n": 1}, {"n": 2.5, "s": "x"}, {"o": {"p": 1}}])), min_size=1))
def test_what_a_message_came_with_is_read_back(model: str, found: list[tuple[dict[str, Any], Any]]) -> None:
    """Whatever the model: with the record, apart from its levels and its data."""
    bench = _benches[model]
    before = len(bench.records())
    send(bench, [payload for _, payload in found], [kept for kept, _ in found])
    records = bench.records()[before:]
    assert [record.mqtt_properties() for record in records] == [kept for kept, _ in found]
    assert [record.to_dict().get("properties", {}) for record in records] == [kept for kept, _ in found]
    assert [record.data() for record in records] == [payload for _, payload in found]
    assert {tuple(record.levels().items()) for record in records} == {(("room", "hall"),)}


_benches: dict[str, Workbench] = {}


@pytest.fixture(autouse=True, scope="module")
def _open_benches(tmp_path_factory: pytest.TempPathFactory) -> None:
    for model in MODELS:
        route = {"topic": "home/{room}/t", "model": model, "properties": True}
        _benches[model] = Workbench(tmp_path_factory.mktemp(model), route)


def test_they_are_a_json_column(tmp_path: Path) -> None:
    """In the wide model it is called `properties`; a payload's property of that name has a column of another name."""
    bench = Workbench(tmp_path, {"topic": "home/{room}/t", "properties": True})
    send(bench, [{"n": 1}], [{"content_type": "a/b"}])
    assert bench.sql("SELECT json_extract(properties, '$.content_type') FROM home_hall_t") == [("a/b",)]
    send(bench, [{"properties": 1.5}], [{"content_type": "c/d"}])
    record = bench.records()[-1]
    assert (record.mqtt_properties(), record.data()) == ({"content_type": "c/d"}, {"properties": 1.5})


def test_without_the_key_nothing_is_kept(tmp_path: Path) -> None:
    """Even if the journal has them, for another route."""
    bench = Workbench(tmp_path)
    send(bench, [{"n": 1}], [{"content_type": "a/b"}], topic="t")
    (record,) = bench.records()
    assert (record.mqtt_properties(), "properties" in record.to_dict()) == ({}, False)


def test_replaying_and_storing_again_keep_them(tmp_path: Path) -> None:
    """They are kept with the payload; where an older version kept that alone, the record has them."""
    old = {"topic": "home/{room}/t", "properties": True, "raw": True, "decode": "json"}
    new = {**old, "decode": "text"}
    bench = Workbench(tmp_path, old)
    kept = [{"content_type": f"{n}"} for n in range(3)]
    send(bench, [{"n": 1}, b"{", {"n": 2}], kept)
    bench.sql("UPDATE mqtt_raw SET properties = NULL WHERE properties LIKE '%2%'")
    assert [one.reason for one in replay(bench.url, routes(new))] == [None]
    with workshop(bench, new) as shop:
        redecoder = Redecoder(shop)
        assert [step.messages for step in redecoder.redecode(*redecoder.topics("#"))] == [3]
    assert [(record["value"], record.mqtt_properties()) for record in bench.records()] == [
        ('{"n": 1}', kept[0]), ("{", kept[1]), ('{"n": 2}', kept[2]),
    ]  # fmt: skip


def test_renaming_a_topic_keeps_them(tmp_path: Path) -> None:
    """They belong to the message, not to its topic."""
    route = {"topic": "home/{room}/t", "properties": True}
    bench = Workbench(tmp_path, route)
    send(bench, [{"n": 1}], [{"content_type": "a/b"}])
    shop = Workshop(bench.url, routes(route, url=bench.url))
    assert list(Renamer(shop).rename("home/hall/t", "home/attic/t")) == [1]
    shop.close()
    (record,) = bench.records()
    assert (record.levels(), record.mqtt_properties()) == ({"room": "attic"}, {"content_type": "a/b"})
