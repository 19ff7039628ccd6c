"""The bridge between a real Mosquitto and a database: exactly once, whatever happens in between."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.bridge import MOSQUITTO, BridgeProcess, Mosquitto, numbers, until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(MOSQUITTO is None, reason="needs Mosquitto")]


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_messages_of_every_qos_are_stored_once(tmp_path: Path, protocol: str) -> None:
    """With their QoS, and the bridge's connection as their session; it ends in order, status 0."""
    with Mosquitto(tmp_path) as broker, BridgeProcess(tmp_path, {"url": broker.url, "protocol": protocol}) as bridge:
        for qos in (0, 1, 2):
            broker.publish(numbers(100 * qos, 100 * qos + 100), qos=qos)
        until(lambda: len(bridge.stored()) == 300, "all are stored")
        assert bridge.query("SELECT DISTINCT qos FROM t ORDER BY qos") == [(0,), (1,), (2,)]
        assert bridge.query("SELECT count(DISTINCT session) FROM t") == [(1,)]
    assert bridge.stored() == list(range(300))
    ((client_id, ended),) = bridge.query("SELECT client_id, disconnected IS NOT NULL FROM mqtt_session")
    assert (client_id[:7], ended) == ("amqttdb", 1)
    assert bridge.logged("ERROR") == 0


def test_a_broker_that_restarts_is_connected_again(tmp_path: Path) -> None:
    """With persistence its session is kept: what is published after that is stored."""
    with Mosquitto(tmp_path, "persistence true") as broker, BridgeProcess(tmp_path, broker.url) as bridge:
        broker.publish(numbers(0, 10))
        until(lambda: len(bridge.stored()) == 10, "all are stored")
        broker.stop()
        broker.start()
        broker.publish(numbers(10, 20))
        until(lambda: len(bridge.stored()) == 20, "those after the restart are stored")
        assert bridge.logged("has lost the session") == 0


def test_a_lost_session_is_an_error_and_subscribed_again(tmp_path: Path) -> None:
    """Mosquitto without persistence loses it; messages may be missing, and an error says so."""
    with Mosquitto(tmp_path) as broker, BridgeProcess(tmp_path, {"url": broker.url, "qos": 1}) as bridge:
        broker.stop()
        broker.start()
        until(lambda: bridge.logged("subscribed to #") == 2, "the bridge is subscribed again")
        assert bridge.logged("has lost the session") == 1
        assert bridge.logged("messages may be missing") == 1
        broker.publish(numbers(0, 10))
        until(lambda: len(bridge.stored()) == 10, "all are stored")


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
@pytest.mark.parametrize(("retained", "count"), [("store", 1), ("ignore", 0)])
def test_retained_messages_are_stored_once_or_never(tmp_path: Path, protocol: str, retained: str, count: int) -> None:
    """They are not stored again when the bridge comes back."""
    with Mosquitto(tmp_path) as broker:
        broker.publish(numbers(1, 2), "old", retain=True)
        bridge = BridgeProcess(tmp_path, {"url": broker.url, "protocol": protocol, "retained": retained})
        for number in range(2):
            with bridge:
                broker.publish(numbers(number, number + 1))
                until(lambda: number in bridge.stored(), "the new one is stored")  # noqa: B023 - it is called at once
        assert len(bridge.stored("old")) == count


def test_changed_routes_change_the_subscription(tmp_path: Path) -> None:
    """The broker keeps the session: the new filter is subscribed, and the removed one is no longer delivered."""
    with Mosquitto(tmp_path) as broker:
        bridge = BridgeProcess(tmp_path, broker.url, routes=[{"topic": "a"}, {"topic": "b"}])
        with bridge:
            until(lambda: bridge.logged("subscribed to a, b"), "the bridge is subscribed")
        bridge.configure(routes=[{"topic": "b"}, {"topic": "c"}])
        with bridge:
            until(lambda: bridge.logged("subscribed to b, c"), "the bridge is subscribed to the new filter")
            for topic in "abc":
                broker.publish(numbers(0, 3), topic)
            until(lambda: len(bridge.stored("c")) == 3, "the new topic is stored")
            assert bridge.logged("no longer subscribed to a") == 1
        assert (bridge.stored("a"), bridge.stored("b")) == ([], [0, 1, 2])
        assert bridge.query("SELECT sum(ignored) FROM mqtt_counter") in ([(0,)], [(None,)])


def test_overlapping_routes_store_a_message_once(tmp_path: Path) -> None:
    """Mosquitto delivers it for each filter in MQTT 5; the bridge's filters do not overlap."""
    routes = [{"topic": "home/{room}/c"}, {"topic": "#"}]
    with Mosquitto(tmp_path) as broker, BridgeProcess(tmp_path, broker.url, routes=routes) as bridge:
        broker.publish(numbers(0, 6), "home/hall/c")
        broker.publish(numbers(0, 1))
        until(bridge.stored, "the last one is stored")
        assert bridge.stored("home_hall_c") == list(range(6))


def test_a_wrong_password_is_told_once(tmp_path: Path) -> None:
    """The line names broker and cause, not the password."""
    (tmp_path / "passwords").touch()
    subprocess.run(["mosquitto_passwd", "-b", str(tmp_path / "passwords"), "me", "right:@/"], check=True)
    with Mosquitto(tmp_path, f"password_file {tmp_path / 'passwords'}") as broker:
        login = {"url": broker.url, "username": "me", "protocol": "3.1.1", "qos": 1}
        with BridgeProcess(tmp_path, {**login, "password": "secret-1"}) as bridge:
            until(lambda: bridge.logged("ERROR"), "the mistake is told")
            time.sleep(2)  # two more attempts
            assert bridge.logged("ERROR") == 1
            assert bridge.logged("user name and password") == 1
            assert bridge.logged("secret-1") == 0
        seen = bridge.logged("ERROR")
        with BridgeProcess(tmp_path, {**login, "protocol": "auto", "password": "right:@/"}) as bridge:
            until(lambda: bridge.logged("subscribed to #"), "the bridge is subscribed")
            assert bridge.logged("subscribed to #") == 1
            assert bridge.logged("ERROR") == seen


def test_a_full_journal_holds_back_and_keeps_the_connection(tmp_path: Path) -> None:
    """Longer than the keep-alive; once there is room, everything is stored once."""
    journal = {"path": str(tmp_path / "mqtt.journal"), "max_size": "64 kB"}
    settings = {"keep_alive": "1 s", "window": 50}
    with Mosquitto(tmp_path) as broker:
        bridge = BridgeProcess(tmp_path, {"url": broker.url, **settings}, journal=journal)
        with bridge:
            broker.publish(numbers(0, 1))
            until(lambda: len(bridge.stored()) == 1, "there is a table")
            with closing(sqlite3.connect(bridge.database, isolation_level=None)) as blocker:
                blocker.execute("BEGIN IMMEDIATE")
                broker.publish([f'{{"n": {n}, "x": "{"x" * 1000}"}}' for n in range(1, 501)])
                until(lambda: bridge.logged("is full"), "the journal is full")
                time.sleep(4)  # more than twice the time after which Mosquitto closes a silent connection
                blocker.execute("ROLLBACK")
            until(lambda: len(bridge.stored()) >= 501, "all are stored")
        assert bridge.stored() == list(range(501))
        assert bridge.query("SELECT count(*) FROM mqtt_session") == [(1,)]
