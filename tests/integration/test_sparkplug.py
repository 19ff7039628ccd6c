"""Sparkplug B from Mosquitto through the bridge, with `kill -9` of the writer: every metric is stored once."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Event

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion

from amqtt_db.reader import read
from tests.decode.plant import Plant, Step, expected_of, told_by
from tests.integration.bridge import MOSQUITTO, PATIENCE, BridgeProcess, Mosquitto, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.fault,
    pytest.mark.skipif(MOSQUITTO is None, reason="needs Mosquitto"),
]

ROUTE = {"topic": "spBv1.0/#", "decode": "sparkplug", "model": {"wide": {"table": "t"}}}


def test_every_metric_survives_kills(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Killed while it stores what came before, again and again."""
    minutes = request.config.getoption("--plant-minutes")
    steps = [*Plant(3).steps(60 * minutes)]
    parts = max(2, minutes)
    with Mosquitto(tmp_path) as broker, BridgeProcess(tmp_path, broker.url, routes=[ROUTE]) as bridge:
        size = len(steps) // parts + 1
        for part in range(parts):
            _publish(broker.port, steps[part * size : (part + 1) * size])
            _kill_writer(bridge)
        until(lambda: _messages(bridge) == len(steps), "everything is stored")
    records = list(read(f"sqlite:///{bridge.database}"))
    assert told_by(records) == expected_of(steps)


def _messages(bridge: BridgeProcess) -> int:
    """Return how many messages have been stored, or have become dead letters."""
    (row,) = bridge.query("SELECT sum(stored) + sum(dead) FROM mqtt_counter") or [(0,)]
    return int(row[0] or 0)


def _kill_writer(bridge: BridgeProcess) -> None:
    assert bridge._process is not None
    children = Path(f"/proc/{bridge._process.pid}/task/{bridge._process.pid}/children").read_text().split()
    for child in children:
        with suppress(ProcessLookupError):
            os.kill(int(child), signal.SIGKILL)


def _publish(port: int, steps: Sequence[Step]) -> None:
    """Publish messages in order, as one client."""
    client = paho.Client(CallbackAPIVersion.VERSION2)
    client.max_inflight_messages_set(20)
    connected = Event()
    client.on_connect = lambda *_: connected.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert connected.wait(PATIENCE)
    for one in [client.publish(*step.message, qos=1) for step in steps]:
        one.wait_for_publish(PATIENCE)
    client.disconnect()
    client.loop_stop()
