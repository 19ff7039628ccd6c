"""What arrives over MQTT ends up in a relational database: typed, in the model chosen for its topic.

``amqtt_db.Plugin`` is the plugin for an amqtt broker; the command line is ``amqtt-db``.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amqtt_db.plugin import Plugin

    __version__: str

__all__ = ["Plugin", "__version__"]


def __getattr__(name: str) -> Any:
    """The plugin, and amqtt with it, is imported only when it is asked for; the version is read likewise."""
    if name == "__version__":
        return version("amqtt_db")
    if name == "Plugin":
        from amqtt_db.plugin import Plugin  # noqa: PLC0415

        return Plugin
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
