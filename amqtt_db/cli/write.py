"""`write`: run only the writer, under the same supervisor as in the broker."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic
from typing import Any, Final

from amqtt_db.cli.serve import set_by_signals
from amqtt_db.cli.systemd import being_watched
from amqtt_db.config import Settings, plugin_config
from amqtt_db.errors import JournalInUse
from amqtt_db.ingest.supervisor import Supervisor, encode_job
from amqtt_db.writer.lock import acquire_lock
from amqtt_db.writer.process import DEADLINE, GRACE

logger = logging.getLogger(__name__)

OTHER_WRITER_SECONDS: Final = DEADLINE + GRACE + 1.0
"""Seconds within which a writer that has lost its parent ends, whatever delays it."""


async def keep_writing(broker: Mapping[str, Any], settings: Settings) -> None:
    """Keep a writer running until SIGINT or SIGTERM arrives; it then has a few seconds to store what is waiting.

    Raises JournalInUse if another writer works on the journal and does not end, JournalError if the journal cannot be
    locked.
    """
    stop = asyncio.Event()
    set_by_signals(stop)
    await _until_free(settings, stop)
    if stop.is_set():
        return
    supervisor = Supervisor(encode_job(*plugin_config(broker)))
    supervisor.start()
    async with being_watched():
        await stop.wait()
        await supervisor.stop()


async def _until_free(settings: Settings, stop: asyncio.Event) -> None:
    """Wait for another writer that may be about to end; a supervised one would retry forever."""
    until, is_told = monotonic() + OTHER_WRITER_SECONDS, False
    while not stop.is_set():
        try:
            os.close(acquire_lock(settings.journal.path, settings.routes))
            return
        except JournalInUse as error:
            if monotonic() > until:
                raise
            if not is_told:
                logger.info("%s, unless it ends by itself within %g s", error, OTHER_WRITER_SECONDS)
            is_told = True
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.1)
