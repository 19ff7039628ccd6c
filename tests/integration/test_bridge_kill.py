"""``kill -9`` of the bridge under load: what the broker has acknowledged is stored, and stored once.

`--kill-rounds 100 -s` kills each a hundred times and prints what that cost; `--long` adds RabbitMQ and NATS.
"""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Final

import pytest

from amqtt_db.ingest.bridge.session import Session
from tests.integration.bridge import MOSQUITTO, BridgeProcess, LocalBroker, Mosquitto, numbers, until
from tests.integration.brokers import NATS, RABBITMQ, Nats, RabbitMq

pytestmark = [pytest.mark.slow]

needs_mosquitto = pytest.mark.skipif(MOSQUITTO is None, reason="needs Mosquitto")
WINDOW: Final = 100
MESSAGES: Final = 4000
"""How many are published while the bridge is killed."""

Make = Callable[[Path], LocalBroker]


@pytest.mark.parametrize(
    ("make", "protocol", "qos"),
    [
        pytest.param(Mosquitto, "5", 1, id="Mosquitto-5-QoS 1", marks=needs_mosquitto),
        pytest.param(Mosquitto, "3.1.1", 1, id="Mosquitto-3.1.1-QoS 1", marks=needs_mosquitto),
        pytest.param(Mosquitto, "5", 2, id="Mosquitto-5-QoS 2", marks=needs_mosquitto),
    ],
)
def test_nothing_is_lost_or_stored_twice_when_the_bridge_is_killed(
    tmp_path: Path, make: Make, protocol: str, qos: int, kill_rounds: int
) -> None:
    """The broker keeps packet ids and marks what it redelivers."""
    stored, published = kill_under_load(tmp_path, make, protocol, qos, kill_rounds)
    assert set(range(published)).difference(stored) == set()
    assert len(stored) == published


@pytest.mark.parametrize(
    ("make", "qos"), [pytest.param(RabbitMq, 1, id="RabbitMQ-QoS 1"), pytest.param(Nats, 2, id="NATS-QoS 2")]
)
def test_nothing_is_lost_with_a_broker_that_doubles(
    tmp_path: Path, make: Make, qos: int, kill_rounds: int, request: pytest.FixtureRequest
) -> None:
    """RabbitMQ assigns new packet ids on each connection, so what it redelivers cannot be told from what is new."""
    if not request.config.getoption("--long") or not RABBITMQ.exists() or NATS is None:
        pytest.skip("takes long: pass --long, and install RabbitMQ and NATS")
    stored, published = kill_under_load(tmp_path, make, "3.1.1", qos, kill_rounds)
    assert set(range(published)).difference(stored) == set()


def ids_are_proven(bridge: BridgeProcess) -> bool:
    """Return True if the bridge's journal has the proof that messages that are sent again can be recognized."""
    with closing(sqlite3.connect(f"file:{bridge.directory / 'mqtt.journal'}?mode=ro", uri=True)) as journal:
        notes = dict(journal.execute("SELECT key, value FROM note"))
    return Session(notes, WINDOW).is_proven


def kill_under_load(directory: Path, make: Make, protocol: str, qos: int, rounds: int) -> tuple[list[int], int]:
    """Return the stored numbers, and how many were published and acknowledged by the broker."""
    settings = {"protocol": protocol, "window": WINDOW}
    with make(directory / "broker") as broker, ThreadPoolExecutor(1) as pool:
        bridge = BridgeProcess(directory, {"url": broker.url, **settings})
        with bridge:
            until(lambda: bridge.logged(": subscribed to"), "the broker knows what to keep")
            end = 0
            while end < MESSAGES and not ids_are_proven(bridge):
                broker.publish(numbers(end, end + 2 * WINDOW), qos=qos)
                end += 2 * WINDOW
                until(lambda: bridge.count() >= end, "the bridge has seen how the broker gives ids")  # noqa: B023
            broker.publish(numbers(end, end + 4 * MESSAGES), qos=qos)
            end += 4 * MESSAGES
            until(lambda: bridge.count() >= end, "it has seen twice as many ids as may ever be in flight")
            for _ in range(rounds):
                publishing = pool.submit(broker.publish, numbers(end, end + MESSAGES), qos=qos)
                end += MESSAGES
                time.sleep(random.uniform(0.05, 0.6))
                bridge.kill()
                bridge.start()
                publishing.result()
                until(lambda: bridge.count() > end - 2 * MESSAGES, "the bridge keeps up", 120)  # noqa: B023
            until(lambda: len(set(bridge.stored())) >= end, "all are stored", 300)
        stored = bridge.stored()
    lost, doubled = end - len(set(stored)), len(stored) - len(set(stored))
    print(  # noqa: T201 - it is asked for with -s
        f"{broker.name} {protocol} QoS {qos}: {rounds} kills, {end} acknowledged, {lost} lost, {doubled} doubled"
    )
    return stored, end
