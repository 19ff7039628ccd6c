"""`group:`: several bridges share the messages of one broker."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.bridge import MOSQUITTO, BridgeProcess, Mosquitto, numbers, until
from tests.integration.scripted_broker import ACCEPTED, V5, ScriptedBroker

pytestmark = [pytest.mark.slow, pytest.mark.skipif(MOSQUITTO is None, reason="needs Mosquitto")]


def test_two_bridges_store_each_message_once_between_them(tmp_path: Path) -> None:
    """Also what is published after one of them was killed: Mosquitto keeps its share until it is started again."""
    homes = [tmp_path / name for name in ("one", "two")]
    for home in homes:
        home.mkdir()
    with Mosquitto(tmp_path) as broker:
        one, two = (BridgeProcess(home, {"url": broker.url, "group": "store"}) for home in homes)
        with one, two:
            until(lambda: one.logged("subscribed to $share/store/#") and two.logged("subscribed to $share"), "both are")
            broker.publish(numbers(0, 2000))
            until(lambda: len(one.stored() + two.stored()) == 2000, "all are stored")
            assert min(len(one.stored()), len(two.stored())) > 500
            two.kill()
            broker.publish(numbers(2000, 4000))
            two.start()
            until(lambda: len(one.stored() + two.stored()) >= 4000, "those after the kill are stored")
        assert sorted(one.stored() + two.stored()) == list(range(4000))


def test_a_broker_without_shared_subscriptions_is_told(tmp_path: Path) -> None:
    """In one line; nothing is subscribed, rather than everything by each bridge."""
    answer = b"\x20\x05\x00\x00\x02\x2a\x00"
    with (
        ScriptedBroker({**ACCEPTED, V5: answer}) as broker,
        BridgeProcess(tmp_path, {"url": broker.url, "group": "store"}) as bridge,
    ):
        until(lambda: bridge.logged("offers no shared subscriptions"), "it is told")
        assert bridge.logged("ERROR") == 1
        assert bridge.logged("subscribed to") == 0


def test_a_restarted_broker_is_subscribed_to_again(tmp_path: Path) -> None:
    """Mosquitto says that it has kept the session, but has forgotten the subscription of a group."""
    with Mosquitto(tmp_path, "persistence true") as broker:
        bridge = BridgeProcess(tmp_path, {"url": broker.url, "group": "store", "qos": 1})
        with bridge:
            broker.publish(numbers(0, 10))
            until(lambda: len(bridge.stored()) == 10, "all are stored")
            broker.stop()
            broker.start()
            until(lambda: bridge.logged("the session was kept"), "the bridge is connected again")
            until(lambda: bridge.logged(": subscribed to") == 2, "it has subscribed again")
            broker.publish(numbers(10, 20))
            until(lambda: len(bridge.stored()) == 20, "those after the restart are stored")
