"""Counting what is refused, and logging why without flooding the log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Final

from amqtt_db.errors import format_count
from amqtt_db.ingest.group_commit import GroupCommit

logger = logging.getLogger(__name__)

_QUIET_SECONDS: Final = 60.0


class RepeatLimit:
    """Lets the first of many equal events pass, then one a minute, with the number of those in between."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._seen: dict[object, tuple[float, int]] = {}

    def admit(self, event: object) -> int | None:
        """Return how many events were held back since the last one that passed, or None to hold this one back too."""
        now = self._clock()
        passed_at, held_back = self._seen.get(event, (now - _QUIET_SECONDS, 0))
        if now - passed_at < _QUIET_SECONDS:
            self._seen[event] = passed_at, held_back + 1
            return None
        self._seen[event] = now, 0
        return held_back


class Refusals:
    """Counts messages that are refused because they are invalid, and logs each reason at most once a minute."""

    def __init__(self, group_commit: GroupCommit) -> None:
        self._group_commit = group_commit
        self._limit = RepeatLimit()

    def add(self, client: str | None, reason: str) -> None:
        """Count a message that ``client`` sent.  ``reason`` completes the sentence "client x …", and is a constant."""
        self._group_commit.refuse()
        held_back = self._limit.admit(reason)
        if held_back is not None:
            more = f" ({format_count(held_back, 'more message')} since the last such line)" if held_back else ""
            logger.warning("client %r %s; the message is not stored but counted as refused%s", client, reason, more)
