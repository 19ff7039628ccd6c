"""Sending together what one commit of the journal has released."""

from __future__ import annotations

import logging
from typing import Protocol

logger = logging.getLogger(__name__)


class GatheringWriter(Protocol):
    """A connection's writer that gathers what is written while its coalescer holds."""

    def send(self) -> None:
        """Send everything that was gathered, in one piece."""


class WriteCoalescer:
    """While it holds, its writers gather what is written; when it is flushed, each sends that in one piece.

    A system call per message is the most expensive thing a broker does.  The acknowledgements of one commit are all
    written in the same turn of the event loop, so a connection can send them together without delaying any.
    """

    def __init__(self) -> None:
        self.is_holding = False
        self._writers: list[GatheringWriter] = []

    def hold(self) -> None:
        """Make writers gather from now on."""
        self.is_holding = True

    def add(self, writer: GatheringWriter) -> None:
        """Make a writer send at the next flush."""
        self._writers.append(writer)

    def flush_all(self) -> None:
        """Make all writers send what they gathered, and stop gathering."""
        self.is_holding = False
        writers, self._writers = self._writers, []
        for writer in writers:
            try:
                writer.send()
            except Exception:  # an error of one connection: the others still wait for theirs
                logger.exception("cannot write to a connection")
