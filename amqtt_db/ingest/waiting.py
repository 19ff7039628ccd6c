"""Waiting for a limited time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

Result = TypeVar("Result")


async def wait_within(awaitable: Awaitable[Result], seconds: float) -> Result:
    """Return the result of ``awaitable``.  Raises asyncio.TimeoutError if it takes longer.

    Before Python 3.12, ``asyncio.wait_for`` loses a cancellation that comes together with the result; whoever
    cancelled would then wait forever.
    """
    future = asyncio.ensure_future(awaitable)
    try:
        await asyncio.wait([future], timeout=max(0.0, seconds))
        if future.done():
            return future.result()
        raise asyncio.TimeoutError
    finally:
        future.cancel()
