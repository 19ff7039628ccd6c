"""Packets that the bridge sends are those that the specification and paho-mqtt want."""

from __future__ import annotations

from struct import pack

from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.subscribeoptions import SubscribeOptions

from amqtt_db.ingest.bridge import packets
from amqtt_db.ingest.bridge.packets import V5, V311
from tests.ingest.bridge.test_packet_reader import TOPICS, of


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20), st.integers(0, 65535))
def test_connect_has_what_the_specification_wants(client_id: str, keep_alive: int) -> None:
    """Clean session is off, the client id, user and password follow the properties."""
    name = client_id.encode()
    plain = packets.connect(V311, client_id, keep_alive=keep_alive)
    assert plain[2:] == b"\x00\x04MQTT\x04\x00" + pack(">HH", keep_alive, len(name)) + name
    sent = packets.connect(V5, client_id, keep_alive=keep_alive, username="u", password="p@:", session_expiry=7)
    properties = b"\x08\x11\x00\x00\x00\x07\x21\xff\xff"
    rest = pack(">H", len(name)) + name + b"\x00\x01u\x00\x03p@:"
    assert sent == of(0x10, b"\x00\x04MQTT\x05\xc0" + pack(">H", keep_alive) + properties + rest)


@given(st.lists(TOPICS, min_size=1, max_size=4), st.integers(0, 2), st.integers(0, 2))
def test_subscribe_options_are_those_that_paho_packs(filters: list[str], qos: int, handling: int) -> None:
    """QoS, retain as published and retain handling are in the byte behind each filter."""
    options = SubscribeOptions(qos=qos, retainAsPublished=True, retainHandling=handling)
    packed = options.pack()  # type: ignore[no-untyped-call]
    names = [name.encode() for name in filters]
    five = b"".join(pack(">H", len(name)) + name + packed for name in names)
    assert packets.subscribe(V5, 1, filters, qos, handling) == of(0x82, b"\x00\x01\x00" + five)
    four = b"".join(pack(">H", len(name)) + name + bytes((qos,)) for name in names)
    assert packets.subscribe(V311, 1, filters, qos, handling) == of(0x82, b"\x00\x01" + four)
    bare = b"".join(pack(">H", len(name)) + name for name in names)
    assert packets.unsubscribe(V5, 3, filters) == of(0xA2, b"\x00\x03\x00" + bare)


def test_acknowledgements_have_four_bytes() -> None:
    """PUBACK, PUBREC and PUBCOMP of success need no more in either version."""
    heads = [packets.PUBACK | 258, packets.PUBREC | 65535, packets.PUBCOMP | 1]
    assert packets.acknowledgements(heads) == b"\x40\x02\x01\x02\x50\x02\xff\xff\x70\x02\x00\x01"
    assert packets.acknowledgements([]) == b""
    assert (packets.disconnect(V311, 4), packets.disconnect(V5), packets.disconnect(V5, 4)) == (
        b"\xe0\x00", b"\xe0\x00", b"\xe0\x01\x04",
    )  # fmt: skip
