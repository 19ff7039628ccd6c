"""A Mosquitto that forwards its messages to amqtt's broker, as its own bridge does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.bridge import MOSQUITTO, Mosquitto
from tests.integration.broker import BrokerProcess

pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="Mosquitto is not installed")


@pytest.mark.slow
@pytest.mark.parametrize("protocol", ["mqttv31", "mqttv311"])
def test_mosquitto_bridges_into_amqtt(tmp_path: Path, protocol: str) -> None:
    """Its bridge bit is understood at the first attempt; whatever QoS it forwards with, all is stored once."""
    with BrokerProcess(tmp_path) as broker:
        lines = (
            "connection upstream", f"address 127.0.0.1:{broker.port}", "topic # out 2", "try_private true",
            f"bridge_protocol_version {protocol}", "notifications false", "restart_timeout 60",
        )  # fmt: skip
        with Mosquitto(tmp_path, *lines) as mosquitto:
            broker.until(lambda: ".upstream' connected" in broker.log.read_text(), "the bridge is connected")
            mosquitto.publish(map(str, range(200)), "n")
            broker.until_stored(200)
    (stored,) = broker.sql("SELECT count(*), count(DISTINCT value) FROM n")
    assert stored == (200, 200)
    assert "speaks" not in broker.log.read_text()
