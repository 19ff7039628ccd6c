"""Packets out of received bytes, for MQTT 3.1.1 and 5."""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct, error
from typing import Any, Final

from amqtt_db.ingest.bridge.packets import (
    LARGEST_PACKET,
    NO_PROPERTIES,
    SUBSCRIPTION_ID,
    UINT16,
    USER_PROPERTY,
    V5,
    Connack,
    Disconnect,
    MalformedPacket,
    Packet,
    Pingresp,
    Properties,
    Publish,
    Pubrel,
    Suback,
    Unsuback,
    Version,
)

_CONNACK, _PUBREL, _SUBACK, _UNSUBACK, _PINGRESP, _DISCONNECT = 2, 6, 9, 11, 13, 14

_new: Final = tuple.__new__  # a NamedTuple's own constructor takes twice as long

# Property identifiers by the types of their values.
_FIXED_WIDTHS: Final[Mapping[int, Struct]] = {
    **dict.fromkeys((0x01, 0x17, 0x19, 0x24, 0x25, 0x28, 0x29, 0x2A), Struct("B")),
    **dict.fromkeys((0x13, 0x21, 0x22, 0x23), UINT16),
    **dict.fromkeys((0x02, 0x11, 0x18, 0x27), Struct(">I")),
}
_TEXTS: Final = frozenset({0x03, 0x08, 0x12, 0x15, 0x1A, 0x1C, 0x1F})
_BINARIES: Final = frozenset({0x09, 0x16})


class PacketReader:
    """Cuts packets out of received bytes.  Raises MalformedPacket for what MQTT does not allow."""

    def __init__(self, version: Version, most: int = LARGEST_PACKET, most_payload: int = LARGEST_PACKET) -> None:
        """``most``: bytes that one packet may have after its fixed header.

        Messages with a payload of more than ``most_payload`` bytes come without it, as soon as their topic has
        arrived, so that no memory is needed for it.
        """
        self._version = version
        self._most = most
        self._most_payload = most_payload
        self._attention = min(most, most_payload)
        self._rest = bytearray()
        self._left_out = 0  # bytes that are still to come of a payload that is too large

    @property
    def pending(self) -> int:
        """The number of bytes of a packet that is not complete yet."""
        return len(self._rest)

    def feed(self, data: bytes) -> list[Packet]:
        """Return the packets that ``data`` completes, in order."""
        if self._rest or self._left_out:
            data = self._joined(data)
        packets: list[Packet] = []
        add, version = packets.append, self._version
        start, size = 0, len(data)
        while start + 2 <= size:
            length = data[start + 1]
            body = start + 2
            if length > 127:
                if body < size and data[body] < 128:  # a length of two bytes, which most messages have
                    length, body = length - 128 | data[body] << 7, body + 1
                else:
                    length, body = _long_length(data, start + 1)
                    if not body:
                        break
            end = body + length
            if length > self._attention:
                publish = self._read_large(data[start], data[body:end], length)
                if publish is not None:
                    add(publish)
                    self._left_out, start = max(0, end - size), min(end, size)
                    continue
            if end > size:
                break
            head = data[start]
            add(
                _read_publish(head, data, body, end, version)
                if head >> 4 == 3
                else _other(head, data[body:end], version)
            )
            start = end
        if start < size:
            self._rest += data[start:]
        return packets

    def _joined(self, data: bytes) -> bytes:
        """Return what has arrived and can be read; nothing while a packet is not complete."""
        left_out = min(self._left_out, len(data))
        self._left_out -= left_out
        rest = self._rest
        rest += data[left_out:]
        if not self._may_be_complete(rest):
            return b""
        whole = bytes(rest)
        rest.clear()
        return whole

    def _may_be_complete(self, data: bytearray) -> bool:
        """Return False while a large packet is still arriving, so that its bytes are not copied at each read."""
        if len(data) < 5:
            return True
        length, body = _long_length(data, 1)
        return length > self._attention or len(data) >= body + length

    def _read_large(self, head: int, data: bytes, length: int) -> Publish | None:
        """Return a message whose payload is too large, without it; None for another packet, which may be read whole."""
        if length > self._most:
            raise MalformedPacket(f"the broker sent a packet of {length} bytes; {self._most} are allowed")
        return _without_payload(head, data, length, self._version, self._most_payload)


def _long_length(data: bytes | bytearray, start: int) -> tuple[int, int]:
    """Return the length encoded at ``start`` and where it ends; (0, 0) if it is not complete."""
    length = shift = 0
    for position in range(start, min(start + 4, len(data))):
        byte = data[position]
        length |= (byte & 127) << shift
        if byte < 128:
            return length, position + 1
        shift += 7
    if shift == 28:
        raise MalformedPacket("the broker sent a length of more than four bytes")
    return 0, 0


def _read_publish(head: int, data: bytes, start: int, end: int, version: Version) -> Publish:
    qos = head >> 1 & 3
    if qos == 3:
        raise MalformedPacket("the broker sent a message of QoS 3")
    begin = start + 2
    if begin > end:
        raise MalformedPacket("a message ends within its topic")
    behind = begin + (data[start] << 8 | data[start + 1])
    topic = data[begin:behind]
    packet_id = 0
    if qos:
        packet_id = data[behind] << 8 | data[behind + 1] if behind + 2 <= end else 0
        if not packet_id:
            raise MalformedPacket("a message of QoS 1 or 2 has no packet id")
        behind += 2
    properties = NO_PROPERTIES
    if version == V5 and behind < end and not data[behind]:
        behind += 1
    elif version == V5:
        properties, behind = _property_block(data, behind, end)
    if behind > end:
        raise MalformedPacket("a message ends within its topic")
    if not topic:
        raise MalformedPacket("a message has no topic")
    return _new(Publish, (topic, data[behind:end], qos, head & 1 == 1, head & 8 == 8, packet_id, properties, 0))


def _without_payload(head: int, data: bytes, length: int, version: Version, most: int) -> Publish | None:
    """Return a message without its payload; None if that is not too large, or more has to arrive before it.

    ``data`` are the first of the ``length`` bytes that follow the fixed header.
    """
    if head >> 4 != 3 or len(data) < 2:
        return None
    before = start = 2 + (data[0] << 8 | data[1]) + (2 if head & 6 else 0)
    if version == V5:
        size, behind = _long_length(data, before)
        if not behind:
            return None
        start = behind + size
    if len(data) < before or length - start <= most:
        return None
    ended = data[:before] + (b"\x00" if version == V5 else b"")
    return _read_publish(head, ended, 0, len(ended), version)._replace(left_out=length - start)


def _other(head: int, body: bytes, version: Version) -> Packet:
    kind, low = head >> 4, head & 15
    if low != (2 if kind == _PUBREL else 0):
        raise MalformedPacket(f"the broker sent a packet whose first byte is 0x{head:02x}")
    try:
        packet = _decode_packet(kind, body, version)
    except (IndexError, error):
        raise MalformedPacket(f"the broker sent a packet of type {kind} that is too short") from None
    if packet is None:
        raise MalformedPacket(f"the broker sent a packet of type {kind}, which no subscriber gets")
    return packet


def _decode_packet(kind: int, body: bytes, version: Version) -> Packet | None:
    if kind == _PUBREL:
        return Pubrel(_packet_id(body))
    if kind == _PINGRESP:
        return Pingresp()
    if kind == _CONNACK:
        # A broker that does not know MQTT 5 answers as in 3.1.1, without properties.
        return Connack(bool(body[0] & 1), body[1], _trailing(body, 2, version))
    if kind == _DISCONNECT and version == V5:
        return Disconnect(body[0] if body else 0, _trailing(body, 1, version))
    if kind in (_SUBACK, _UNSUBACK):
        properties, behind = _property_block(body, 2, len(body)) if version == V5 else (NO_PROPERTIES, 2)
        codes = tuple(body[behind:])
        return Suback(_packet_id(body), codes, properties) if kind == _SUBACK else Unsuback(_packet_id(body), codes)
    return None


def _trailing(body: bytes, start: int, version: Version) -> Properties:
    return _property_block(body, start, len(body))[0] if version == V5 and len(body) > start else NO_PROPERTIES


def _packet_id(body: bytes) -> int:
    packet_id: int = UINT16.unpack_from(body)[0]
    if not packet_id:
        raise MalformedPacket("the broker sent the packet id 0")
    return packet_id


def _property_block(data: bytes, start: int, end: int) -> tuple[Properties, int]:
    """Return the properties that begin at ``start``, and where they end."""
    length, position = _long_length(data[:end], start)
    stop = position + length
    if not position or stop > end:
        raise MalformedPacket("the broker sent properties that end behind their packet")
    found: dict[int, Any] = {}
    data = data[:stop]
    try:
        while position < stop:
            name, position = _long_length(data, position)
            value, position = _property_value(name, data, position)
            if not position:
                raise IndexError
            if name in (SUBSCRIPTION_ID, USER_PROPERTY):
                found.setdefault(name, []).append(value)
            elif name in found:
                raise MalformedPacket(f"the broker sent property 0x{name:02x} twice")
            else:
                found[name] = value
    except (IndexError, error):
        raise MalformedPacket("the broker sent a property that is too short") from None
    except UnicodeDecodeError:
        raise MalformedPacket("the broker sent a property that is not UTF-8") from None
    return found, stop


def _property_value(name: int, data: bytes, start: int) -> tuple[Any, int]:
    if name in _FIXED_WIDTHS:
        layout = _FIXED_WIDTHS[name]
        return layout.unpack_from(data, start)[0], start + layout.size
    if name == SUBSCRIPTION_ID:
        return _long_length(data, start)
    if name == USER_PROPERTY:
        key, behind = _binary_field(data, start)
        value, behind = _binary_field(data, behind)
        return (key.decode(), value.decode()), behind
    if name in _TEXTS or name in _BINARIES:
        raw, behind = _binary_field(data, start)
        return raw.decode() if name in _TEXTS else raw, behind
    raise MalformedPacket(f"the broker sent an unknown property, 0x{name:02x}")


def _binary_field(data: bytes, start: int) -> tuple[bytes, int]:
    behind = start + 2 + UINT16.unpack_from(data, start)[0]
    if behind > len(data):
        raise IndexError
    return data[start + 2 : behind], behind
