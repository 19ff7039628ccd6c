"""The queue between a session's acknowledgements and the broker: the one place that every PUBLISH passes.

amqtt acknowledges a message once ``put`` of the session's ``delivered_message_queue`` has returned; QoS 0 goes through
``put_nowait``.  A queue that first awaits the journal's commit delays exactly the acknowledgement.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from time import time_ns

from amqtt.session import ApplicationMessage

from amqtt_db.ingest.group_commit import CommitFuture, GroupCommit
from amqtt_db.message import flags

Permission = Callable[[str], Awaitable[bool]]
"""Whether the session may publish to a topic, as the broker's topic plugins see it."""


def is_topic(topic: str) -> bool:
    """Whether the broker passes on what clients publish to this topic, permission aside."""
    return topic != "" and topic[0] != "$" and "+" not in topic and "#" not in topic


class JournalQueue(asyncio.Queue[ApplicationMessage]):
    """Journals a session's messages before the broker has them.  ``connection`` is the position of its CONNECT."""

    def __init__(self, group_commit: GroupCommit, permission: Permission | None) -> None:
        super().__init__()
        self.connection = 0
        self._group_commit = group_commit
        self._permission = permission
        self._unfinished: dict[int, tuple[ApplicationMessage, CommitFuture]] = {}
        self._in_turn: asyncio.Queue[ApplicationMessage] = asyncio.Queue()
        self._turns: asyncio.Task[None] | None = None

    async def put(self, item: ApplicationMessage) -> None:
        """Take a message of QoS 1 or 2; it is durable, or not to be stored, when this returns."""
        if is_topic(item.topic) and (self._permission is None or await self._permission(item.topic)):
            if item.qos == 2:
                await self._store_once(item)
            else:
                if self._group_commit.blocked:
                    await self._group_commit.room(len(item.data))
                await self._append(item)
        super().put_nowait(item)

    def put_nowait(self, item: ApplicationMessage) -> None:
        """Take a message of QoS 0."""
        if self._permission is None:
            if is_topic(item.topic):
                self._store_or_refuse(item)
            super().put_nowait(item)
            return
        self._in_turn.put_nowait(item)
        if self._turns is None:
            self._turns = asyncio.create_task(self._take_turns(self._permission), name="amqtt_db QoS 0")

    def pass_on(self, item: ApplicationMessage) -> None:
        """Let the broker have a message that is not to be stored, or is already."""
        super().put_nowait(item)

    async def _store_once(self, item: ApplicationMessage) -> None:
        """Append a message of QoS 2, unless it was when it was put before and the connection ended meanwhile."""
        packet = item.packet_id or 0
        before, group = self._unfinished.get(packet, (None, None))
        if before is not item or group is None:
            if self._group_commit.blocked:
                await self._group_commit.room(len(item.data))
            group = self._append(item)
            self._unfinished[packet] = item, group
        await group
        del self._unfinished[packet]

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
        """Ask for permission and store, message by message in the order of their arrival."""
        while not self._in_turn.empty():
            item = self._in_turn.get_nowait()
            if is_topic(item.topic) and await permission(item.topic):
                self._store_or_refuse(item)
            super().put_nowait(item)
        self._turns = None
