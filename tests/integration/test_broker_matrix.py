"""The same day with every broker: all QoS, retained messages, other routes, a killed bridge, a restarted broker."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import attrs
import pytest

from tests.integration.bridge import MOSQUITTO, BridgeProcess, LocalBroker, Mosquitto, numbers, until
from tests.integration.brokers import AEDES, NATS, NODE, RABBITMQ, Aedes, Amqtt, Nats, RabbitMq

pytestmark = [pytest.mark.slow]


@attrs.frozen
class Kind:
    """A kind of broker, and what it does in its own way.

    ``speaks`` is the version of MQTT; ``stores`` says as which QoS a message of QoS 0, 1 and 2 arrives.
    ``settings`` are for the bridge.  If it ``is_durable``, sessions outlive the broker's process.  If it ``is_exact``,
    it keeps packet ids and marks what it redelivers; without ``redelivers`` it loses what is in flight at a kill.
    ``retained`` is how often it sends a retained message on this day; sessions that are kept should get it once.
    """

    make: Callable[[Path], LocalBroker]
    is_at_hand: bool
    speaks: str
    stores: tuple[int, int, int] = (0, 1, 2)
    settings: Mapping[str, Any] = {}
    is_durable: bool = True
    is_exact: bool = True
    redelivers: bool = True
    retained: int = 1


def lasting_mosquitto(directory: Path) -> Mosquitto:
    """A Mosquitto that keeps sessions when it is restarted."""
    return Mosquitto(directory, "persistence true")


KINDS: Final = {
    # With MQTT 5, versions differ in the QoS that the bridge asks for; see test_bridge_losses.py.
    "Mosquitto 5": Kind(lasting_mosquitto, MOSQUITTO is not None, "5", stores=(0, 1, 1), settings={"qos": 1}),
    "Mosquitto 3.1.1": Kind(lasting_mosquitto, MOSQUITTO is not None, "3.1.1", settings={"protocol": "3.1.1"}),
    "NATS": Kind(Nats, NATS is not None, "3.1.1"),
    "RabbitMQ": Kind(RabbitMq, RABBITMQ.exists(), "3.1.1", stores=(0, 1, 1), is_exact=False),
    "aedes": Kind(Aedes, None not in (NODE, AEDES), "3.1.1", is_durable=False, is_exact=False),
    "amqtt": Kind(
        Amqtt,
        True,
        "3.1.1",
        stores=(2, 2, 2),
        is_durable=False,
        is_exact=False,
        redelivers=False,
        retained=3,
        settings={"username": "bridge", "protocol": "3.1.1"},
    ),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_a_day_with_a_broker(tmp_path: Path, kind: Kind, request: pytest.FixtureRequest) -> None:
    """Nothing is lost, and nothing doubled where the broker keeps packet ids and marks what it redelivers."""
    if not kind.is_at_hand:
        pytest.skip("this broker is not installed")
    if kind.make in {RabbitMq, Amqtt} and not request.config.getoption("--long"):
        pytest.skip("RabbitMQ takes ten seconds to start, and amqtt has a plugin: pass --long")
    with kind.make(tmp_path / "broker") as broker:
        broker.publish(numbers(7, 8), "old", retain=True)
        bridge = BridgeProcess(tmp_path, {"url": broker.url, "window": 50, **kind.settings})
        bridge.configure(routes=[{"topic": "gone"}, {"topic": "old"}, {"topic": "t"}])
        with bridge:
            store_every_qos(broker, bridge, kind)
        bridge.configure(routes=[{"topic": "new"}, {"topic": "old"}, {"topic": "t"}])
        with bridge:
            change_routes(broker, bridge)
            kill_bridge(broker, bridge, kind)
            restart_broker(broker, bridge, kind)
        assert set(range(5500)).difference(bridge.stored()) == set()
        assert not kind.is_exact or len(bridge.stored()) == 5500
        assert len(bridge.stored("old")) == kind.retained


def store_every_qos(broker: LocalBroker, bridge: BridgeProcess, kind: Kind) -> None:
    """Once each, retained ones too."""
    until(lambda: bridge.logged(": subscribed to gone, old, t"), "the bridge is subscribed")
    assert bridge.logged(f"connected with MQTT {kind.speaks},") == 1
    for qos in (0, 1, 2):
        broker.publish(numbers(100 * qos, 100 * qos + 100), qos=qos)
    broker.publish(numbers(0, 5), "gone")
    until(lambda: len(bridge.stored()) >= 300, "all are stored")
    expected = sorted(qos for qos in kind.stores for _ in range(100))
    assert [qos for (qos,) in bridge.query("SELECT qos FROM t ORDER BY qos")] == expected
    until(lambda: bridge.stored("old") == [7], "the retained message is stored")
    for start in range(300, 1300, 100):  # so that the bridge sees soon how the broker gives ids
        broker.publish(numbers(start, start + 100))
        until(lambda: bridge.count() == start + 100, "all are stored")  # noqa: B023


def change_routes(broker: LocalBroker, bridge: BridgeProcess) -> None:
    """The new topic is stored, the one that no route wants any more is not."""
    until(lambda: bridge.logged(": subscribed to") == 2, "the new filter is subscribed")
    assert bridge.logged("no longer subscribed to gone") == 1
    broker.publish(numbers(5, 10), "gone")
    broker.publish(numbers(0, 5), "new")
    until(lambda: bridge.stored("new") == list(range(5)), "the new topic is stored")
    assert bridge.stored("gone") == list(range(5))


def kill_bridge(broker: LocalBroker, bridge: BridgeProcess, kind: Kind) -> None:
    """``kill -9`` under load, and a start at once; a broker that does not redeliver gets its load after the kill."""
    with ThreadPoolExecutor(1) as pool:
        if kind.redelivers:
            publishing = pool.submit(broker.publish, numbers(1300, 5300))
            time.sleep(0.2)
        bridge.kill()
        if not kind.redelivers:
            publishing = pool.submit(broker.publish, numbers(1300, 5300))
        bridge.start()
        publishing.result()
    until(lambda: len(set(bridge.stored())) == 5300, "all are stored")


def restart_broker(broker: LocalBroker, bridge: BridgeProcess, kind: Kind) -> None:
    """What is published before the bridge is back waits at a durable broker; another one's loss is told."""
    connected = bridge.logged("connected with MQTT")
    broker.stop()
    broker.start()
    if kind.is_durable:
        broker.publish(numbers(5300, 5400))
    until(lambda: bridge.logged("connected with MQTT") > connected, "it is connected again")
    if not kind.is_durable:
        until(lambda: bridge.logged("has lost the session"), "the loss is told")
        broker.publish(numbers(5300, 5400))
    broker.publish(numbers(5400, 5500))
    until(lambda: len(set(bridge.stored())) == 5500, "all are stored")
