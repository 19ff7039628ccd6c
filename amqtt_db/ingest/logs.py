"""Where the log goes: text, or a line of JSON for each event, to stderr or to a file.

The writer's process writes to the same place as its parent.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import datetime, timezone
from logging.handlers import WatchedFileHandler
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:  # the configuration needs amqtt, and the bridge does without
    from amqtt_db.config.operation import LogSettings

PROJECT: Final = logging.getLogger("amqtt_db")
"""The logger above all of this project."""


class JsonFormatter(logging.Formatter):
    """Makes a JSON object of each event; ``name`` stands for the names of all loggers, if it is given."""

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self._name = name

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, in ASCII: nothing in it can command a terminal."""
        event = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": self._name or record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            event["exception"] = self.formatException(record.exc_info)
        return json.dumps(event)


def start_logging(settings: LogSettings, level: int, *, others: int = logging.WARNING, name: str | None = None) -> None:
    """Log this project's events from ``level`` on, and those of others from ``others`` on.

    ``name`` stands for the names of all loggers.  A file that somebody moves away is made again.  Raises OSError if it
    cannot be written.
    """
    handler = logging.StreamHandler(sys.stderr) if settings.file is None else WatchedFileHandler(settings.file)
    text = logging.Formatter(f"%(asctime)s %(levelname)s {name or '%(name)s'}: %(message)s")
    handler.setFormatter(JsonFormatter(name) if settings.format == "json" else text)
    logging.basicConfig(level=others, handlers=[handler])
    PROJECT.setLevel(level)
