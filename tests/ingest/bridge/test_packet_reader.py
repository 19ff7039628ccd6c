"""Packets that the bridge gets: they are read as they were sent, in any pieces, or refused."""

from __future__ import annotations

from contextlib import suppress
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from amqtt_db.ingest.bridge import packets
from amqtt_db.ingest.bridge.packet_reader import PacketReader
from amqtt_db.ingest.bridge.packets import (
    V5,
    V311,
    Connack,
    Disconnect,
    MalformedPacket,
    Pingresp,
    Publish,
    Pubrel,
    Suback,
    Unsuback,
    Version,
)

VERSIONS: list[Version] = [V311, V5]
TOPICS = st.text(st.characters(codec="utf-8", exclude_characters="\0+#"), min_size=1, max_size=20)
IDS = st.integers(1, 65535)


def of(head: int, body: bytes) -> bytes:
    """A packet with its length."""
    size, length = len(body), b""
    while size > 127:
        length, size = length + bytes((size & 127 | 128,)), size >> 7
    return bytes((head,)) + length + bytes((size,)) + body


@st.composite
def properties_of_messages(draw: st.DrawFn) -> Properties:
    """Properties that a PUBLISH may have, packed by paho."""
    made: Any = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
    if draw(st.booleans()):
        made.ContentType = draw(TOPICS)
    if draw(st.booleans()):
        made.MessageExpiryInterval = draw(st.integers(0, 2**32 - 1))
    if draw(st.booleans()):
        made.CorrelationData = draw(st.binary(max_size=20))
    if draw(st.booleans()):
        made.PayloadFormatIndicator = draw(st.integers(0, 1))
    for pair in draw(st.lists(st.tuples(TOPICS, TOPICS), max_size=3)):
        made.UserProperty = pair
    return made  # type: ignore[no-any-return]


def expected(made: Any) -> dict[int, Any]:
    """Return these properties by their identifiers."""
    names = {"PayloadFormatIndicator": 1, "MessageExpiryInterval": 2, "ContentType": 3, "CorrelationData": 9}
    found = {number: getattr(made, name) for name, number in names.items() if hasattr(made, name)}
    return found | ({packets.USER_PROPERTY: list(made.UserProperty)} if hasattr(made, "UserProperty") else {})


@given(
    st.sampled_from(VERSIONS),
    st.lists(
        st.tuples(
            TOPICS, st.binary(max_size=300), st.integers(0, 2), st.booleans(), st.booleans(), IDS,
            properties_of_messages(),
        ),
        max_size=6,
    ),
    st.integers(1, 50),
)  # fmt: skip
def test_messages_are_read_as_they_were_published_however_they_are_cut(
    version: Version, messages: list[tuple[str, bytes, int, bool, bool, int, Any]], step: int
) -> None:
    """Every message comes out, exactly as it went in, in order, at every size of the pieces that arrive."""
    stream, wanted = b"", []
    for topic, payload, qos, retain, dup, number, made in messages:
        name = topic.encode()
        body = pack(">H", len(name)) + name + (pack(">H", number) if qos else b"")
        body += (made.pack() if version == V5 else b"") + payload
        stream += of(0x30 | dup << 3 | qos << 1 | retain, body)
        found = expected(made) if version == V5 else {}
        wanted.append(Publish(name, payload, qos, retain, dup, number if qos else 0, found))
    reader = PacketReader(version)
    read = [packet for start in range(0, len(stream), step) for packet in reader.feed(stream[start : start + step])]
    assert read == wanted
    assert reader.pending == 0


@given(
    st.sampled_from(VERSIONS),
    st.lists(st.tuples(st.binary(max_size=40), st.integers(0, 2), IDS, properties_of_messages()), max_size=6),
    st.integers(0, 40),
    st.integers(1, 60),
)
def test_a_payload_that_is_too_large_is_left_out(
    version: Version, messages: list[tuple[bytes, int, int, Any]], most: int, step: int
) -> None:
    """However it arrives: its message comes with its topic and its id, those around it come whole."""
    stream, wanted = b"", []
    for payload, qos, number, made in messages:
        body = b"\x00\x01t" + (pack(">H", number) if qos else b"") + (made.pack() if version == V5 else b"") + payload
        stream += of(0x30 | qos << 1, body)
        found = expected(made) if version == V5 else {}
        whole = Publish(b"t", payload, qos, False, False, number if qos else 0, found)
        cut = whole._replace(payload=b"", properties={}, left_out=len(payload))
        wanted.append(cut if len(payload) > most else whole)
    reader = PacketReader(version, most_payload=most)
    read = [packet for start in range(0, len(stream), step) for packet in reader.feed(stream[start : start + step])]
    assert read == wanted
    assert reader.pending == 0


@pytest.mark.parametrize("version", VERSIONS)
def test_a_payload_that_is_too_large_needs_no_memory(version: Version) -> None:
    """Its message comes as soon as the payload begins; what follows is thrown away as it arrives."""
    reader = PacketReader(version, most_payload=1000)
    head = b"\x32\x80\x80\x80\x08" + b"\x00\x01t\x00\x07" + (b"\x00" if version == V5 else b"")
    assert next(packet.left_out for packet in reader.feed(head) if isinstance(packet, Publish)) > 16_000_000
    for _ in range(255):
        assert reader.feed(bytes(65536)) == []
        assert reader.pending == 0


@given(st.sampled_from(VERSIONS), st.lists(st.binary(max_size=60), max_size=5))
def test_garbage_is_read_or_refused(version: Version, pieces: list[bytes]) -> None:
    """Whatever arrives, nothing but MalformedPacket is raised."""
    reader = PacketReader(version)
    with suppress(MalformedPacket):
        for piece in pieces:
            reader.feed(piece)


@given(st.sampled_from(VERSIONS), st.sampled_from([0x20, 0x30, 0x32, 0x62, 0x90, 0xB0, 0xD0, 0xE0]), st.binary())
def test_a_packet_of_any_content_is_read_or_refused(version: Version, head: int, body: bytes) -> None:
    """A packet with a right length never leaves bytes behind, and nothing but MalformedPacket is raised."""
    reader = PacketReader(version)
    with suppress(MalformedPacket):
        assert len(reader.feed(of(head, body))) == 1
    assert reader.pending == 0


@pytest.mark.parametrize(
    ("version", "data", "packet"),
    [
        (V311, b"\x20\x02\x01\x00", Connack(True, 0)),
        (V311, b"\x20\x02\x00\x05", Connack(False, 5)),
        (V5, b"\x20\x02\x00\x01", Connack(False, 1)),
        (V5, b"\x20\x06\x00\x00\x03\x21\x00\x14", Connack(False, 0, {packets.RECEIVE_MAXIMUM: 20})),
        (V311, b"\x90\x04\x00\x01\x01\x80", Suback(1, (1, 128))),
        (V5, b"\x90\x05\x00\x01\x00\x01\x87", Suback(1, (1, 0x87))),
        (V311, b"\xb0\x02\x00\x07", Unsuback(7)),
        (V5, b"\xb0\x04\x00\x07\x00\x11", Unsuback(7, (0x11,))),
        (V311, b"\x62\x02\x01\x02", Pubrel(258)),
        (V5, b"\x62\x04\x01\x02\x92\x00", Pubrel(258)),
        (V5, b"\xd0\x00", Pingresp()),
        (V5, b"\xe0\x00", Disconnect(0)),
        (V5, b"\xe0\x01\x8e", Disconnect(0x8E)),
        (V5, b"\xe0\x07\x8b\x05\x1f\x00\x02no", Disconnect(0x8B, {packets.REASON: "no"})),
    ],
)
def test_answers_are_read(version: Version, data: bytes, packet: object) -> None:
    """Each packet that a broker sends to a subscriber, by the specification's bytes."""
    assert PacketReader(version).feed(data) == [packet]


@pytest.mark.parametrize(
    ("version", "data", "reason"),
    [
        (V311, b"\x36\x05\x00\x01t\x00\x01", "QoS 3"),
        (V311, b"\x32\x05\x00\x01t\x00\x00", "no packet id"),
        (V311, b"\x32\x03\x00\x01t", "no packet id"),
        (V311, b"\x30\x02\x00\x09", "within its topic"),
        (V311, b"\x30\x02\x00\x00", "no topic"),
        (V311, b"\x60\x02\x00\x01", "0x60"),
        (V311, b"\x10\x00", "no subscriber"),
        (V311, b"\xe0\x00", "no subscriber"),
        (V311, b"\x62\x02\x00\x00", "packet id 0"),
        (V311, b"\x30\xff\xff\xff\xff\x01", "four bytes"),
        (V5, b"\x30\x03\x00\x01t", "properties"),
        (V5, b"\x30\x05\x00\x01t\x01\x7e", "unknown property"),
        (V5, b"\x30\x08\x00\x01t\x04\x01\x00\x01\x00", "twice"),
        (V5, b"\x30\x08\x00\x01t\x04\x03\x00\x01\xff", "UTF-8"),
        (V5, b"\x30\x08\x00\x01t\x04\x03\x00\x09x", "too short"),
    ],
)
def test_what_mqtt_forbids_is_refused(version: Version, data: bytes, reason: str) -> None:
    """The reason names the mistake."""
    with pytest.raises(MalformedPacket, match=reason):
        PacketReader(version).feed(data)


def test_a_packet_beyond_the_limit_is_refused_before_it_has_arrived() -> None:
    """Its announced length is enough."""
    with pytest.raises(MalformedPacket, match="allowed"):
        PacketReader(V311, most=100).feed(b"\x30\x80\x01\x00")
