"""What the bridge knows of a broker by its name and version."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from amqtt_db.config.broker import BrokerSettings
from amqtt_db.ingest.bridge import bridge
from amqtt_db.ingest.bridge.peer import Ending
from amqtt_db.ingest.bridge.software import ignores_window
from tests.ingest.bridge.wire import Commits, connected


@pytest.mark.parametrize(
    ("software", "ignores"),
    [
        ("mosquitto version 1.6.9", True), ("mosquitto version 2.0.11", True), ("mosquitto version 2.0.12", True),
        ("mosquitto version 2.0.13", False), ("mosquitto version 2.1.2", False), ("mosquitto version 10.0.0", False),
        ("mosquitto version", False), ("HMQTT 2.0.1", False), ("", False),
    ],
)  # fmt: skip
def test_a_mosquitto_before_2_0_13_ignores_the_window(software: str, ignores: bool) -> None:
    """Later ones keep to it, and of others nothing is known."""
    assert ignores_window(software) is ignores


def test_each_connection_is_followed_by_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broker may have been updated since the last one, or that may not have lasted until the first look."""
    asked: asyncio.Queue[BrokerSettings] = asyncio.Queue()

    async def ask(settings: BrokerSettings) -> None:
        asked.put_nowait(settings)

    monkeypatch.setattr(bridge, "ask_counter", ask)
    monkeypatch.setattr(bridge, "_FIRST_LOOKS", (0.0,))

    async def stay(link: bridge.Link, path: Path) -> None:
        connection, _, commit = connected(path)
        await Commits(commit).until(lambda: connection.is_streaming)
        staying = asyncio.create_task(link._stay(connection))
        await asyncio.wait_for(asked.get(), 10)
        connection.end(Ending("was left"))
        await staying
        await commit.close()

    async def connect_twice() -> None:
        link = bridge.Link(BrokerSettings("mqtt", "localhost", 1883, "x"), ["#"], connected(tmp_path)[2])
        watching = asyncio.create_task(link.watch())
        for name in "ab":
            (tmp_path / name).mkdir()
            await stay(link, tmp_path / name)
        watching.cancel()

    asyncio.run(connect_twice())
