"""What a client may begin with: other versions of MQTT are refused at once or understood, and nothing hangs."""

from __future__ import annotations

import asyncio
import logging
import threading

import paho.mqtt.client as paho
import pytest
from amqtt.adapters import BufferReader, BufferWriter
from amqtt.errors import NoDataError
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from amqtt_db.ingest.broker import greeting
from amqtt_db.ingest.broker.greeting import Unwelcome, as_mqtt_311, read_connect
from tests.ingest.broker.mqtt import Client, connect_packet, packet, publish, text
from tests.ingest.broker.setup import InHouse, Setup

ODD = connect_packet("odd", username="anyone", will=("a/b", b"bye", 1, True))
"""A CONNECT with every field but a password."""
HEADER, BODY = ODD[:2], ODD[2:]


def test_mqtt_5_is_refused_at_once_with_its_reason(in_house: InHouse, caplog: pytest.LogCaptureFixture) -> None:
    """A real client is told 0x84, and the log says what to do."""
    said: list[int] = []

    def connect(port: int) -> None:
        client = paho.Client(CallbackAPIVersion.VERSION2, "five", protocol=MQTTProtocolVersion.MQTTv5)
        has_ended = threading.Event()
        client.on_connect = lambda _, __, ___, code, ____: said.append(code.value)
        client.on_disconnect = lambda *_: has_ended.set()
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = 3600
        client.connect("127.0.0.1", port, properties=properties, clean_start=False)
        client.loop_start()
        assert has_ended.wait(10)
        client.disconnect()
        client.loop_stop()

    async def scenario(setup: Setup) -> None:
        await asyncio.to_thread(connect, setup.port)
        assert setup.plugin._refusals.logins_failed >= 1

    with caplog.at_level(logging.WARNING):
        in_house(scenario)
    assert said[0] == 0x84
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.endswith(
        "a client at 127.0.0.1 speaks MQTT 5, but amqtt only speaks MQTT 3.1.1; set the client to that version"
    )


@pytest.mark.parametrize(("name", "level"), [("MQIsdp", 3), ("MQIsdp", 0x83), ("MQTT", 4), ("MQTT", 0x84)])
def test_older_clients_and_bridges_are_served(in_house: InHouse, name: str, level: int) -> None:
    """What they send is stored."""

    async def scenario(setup: Setup) -> None:
        client = Client(*await asyncio.open_connection("127.0.0.1", setup.port))
        client.send(packet(0x10, text(name) + bytes([level, 2, 0, 60]) + text("old")), publish("a", b"x", 1, 7))
        assert await client.packet() == b"\x20\x00\x00"
        assert await client.acknowledged() == (4, 7)
        await client.leave()

    assert [message.payload for message in in_house(scenario).entries()] == [b"x"]


@pytest.mark.parametrize(
    ("first", "answer", "reason"),
    [
        (packet(0x10, text("MQTT") + b"\5\2\0\x3c\5\x11\0\0\x0e\x10" + text("a")), b"\x20\x03\x00\x84\x00", "MQTT 5"),
        (packet(0x10, text("MQTT") + b"\x06\x02\x00\x3c" + text("six")), b"\x20\x02\x00\x01", "level 6"),
        (packet(0x10, text("MQIsdp") + b"\x04\x02\x00\x3c" + text("x")), b"\x20\x02\x00\x01", "level 4"),
        (packet(0x10, text("AMQP") + b"\x04\x02\x00\x3c" + text("x")), b"", "unknown protocol"),
        (packet(0x10, text("MQTT")), b"", "unknown protocol"),
        (b"\x16\x03\x01\x02\x00\x01\x00", b"", "TLS, which this listener does not use"),
        (b"GET / HTTP/1.1\r\n\r\n", b"", "0x47"),
        (b"\x10\xff\xff\xff\x7f", b"", "longer than any"),
        (b"\x10\xff\xff\xff\xff\x01", b"", "longer than any"),
        (ODD[:7], b"", "no whole CONNECT within 0.2 s"),
        (b"", b"", "no whole CONNECT within 0.2 s"),
    ],
    ids=["5", "6", "mixed", "other", "short", "tls", "http", "long", "endless", "stopped", "silent"],
)  # fmt: skip
def test_what_is_not_understood_ends_the_connection(
    in_house: InHouse,
    first: bytes,
    answer: bytes,
    reason: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At once or in time, with one line that says why, and an answer that the client understands."""
    monkeypatch.setattr(greeting, "_LONGEST_CONNECT", 0.2)

    async def scenario(setup: Setup) -> None:
        client = Client(*await asyncio.open_connection("127.0.0.1", setup.port))
        client.send(first)
        assert await asyncio.wait_for(client.reader.read(), 5) == answer
        client.writer.close()

    with caplog.at_level(logging.WARNING):
        in_house(scenario)
    (line,) = (record.getMessage() for record in caplog.records)
    assert reason in line


@given(st.binary(max_size=40), st.integers(0, len(ODD)), st.integers(0, 3))
def test_no_first_bytes_make_an_error_of_another_kind(noise: bytes, at: int, left_out: int) -> None:
    """Whatever replaces a part of a CONNECT, it is read or refused, and so it never hangs."""

    async def read(data: bytes) -> bytes | None:
        try:
            return await read_connect(BufferReader(data), BufferWriter())
        except (Unwelcome, NoDataError):
            return None

    asyncio.run(read(ODD[:at] + noise + ODD[at + left_out :]))
    assert asyncio.run(read(ODD + noise)) == ODD


def test_a_connect_of_mqtt_311_is_left_alone() -> None:
    """The bridge bit and the name of MQTT 3.1 are all that changes; a longer header is encoded again."""
    assert as_mqtt_311(HEADER, BODY) == ODD
    assert as_mqtt_311(HEADER, BODY.replace(b"MQTT\x04", b"MQTT\x84")) == ODD
    assert as_mqtt_311(HEADER, BODY.replace(b"\x04MQTT\x04", b"\x06MQIsdp\x03")) == ODD
    long = connect_packet("x" * 300)
    assert as_mqtt_311(b"", long[3:].replace(b"\x04MQTT\x04", b"\x06MQIsdp\x83")) == long


def test_whatever_a_connect_says_leaves_no_traceback(in_house: InHouse, caplog: pytest.LogCaptureFixture) -> None:
    """Clients that send half of a CONNECT, or odd fields, and vanish, leave lines but no traceback."""
    pieces = [ODD[:size] for size in range(0, len(ODD), 3)]
    strange = [packet(0x10, BODY[:size]) for size in range(7, len(BODY), 4)]

    async def scenario(setup: Setup) -> None:
        for first in (*pieces, *strange):
            client = Client(*await asyncio.open_connection("127.0.0.1", setup.port))
            client.send(first)
            await client.vanish()
        await (await Client.connect(setup.port, "last")).leave()

    with caplog.at_level(logging.WARNING):
        in_house(scenario)
    assert [record.getMessage() for record in caplog.records if record.exc_info] == []
