"""How fast messages are stored: the writer's report, looked at every few seconds."""

from __future__ import annotations

import asyncio
from collections import deque
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Final

import attrs

from amqtt_db.journal import WriterReport, read_report

BEAT: Final = 5.0
"""Seconds between two looks."""

BEATS: Final = 120
"""How many looks are remembered."""


@attrs.frozen
class Beat:
    """How many messages the running writer has stored so far, None if that is unknown; ``time`` in seconds."""

    time: float
    stored: int | None


class Pulse:
    """Remembers the last ten minutes of a journal."""

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._beats: deque[Beat] = deque(maxlen=BEATS + 1)

    async def keep_beating(self) -> None:
        """Look again and again, until this is cancelled."""
        while True:
            self._beats.append(await asyncio.to_thread(self._look))
            await asyncio.sleep(BEAT)

    @property
    def rates(self) -> tuple[float, ...]:
        """Messages stored per second between two looks, oldest first."""
        beats = tuple(self._beats)
        return tuple(_rate(one, other) for one, other in pairwise(beats))

    @property
    def rate(self) -> float | None:
        """Messages stored per second lately; None if that is not known yet."""
        rates = self.rates[-2:]
        return sum(rates) / len(rates) if rates and self._beats[-1].stored is not None else None

    def _look(self) -> Beat:
        report = read_report(self._journal)
        return Beat(monotonic(), None if report is None else _count_stored(report))


def _count_stored(report: WriterReport) -> int:
    return sum(counts.get("stored", 0) for counts in report.counts.values())


def _rate(one: Beat, other: Beat) -> float:
    """Return the messages per second between two looks; the count of a new writer begins at zero."""
    if one.stored is None or other.stored is None:
        return 0.0
    before = one.stored if one.stored <= other.stored else 0
    return (other.stored - before) / max(other.time - one.time, 0.001)
