"""WebSocket between a transport and a connection to a broker: MQTT in binary frames (MQTT 5, section 6)."""

from __future__ import annotations

import asyncio
from typing import cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.protocol import State
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from amqtt_db.ingest.bridge.peer import Ending, Peer


class WebSocket(asyncio.Protocol):
    """A protocol for the network, and a transport for a connection."""

    def __init__(self, connection: Peer, url: str) -> None:
        """``url`` is the broker's, with its path."""
        self._connection = connection
        self._protocol = ClientProtocol(parse_uri(url), subprotocols=[Subprotocol("mqtt")], max_size=None)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for WebSocket."""
        self._transport = cast(asyncio.Transport, transport)
        self._protocol.send_request(self._protocol.connect())
        self._send()

    def data_received(self, data: bytes) -> None:
        """Pass on what is in frames."""
        self._protocol.receive_data(data)
        self._pass_on()

    def eof_received(self) -> None:
        """Note that the broker will send nothing more."""
        self._protocol.receive_eof()
        self._pass_on()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the connection."""
        if self._protocol.state is State.CONNECTING:
            self._connection.end(Ending("does not speak MQTT over WebSocket here: it closes the connection"))
        self._connection.connection_lost(exc)

    def write(self, data: bytes) -> None:
        """Send bytes of MQTT."""
        self._protocol.send_binary(data)
        self._send()

    def close(self) -> None:
        """Close the WebSocket, and the connection below it."""
        if self._protocol.handshake_exc is None and self._transport is not None and not self._transport.is_closing():
            self._protocol.send_close()
            self._send()
        if self._transport is not None:
            self._transport.close()

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return what is known of the connection below it, such as its socket."""
        return default if self._transport is None else self._transport.get_extra_info(name, default)

    def is_closing(self) -> bool:
        """True if it is closed, or about to be."""
        return self._transport is None or self._transport.is_closing()

    def pause_reading(self) -> None:
        """Receive nothing more."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Receive again."""
        if self._transport is not None:
            self._transport.resume_reading()

    def _pass_on(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                if self._protocol.handshake_exc is None:
                    self._connection.connection_made(cast(asyncio.Transport, self))
            elif isinstance(event, Frame) and event.opcode in (Opcode.BINARY, Opcode.CONT):
                self._connection.data_received(bytes(event.data))
        refusal = self._protocol.handshake_exc
        if refusal is not None:
            self._connection.end(Ending(f"does not speak MQTT over WebSocket here: {_explain(refusal)}"))
        self._send()

    def _send(self) -> None:
        """Send WebSocket's own output."""
        for data in self._protocol.data_to_send():
            if data and not self.is_closing():
                cast(asyncio.Transport, self._transport).write(data)


def _explain(refusal: Exception) -> str:
    return str(refusal) if isinstance(refusal, InvalidHandshake) else type(refusal).__name__
