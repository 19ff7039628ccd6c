"""Sparkplug B from Mosquitto through the bridge: every metric is stored once, whatever is killed."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from threading import Event

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion
from sparkplub_b_packets.core.sparkplug_b_pb2 import Payload

from amqtt_db.reader import read
from tests.decode.edge_node import EdgeNode
from tests.decode.plant import Plant, expected_of, told_by
from tests.integration.bridge import MOSQUITTO, PATIENCE, BridgeProcess, Mosquitto, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.fault,
    pytest.mark.skipif(MOSQUITTO is None, reason="needs Mosquitto"),
]

ROUTE = {"topic": "spBv1.0/#", "decode": "sparkplug", "model": {"wide": {"table": "t"}}}


def test_every_metric_survives_kills(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """The bridge and the writer are killed in turn, each time while they store messages."""
    minutes = request.config.getoption("--plant-minutes")
    steps = [*Plant(3).steps(60 * minutes)]
    parts = max(2, minutes)
    size = len(steps) // parts + 1
    with (
        Mosquitto(tmp_path) as broker,
        connected(broker.port) as client,
        BridgeProcess(tmp_path, broker.url, routes=[ROUTE]) as bridge,
    ):
        for part in range(parts):
            before = _messages(bridge)
            sent = [client.publish(*step.message, qos=1) for step in steps[part * size : (part + 1) * size]]
            until(partial(_has_more, bridge, before), "some of it is stored")
            _kill_writer(bridge) if part % 2 else _kill_bridge(bridge)
            for one in sent:
                one.wait_for_publish(PATIENCE)
        until(lambda: _messages(bridge) == len(steps), "everything is stored")
    records = list(read(f"sqlite:///{bridge.database}"))
    assert told_by(records) == expected_of(steps)


def test_a_missing_birth_is_asked_for(tmp_path: Path) -> None:
    """Once, by the command of the specification; with the birth come names and types."""
    node = EdgeNode({"": {"v": "Int8"}})
    node.birth(v=1)  # nobody was there to hear it
    commands: SimpleQueue[paho.MQTTMessage] = SimpleQueue()
    with Mosquitto(tmp_path) as broker, connected(broker.port) as client:
        client.on_message = lambda _client, _data, message: commands.put(message)
        client.subscribe("spBv1.0/G/NCMD/E", 1)
        settings = {"url": broker.url, "rebirth": True}
        with BridgeProcess(tmp_path, settings, routes=[{**ROUTE, "topic": "spBv1.0/+/+/E"}]) as bridge:
            for _ in range(3):
                client.publish(*node.data(v=-12), qos=1).wait_for_publish(PATIENCE)
            (metric,) = Payload.FromString(commands.get(timeout=PATIENCE).payload).metrics
            assert (metric.name, metric.datatype, metric.boolean_value) == ("Node Control/Rebirth", 11, True)
            for answer in (node.birth(v=5), node.data(v=-12)):
                client.publish(*answer, qos=1).wait_for_publish(PATIENCE)
            until(lambda: bridge.query("SELECT count(*) FROM t WHERE v = -12") == [(1,)], "data after the birth")
    assert bridge.query("SELECT v FROM t WHERE v IS NOT NULL ORDER BY id") == [(5,), (-12,)]
    assert commands.empty()


@contextmanager
def connected(port: int) -> Iterator[paho.Client]:
    """Connect a client."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(20)
    is_up = Event()
    client.on_connect = lambda *_: is_up.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert is_up.wait(PATIENCE)
    yield client
    client.disconnect()
    client.loop_stop()


def _messages(bridge: BridgeProcess) -> int:
    """Return how many messages have been stored, or have become dead letters."""
    (row,) = bridge.query("SELECT sum(stored) + sum(dead) FROM mqtt_counter") or [(0,)]
    return int(row[0] or 0)


def _has_more(bridge: BridgeProcess, messages: int) -> bool:
    return _messages(bridge) > messages


def _kill_bridge(bridge: BridgeProcess) -> None:
    bridge.kill()
    bridge.start()


def _kill_writer(bridge: BridgeProcess) -> None:
    assert bridge._process is not None
    children = Path(f"/proc/{bridge._process.pid}/task/{bridge._process.pid}/children").read_text().split()
    assert children
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)
