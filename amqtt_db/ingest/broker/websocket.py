"""Between amqtt and a client's WebSocket.

If a connection ends in the middle of a packet, amqtt's own reader takes the last piece again and again until the packet
is complete, so a payload that nobody has sent would be stored.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from amqtt.adapters import ReaderAdapter, WebSocketsWriter
from websockets.asyncio.server import ServerConnection
from websockets.exceptions import ConnectionClosed
from websockets.frames import CloseCode

_BEYOND_WEBSOCKET: Final = (
    "sent more than 1 MiB in one WebSocket message and is disconnected; it can send that over TCP"
)


class WebSocketReader(ReaderAdapter):
    """A reader that returns what the client has sent, and nothing else.

    ``refuse`` is called with the reason if the connection ends because a message is larger than amqtt allows.
    """

    def __init__(self, websocket: ServerConnection) -> None:
        self._websocket = websocket
        self._held = b""
        self.refuse: Callable[[str], None] = lambda _: None

    async def read(self, n: int = -1) -> bytes:
        """Return the next ``n`` bytes, or all; fewer at the end of the stream."""
        wanted = n if n >= 0 else sys.maxsize
        data = b""
        while len(data) < wanted and (piece := await self.receive()):
            data += piece
        self._held = data[wanted:]
        return data[:wanted]

    async def receive(self) -> bytes:
        """Receive at least one byte, unless the stream ends."""
        data, self._held = self._held, b""
        try:
            while not data:
                message = await self._websocket.recv()
                data = message.encode() if isinstance(message, str) else message
        except ConnectionClosed as end:
            if end.sent is not None and end.sent.code == CloseCode.MESSAGE_TOO_BIG:
                self.refuse(_BEYOND_WEBSOCKET)
        return data

    def feed_eof(self) -> None:
        """Do nothing: only the connection ends the stream."""


class WebSocketWriter(WebSocketsWriter):
    """amqtt's writer; as over TCP, it is not an error if the client has left."""

    async def drain(self) -> None:
        """Send what was written."""
        with suppress(ConnectionClosed):
            await super().drain()
