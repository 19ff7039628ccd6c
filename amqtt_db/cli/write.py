"""`write`: the writer alone, kept alive as the broker's plugin keeps it."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from amqtt_db.cli.serve import set_by_signals
from amqtt_db.config import Settings, plugin_config
from amqtt_db.errors import JournalInUse
from amqtt_db.ingest.supervisor import Supervisor, encode_job
from amqtt_db.writer.lock import acquire_lock
from amqtt_db.writer.process import DEADLINE, GRACE

logger = logging.getLogger(__name__)

PATIENCE: Final = DEADLINE + GRACE + 1.0
"""Seconds in which a writer whose parent has gone stores what it can, and is gone itself, whatever holds it up."""


async def write(broker: Mapping[str, Any], settings: Settings) -> None:
    """Keep a writer at work until SIGINT or SIGTERM arrives; it then has a few seconds to store what is waiting.

    Raises JournalInUse if another writer is at work on the journal and does not end, JournalError if none can be.
    """
    stop = asyncio.Event()
    set_by_signals(stop)
    await _until_free(settings, stop)
    if stop.is_set():
        return
    supervisor = Supervisor(encode_job(*plugin_config(broker)))
    supervisor.start()
    await stop.wait()
    await supervisor.stop()


async def _until_free(settings: Settings, stop: asyncio.Event) -> None:
    """Wait for another writer that may be about to end; a supervised one would try for ever."""
    until, is_told = monotonic() + PATIENCE, False
    while not stop.is_set():
        try:
            os.close(acquire_lock(settings.journal.path, settings.routes))
            return
        except JournalInUse as error:
            if monotonic() > until:
                raise
            if not is_told:
                logger.info("%s, unless it ends by itself within %g s", error, PATIENCE)
            is_told = True
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.1)
