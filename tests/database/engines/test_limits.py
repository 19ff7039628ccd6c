"""The longest that MQTT allows, on every engine: topics, names, clients, payloads."""

from __future__ import annotations

import json
import logging
import os
import random
from typing import Any

import orjson
import pytest

from amqtt_db.message import CONNECT, PUBLISH, Batch, flags
from tests.database.engines.servers import Site
from tests.workbench import ARRIVAL, Workbench

LONGEST = 65_535  # bytes of a text in MQTT [MQTT-1.5.3]
ROUTES: dict[str, dict[str, Any]] = {
    "wide": {"topic": "#"},
    "wide in one table": {"topic": "#", "model": {"wide": {"table": "everything"}}},
    "eav": {"topic": "#", "model": "eav"},
    "narrow": {"topic": "#", "model": "narrow"},
    "document": {"topic": "#", "model": "document"},
}
each_model = pytest.mark.parametrize("model", ROUTES)


def noise(length: int, seed: int = 1) -> str:
    """Text that no compression shortens by much."""
    return "".join(
        random.Random(seed).choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", k=length)
    )


def _errors(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [entry.getMessage()[:500] for entry in caplog.records if entry.levelno >= logging.ERROR]


@pytest.mark.slow
@each_model
def test_long_topics(model: str, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """They are stored; if an index of the model cannot hold them, they become dead letters that say what to do."""
    bench = Workbench(site, ROUTES[model])
    topics = [noise(5_000), f"a/{noise(LONGEST - 2)}", "x" * LONGEST]
    bench.send(*((topic, {"v": 1}) for topic in topics), ("short", {"v": 2}))
    bench.send(*((topic, {"v": 3}) for topic in topics))
    found = {(record.topic, record.values) for record in bench.records()}
    dead = {letter.topic.decode() for letter in bench.dead()}
    assert found == {(topic, (v,)) for topic in set(topics) - dead for v in (1.0, 3.0)} | {("short", (2.0,))}
    if (site.engine, model) != ("postgresql", "wide in one table"):
        assert not dead
    assert not _errors(caplog)
    for letter in bench.dead():
        assert "too long for an index" in letter.reason
        assert "without `table:`" in letter.reason


@pytest.mark.slow
@each_model
def test_long_property_names(model: str, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """Names are cut for columns only."""
    bench = Workbench(site, ROUTES[model])
    payload = {noise(300): 1.0, noise(300)[:299] + "!": "x", noise(60_000, 2): 2.0, "n": {noise(60_000, 3): True}}
    bench.send(("t", payload), ("t", {"v": 1}))
    bench.send(("t", payload))
    assert not bench.dead()
    assert not _errors(caplog)
    assert bench.data() == [payload, {"v": 1.0}, payload]


@pytest.mark.slow
@pytest.mark.parametrize("model", ["wide", "narrow"])
def test_a_property_name_beyond_all_reason(model: str, site: Site) -> None:
    """It costs its message, not the queue."""
    bench = Workbench(site, ROUTES[model])
    bench.send(("t", {"v": 1}), ("t", {noise(300_000): 1}), ("t", {"v": 2}))
    assert bench.data() == [{"v": 1.0}, {"v": 2.0}]
    (letter,) = bench.dead()
    assert (letter.step, letter.reason) == (
        "structure",
        "the name of a property has 300000 bytes; at most 65535 can be stored",
    )


def test_long_clients_and_users(site: Site) -> None:
    """The session keeps them, and so does a dead letter."""
    bench = Workbench(site)
    client, user = noise(LONGEST), noise(LONGEST, 2)
    details = orjson.dumps({"client_id": client, "username": user, "clean_session": True})
    kinds = [flags(CONNECT), flags(PUBLISH)]
    bench.store(Batch("a", [1, 2], [ARRIVAL] * 2, kinds, [0, 1], [b"", b"t"], [details, b"{"], end=3))
    assert bench.sql("SELECT client_id, username FROM mqtt_session") == [(client, user)]
    (letter,) = bench.dead()
    assert letter.client == client.encode()


def test_a_long_named_level(site: Site) -> None:
    """A level of the topic is a property like any other."""
    bench = Workbench(site, {"topic": "home/{room}", "model": "eav"})
    topic = f"home/{noise(LONGEST - 5)}"
    bench.send((topic, json.dumps({"v": 1}).encode()))
    (record,) = bench.records()
    assert record.levels() == {"room": topic[5:]}


LARGE = int(os.environ.get("AMQTT_DB_TEST_PAYLOAD", "20")) * 1_000_000  # bytes

PAYLOADS: dict[str, tuple[bytes, bytes]] = {
    "json": (b'{"s": "%s"}', b'{"s": "x"}'),
    "text": (b"%s", b"x"),
    "bytes": (b"%s", b"x"),
}


@pytest.mark.slow
@pytest.mark.parametrize("decode", PAYLOADS)
def test_large_payloads(decode: str, site: Site) -> None:
    """They are stored, or become dead letters that keep every byte; their neighbours are stored."""
    bench = Workbench(site, {"topic": "#", "decode": decode})
    frame, small = PAYLOADS[decode]
    large = b"it's " * (LARGE // 5)
    bench.send(("t", small), ("t", frame % large), ("t", small))
    (letter,) = bench.dead() or (None,)
    stored = [value for record in bench.records() for value in record.values]
    x, whole = ("x", large.decode()) if decode != "bytes" else (b"x", large)
    if site.engine == "mysql" and bench.sql("SELECT @@max_allowed_packet")[0][0] < LARGE:
        assert letter is not None
        assert letter.payload == frame % large
        assert stored == [x, x]
    else:
        assert letter is None
        assert stored == [x, whole, x]
