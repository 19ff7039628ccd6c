"""What arrives over MQTT ends up in a relational database: typed, in the model chosen for its topic.

``amqtt_db.Plugin`` is the plugin for an amqtt broker, ``amqtt_db.read`` gives back what was stored; the command line is
``amqtt-db``.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amqtt_db.ingest.broker.plugin import Plugin
    from amqtt_db.reader import read

    __version__: str

__all__ = ["Plugin", "__version__", "read"]


def __getattr__(name: str) -> Any:
    """The plugin with amqtt, and the reader with SQLAlchemy, are imported only when they are asked for."""
    if name == "__version__":
        return version("amqtt_db")
    if name == "Plugin":
        from amqtt_db.ingest.broker.plugin import Plugin  # noqa: PLC0415

        return Plugin
    if name == "read":
        from amqtt_db.reader import read  # noqa: PLC0415

        return read
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
