"""Keeping amqtt's log readable: it repeats some warnings for every message, with a traceback each."""

from __future__ import annotations

import logging
from typing import Final

from amqtt_db.errors import format_count
from amqtt_db.ingest.refusals import RepeatLimit

_LOUD: Final = ("amqtt.broker", "amqtt.mqtt.protocol.handler")


class RepeatFilter(logging.Filter):
    """Passes one warning or error a minute from each place in the code, and says how many were left out."""

    def __init__(self) -> None:
        super().__init__()
        self._limit = RepeatLimit()

    def filter(self, record: logging.LogRecord) -> bool:
        """Return True if a record should be logged."""
        if record.levelno < logging.WARNING:
            return True
        held_back = self._limit.admit((record.pathname, record.lineno))
        if held_back:
            count = format_count(held_back, "more line like this", "more lines like this")
            record.msg = f"{record.getMessage()} ({count} left out)"
            record.args = ()
        return held_back is not None

    def install(self) -> None:
        """Start filtering."""
        for name in _LOUD:
            logging.getLogger(name).addFilter(self)

    def remove(self) -> None:
        """Stop filtering."""
        for name in _LOUD:
            logging.getLogger(name).removeFilter(self)
