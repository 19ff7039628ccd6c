"""MQTT packets as a subscriber needs them, for MQTT 3.1.1 and 5: those that it gets, and the bytes that it sends."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from struct import Struct, pack
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import attrs

from amqtt_db.errors import AmqttDbError

Version = Literal[4, 5]
"""The protocol level in CONNECT: 4 is MQTT 3.1.1."""

V311: Final[Version] = 4
V5: Final[Version] = 5
LARGEST_PACKET: Final = 268_435_455
"""The most bytes that MQTT allows after a packet's fixed header."""

PINGREQ: Final = b"\xc0\x00"
ACKNOWLEDGEMENT_SIZE: Final = 4
"""The bytes of each acknowledgement that a subscriber sends."""
PUBACK: Final = 0x4002_0000
PUBREC: Final = 0x5002_0000
PUBCOMP: Final = 0x7002_0000

UINT16: Final = Struct(">H")
_UINT32: Final = Struct(">I")

SUBSCRIPTION_ID: Final = 0x0B
USER_PROPERTY: Final = 0x26
SESSION_EXPIRY: Final = 0x11
RECEIVE_MAXIMUM: Final = 0x21
MAXIMUM_QOS: Final = 0x24
RETAIN_AVAILABLE: Final = 0x25
WILDCARDS_AVAILABLE: Final = 0x28
SHARED_AVAILABLE: Final = 0x2A
ASSIGNED_CLIENT_ID: Final = 0x12
SERVER_KEEP_ALIVE: Final = 0x13
REASON: Final = 0x1F

Properties = Mapping[int, Any]
"""Values by property identifier; a list for the two that may be repeated."""
NO_PROPERTIES: Final[Properties] = MappingProxyType({})


class MalformedPacket(AmqttDbError):  # noqa: N818 - it reads as what was received
    """The broker sent something that MQTT does not allow; the message says what."""


class Publish(NamedTuple):
    """A message.  At QoS 0, ``packet_id`` is 0.

    If the payload was too large, it is empty, without properties, and ``left_out`` is how many bytes it had.
    """

    topic: bytes
    payload: bytes
    qos: int
    retain: bool
    dup: bool
    packet_id: int
    properties: Properties
    left_out: int = 0


@attrs.frozen
class Connack:
    """The answer to CONNECT; ``code`` is 0 if the broker accepts."""

    session_present: bool
    code: int
    properties: Properties = NO_PROPERTIES


@attrs.frozen
class Suback:
    """The answer to SUBSCRIBE: the QoS granted for each filter, or a code from 0x80."""

    packet_id: int
    codes: tuple[int, ...]
    properties: Properties = NO_PROPERTIES


@attrs.frozen
class Unsuback:
    """The answer to UNSUBSCRIBE; MQTT 3.1.1 sends no codes."""

    packet_id: int
    codes: tuple[int, ...] = ()


@attrs.frozen
class Pubrel:
    """PUBREL: the broker releases a QoS 2 message."""

    packet_id: int


@attrs.frozen
class Pingresp:
    """The answer to PINGREQ."""


@attrs.frozen
class Disconnect:
    """The broker closes the connection, and says why (MQTT 5)."""

    code: int
    properties: Properties = NO_PROPERTIES


Packet = Publish | Connack | Suback | Unsuback | Pubrel | Pingresp | Disconnect


def connect(
    version: Version,
    client_id: str,
    *,
    keep_alive: int,
    username: str | None = None,
    password: str | None = None,
    session_expiry: int = 0,
    receive_maximum: int = 65535,
    clean: bool = False,
) -> bytes:
    """Return a CONNECT that keeps the session unless it is ``clean``.

    ``session_expiry`` and ``receive_maximum`` have no effect in MQTT 3.1.1.
    """
    flags = (username is not None) << 7 | (password is not None) << 6 | clean << 1
    body = _text_field("MQTT") + bytes((version, flags)) + UINT16.pack(keep_alive)
    if version == V5:
        properties = bytes((SESSION_EXPIRY,)) + _UINT32.pack(session_expiry)
        properties += bytes((RECEIVE_MAXIMUM,)) + UINT16.pack(receive_maximum)
        body += _encode_length(len(properties)) + properties
    body += _text_field(client_id)
    body += b"".join(_text_field(value) for value in (username, password) if value is not None)
    return _packet(0x10, body)


def subscribe(version: Version, packet_id: int, filters: Sequence[str], qos: int, retain_handling: int = 0) -> bytes:
    """Return a SUBSCRIBE for all ``filters``; MQTT 5 keeps the publisher's retain flag.

    ``retain_handling``: 0 asks for retained messages, 1 only for those of a new subscription, 2 for none.
    """
    options = qos | (0x08 | retain_handling << 4 if version == V5 else 0)
    body = UINT16.pack(packet_id) + (b"\x00" if version == V5 else b"")
    return _packet(0x82, body + b"".join(_text_field(topic_filter) + bytes((options,)) for topic_filter in filters))


def unsubscribe(version: Version, packet_id: int, filters: Sequence[str]) -> bytes:
    """Return an UNSUBSCRIBE for all ``filters``."""
    body = UINT16.pack(packet_id) + (b"\x00" if version == V5 else b"")
    return _packet(0xA2, body + b"".join(map(_text_field, filters)))


def publish(version: Version, topic: str, payload: bytes) -> bytes:
    """Return a PUBLISH packet with QoS 0."""
    return _packet(0x30, _text_field(topic) + (b"\0" if version == V5 else b"") + payload)


def acknowledgements(heads: Sequence[int]) -> bytes:
    """Return several acknowledgements; each is given as PUBACK, PUBREC or PUBCOMP with a packet id in its low bits.

    PUBACK and PUBREC: a message of QoS 1 or 2 is on disk.  PUBCOMP: the id of a QoS 2 message is free again.
    """
    return pack(f">{len(heads)}I", *heads)


def disconnect(version: Version, code: int = 0, *, ends_session: bool = False) -> bytes:
    """Return a DISCONNECT; in MQTT 3.1.1 it carries neither a code nor the end of the session."""
    if version == V5 and ends_session:
        return _packet(0xE0, bytes((code, 5, SESSION_EXPIRY)) + _UINT32.pack(0))
    return b"\xe0\x01" + bytes((code,)) if version == V5 and code else b"\xe0\x00"


def _packet(head: int, body: bytes) -> bytes:
    return bytes((head,)) + _encode_length(len(body)) + body


def _encode_length(value: int) -> bytes:
    encoded = bytearray()
    while True:
        value, byte = value >> 7, value & 127
        encoded.append(byte | 128 if value else byte)
        if not value:
            return bytes(encoded)


def _text_field(value: str) -> bytes:
    encoded = value.encode()
    return UINT16.pack(len(encoded)) + encoded
