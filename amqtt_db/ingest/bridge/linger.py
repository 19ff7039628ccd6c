"""Whether to wait for more messages before a commit: each commit costs the same, however little arrives.

They wait only if more are to be expected meanwhile.  It must cost no throughput.  A broker sends no more than its
window of messages that are not acknowledged, so few may wait, and only where the window is known to be wide.
"""

from __future__ import annotations

from math import ceil
from typing import Final

LINGER_SECONDS: Final = 0.025
"""How long the first of few messages waits for more, at most: the writer then need not wait."""

FETCH_SECONDS: Final = 0.001
"""How long before its end a broker is asked, by a TCP acknowledgement, for what it holds back."""

GATHER_SECONDS: Final = 0.004
"""The least time between small commits at a high rate, if the window is far wider than what arrives in it."""

_SHORTEST_WAIT: Final = 0.008  # a shorter wait gains little
_LEAST: Final = 8  # where fewer may wait, none does
_FIRST: Final = 16  # messages that may wait at first; more are taken at once
_MOST: Final = 64


class Linger:
    """Decides for one connection, from what arrived on it so far."""

    def __init__(self, window: int, now: float) -> None:
        """``window``: how many messages the broker may send without an acknowledgement, or 0 if that is not known.

        A broker may send fewer than that; none is known to stop below 32.  ``now`` in seconds, as in :meth:`note`.
        """
        self._most = min(window // 2, _FIRST)
        self._is_frequent = self._is_small = False
        self.seconds = 0.0
        """How long the first message waits, 0 if it does not."""
        self._noted = now

    def allows(self, waiting: int) -> bool:
        """Return True if so many messages may wait for more."""
        return self.seconds > 0 and waiting < self._most

    def rest(self, now: float) -> float:
        """Return for how many seconds to read nothing more after a commit, so that the next one has more messages."""
        is_worthwhile = not self.seconds and self._is_small and self._is_frequent and self._most == _MOST
        return max(0.0, GATHER_SECONDS - (now - self._noted)) if is_worthwhile else 0.0

    def note(self, taken: int, unacknowledged: int, now: float) -> None:
        """Note how many messages are taken, and how many packets of this connection are not acknowledged.

        As many as these have been sent at once, so the broker's window is at least that, and half of it may wait.
        """
        self._most = max(self._most, min(unacknowledged // 2, _MOST))
        passed = now - self._noted
        self._is_frequent = passed <= taken * LINGER_SECONDS
        self.seconds = self._choose_seconds(passed / taken) if taken else 0.0
        self._is_small = taken < _MOST
        self._noted = now

    def _choose_seconds(self, interval: float) -> float:
        """Return how long to wait if a message comes in each ``interval`` of seconds.

        It is a whole part of the longest wait: the writer is told as often, and then finds everything committed.
        """
        if interval <= 0 or not self._is_frequent or self._most < _LEAST:
            return 0.0
        seconds = LINGER_SECONDS / ceil(LINGER_SECONDS / (self._most * interval))
        return seconds if seconds >= _SHORTEST_WAIT else 0.0
