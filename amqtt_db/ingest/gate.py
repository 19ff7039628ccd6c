"""Limiting the memory that publishers use: a gate while too much is waiting, and a budget for unfinished packets."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class BackpressureGate:
    """A gate, open or closed; publishers wait while it is closed."""

    def __init__(self) -> None:
        self._opened = asyncio.Event()
        self._opened.set()
        self.closed = False

    def close(self) -> None:
        """Make everyone wait from now on."""
        self.closed = True
        self._opened.clear()

    def open(self) -> None:
        """Let everyone pass."""
        self.closed = False
        self._opened.set()

    async def wait(self) -> None:
        """Return when the gate is open."""
        await self._opened.wait()


class MemoryBudget:
    """Bytes that large packets of all connections share while they arrive; if too few are left, a packet waits in turn.

    A single packet that is larger than the whole budget may arrive alone.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._used = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @asynccontextmanager
    async def reserve(self, size: int) -> AsyncIterator[None]:
        """Hold ``size`` bytes of the budget inside the ``async with`` block; wait until they are free."""
        if self._waiting or not self._fits(size):
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append((size, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if not turn.cancelled():
                    self._used -= size
                self._let_pass()
                raise
        else:
            self._used += size
        try:
            yield
        finally:
            self._used -= size
            self._let_pass()

    def _fits(self, size: int) -> bool:
        return not self._used or self._used + size <= self._limit

    def _let_pass(self) -> None:
        while self._waiting:
            size, turn = self._waiting[0]
            if not turn.cancelled():
                if not self._fits(size):
                    break
                self._used += size
                turn.set_result(None)
            self._waiting.popleft()
