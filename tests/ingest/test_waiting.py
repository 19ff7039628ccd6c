"""Waiting for a limited time neither loses a cancellation nor leaves work behind."""

from __future__ import annotations

import asyncio

import pytest

from amqtt_db.ingest.waiting import wait_within


def test_a_result_comes_in_time_or_not_at_all() -> None:
    """Work that takes too long is cancelled; errors are passed on."""

    async def work(seconds: float) -> int:
        await asyncio.sleep(seconds)
        return 1 // (seconds < 1)

    async def live() -> None:
        assert await wait_within(work(0), 30) == 1
        late = asyncio.ensure_future(work(60))
        with pytest.raises(asyncio.TimeoutError):
            await wait_within(late, 0.01)
        await asyncio.wait([late])
        assert late.cancelled()

        async def fail() -> None:
            raise OSError("no")

        with pytest.raises(OSError, match="no"):
            await wait_within(fail(), 30)

    asyncio.run(live())


def test_a_cancellation_that_comes_with_the_result_is_not_lost() -> None:
    """The waiting task ends as cancelled, whichever came first."""

    async def live() -> None:
        result: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(wait_within(result, 30))
        await asyncio.sleep(0)
        result.set_result(1)
        waiting.cancel()
        await asyncio.wait([waiting], timeout=30)
        assert waiting.cancelled()

    asyncio.run(live())
