"""MQTT 5 properties on their way from a publisher through a real broker and the bridge into the database."""

from __future__ import annotations

from pathlib import Path
from threading import Event

import paho.mqtt.client as paho
import pytest
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from amqtt_db.reader import read
from tests.integration.bridge import PATIENCE, BridgeProcess, Mosquitto, until

pytestmark = pytest.mark.slow


def publish_with_properties(port: int, payload: str | bytes, **properties: object) -> None:
    """Publish one message with MQTT 5 at QoS 1; property names as paho has them."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=MQTTProtocolVersion.MQTTv5)
    connected = Event()
    client.on_connect = lambda *_: connected.set()
    client.connect("127.0.0.1", port)
    client.loop_start()
    assert connected.wait(PATIENCE)
    sent = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    for name, value in properties.items():
        setattr(sent, name, value)
    client.publish("t", payload, 1, properties=sent).wait_for_publish(PATIENCE)
    client.disconnect()
    client.loop_stop()


def test_properties_are_stored_as_they_were_published(tmp_path: Path) -> None:
    """All that a publisher can set and a subscriber gets; a message without any has none."""
    route = {"topic": "t", "properties": True}
    with Mosquitto(tmp_path) as broker, BridgeProcess(tmp_path, broker.url, routes=[route]) as bridge:
        publish_with_properties(
            broker.port, '{"n": 1}', ContentType="application/json", ResponseTopic="answers/1",
            CorrelationData=b"\xff\x00", UserProperty=[("a", "1"), ("a", "2")], MessageExpiryInterval=1000,
        )  # fmt: skip
        publish_with_properties(broker.port, '{"n": 2}')
        until(lambda: len(bridge.stored()) == 2, "both are stored")
    first, second = sorted(read(f"sqlite:///{bridge.database}", "t"), key=lambda record: record.id)
    properties = first.mqtt_properties()
    assert properties.pop("message_expiry") in range(900, 1001)
    assert properties == {
        "content_type": "application/json",
        "response_topic": "answers/1",
        "correlation_data_base64": "/wA=",
        "user_properties": [["a", "1"], ["a", "2"]],
    }
    assert second.mqtt_properties() == {}


def test_the_content_type_chooses_the_decoder(tmp_path: Path) -> None:
    """Also if no route keeps the properties."""
    route = {"topic": "t", "decode": {"by": "content_type", "application/cbor": "cbor", "else": "text"}}
    with Mosquitto(tmp_path) as broker, BridgeProcess(tmp_path, broker.url, routes=[route]) as bridge:
        publish_with_properties(broker.port, bytes.fromhex("a1617602"), ContentType="application/cbor")
        publish_with_properties(broker.port, b"7", ContentType="text/plain")
        until(lambda: bridge.query("SELECT count(*) FROM t") == [(2,)], "both are stored")
    first, second = sorted(read(f"sqlite:///{bridge.database}", "t"), key=lambda record: record.id)
    assert (first.data(), second.data()) == ({"v": 2}, {"value": "7"})
