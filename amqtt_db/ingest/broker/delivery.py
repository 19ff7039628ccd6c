"""The queue between a session's acknowledgements and the broker: the one place that every message passes.

Messages that take the shortcut (:mod:`amqtt_db.ingest.broker.shortcut`) get here when they are acknowledged; for all
others this is the place that can delay amqtt's acknowledgement.

amqtt acknowledges a QoS 1 message once ``put`` of the session's ``delivered_message_queue`` has returned; QoS 0 goes
through ``put_nowait``.  A queue that first awaits the journal's commit delays exactly the acknowledgement.  QoS 2
messages are stored before they get here, see :mod:`amqtt_db.ingest.broker.qos2`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from time import time_ns
from typing import Final

from amqtt.mqtt.publish import PublishPacket
from amqtt.session import ApplicationMessage, IncomingApplicationMessage

from amqtt_db.ingest.broker.qos2 import Qos2Ledger
from amqtt_db.ingest.group_commit import CommitFuture, GroupCommit
from amqtt_db.ingest.refusals import Refusals
from amqtt_db.message import flags

Permission = Callable[[str], Awaitable[bool]]
"""Returns True if the broker's topic plugins let the session publish to a topic."""

_RESERVED: Final = "published to a topic that is empty or begins with $, which is reserved for the broker"


def is_topic(topic: str) -> bool:
    """Return True if clients may publish to this topic, apart from permissions."""
    return topic != "" and topic[0] != "$" and "+" not in topic and "#" not in topic


class JournalQueue(asyncio.Queue[ApplicationMessage]):
    """Journals a session's messages before the broker gets them.  ``connection`` is the position of its CONNECT."""

    def __init__(
        self, group_commit: GroupCommit, refusals: Refusals, client_id: str, permission: Permission | None
    ) -> None:
        super().__init__()
        self.connection = 0
        self._group_commit = group_commit
        self._refusals = refusals
        self._client_id = client_id
        self._permission = permission
        self._ledger = Qos2Ledger(group_commit, client_id)
        self._in_turn: asyncio.Queue[ApplicationMessage] = asyncio.Queue()
        self._turns: asyncio.Task[None] | None = None
        self._rest = -1
        self._has_shrunk = asyncio.Event()

    async def put(self, item: ApplicationMessage) -> None:
        """Take a QoS 1 message, which is durable when this returns, or a QoS 2 message, which is then released."""
        if item.qos == 2:
            await self.release(item.packet_id or 0)
            if is_topic(item.topic):
                super().put_nowait(item)
            return
        if not is_topic(item.topic):
            self._refuse()
            return
        if self._permission is None or await self._permission(item.topic):
            if self._group_commit.blocked:
                await self._group_commit.wait_for_room(len(item.data))
            await self._append(item)
        super().put_nowait(item)

    def put_nowait(self, item: ApplicationMessage) -> None:
        """Take a QoS 0 message."""
        if not is_topic(item.topic):
            self._refuse()
        elif self._permission is None:
            self._store_or_refuse(item)
            super().put_nowait(item)
        else:
            self._in_turn.put_nowait(item)
            if self._turns is None:
                self._turns = asyncio.create_task(self._take_turns(self._permission), name="amqtt_db QoS 0")

    async def take(self, packet: PublishPacket) -> None:
        """Take a QoS 2 message before its PUBREC; when this returns, it is durable or need not be stored."""
        topic, payload = packet.topic_name or "", packet.data or b""
        if not is_topic(topic):
            self._refuse()
        elif self._permission is None or await self._permission(topic):
            item = IncomingApplicationMessage(packet.packet_id, topic, 2, payload, packet.retain_flag)
            append = partial(self._append, item)
            if not await self._ledger.take(packet.packet_id or 0, topic.encode(), payload, packet.dup_flag, append):
                self._refusals.repeated += 1

    async def release(self, packet_id: int) -> None:
        """Return when the release of a QoS 2 message is durable."""
        await self._ledger.release(packet_id)

    def adopt(self, item: ApplicationMessage) -> None:
        """Pass on to the broker a message that has already been stored or refused."""
        super().put_nowait(item)

    async def shrink(self, rest: int) -> None:
        """Return when the broker has taken all messages but ``rest``."""
        if self.qsize() > rest:
            self._rest = rest
            self._has_shrunk.clear()
            await self._has_shrunk.wait()

    def _get(self) -> ApplicationMessage:
        item: ApplicationMessage = super()._get()
        if self.qsize() <= self._rest:
            self._has_shrunk.set()
        return item

    def _refuse(self) -> None:
        """Count a message that clients may not publish.

        The broker does not get it: amqtt would stop serving the client without closing its connection.
        """
        self._refusals.add(self._client_id, _RESERVED)

    def _store_or_refuse(self, item: ApplicationMessage) -> None:
        if self._group_commit.blocked:
            self._group_commit.refuse()
        else:
            self._append(item)

    def _append(self, item: ApplicationMessage) -> CommitFuture:
        sent = flags(0, item.qos or 0, item.retain)
        return self._group_commit.append(
            sent, time_ns() // 1000, self.connection, item.topic.encode(), bytes(item.data)
        )

    async def _take_turns(self, permission: Permission) -> None:
        """Ask for permission and store, one message at a time, in order of arrival."""
        while not self._in_turn.empty():
            item = self._in_turn.get_nowait()
            if await permission(item.topic):
                self._store_or_refuse(item)
            super().put_nowait(item)
        self._turns = None
