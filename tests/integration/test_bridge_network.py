"""What a network and a flood do to a bridge: cut off, slow, too much, too large.  Nothing acknowledged is lost."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from threading import Thread
from typing import Final

import pytest

from tests.integration.bridge import MOSQUITTO, BridgeProcess, Mosquitto, numbers, until
from tests.network import Host

pytestmark = [
    pytest.mark.slow,
    pytest.mark.fault,
    pytest.mark.skipif(MOSQUITTO is None, reason="needs Mosquitto"),
]
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make hosts")

ROOT: Final = Path(__file__).parents[2]
LARGEST: Final = 268_435_455
"""Bytes of the largest packet that MQTT allows, behind its fixed header."""


def publish_there(host: Host, port: int, start: int, stop: int) -> subprocess.Popen[bytes]:
    """Publish numbers from a process on the broker's host, which no fault of the network between keeps from it."""
    program = "from tests.integration.bridge import numbers, publish; "
    program += f"publish({port}, numbers({start}, {stop}))"
    return host.execute("env", "-C", ROOT, sys.executable, "-c", program)


@needs_root
def test_a_half_open_connection_is_given_up(tmp_path: Path, host: Host) -> None:
    """Packets are lost under load, and none says so: the bridge reconnects, and each message is stored once."""
    with Mosquitto(tmp_path, host=host) as broker:
        settings = {"url": broker.url, "keep_alive": "2 s", "window": 50}
        with BridgeProcess(tmp_path, settings) as bridge:
            assert publish_there(host, broker.port, 0, 1500).wait(60) == 0
            until(lambda: len(bridge.stored()) == 1500, "ids have been in turn for longer than four windows")
            publishing = publish_there(host, broker.port, 1500, 5500)
            until(lambda: bridge.count() > 1500, "more arrives")
            with host.unplugged():
                until(lambda: bridge.logged("has been silent for 3 s"), "the silence is told")
            assert publishing.wait(60) == 0
            until(lambda: len(bridge.stored()) >= 5500, "all are stored")
        assert bridge.stored() == list(range(5500))


@needs_root
def test_a_slow_network_loses_nothing(tmp_path: Path, host: Host) -> None:
    """Half a megabit, and packets dropped from a short queue; pings come through, so one connection lasts."""
    with Mosquitto(tmp_path, host=host) as broker:
        host.slow_down("512kbit")
        with BridgeProcess(tmp_path, {"url": broker.url, "keep_alive": "2 s"}) as bridge:
            assert publish_there(host, broker.port, 0, 4000).wait(60) == 0
            until(lambda: bridge.count() >= 4000, "all are stored")
            assert bridge.logged("connected with MQTT") == 1
        assert bridge.stored() == list(range(4000))


def test_a_flood_of_qos_0_keeps_nothing_else_out(tmp_path: Path) -> None:
    """QoS 1 is stored whatever of the flood the broker drops; none is stored twice, and the connection lasts."""
    with Mosquitto(tmp_path) as broker, BridgeProcess(tmp_path, {"url": broker.url, "keep_alive": "2 s"}) as bridge:
        flood = Thread(target=broker.publish, args=(numbers(0, 20_000), "flood", 0))
        flood.start()
        broker.publish(numbers(0, 500))
        flood.join()
        broker.publish(numbers(500, 1000))
        until(lambda: bridge.count() >= 1000, "QoS 1 is stored")
        assert bridge.stored() == list(range(1000))
        until(lambda: bridge.stored("flood"), "some of the flood is stored")
        assert bridge.logged("connected with MQTT") == 1
    flooded = bridge.stored("flood")
    assert len(set(flooded)) == len(flooded)


@pytest.mark.parametrize("size", [20_000_000, LARGEST])
def test_a_large_payload_is_stored(tmp_path: Path, size: int, request: pytest.FixtureRequest) -> None:
    """Up to the largest that MQTT allows; messages behind it are stored too."""
    if size == LARGEST and not request.config.getoption("--long"):
        pytest.skip("takes long: pass --long")
    routes = [{"topic": "t"}, {"topic": "large", "decode": "bytes"}]
    with Mosquitto(tmp_path) as broker, BridgeProcess(tmp_path, broker.url, routes=routes) as bridge:
        broker.publish(["x" * (size - len("__large___"))], "large")  # topic, packet id, length of properties
        broker.publish(numbers(0, 10))
        until(lambda: bridge.query("SELECT count(*) FROM large") == [(1,)], "it is stored", 240)
        until(lambda: len(bridge.stored()) == 10, "those behind it are stored", 60)
