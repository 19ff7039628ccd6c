"""Payloads that are too large for the journal's limit, at a real broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.bridge import BridgeProcess, Mosquitto, until

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_payload_that_is_too_large_is_refused_and_acknowledged(tmp_path: Path, protocol: str) -> None:
    """At every QoS: what comes after it is stored, the log says so once, and the broker does not send it again."""
    journal = {"path": str(tmp_path / "mqtt.journal"), "max_payload": "10 kB"}
    with Mosquitto(tmp_path) as broker:
        with BridgeProcess(tmp_path, {"url": broker.url, "protocol": protocol}, journal=journal) as bridge:
            for qos in (0, 1, 2):
                broker.publish([f'{{"n": {qos}}}', "x" * 10_001, "y" * 3_000_000, f'{{"n": {qos + 3}}}'], qos=qos)
            until(lambda: len(bridge.stored()) == 6, "the small ones are stored")
        with bridge:
            broker.publish(['{"n": 6}'])
            until(lambda: bridge.stored() == list(range(7)), "the next one is stored")
        assert bridge.logged("more than `journal: {max_payload: …}` allows") == 1
        assert bridge.logged("ERROR") == 0
