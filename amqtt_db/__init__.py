"""Store MQTT messages in a relational database: typed, exactly once, in the model chosen for each topic.

These names are the public interface; ``docs/api.md`` says what else is stable.  The command line is ``amqtt-db``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from amqtt_db import errors
    from amqtt_db.config import Settings, load_settings
    from amqtt_db.ingest.broker.plugin import Plugin
    from amqtt_db.reader import read
    from amqtt_db.reader.export import export
    from amqtt_db.reader.follow import follow
    from amqtt_db.reader.latest import latest
    from amqtt_db.reader.rollup import read_rollup
    from amqtt_db.record import Record

    __version__: str

__all__ = [
    "Plugin",
    "Record",
    "Settings",
    "__version__",
    "errors",
    "export",
    "follow",
    "latest",
    "load_settings",
    "read",
    "read_rollup",
]

_MODULES: Final = {
    "Plugin": "amqtt_db.ingest.broker.plugin",
    "Record": "amqtt_db.record",
    "Settings": "amqtt_db.config",
    "export": "amqtt_db.reader.export",
    "follow": "amqtt_db.reader.follow",
    "latest": "amqtt_db.reader.latest",
    "load_settings": "amqtt_db.config",
    "read": "amqtt_db.reader",
    "read_rollup": "amqtt_db.reader.rollup",
}
"""Name → module that defines it; amqtt and SQLAlchemy are imported on first use."""


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return import_module("importlib.metadata").version("amqtt_db")
    if name == "errors":
        return import_module("amqtt_db.errors")
    if name in _MODULES:
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
