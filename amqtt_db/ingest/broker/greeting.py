"""The first packet of a connection: read whole and in time, and told apart by its version of MQTT.

amqtt reads CONNECT field by field and waits forever for a missing one, so a client that speaks MQTT 5, whose CONNECT
has more fields, would hang.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Final

from amqtt.adapters import ReaderAdapter, WriterAdapter
from amqtt.codecs_amqtt import read_or_raise
from amqtt.errors import AMQTTError, NoDataError

from amqtt_db.ingest.waiting import wait_within

_LONGEST_CONNECT: Final = 30.0
_CONNECT: Final = 0x10
_TLS: Final = 0x16  # how a TLS connection begins
_LARGEST_CONNECT: Final = 5 * (2**16 + 1) + 16  # of a CONNECT: five fields of up to 65,535 bytes, and its header
_PROTOCOL: Final = b"\0\4MQTT"
_OLD_PROTOCOL: Final = b"\0\6MQIsdp"  # MQTT 3.1, whose packets are those of 3.1.1
_BRIDGE: Final = 0x80  # set by Mosquitto if the client is a bridge
_CONNACK_REFUSED: Final = b"\x20\x02\x00\x01"  # unacceptable protocol version [MQTT-3.1.2-2]
_CONNACK_5_REFUSED: Final = b"\x20\x03\x00\x84\x00"  # the same in MQTT 5


class Unwelcome(AMQTTError):  # noqa: N818 - it reads as what is the case
    """A client cannot be served; ``answer`` is the packet to tell it so, if it would understand one."""

    def __init__(self, reason: str, answer: bytes = b"") -> None:
        super().__init__(reason)
        self.answer = answer


async def read_connect(reader: ReaderAdapter, writer: WriterAdapter) -> bytes:
    """Return a client's CONNECT as one of MQTT 3.1.1.  Raises Unwelcome, having told the client, or NoDataError."""
    try:
        return as_mqtt_311(*await wait_within(_read_packet(reader), _LONGEST_CONNECT))
    except NoDataError:
        raise NoDataError(f"a client {_origin(writer)} has left before its CONNECT was complete") from None
    except asyncio.TimeoutError:
        raise Unwelcome(f"a client {_origin(writer)} has sent no whole CONNECT within {_LONGEST_CONNECT:g} s") from None
    except Unwelcome as refusal:
        with suppress(OSError):
            writer.write(refusal.answer)
            await writer.drain()
        raise Unwelcome(f"a client {_origin(writer)} {refusal}") from None


def as_mqtt_311(header: bytes, body: bytes) -> bytes:
    """Return a CONNECT as one of MQTT 3.1.1: without Mosquitto's bridge bit, and not of 3.1.  Raises Unwelcome."""
    name = next((name for name in (_PROTOCOL, _OLD_PROTOCOL) if body.startswith(name)), None)
    if name is None or len(body) == len(name):
        raise Unwelcome("has sent a CONNECT of an unknown protocol")
    level, rest = body[len(name)], body[len(name) + 1 :]
    if (name, level) == (_PROTOCOL, 5):
        raise Unwelcome(
            "speaks MQTT 5, but amqtt only speaks MQTT 3.1.1; set the client to that version", _CONNACK_5_REFUSED
        )
    if level & ~_BRIDGE != (4 if name == _PROTOCOL else 3):
        raise Unwelcome(f"speaks an unknown version of MQTT (level {level}); use MQTT 3.1.1", _CONNACK_REFUSED)
    if (name, level) == (_PROTOCOL, 4):
        return header + body
    return _encode_connect(_PROTOCOL + b"\4" + rest)


async def _read_packet(reader: ReaderAdapter) -> tuple[bytes, bytes]:
    """Return header and body of a CONNECT packet.  Raises Unwelcome, or NoDataError if the connection ends before."""
    first = await read_or_raise(reader, 1)
    if first[0] != _CONNECT:
        hint = ", which this listener does not use" if first[0] == _TLS else ""
        raise Unwelcome(f"does not begin with CONNECT but with {'TLS' if hint else f'0x{first[0]:02x}'}{hint}")
    header, length, shift = bytes(first), 0, 0
    while shift < 28:
        byte = (await read_or_raise(reader, 1))[0]
        header += bytes([byte])
        length |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            break
    if length > _LARGEST_CONNECT or header[-1] >= 128:
        raise Unwelcome("has sent a CONNECT that is longer than any can be")
    return header, bytes(await read_or_raise(reader, length))


def _encode_connect(body: bytes) -> bytes:
    """Return a CONNECT packet with a body."""
    header, length = bytearray([_CONNECT]), len(body)
    while length >= 128:
        header.append(length & 127 | 128)
        length >>= 7
    return bytes([*header, length]) + body


def _origin(writer: WriterAdapter) -> str:
    peer = writer.get_peer_info()
    return "of unknown address" if peer is None else f"at {peer[0]}"
