"""One end of a connection, with bytes instead of a broker at the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path

from amqtt_db.config.broker import BrokerSettings
from amqtt_db.ingest.bridge.connection import BrokerConnection
from amqtt_db.ingest.bridge.link_state import LinkState
from amqtt_db.ingest.bridge.packets import V5
from amqtt_db.ingest.bridge.session import Session
from amqtt_db.ingest.bridge.subscription import Subscription
from amqtt_db.ingest.group_commit import GroupCommit
from amqtt_db.journal import Journal


class Wire(asyncio.Transport):
    """Keeps what is written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.socket: object = None

    def get_extra_info(self, name: str, default: object = None) -> object:
        """Return the socket."""
        return self.socket if name == "socket" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep it."""
        self.written += data

    def close(self) -> None:
        """Nothing to close."""

    def is_closing(self) -> bool:
        """Never."""
        return False

    def pause_reading(self) -> None:
        """Nothing is read."""

    def resume_reading(self) -> None:
        """Nothing is read."""


class Commits:
    """Counts commits."""

    def __init__(self, commit: GroupCommit) -> None:
        self.count = 0
        self._done = asyncio.Event()
        commit.add_listener(self._note)

    def _note(self, _: int) -> None:
        self.count += 1
        self._done.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait for the commit after which something holds."""
        while not holds():
            self._done.clear()
            await self._done.wait()


def publish(number: int, qos: int = 1) -> bytes:
    """A PUBLISH packet of MQTT 5."""
    body = b"\x00\x01t" + (number.to_bytes(2, "big") if qos else b"") + b"\x00x"
    return bytes((0x30 | qos << 1, len(body))) + body


def connected(
    path: Path, *, present: bool = False, notes: Mapping[str, bytes] = {}, before: LinkState | None = None
) -> tuple[BrokerConnection, Wire, GroupCommit]:
    """A connection that a broker has accepted, with a real journal; ``notes`` are those of its session.

    ``before`` is what was known of the broker when the process before ended.
    """
    settings = BrokerSettings(scheme="mqtt", host="localhost", port=1883, client_id="x")
    commit = GroupCommit(Journal.open(path / "journal", max_size=2**30, sync="always"))
    subscription = Subscription(settings, ["#"], commit)
    if before is not None:
        subscription.recall(before)
    for key, value in notes.items():
        commit.remember(subscription.scope, key, value)
    session = Session(commit.notes(subscription.scope), settings.window)
    connection = BrokerConnection(settings, V5, session, subscription, commit)
    wire = Wire()
    connection.connection_made(wire)
    connection.data_received(b"\x20\x03" + bytes((present, 0, 0)))
    return connection, wire, commit
