"""Sending in one piece what one commit of the journal has released.

amqtt writes each acknowledgement by itself, and asyncio sends it at once: a system call per message, the dearest thing
that a broker does.  Those of one commit all leave in the same turn of the event loop, so that a connection can have
them together and none of them later.
"""

from __future__ import annotations

import logging
import ssl

from amqtt.adapters import StreamWriterAdapter, WriterAdapter

logger = logging.getLogger(__name__)


class WriteCoalescer:
    """While it is in, its writers gather what is written; once it is pulled, each sends that in one piece."""

    def __init__(self) -> None:
        self.is_holding = False
        self._gathering: list[CoalescingWriter] = []

    def hold(self) -> None:
        """Gather from now on."""
        self.is_holding = True

    def gather(self, writer: CoalescingWriter) -> None:
        """Have a writer send when the cork is pulled."""
        self._gathering.append(writer)

    def flush_all(self) -> None:
        """Send what was gathered, and gather no longer."""
        self.is_holding = False
        gathering, self._gathering = self._gathering, []
        for writer in gathering:
            try:
                writer.send()
            except Exception:  # of one connection: the others still wait for theirs
                logger.exception("a connection cannot be written to")


class CoalescingWriter(WriterAdapter):
    """The writer of a TCP connection, below a cork.

    One of a WebSocket, which sends when it drains, cannot be.
    """

    def __init__(self, writer: StreamWriterAdapter, coalescer: WriteCoalescer) -> None:
        self._writer = writer
        self._coalescer = coalescer
        self._gathered: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send, now or when the cork is pulled."""
        if not self._coalescer.is_holding:
            self._writer.write(data)
            return
        if not self._gathered:
            self._coalescer.gather(self)
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
