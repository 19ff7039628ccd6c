"""Counting what is refused, and logging why without flooding the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Final

from amqtt_db.ingest.group_commit import GroupCommit

logger = logging.getLogger(__name__)

INTAKE_SCOPE: Final = "intake"
"""The scope of the journal's notes about what was not taken."""
DENIED: Final = "denied"
"""The note that counts messages that their senders may not publish."""

_QUIET_SECONDS: Final = 60.0
_MOST_EVENTS: Final = 1000


class RepeatLimit:
    """Lets the first of many equal events pass, then one a minute, with the number of those in between."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen: dict[object, tuple[float, int]] = {}

    def admit(self, event: object) -> int | None:
        """Return how many events were held back since the last one that passed, or None to hold this one back too."""
        now = self._clock()
        if len(self._seen) >= _MOST_EVENTS:  # made-up names must not fill the memory
            self._seen.clear()
        passed_at, held_back = self._seen.get(event, (now - _QUIET_SECONDS, 0))
        if now - passed_at < _QUIET_SECONDS:
            self._seen[event] = passed_at, held_back + 1
            return None
        self._seen[event] = now, 0
        return held_back


class Refusals:
    """Counts messages and clients that are not taken, and logs each reason once a minute at most.

    ``denied`` messages may not be published by their senders; they are counted by all owners of the journal so far.
    ``repeated`` messages of QoS 2 were stored before.  These, and ``logins_failed``, are counted by this process.
    """

    def __init__(self, group_commit: GroupCommit) -> None:
        self.denied = int(group_commit.notes(INTAKE_SCOPE).get(DENIED, b"0"))
        self.repeated = 0
        self.logins_failed = 0
        self._noted = self.denied
        self._group_commit = group_commit
        self._limit = RepeatLimit()

    def add(self, client: str | None, reason: str) -> None:
        """Count a message that ``client`` sent.  ``reason`` completes the sentence "client x …", and is a constant."""
        self._group_commit.refuse()
        more = self._describe_more(reason)
        if more is not None:
            logger.warning("client %r %s; the message is not stored but counted as refused%s", client, reason, more)

    def deny(self, client: str | None, topic: str) -> None:
        """Count a message that ``client`` may not publish."""
        self.denied += 1
        more = self._describe_more((DENIED, client))
        if more is not None:
            logger.warning("client %r may not publish to %r; the message is not stored but counted as denied%s", client,
                           topic, more)  # fmt: skip

    def refuse_login(self, client: str | None, username: str | None, address: str | None) -> None:
        """Count a client that is not let in."""
        self.logins_failed += 1
        more = self._describe_more(("login", address))
        if more is not None:
            logger.warning("client %r from %s is not let in as user %r%s", client, address, username, more)

    def note(self) -> None:
        """Leave a note in the journal if more was denied."""
        if self.denied != self._noted:
            self._noted = self.denied
            self._group_commit.remember(INTAKE_SCOPE, DENIED, b"%d" % self.denied)

    def _describe_more(self, event: object) -> str | None:
        """Return what to add to a line about an event; None if there is to be no line."""
        held_back = self._limit.admit(event)
        if held_back is None:
            return None
        return f" ({held_back} more since the last such line)" if held_back else ""
