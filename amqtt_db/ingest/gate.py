"""Holding back publishers while too much of what they sent waits in memory."""

from __future__ import annotations

import asyncio


class BackpressureGate:
    """Open or closed; publishers wait while it is closed."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self._opened.set()
        self.closed = False

    def close(self) -> None:
        """Let nobody pass from now on."""
        self.closed = True
        self._opened.clear()

    def open(self) -> None:
        """Let everybody pass."""
        self.closed = False
        self._opened.set()

    async def wait(self) -> None:
        """Return when the gate is open."""
        await self._opened.wait()
