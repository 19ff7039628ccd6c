"""What one commit releases leaves in one piece, and nothing else waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from amqtt.adapters import StreamWriterAdapter

from amqtt_db.ingest.broker.streams import CoalescingWriter
from amqtt_db.ingest.coalesce import WriteCoalescer


class Connection(StreamWriterAdapter):
    """The broker's side of a real connection; remembers in which pieces it sent."""

    def __init__(self, client: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        super().__init__(writer)
        self.client = client
        self.pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Send a piece."""
        self.pieces.append(data)
        super().write(data)


def with_connection(use: Callable[[Connection], Awaitable[None]]) -> None:
    """Run something with a connection, whose client reads what it is sent."""

    async def run() -> None:
        accepted: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        server = await asyncio.start_server(lambda _, writer: accepted.put_nowait(writer), "127.0.0.1", 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        connection = Connection(reader, await accepted.get())
        try:
            await use(connection)
        finally:
            await connection.close()
            writer.close()
            await writer.wait_closed()
            server.close()
            await server.wait_closed()

    asyncio.run(run())


def test_what_is_written_below_a_cork_leaves_in_one_piece() -> None:
    """In the order of writing; before and after, each piece is sent at once."""

    async def use(connection: Connection) -> None:
        coalescer = WriteCoalescer()
        writer = CoalescingWriter(connection, coalescer)
        writer.write(b"a")
        coalescer.hold()
        for piece in (b"b", b"c", b"d"):
            writer.write(piece)
            await writer.drain()
        assert connection.pieces == [b"a"]
        coalescer.flush_all()
        assert connection.pieces == [b"a", b"bcd"]
        writer.write(b"e")
        coalescer.hold()
        coalescer.flush_all()
        assert connection.pieces == [b"a", b"bcd", b"e"]
        assert await connection.client.readexactly(5) == b"abcde"

    with_connection(use)


def test_a_connection_that_is_closed_below_a_cork_sends_what_it_has() -> None:
    """Nothing that was written is lost, and nothing is sent twice."""

    async def use(connection: Connection) -> None:
        coalescer = WriteCoalescer()
        writer = CoalescingWriter(connection, coalescer)
        coalescer.hold()
        writer.write(b"last")
        closing = asyncio.create_task(writer.close())
        assert await connection.client.read() == b"last"
        coalescer.flush_all()
        assert connection.pieces == [b"last"]
        closing.cancel()

    with_connection(use)


def test_a_corked_writer_knows_its_connection() -> None:
    """It returns the client's address and TLS session."""

    async def use(connection: Connection) -> None:
        writer = CoalescingWriter(connection, WriteCoalescer())
        assert writer.get_peer_info() == connection.get_peer_info()
        assert writer.get_ssl_info() is None

    with_connection(use)
