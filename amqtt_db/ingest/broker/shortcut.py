"""A shortcut for messages: from a connection's bytes into the journal, and from the commit to the PUBACK.

amqtt takes a QoS 1 message through seven reads, a task, eight coroutines and a lock.  Here it is cut from the bytes
that were received, journaled at once, and acknowledged by the commit itself.  What is not a small, valid message of
QoS 0 or 1 goes amqtt's way, and so does everything while the journal takes nothing at once.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from time import time_ns
from typing import Final

from amqtt.mqtt.packet import PUBLISH, MQTTFixedHeader
from amqtt.mqtt.publish import PublishPacket, PublishPayload, PublishVariableHeader
from amqtt.session import IncomingApplicationMessage

from amqtt_db.ingest.broker.delivery import JournalQueue, is_topic
from amqtt_db.ingest.group_commit import GroupCommit
from amqtt_db.ingest.waiting import wait_within
from amqtt_db.message import flags

logger = logging.getLogger(__name__)

Send = Callable[[bytes], None]
"""Sends bytes to a client, at once or soon."""

_RETAINED: Final = 1
_QOS_1: Final = 2
_DUP: Final = 8
_FLAGS: Final[Mapping[int, int]] = {
    PUBLISH << 4 | bits: flags(0, (bits & _QOS_1) >> 1, bool(bits & _RETAINED))
    for bits in (0, _RETAINED, _QOS_1, _QOS_1 | _RETAINED, _QOS_1 | _DUP, _QOS_1 | _DUP | _RETAINED)
}
"""An entry's flags, by the first byte of a packet; amqtt ignores messages of QoS 0 with DUP."""

_PUBACK: Final = b"\x40\x02"
_UNTAKEN: Final = 10_000  # messages that the broker has yet to pass on to subscribers, over all connections
_LEAST_UNTAKEN: Final = 100  # the same, for one connection
_LAST_SECONDS: Final = 5.0  # for the broker to take the last messages of a connection that ends


class Acknowledger:
    """Acknowledges messages once they are committed, and passes them on to the broker."""

    def __init__(self, group_commit: GroupCommit) -> None:
        self._waiting: deque[tuple[int, JournalQueue, IncomingApplicationMessage, Send]] = deque()
        group_commit.add_listener(self._release)

    def add(self, position: int, queue: JournalQueue, item: IncomingApplicationMessage, send: Send) -> None:
        """Make a message wait for the commit of its entry; messages come in the order of their positions."""
        self._waiting.append((position, queue, item, send))

    def _release(self, end: int) -> None:
        waiting = self._waiting
        while waiting and waiting[0][0] < end:
            _, queue, item, send = waiting.popleft()
            try:
                send(_PUBACK + (item.packet_id or 0).to_bytes(2, "big"))
                queue.adopt(item)
            except Exception:  # an error of one connection: the others still wait for theirs
                logger.exception("cannot acknowledge a message")


class Shortcut:
    """Takes the messages of one connection; ``send`` sends its acknowledgements.

    Messages are taken much faster than amqtt passes them on, so the connection waits for it when it is far behind.
    ``count_connections`` returns how many share the memory for that.
    """

    def __init__(
        self,
        group_commit: GroupCommit,
        acknowledger: Acknowledger,
        queue: JournalQueue,
        send: Send,
        max_payload: int,
        count_connections: Callable[[], int],
    ) -> None:
        self._group_commit = group_commit
        self._acknowledger = acknowledger
        self._queue = queue
        self._send = send
        self._max_payload = max_payload
        self._count_connections = count_connections
        self._topic = b""
        self._topic_text = ""

    async def wait_for_broker(self) -> None:
        """Return when the broker is not too far behind."""
        most = max(_LEAST_UNTAKEN, _UNTAKEN // max(1, self._count_connections()))
        if self._queue.qsize() >= most:
            await self._queue.shrink(most // 2)

    async def finish(self) -> None:
        """Return when the broker has taken all: it takes nothing more once it knows that the client has gone."""
        with suppress(asyncio.TimeoutError):
            await wait_within(self._queue.shrink(0), _LAST_SECONDS)

    def take(self, data: bytes, at: int) -> int:
        """Take the messages that begin at ``at``; return where the first thing begins that amqtt has to read."""
        while at < len(data) and self._group_commit.accepts:
            behind = self._take_one(data, at)
            if behind == at:
                break
            at = behind
        return at

    def _take_one(self, data: bytes, at: int) -> int:
        """Take one message; return where the next one begins, or ``at`` if amqtt has to read it."""
        first = data[at]
        start, stop = _find_body(data, at)
        if first not in _FLAGS or stop > len(data) or stop - start < 2:
            return at
        topic_stop = start + 2 + (data[start] << 8 | data[start + 1])
        payload_start = topic_stop + (first & _QOS_1)  # a packet identifier has two bytes
        if not 0 <= stop - payload_start <= self._max_payload or not self._check_topic(data[start + 2 : topic_stop]):
            return at
        identifier = int.from_bytes(data[topic_stop:payload_start], "big") if first & _QOS_1 else None
        self._journal(MQTTFixedHeader(PUBLISH, first & 15, stop - start), identifier, data[payload_start:stop])
        return stop

    def _check_topic(self, topic: bytes) -> bool:
        """Remember a topic; return False if clients may not publish to it."""
        if topic == self._topic:
            return bool(topic)
        try:
            text = topic.decode()
        except UnicodeDecodeError:
            return False
        if "\0" in text or not is_topic(text):
            return False
        self._topic, self._topic_text = topic, text
        return True

    def _journal(self, header: MQTTFixedHeader, identifier: int | None, payload: bytes) -> None:
        topic, queue = self._topic_text, self._queue
        item = IncomingApplicationMessage(
            identifier, topic, 0 if identifier is None else 1, payload, bool(header.flags & _RETAINED)
        )
        item.publish_packet = PublishPacket(header, PublishVariableHeader(topic, identifier), PublishPayload(payload))
        position = self._group_commit.position
        self._group_commit.append(
            _FLAGS[PUBLISH << 4 | header.flags], time_ns() // 1000, queue.connection, self._topic, payload
        )
        if identifier is None:
            queue.adopt(item)
        else:
            self._acknowledger.add(position, queue, item, self._send)


def _find_body(data: bytes, at: int) -> tuple[int, int]:
    """Return where the body of a packet begins and ends; an end behind the data if it is large or incomplete."""
    head = data[at + 1 : at + 3]
    if head and head[0] < 128:
        return at + 2, at + 2 + head[0]
    if len(head) == 2 and head[1] < 128:
        return at + 3, at + 3 + (head[0] & 127 | head[1] << 7)
    return at, len(data) + 1
