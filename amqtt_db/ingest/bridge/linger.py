"""Whether to wait for more messages before a commit: each commit costs the same, however little arrives.

It must cost no throughput.  A broker sends no more than its window of messages that are not acknowledged, so few may
wait, and only where the window is known to be wide.
"""

from __future__ import annotations

from typing import Final

LINGER_SECONDS: Final = 0.005
"""How long the first of few messages waits for more."""

_MOST: Final = 8  # messages that wait; more are taken at once
_WIDE: Final = 2 * _MOST


class Linger:
    """Decides for one connection, from what arrived on it so far."""

    def __init__(self, window: int, now: float) -> None:
        """``window``: how many messages the broker may send without an acknowledgement, or 0 if that is not known.

        ``now`` in seconds, as in :meth:`note`.
        """
        self._is_wide = window >= _WIDE
        self._is_quiet = False
        self._noted = now

    def allows(self, waiting: int) -> bool:
        """Return True if so many messages may wait for more."""
        return self._is_quiet and self._is_wide and waiting < _MOST

    def note(self, taken: int, unacknowledged: int, now: float) -> None:
        """Note that messages are taken; so many packets of this connection are not acknowledged.

        As many have been sent at once, so the broker's window is at least that.
        """
        self._is_quiet = taken * LINGER_SECONDS < _MOST * (now - self._noted)
        self._is_wide = self._is_wide or unacknowledged >= _WIDE
        self._noted = now
