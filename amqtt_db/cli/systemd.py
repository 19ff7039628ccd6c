"""Telling systemd that a service is ready, alive and stopping, as its unit with ``Type=notify`` expects.

See sd_notify(3): lines such as ``READY=1`` go to the datagram socket that ``NOTIFY_SOCKET`` names.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

logger = logging.getLogger(__name__)


def notify(*lines: str) -> None:
    """Send lines to systemd, if it has started this process and wants to know; if it does not read them, go on."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            channel.connect(f"\0{address[1:]}" if address.startswith("@") else address)
            channel.sendall("\n".join(lines).encode())
    except OSError as error:
        logger.debug("systemd cannot be told %s: %s", lines, error)


@asynccontextmanager
async def being_watched() -> AsyncIterator[None]:
    """Tell systemd that the service is ready, and as long as the event loop turns, that it is alive."""
    notify("READY=1")
    pause = watchdog_seconds()
    watchdog = None if pause is None else asyncio.ensure_future(_keep_alive(pause / 2))
    try:
        yield
    finally:
        if watchdog is not None:
            watchdog.cancel()


def watchdog_seconds() -> float | None:
    """Return how many seconds may pass between two signs of life; None if systemd does not wait for any of ours."""
    micros, process = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID")
    is_ours = process in (None, "", str(os.getpid()))
    return int(micros) / 1e6 if is_ours and micros.isdecimal() and int(micros) > 0 else None


async def _keep_alive(pause: float) -> None:
    while True:
        notify("WATCHDOG=1")
        await asyncio.sleep(pause)
