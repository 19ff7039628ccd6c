"""A real broker with the plugin, in this process or a separate one."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from amqtt.broker import Broker

from amqtt_db.ingest.broker.plugin import Plugin
from amqtt_db.journal import JournalReader
from amqtt_db.message import PUBLISH, Message
from tests.ingest.broker.mqtt import SECONDS

IDLE_CHILD = (sys.executable, "-c", "import sys; sys.stdin.read()")


class Setup:
    """A running broker with the plugin, and its journal."""

    def __init__(
        self, directory: Path, journal: dict[str, Any], plugins: dict[str, Any], listener: str = "tcp"
    ) -> None:
        self.path = directory / "mqtt.journal"
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port: int = server.getsockname()[1]
        self.config = {
            "listeners": {"default": {"type": listener, "bind": f"127.0.0.1:{self.port}"}},
            "plugins": {
                "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True},
                "amqtt_db.ingest.broker.plugin.Plugin": {
                    "database": f"sqlite:///{directory}/mqtt.db",
                    "journal": {"path": str(self.path), **journal},
                },
                **plugins,
            },
        }
        self.broker: Broker

    async def open(self) -> None:
        """Start the broker."""
        self.broker = Broker(self.config)
        await self.broker.start()

    @property
    def plugin(self) -> Plugin:
        """The plugin in the broker."""
        plugin = self.broker.plugins_manager.get_plugin("Plugin")
        assert isinstance(plugin, Plugin)
        return plugin

    def entries(self, kind: int = PUBLISH) -> list[Message]:
        """The journal's entries of one kind."""
        return [message for message in journaled(self.path) if message.kind == kind]

    async def until(self, is_so: Callable[[], bool]) -> None:
        """Wait for something that another process or task brings about."""
        for _ in range(int(SECONDS / 0.01)):
            if is_so():
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it has not happened in time")

    async def until_stored(self, count: int, kind: int = PUBLISH) -> list[Message]:
        """Wait until as many entries of a kind are in the journal; return them."""
        await self.until(lambda: len(self.entries(kind)) >= count)
        return self.entries(kind)


def journaled(path: Path) -> Iterator[Message]:
    """All entries of a journal."""
    reader = JournalReader(path)
    try:
        for generation in reader.generations():
            position = generation.first
            while batch := reader.read(generation.token, position):
                yield from (batch.message(index) for index in range(len(batch)))
                position = batch.end
    finally:
        reader.close()


Scenario = Callable[[Setup], Awaitable[None]]
InHouse = Callable[..., Setup]


BROKER = """
import asyncio, sys
from amqtt.adapters import BufferReader
from amqtt.broker import Broker
from amqtt_db.ingest.broker.plugin import Plugin
Plugin.command = (sys.executable, "-c", "import sys; sys.stdin.read()")
async def main():
    await Broker({config!r}).start()
    print("sqlalchemy" in sys.modules, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def running(setup: Setup) -> subprocess.Popen[str]:
    """The broker in a separate process; its first line says whether it has imported SQLAlchemy."""
    code = BROKER.replace("{config!r}", repr(setup.config))
    return subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], stdout=subprocess.PIPE, text=True)
