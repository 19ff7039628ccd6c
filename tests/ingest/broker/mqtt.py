"""The little of MQTT 3.1.1 that the tests need, packet by packet."""

from __future__ import annotations

import asyncio
from typing import Any

SECONDS = 20.0


class Client:
    """A client over one socket."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int, client_id: str | bytes, **options: Any) -> Client:
        """A client that has its CONNACK."""
        client = cls(*await asyncio.open_connection("127.0.0.1", port))
        client.send(connect_packet(client_id, **options))
        assert (await client.packet())[0] >> 4 == 2
        return client

    def send(self, *packets: bytes) -> None:
        """Send packets."""
        self.writer.write(b"".join(packets))

    async def packet(self) -> bytes:
        """The next packet's first byte and body."""
        return await asyncio.wait_for(self._packet(), SECONDS)

    async def _packet(self) -> bytes:
        first = await self.reader.readexactly(1)
        length, shift = 0, 0
        while True:
            byte = (await self.reader.readexactly(1))[0]
            length |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return first + await self.reader.readexactly(length)

    async def acknowledged(self) -> tuple[int, int]:
        """The next acknowledgement's type and packet identifier."""
        packet = await self.packet()
        return packet[0] >> 4, int.from_bytes(packet[1:3], "big")

    async def ping(self) -> None:
        """Return once the broker has read everything before."""
        self.send(b"\xc0\x00")
        assert (await self.packet())[0] >> 4 == 13

    async def leave(self) -> None:
        """Send DISCONNECT and close."""
        self.send(b"\xe0\x00")
        await self.vanish()

    async def vanish(self) -> None:
        """Close without a word."""
        self.writer.close()
        await self.writer.wait_closed()


def text(value: str | bytes) -> bytes:
    """A string as MQTT writes it."""
    data = value.encode() if isinstance(value, str) else value
    return len(data).to_bytes(2, "big") + data


def packet(first: int, body: bytes) -> bytes:
    """A packet with its length."""
    length, encoded = len(body), bytearray()
    while True:
        length, byte = divmod(length, 128)
        encoded.append(byte | (128 if length else 0))
        if not length:
            return bytes([first]) + encoded + body


def connect_packet(
    client_id: str | bytes,
    *,
    clean: bool = True,
    keep_alive: int = 60,
    username: str | bytes | None = None,
    will: tuple[str | bytes, bytes, int, bool] | None = None,
) -> bytes:
    """CONNECT; ``will`` is topic, payload, QoS and retain."""
    flags = 2 * clean | 128 * (username is not None)
    body = text(client_id)
    if will is not None:
        flags |= 4 | will[2] << 3 | will[3] << 5
        body += text(will[0]) + text(will[1])
    if username is not None:
        body += text(username)
    return packet(0x10, text("MQTT") + bytes([4, flags]) + keep_alive.to_bytes(2, "big") + body)


def publish(
    topic: str, payload: bytes, qos: int = 0, number: int = 0, *, retain: bool = False, dup: bool = False
) -> bytes:
    """PUBLISH."""
    identifier = number.to_bytes(2, "big") if qos else b""
    return packet(0x30 | dup << 3 | qos << 1 | retain, text(topic) + identifier + payload)


def release(number: int) -> bytes:
    """PUBREL."""
    return packet(0x62, number.to_bytes(2, "big"))
