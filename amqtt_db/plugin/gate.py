"""Holding back a broker's clients while too much of what they sent waits in memory."""

from __future__ import annotations

import asyncio
from typing import Final

from amqtt.adapters import ReaderAdapter

_PUBLISH: Final = 3
_TURNS_BEFORE_END: Final = 2


class Gate:
    """Open or closed; those who publish wait while it is closed."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self._opened.set()
        self.closed = False

    def close(self) -> None:
        """Let nobody pass from now on."""
        self.closed = True
        self._opened.clear()

    def open(self) -> None:
        """Let all pass who wait."""
        self.closed = False
        self._opened.set()

    async def wait(self) -> None:
        """Return when the gate is open."""
        await self._opened.wait()


class GatedReader(ReaderAdapter):
    """A connection's reader that stops before the body of a PUBLISH packet while its gate is closed.

    Between a packet's first byte and its body amqtt may give up reading when the keep-alive time is over, and would
    lose its place in the stream; within a body it waits for ever.  So only bodies are held back, and all other packets
    pass.

    When the stream ends, amqtt cancels the tasks of all packets that it has just read; a client that publishes and
    leaves in one breath would be lost altogether.  So the end is told only after these tasks have run once.
    """

    def __init__(self, reader: ReaderAdapter, gate: Gate) -> None:
        self._reader = reader
        self._gate = gate
        self._kind = 0
        self._left = 0
        self._length = 0
        self._shift = -1

    async def read(self, n: int = -1) -> bytes:
        """The next ``n`` bytes, as the wrapped reader gives them."""
        if self._left and self._kind == _PUBLISH and self._gate.closed:
            await self._gate.wait()
        try:
            data = await self._reader.read(n)
        except Exception:
            await _run_others()
            raise
        if len(data) < n:
            await _run_others()
        elif self._left:
            self._left = max(0, self._left - n)
        else:
            self._read_header(data)
        return data

    def feed_eof(self) -> None:
        """Acknowledge the end of the stream."""
        self._reader.feed_eof()

    def _read_header(self, data: bytes) -> None:
        byte = data[0] if data else 0
        if self._shift < 0:
            self._kind = byte >> 4
            self._length = self._shift = 0
            return
        self._length |= (byte & 127) << self._shift
        self._shift += 7
        if byte < 128:
            self._left = self._length
            self._shift = -1


async def _run_others() -> None:
    for _ in range(_TURNS_BEFORE_END):
        await asyncio.sleep(0)
