"""QoS 2 messages between PUBREC and PUBCOMP.

With PUBREC the broker takes over a message, so by then it is in the journal.  Until its sender has released the packet
identifier, a note in the journal remembers it: a sender that has not seen PUBREC sends the message again, and it must
not be stored again, not even by another process.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from time import time
from typing import Final

from amqtt_db.ingest.group_commit import CommitFuture, GroupCommit

_SCOPE: Final = "qos 2"
_CHECKSUM_BYTES: Final = 8
_KEEP_SECONDS: Final = 7 * 24 * 3600


class Qos2Ledger:
    """The unreleased messages of one session."""

    def __init__(self, group_commit: GroupCommit, client_id: str) -> None:
        self._group_commit = group_commit
        self._client_id = client_id
        self._taken: set[int] = set()

    async def take(
        self, packet_id: int, topic: bytes, payload: bytes, is_repeated: bool, append: Callable[[], CommitFuture]
    ) -> bool:
        """Return when the message is in the journal; call ``append``, and return True, unless it is already there.

        ``is_repeated``: its sender says that it has sent it before.
        """
        if self._group_commit.blocked:
            await self._group_commit.wait_for_room(len(payload))
        checksum = _checksum(topic, payload)
        if self._is_known(packet_id, checksum, is_repeated):
            await self._group_commit.extend(())
            return False
        self._taken.add(packet_id)
        self._group_commit.remember(_SCOPE, self._key(packet_id), checksum + int(time()).to_bytes(8, "big"))
        await append()
        return True

    async def release(self, packet_id: int) -> None:
        """Return when it is durable that this packet identifier is free for a new message."""
        self._taken.discard(packet_id)
        if self._key(packet_id) in self._group_commit.notes(_SCOPE):
            self._group_commit.remember(_SCOPE, self._key(packet_id), None)
        await self._group_commit.extend(())

    def _is_known(self, packet_id: int, checksum: bytes, is_repeated: bool) -> bool:
        """Return True if the message was taken before, by this session or by an earlier one of the same client.

        A client that has lost its own session uses the identifier for another message.
        """
        note = self._group_commit.notes(_SCOPE).get(self._key(packet_id))
        if note is None or note[:_CHECKSUM_BYTES] != checksum:
            return False
        return is_repeated or packet_id in self._taken

    def _key(self, packet_id: int) -> str:
        return f"{packet_id} {self._client_id}"


def forget_abandoned(group_commit: GroupCommit) -> None:
    """Delete the notes that no client has released or used again for a week."""
    oldest = int(time()) - _KEEP_SECONDS
    for key, note in list(group_commit.notes(_SCOPE).items()):
        if int.from_bytes(note[_CHECKSUM_BYTES:], "big") < oldest:
            group_commit.remember(_SCOPE, key, None)


def _checksum(topic: bytes, payload: bytes) -> bytes:
    digest = hashlib.blake2b(topic, digest_size=_CHECKSUM_BYTES)
    digest.update(b"\0")  # no topic has one
    digest.update(payload)
    return digest.digest()
