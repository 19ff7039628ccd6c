"""Brokers that speak only MQTT 3.1.1 or grant less than asked for, and other clients with the same client id."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.bridge import MOSQUITTO, BridgeProcess, Mosquitto, publish, until
from tests.integration.broker import BrokerProcess
from tests.integration.scripted_broker import ACCEPTED, V5, V311, ScriptedBroker

pytestmark = [pytest.mark.slow]


@pytest.mark.parametrize(
    "refusal",
    [b"", b"\x20\x02\x00\x01", b"\x20\x03\x00\x84\x00"],
    ids=["closes the connection", "code 1", "code 0x84"],
)
def test_a_broker_that_does_not_speak_mqtt_5_is_tried_with_3(tmp_path: Path, refusal: bytes) -> None:
    """At once, and that is logged."""
    answers = {V311: ACCEPTED[V311]}
    if refusal:
        answers[V5] = refusal
    with ScriptedBroker(answers) as broker, BridgeProcess(tmp_path, broker.url) as bridge:
        until(lambda: bridge.logged("subscribed to #"), "the bridge is subscribed")
        assert bridge.logged("trying MQTT 3.1.1") == 1
        assert bridge.logged("connected with MQTT 3.1.1") == 1
        assert bridge.logged("ERROR") == 0


def test_amqtt_is_subscribed_with_3(tmp_path: Path) -> None:
    """The bridge stores what is published to amqtt, too."""
    homes = [tmp_path / name for name in ("broker", "bridge")]
    for home in homes:
        home.mkdir()
    with BrokerProcess(homes[0]) as broker, BridgeProcess(homes[1], f"mqtt://127.0.0.1:{broker.port}") as bridge:
        until(lambda: bridge.logged("subscribed to #"), "the bridge is subscribed")
        assert bridge.logged("connected with MQTT 3.1.1") == 1
        publish(broker.port, ['{"n": 1}', '{"n": 2}'])
        until(lambda: bridge.stored() == [1, 2], "both are stored")


@pytest.mark.parametrize(
    ("codes", "level", "said"),
    [
        (b"\x87", "ERROR", "the broker refuses the filter # with code 0x87; check what this user may read"),
        (b"\x00", "WARNING", "the broker grants QoS 0 for #, not 2"),
    ],
)
def test_a_broker_that_grants_less_is_told(tmp_path: Path, codes: bytes, level: str, said: str) -> None:
    """In one line each; the connection is kept."""
    with ScriptedBroker(ACCEPTED, codes) as broker, BridgeProcess(tmp_path, broker.url) as bridge:
        until(lambda: bridge.logged(said), "it is told")
        assert (bridge.logged(said), bridge.logged(level)) == (1, 1)


def test_a_broker_says_that_the_client_id_is_taken_over(tmp_path: Path) -> None:
    """It is logged once with what to do, and the bridge does not disconnect the other client at once."""
    with ScriptedBroker(ACCEPTED, then=b"\xe0\x01\x8e") as broker, BridgeProcess(tmp_path, broker.url) as bridge:
        until(lambda: bridge.logged("which has taken over: stop that one, or set another `client_id`"), "it is told")
    assert bridge.logged("connected with MQTT 5") == 1
    assert bridge.logged("ERROR") == 1


@pytest.mark.skipif(MOSQUITTO is None, reason="needs Mosquitto")
@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_another_client_with_the_same_client_id_is_suspected(tmp_path: Path, protocol: str) -> None:
    """Mosquitto 2.0 gives no reason, so short connections are the sign.  It is logged once, with what to do."""
    homes = [tmp_path / name for name in ("one", "two")]
    for home in homes:
        home.mkdir()
    said = "another client may use the client id same; stop that one, or set another `client_id` here"
    with Mosquitto(tmp_path) as broker:
        settings = {"url": broker.url, "protocol": protocol, "client_id": "same"}
        with BridgeProcess(homes[0], settings) as one, BridgeProcess(homes[1], settings) as two:
            until(lambda: one.logged(said) + two.logged(said), "it is told")
            assert one.logged(said) + two.logged(said) == 1
