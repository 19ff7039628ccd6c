"""Between amqtt and a client's connection: a reader with a gate, and a writer that gathers."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final, cast

from amqtt.adapters import ReaderAdapter, StreamWriterAdapter, WriterAdapter

from amqtt_db.ingest.broker.compat import receiver
from amqtt_db.ingest.broker.shortcut import Shortcut
from amqtt_db.ingest.coalesce import WriteCoalescer
from amqtt_db.ingest.gate import BackpressureGate, MemoryBudget
from amqtt_db.ingest.waiting import wait_within

_PUBLISH: Final = 3
_DISCONNECT: Final = 14
_MAX_LENGTH_BITS: Final = (
    28  # bits of a length; amqtt discards a packet with a longer one and goes on with a new header
)
_QOS_3: Final = 6  # both bits of a QoS, which no packet may have
_TURNS_BEFORE_END: Final = 2
_SMALL: Final = 2**16  # bytes of a body that need no budget
_ENDLESS: Final = 2**28
_LENGTHS: Final[Mapping[int, tuple[int, int]]] = {
    **dict.fromkeys((1, 2, 9, 11, 13), (0, _ENDLESS)),  # amqtt disconnects a second CONNECT, and ignores the others
    _PUBLISH: (2, _ENDLESS),
    **dict.fromkeys((4, 5, 6, 7), (2, 2)),  # PUBACK, PUBREC, PUBREL, PUBCOMP
    8: (6, _ENDLESS),  # SUBSCRIBE: identifier, a topic of one character, QoS
    10: (5, _ENDLESS),  # UNSUBSCRIBE
    12: (0, 0),  # PINGREQ
    _DISCONNECT: (0, 0),
}
"""The least and the most bytes of a packet's body, by the packet's type."""

_SILENCE_SECONDS: Final = 30.0
_SLOWEST: Final = 16 * 2**10  # bytes per second of a large body

_ILL_FORMED: Final = "sent a topic that is not well-formed UTF-8 [MQTT-1.5.3-1] and is disconnected"
_WILDCARD: Final = "published to a topic with a wildcard [MQTT-3.3.2-2] and is disconnected"
_MALFORMED: Final = "sent a malformed packet and is disconnected"
_TOO_LARGE: Final = "sent a payload larger than journal.max_payload and is disconnected"
_TOO_SLOW: Final = "stopped in the middle of a packet, or sent it too slowly, and is disconnected"


class GatedReader(ReaderAdapter):
    """A connection's reader that stops before the body of a PUBLISH packet while its gate is closed.

    Between a packet's first byte and its body amqtt may give up reading when the keep-alive time is over, and would
    lose its place in the stream; within a body it waits forever.  So only bodies are held back, and all other packets
    pass.

    amqtt reads a packet in about seven pieces.  The reader cuts them from a buffer, which saves more than the gate
    costs.

    When the stream ends, amqtt cancels the tasks of all packets that it has just read, so it would lose everything
    from a client that publishes and disconnects at once.  So the end is reported only after these tasks have run once.

    Where a packet begins, the ``shortcut`` may first take messages.  The end of the connection waits until the broker
    has taken those, too.

    A PUBLISH that no broker may accept, or a body that is too large or too slow, ends the stream; ``refuse`` is called
    with the reason.  So does a packet that is shorter than what amqtt reads of it, or longer: amqtt would take the next
    packet for a part of it, and then answer nothing any more.
    """

    def __init__(
        self,
        reader: ReaderAdapter,
        gate: BackpressureGate,
        budget: MemoryBudget,
        max_payload: int,
        refuse: Callable[[str], None],
        shortcut: Shortcut | None = None,
    ) -> None:
        self._reader = reader
        self._receive = receiver(reader)
        self._gate = gate
        self._budget = budget
        self._max_payload = max_payload
        self._refuse = refuse
        self._shortcut = shortcut
        self._has_passed = False  # a message that may not be in the journal yet
        self._held = b""
        self._at = 0
        self._first = 0
        self._left = 0
        self._length = 0
        self._shift = -1
        self._last_topic = b""
        self._topic_left = -1  # -1 outside a topic, 0 before its length, else its length

    async def read(self, n: int = -1) -> bytes:
        """Return the next ``n`` bytes; fewer at the end of the stream."""
        if n > self._left and n > 1:  # a header is read byte by byte
            return self.end(_MALFORMED)
        if self._shortcut is not None and not self._left and self._shift < 0:
            await self._take_messages(self._shortcut)
        if self._left and self._gate.closed and self._first >> 4 == _PUBLISH:
            await self._gate.wait()
        if self._at + n > len(self._held):
            if n > _SMALL:
                return await self._read_large(n)
            await self._hold(n)
        start = self._at
        self._at = start + n
        data = self._held[start : self._at]
        if self._at >= len(self._held):  # an idle connection must not keep its last message in memory
            self._held, self._at = b"", 0
        if self._left:
            self._left = max(0, self._left - n)
            if self._topic_left >= 0:
                return self._read_topic(data)
        elif data and not self._read_header(data[0]):
            return self.end(_MALFORMED)
        return data

    def feed_eof(self) -> None:
        """Note the end of the stream."""
        self._reader.feed_eof()

    async def _take_messages(self, shortcut: Shortcut) -> None:
        """Let messages take the shortcut, up to the first byte that amqtt has to read, or the end of the stream."""
        if self._has_passed:
            self._has_passed = False
            await asyncio.sleep(0)  # amqtt's task for that message runs first
        while True:
            self._at = shortcut.take(self._held, self._at)
            if self._at < len(self._held):
                if self._held[self._at] >> 4 == _DISCONNECT:
                    await shortcut.finish()
                return
            self._held, self._at = b"", 0
            await shortcut.wait_for_broker()
            await self._hold(1)
            if not self._held:
                return

    async def _hold(self, n: int) -> None:
        """Receive until ``n`` bytes are held, or the stream ends."""
        pieces = [self._held[self._at :]]
        missing = n - len(pieces[0])
        receive = self._receive_in_time if self._left else self._receive
        try:
            while missing > 0 and (piece := await receive(missing)):
                pieces.append(piece)
                missing -= len(piece)
        except Exception:
            await self._finish()
            raise
        if missing > 0:
            await self._finish()
        self._held, self._at = b"".join(pieces), 0

    async def _finish(self) -> None:
        """Let the tasks of all packets run, and the broker take all messages, before amqtt learns of the end."""
        await _run_others()
        if self._shortcut is not None:
            await self._shortcut.finish()

    async def _read_large(self, n: int) -> bytes:
        """Return a body of ``n`` bytes, or fewer at the end of the stream.

        It gets its own memory, which is returned to the system after use.
        """
        body, self._held, self._at = bytearray(self._held[self._at :]), b"", 0
        async with self._budget.reserve(n):
            deadline = monotonic() + _SILENCE_SECONDS + n / _SLOWEST
            try:
                while len(body) < n and (piece := await self._receive_in_time(n - len(body), deadline)):
                    missing = n - len(body)
                    body += piece[:missing]
                    self._held = piece[missing:]
            except Exception:
                await _run_others()
                raise
        if len(body) < n:
            await _run_others()
            return b""
        self._left = max(0, self._left - n)
        return cast(bytes, body)  # amqtt only copies it

    async def _receive_in_time(self, missing: int, deadline: float | None = None) -> bytes:
        """Receive bytes of a body; end the stream if they do not come in time."""
        seconds = _SILENCE_SECONDS if deadline is None else min(_SILENCE_SECONDS, deadline - monotonic())
        try:
            return await wait_within(self._receive(missing), seconds)
        except asyncio.TimeoutError:
            return self.end(_TOO_SLOW)

    def _read_header(self, byte: int) -> bool:
        """Take the next byte of a header; return False if MQTT has no such packet."""
        if self._shift < 0:
            self._first = byte
            self._length = self._shift = 0
            return byte >> 4 in _LENGTHS
        self._length |= (byte & 127) << self._shift
        self._shift += 7
        if byte < 128:
            self._left = self._length
            self._shift = -1
            if self._left and self._first >> 4 == _PUBLISH:
                self._topic_left = 0
                self._has_passed = True
            least, most = _LENGTHS[self._first >> 4]
            return least <= self._length <= most
        if self._shift == _MAX_LENGTH_BITS:
            self._shift = -1
        return True

    def _read_topic(self, data: bytes) -> bytes:
        """Check what amqtt reads from a PUBLISH before the payload: the length of the topic, and the topic."""
        if self._topic_left:
            self._topic_left = -1
            if data == self._last_topic:
                return data
            fault = _topic_fault(data)
            self._last_topic = b"" if fault else data
        else:
            length = int.from_bytes(data, "big")
            self._topic_left = length or -1
            if 2 <= self._left - length <= self._max_payload and self._first & _QOS_3 != _QOS_3:
                return data
            fault = self._length_fault(length)
        return data if fault is None else self.end(fault)

    def _length_fault(self, topic: int) -> str | None:
        qos = self._first & _QOS_3
        payload = self._left - topic - (2 if qos else 0)
        if qos == _QOS_3 or payload < 0:
            return _MALFORMED
        return _TOO_LARGE if payload > self._max_payload else None

    def end(self, reason: str) -> bytes:
        """End the stream for amqtt, which then closes the connection."""
        self._refuse(reason)
        self._refuse = _say_nothing
        self._receive = _receive_nothing
        self._shortcut = None
        self._held, self._at, self._left, self._shift, self._topic_left = b"", 0, 0, -1, -1
        return b""


def _topic_fault(topic: bytes) -> str | None:
    try:
        topic.decode()
    except UnicodeDecodeError:
        return _ILL_FORMED
    if b"\0" in topic:
        return _ILL_FORMED
    return _WILDCARD if b"+" in topic or b"#" in topic else None


def _say_nothing(_: str) -> None:
    """Take a reason: the first one is enough."""


async def _receive_nothing(_: int) -> bytes:
    return b""


async def _run_others() -> None:
    for _ in range(_TURNS_BEFORE_END):
        await asyncio.sleep(0)


class CoalescingWriter(WriterAdapter):
    """A TCP connection's writer that gathers while its coalescer holds.

    amqtt writes each acknowledgement separately, and asyncio sends it at once.  A WebSocket sends when it drains, so
    its writer cannot gather.
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
        """Wait until the client has caught up with what was sent."""
        await self._writer.drain()

    def get_peer_info(self) -> tuple[str, int] | None:
        """Return the client's address and port."""
        return self._writer.get_peer_info()

    def get_ssl_info(self) -> ssl.SSLObject | None:
        """Return the client's TLS session, if it has one."""
        return self._writer.get_ssl_info()

    async def close(self) -> None:
        """Send what was gathered, and close the connection."""
        self.send()
        await self._writer.close()
