"""What stands between amqtt and a client's connection: a reader with a gate, and a writer that gathers."""

from __future__ import annotations

import asyncio
import ssl
from typing import Final

from amqtt.adapters import ReaderAdapter, StreamWriterAdapter, WriterAdapter

from amqtt_db.ingest.broker.compat import receiver
from amqtt_db.ingest.coalesce import WriteCoalescer
from amqtt_db.ingest.gate import BackpressureGate

_PUBLISH: Final = 3
_LONGEST: Final = 28  # bits of a length; amqtt discards a packet with a longer one and reads on at a new header
_TURNS_BEFORE_END: Final = 2


class GatedReader(ReaderAdapter):
    """A connection's reader that stops before the body of a PUBLISH packet while its gate is closed.

    Between a packet's first byte and its body amqtt may give up reading when the keep-alive time is over, and would
    lose its place in the stream; within a body it waits for ever.  So only bodies are held back, and all other packets
    pass.

    amqtt reads a packet in some seven pieces.  They are cut from what was received at once, which saves the stream
    more than the gate costs.

    When the stream ends, amqtt cancels the tasks of all packets that it has just read; a client that publishes and
    leaves in one breath would be lost altogether.  So the end is told only after these tasks have run once.
    """

    def __init__(self, reader: ReaderAdapter, gate: BackpressureGate) -> None:
        self._reader = reader
        self._receive = receiver(reader)
        self._gate = gate
        self._held = b""
        self._at = 0
        self._kind = 0
        self._left = 0
        self._length = 0
        self._shift = -1

    async def read(self, n: int = -1) -> bytes:
        """The next ``n`` bytes; fewer at the end of the stream."""
        if self._left and self._gate.closed and self._kind == _PUBLISH:
            await self._gate.wait()
        if self._at + n > len(self._held):
            await self._hold(n)
        start = self._at
        self._at = start + n
        data = self._held[start : self._at]
        if self._at >= len(self._held):  # an idle connection shall not hold its last message
            self._held, self._at = b"", 0
        if self._left:
            self._left = max(0, self._left - n)
        elif data:
            self._read_header(data[0])
        return data

    def feed_eof(self) -> None:
        """Acknowledge the end of the stream."""
        self._reader.feed_eof()

    async def _hold(self, n: int) -> None:
        """Receive until ``n`` bytes are held, or the stream ends."""
        pieces = [self._held[self._at :]]
        missing = n - len(pieces[0])
        try:
            while missing > 0 and (piece := await self._receive(missing)):
                pieces.append(piece)
                missing -= len(piece)
        except Exception:
            await _run_others()
            raise
        if missing > 0:
            await _run_others()
        self._held, self._at = b"".join(pieces), 0

    def _read_header(self, byte: int) -> None:
        if self._shift < 0:
            self._kind = byte >> 4
            self._length = self._shift = 0
            return
        self._length |= (byte & 127) << self._shift
        self._shift += 7
        if byte < 128:
            self._left = self._length
            self._shift = -1
        elif self._shift == _LONGEST:
            self._shift = -1


async def _run_others() -> None:
    for _ in range(_TURNS_BEFORE_END):
        await asyncio.sleep(0)


class CoalescingWriter(WriterAdapter):
    """A TCP connection's writer that gathers while its coalescer holds.

    amqtt writes each acknowledgement by itself, and asyncio sends it at once.  A WebSocket sends when it drains, so its
    writer cannot gather.
    """

    def __init__(self, writer: StreamWriterAdapter, coalescer: WriteCoalescer) -> None:
        self._writer = writer
        self._coalescer = coalescer
        self._gathered: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send, now or when the coalescer is flushed."""
        if not self._coalescer.is_holding:
            self._writer.write(data)
            return
        if not self._gathered:
            self._coalescer.add(self)
        self._gathered.append(data)

    def send(self) -> None:
        """Send what was gathered."""
        gathered, self._gathered = self._gathered, []
        if gathered:
            self._writer.write(b"".join(gathered))

    async def drain(self) -> None:
        """Wait while the client takes less than it is sent."""
        await self._writer.drain()

    def get_peer_info(self) -> tuple[str, int] | None:
        """The client's address and port."""
        return self._writer.get_peer_info()

    def get_ssl_info(self) -> ssl.SSLObject | None:
        """The client's TLS session, if it has one."""
        return self._writer.get_ssl_info()

    async def close(self) -> None:
        """Send what was gathered, and close the connection."""
        self.send()
        await self._writer.close()
