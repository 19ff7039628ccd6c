"""A clock that does not trust a sudden jump of the system clock, so that no jump deletes records too early."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

import attrs

logger = logging.getLogger(__name__)

LEAP: Final = 60.0  # seconds by which the system clock may jump ahead between two readings
LONGEST_PAUSE: Final = 7 * 86_400.0  # seconds between two processes that are trusted without proof
PROOF: Final = 3600.0  # seconds without a jump after which the system clock is trusted


@attrs.define
class SteadyClock:
    """Tells the time: the system's, unless that has just jumped ahead.

    After a jump it goes on from the old time; once the system clock has been steady for an hour, it is trusted again.
    ``wall`` returns seconds since 1970, ``monotonic`` seconds since any moment.
    """

    wall: Callable[[], float] = time.time
    monotonic: Callable[[], float] = time.monotonic
    _told: float | None = attrs.field(default=None, init=False)
    _wall: float = attrs.field(default=0.0, init=False)
    _monotonic: float = attrs.field(default=0.0, init=False)
    _steady_since: float = attrs.field(default=float("-inf"), init=False)

    def start(self, last: float | None) -> None:
        """Start from the last time of an earlier process, or None if there was none."""
        self._wall, self._monotonic = self.wall(), self.monotonic()
        self._told = self._wall
        if last is not None and self._wall - last > LONGEST_PAUSE:
            self._doubt(last, self._wall)

    def now(self) -> float:
        """Return seconds since 1970 (UTC)."""
        if self._told is None:
            self.start(None)
        wall, monotonic, told = self.wall(), self.monotonic(), self._told or 0.0
        elapsed = max(0.0, monotonic - self._monotonic)
        ahead = wall - self._wall - elapsed
        self._wall, self._monotonic = wall, monotonic
        self._told = told + elapsed
        if ahead > LEAP:
            self._doubt(self._told, wall)
        if wall <= self._told or monotonic - self._steady_since >= PROOF:
            self._told = wall
        return self._told

    def _doubt(self, told: float, wall: float) -> None:
        self._told, self._steady_since = told, self._monotonic
        logger.warning(
            "the system clock is %s ahead of the expected time; `keep` goes by the old time until the clock has"
            " been steady for an hour", timedelta(seconds=round(wall - told)),
        )  # fmt: skip
