"""What can happen to a connection and to a journal: nothing acknowledged is lost, and all is counted."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.bridge import MOSQUITTO, BridgeProcess, Mosquitto, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.fault,
    pytest.mark.skipif(MOSQUITTO is None, reason="needs Mosquitto"),
]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_broker_that_hangs_is_given_up_and_connected_again(tmp_path: Path, protocol: str) -> None:
    """Its sockets stay open but nothing arrives: the bridge logs that after 1.5 keep-alives, and reconnects."""
    with Mosquitto(tmp_path) as broker:
        settings = {"url": broker.url, "protocol": protocol, "keep_alive": "2 s"}
        with BridgeProcess(tmp_path, settings) as bridge:
            broker.publish([f'{{"n": {n}}}' for n in range(100)])
            until(lambda: len(bridge.stored()) == 100, "the first are stored")
            with broker.hanging():
                until(lambda: bridge.logged("has been silent for 3 s"), "the silence is told")
                until(lambda: bridge.logged("has not answered CONNECT"), "it is tried again")
            until(lambda: bridge.logged("connected with MQTT") > 1, "it is connected again")
            broker.publish([f'{{"n": {n}}}' for n in range(100, 200)])
            until(lambda: len(bridge.stored()) >= 200, "those after that are stored")
            assert bridge.stored() == list(range(200))
            assert bridge.logged("trying MQTT") == 0


def test_what_a_full_journal_does_not_take_of_qos_0_is_counted(tmp_path: Path) -> None:
    """Each message is stored or refused, and `status` shows how many; QoS 1 waits at the broker and is stored later."""
    journal = {"path": str(tmp_path / "mqtt.journal"), "max_size": "64 kB"}
    with Mosquitto(tmp_path) as broker:
        bridge = BridgeProcess(tmp_path, {"url": broker.url, "window": 50}, journal=journal)
        with bridge:
            broker.publish(['{"n": 0}'])
            until(lambda: len(bridge.stored()) == 1, "there is a table")
            with closing(sqlite3.connect(bridge.database, isolation_level=None)) as blocker:
                blocker.execute("BEGIN IMMEDIATE")
                broker.publish([f'{{"n": {n}, "x": "{"x" * 1000}"}}' for n in range(1, 1001)], qos=0)
                until(lambda: bridge.logged("is full"), "the journal is full")
                broker.publish([f'{{"n": {n}}}' for n in range(1001, 1011)])
                blocker.execute("ROLLBACK")
            until(lambda: bridge.stored()[-10:] == list(range(1001, 1011)), "QoS 1 is stored")
            until(lambda: refused(tmp_path) + len(bridge.stored()) == 1011, "each is stored or refused")
        assert refused(tmp_path) > 0
        assert len(set(bridge.stored())) == len(bridge.stored())


def refused(directory: Path) -> int:
    """Return how many messages `status` says were refused."""
    command = [sys.executable, "-m", "amqtt_db", "status", str(directory / "bridge.yaml"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return int(json.loads(done.stdout)["refused"])
