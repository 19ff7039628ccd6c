"""What a broker has lost or does not grant is logged once and shown by `status`."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from amqtt_db.ingest.bridge.link_state import LINK_SCOPE, LinkState, decode_states
from amqtt_db.ingest.bridge.software import ignores_window
from amqtt_db.journal import JournalReader
from amqtt_db.record import EPOCH
from tests.integration.bridge import BridgeProcess, Mosquitto, numbers, until

pytestmark = pytest.mark.slow


def broker_state(directory: Path) -> LinkState:
    """What the bridge has noted of the only broker, which `status` shows; nothing before its first note."""
    reader = JournalReader(directory / "mqtt.journal")
    states = decode_states(reader.notes(LINK_SCOPE))
    reader.close()
    return states[0] if states else LinkState("", False, EPOCH)


def test_what_the_broker_drops_loses_and_does_not_grant_is_shown(tmp_path: Path) -> None:
    """Messages dropped while the bridge was away, a lower QoS, and a lost session with the time away."""
    lines = "max_queued_messages 10", "sys_interval 1", "max_qos 1"
    with Mosquitto(tmp_path, *lines) as broker:
        bridge = BridgeProcess(tmp_path, {"url": broker.url, "protocol": "3.1.1"})
        with bridge:
            broker.publish(['{"n": 1}'])
            until(bridge.stored, "there is a database")
            until(lambda: broker_state(tmp_path).drop_counter is not None, "the bridge has looked")
        broker.publish([f'{{"n": {number}}}' for number in range(2, 100)])
        with bridge:
            until(lambda: bridge.logged("has dropped"), "the drops are noticed")
            until(lambda: broker_state(tmp_path).dropped > 0, "they are in the status")
            broker.stop()
            broker.start()
            until(lambda: bridge.logged("has lost the session"), "the lost session is noticed")
            until(lambda: broker_state(tmp_path).lost_at, "it is in the status")
            found = broker_state(tmp_path)
        assert (found.codes, found.lost_since is None) == ({"#": 1}, False)
        command = [sys.executable, "-m", "amqtt_db", "status", str(tmp_path / "bridge.yaml")]
        text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    for said in ("the broker has dropped", "grants only QoS 1 for #", "the broker has lost the session, found at"):
        assert said in text
    assert bridge.logged("has dropped") == 1


def test_a_broker_that_ignores_the_window_gets_qos_1(tmp_path: Path) -> None:
    """Its version is looked up; what was published with QoS 2 still arrives, once, also after another start."""
    with Mosquitto(tmp_path) as broker:
        bridge = BridgeProcess(tmp_path, broker.url)
        with bridge:
            until(lambda: broker_state(tmp_path).software, "the bridge knows what the broker is")
            qos = 1 if ignores_window(broker_state(tmp_path).software) else 2
            until(lambda: bridge.logged(": subscribed to") == 3 - qos, "the broker has granted it")
            assert bridge.logged("subscribing with QoS 1") == 2 - qos
            broker.publish(numbers(0, 10), qos=2)
            until(lambda: len(bridge.stored()) == 10, "all are stored")
        broker.publish(numbers(10, 20), qos=2)
        with bridge:
            until(lambda: bridge.stored() == list(range(20)), "all are stored once")
        assert bridge.logged(": subscribed to") == 3 - qos
        assert bridge.query("SELECT DISTINCT qos FROM t") == [(qos,)]


def test_a_database_away_for_longer_than_the_brokers_queue_and_a_journal_removed(tmp_path: Path) -> None:
    """What the journal and the broker's queue cannot hold is dropped by the broker, and counted; the rest is stored.

    Without its journal, the bridge goes on with the broker's session, because its client id is the same.
    """
    journal = {"path": str(tmp_path / "mqtt.journal"), "max_size": "64 kB"}
    with Mosquitto(tmp_path, "max_queued_messages 100", "sys_interval 1") as broker:
        bridge = BridgeProcess(tmp_path, {"url": broker.url, "window": 50}, journal=journal)
        with bridge:
            broker.publish(numbers(0, 1))
            until(bridge.stored, "there is a table")
            until(lambda: broker_state(tmp_path).drop_counter is not None, "the bridge has looked")
            with closing(sqlite3.connect(bridge.database, isolation_level=None)) as blocker:
                blocker.execute("BEGIN IMMEDIATE")
                broker.publish([f'{{"n": {n}, "x": "{"x" * 1000}"}}' for n in range(1, 1001)])
                assert bridge.logged("is full")
                blocker.execute("ROLLBACK")
        with bridge:
            until(lambda: len(bridge.stored()) + broker_state(tmp_path).dropped == 1001, "each is stored or counted")
        assert len(set(bridge.stored())) == len(bridge.stored()) < 1001
        for file in tmp_path.glob("mqtt.journal*"):
            file.unlink()
        broker.publish(numbers(2000, 2010))
        with bridge:
            until(lambda: bridge.stored()[-10:] == list(range(2000, 2010)), "the session went on")


def test_a_journal_restored_from_a_backup_loses_nothing(tmp_path: Path) -> None:
    """It ends before the database's checkpoint, but what arrives next is not taken for what is stored already."""
    journal, backup = tmp_path / "mqtt.journal", tmp_path / "backup"
    with Mosquitto(tmp_path) as broker:
        bridge = BridgeProcess(tmp_path, broker.url)

        def store(start: int) -> None:
            with bridge:
                broker.publish(numbers(start, start + 100))
                until(lambda: bridge.stored()[-1:] == [start + 99], "the last are stored")

        store(0)
        backup.write_bytes(journal.read_bytes())
        store(100)
        journal.write_bytes(backup.read_bytes())
        store(200)
        assert bridge.stored() == list(range(300))
