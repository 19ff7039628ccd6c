"""`write`: the writer alone, kept alive as the broker's plugin keeps it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from typing import Any

from amqtt_db.cli.serve import set_by_signals
from amqtt_db.config import Settings, plugin_config
from amqtt_db.supervisor import Supervisor, order
from amqtt_db.writer.claim import claim


async def write(broker: Mapping[str, Any], settings: Settings) -> None:
    """Keep a writer at work until SIGINT or SIGTERM arrives; it then has a few seconds to store what is waiting.

    Raises JournalError if another writer is at work on the journal.
    """
    os.close(claim(settings.journal.path, settings.routes))  # a supervised one would try for ever
    stop = asyncio.Event()
    set_by_signals(stop)
    supervisor = Supervisor(order(*plugin_config(broker)))
    supervisor.start()
    await stop.wait()
    await supervisor.stop()
