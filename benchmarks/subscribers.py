"""Clients that subscribe to a broker, each as a program of its own: our bridge, and others to compare it with.

usage: python benchmarks/subscribers.py NAME PORT DIRECTORY EVERY

Each subscribes to ``NAME/#`` with QoS 1 in a session that the broker keeps, and writes a line after every EVERY
messages.  All but the first store what they receive in a journal in DIRECTORY; a message counts once it is on disk.
Those named in ``PEERS`` need ``pip install gmqtt aiomqtt``.
"""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from pathlib import Path
from threading import Event
from time import time_ns
from typing import Any, Final, cast

from amqtt_db.config.broker import BrokerSettings
from amqtt_db.ingest.bridge import packets
from amqtt_db.ingest.bridge.bridge import Link
from amqtt_db.ingest.bridge.packet_reader import PacketReader
from amqtt_db.ingest.bridge.packets import V5, Connack, Publish, Suback
from amqtt_db.ingest.garbage import calm_collector
from amqtt_db.ingest.group_commit import GroupCommit
from amqtt_db.journal import Journal
from amqtt_db.message import flags

WINDOW: Final = 1000
SESSION: Final = 3600
"""How long the broker keeps a session, in seconds."""
LARGE: Final = 2**40


class Count:
    """Counts messages, and writes a line after every so many."""

    def __init__(self, every: int) -> None:
        self._every = every
        self._total = 0

    def add(self, count: int) -> None:
        """Count more messages."""
        before = self._total // self._every
        self._total += count
        for _ in range(self._total // self._every - before):
            say("done")


def say(word: str) -> None:
    """Write a line at once."""
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


def open_commit(directory: Path) -> GroupCommit:
    """Return a group commit into a new journal."""
    return GroupCommit(Journal.open(directory / "mqtt.journal", max_size=LARGE, sync="always"))


class Acknowledging(asyncio.Protocol):
    """Acknowledges each message at once, and stores nothing."""

    def __init__(self, name: str, count: Count) -> None:
        self._name = name
        self._count = count
        self._reader = PacketReader(V5)
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT."""
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(
            packets.connect(V5, self._name, keep_alive=600, session_expiry=SESSION, receive_maximum=WINDOW)
        )

    def data_received(self, data: bytes) -> None:
        """Acknowledge messages."""
        assert self._transport is not None
        arrived = self._reader.feed(data)
        heads = [packets.PUBACK | one.packet_id for one in arrived if isinstance(one, Publish)]
        acknowledgements = packets.acknowledgements(heads)
        if acknowledgements:
            self._transport.write(acknowledgements)
            self._count.add(len(heads))
        elif isinstance(arrived[0], Connack):
            self._transport.write(packets.subscribe(V5, 1, [f"{self._name}/#"], 1))
        elif isinstance(arrived[0], Suback):
            say("ready")


async def acknowledge(name: str, port: int, _: Path, count: Count) -> None:
    """Run the client that only acknowledges."""
    await asyncio.get_running_loop().create_connection(lambda: Acknowledging(name, count), "127.0.0.1", port)
    await asyncio.Event().wait()


async def bridge(name: str, port: int, directory: Path, count: Count) -> None:
    """Run a bridge's connection, and nothing else."""
    calm_collector()
    commit = open_commit(directory)
    settings = BrokerSettings(
        scheme="mqtt", host="127.0.0.1", port=port, target="", username=None, password=None, client_id=name, qos=1,
        window=WINDOW,
    )  # fmt: skip
    link = Link(settings, [f"{name}/#"], commit)
    running = asyncio.create_task(link.run())
    while not link.subscription.granted:  # noqa: ASYNC110 - nothing tells it
        await asyncio.sleep(0.01)
    committed = commit.position

    def committed_to(position: int) -> None:
        nonlocal committed
        count.add(position - committed)
        committed = position

    commit.add_listener(committed_to)
    say("ready")
    while not running.done():
        await asyncio.sleep(0.1)
        link.tick()


async def gmqtt(name: str, port: int, directory: Path, count: Count) -> None:
    """Run gmqtt, which acknowledges when the handler has ended."""
    from gmqtt import Client, Subscription  # noqa: PLC0415

    commit = open_commit(directory)
    client = Client(
        name, clean_session=False, optimistic_acknowledgement=False, session_expiry_interval=SESSION,
        receive_maximum=WINDOW,
    )  # fmt: skip

    async def store(_: Any, topic: str, payload: bytes, qos: int, properties: Any) -> int:
        await commit.append(flags(0, qos, False), time_ns() // 1000, 0, topic.encode(), payload)
        count.add(1)
        return 0

    client.on_message = store
    client.on_subscribe = lambda *_: say("ready")
    await client.connect("127.0.0.1", port, keepalive=600)
    client.subscribe(Subscription(f"{name}/#", qos=1))
    await asyncio.Event().wait()


async def aiomqtt(name: str, port: int, directory: Path, count: Count) -> None:
    """Run aiomqtt, which acknowledges before the message can be stored."""
    from aiomqtt import Client, ProtocolVersion  # noqa: PLC0415

    commit = open_commit(directory)
    async with Client(
        "127.0.0.1", port, identifier=name, protocol=ProtocolVersion.V311, clean_session=False,
        max_inflight_messages=WINDOW,
    ) as client:  # fmt: skip
        await client.subscribe(f"{name}/#", qos=1)
        say("ready")
        async for message in client.messages:
            stored = commit.append(flags(0, 1, False), time_ns() // 1000, 0, message.topic.value.encode(),
                                   cast(bytes, message.payload))  # fmt: skip
            stored.add_done_callback(lambda _: count.add(1))


def paho(name: str, port: int, directory: Path, count: Count) -> None:
    """Run paho with its thread, and commit in another, which then acknowledges."""
    from paho.mqtt.client import Client, MQTTv5  # noqa: PLC0415
    from paho.mqtt.enums import CallbackAPIVersion  # noqa: PLC0415
    from paho.mqtt.packettypes import PacketTypes  # noqa: PLC0415
    from paho.mqtt.properties import Properties  # noqa: PLC0415

    journal = Journal.open(directory / "mqtt.journal", max_size=LARGE, sync="always")
    client = Client(CallbackAPIVersion.VERSION2, name, protocol=MQTTv5, manual_ack=True)
    waiting: deque[Any] = deque()
    arrived = Event()

    def take(_: Any, __: Any, message: Any) -> None:
        waiting.append(message)
        arrived.set()

    def subscribe(*_: Any) -> None:
        client.subscribe(f"{name}/#", qos=1)

    client.on_message = take
    client.on_connect = subscribe
    client.on_subscribe = lambda *_: say("ready")
    properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval, properties.ReceiveMaximum = SESSION, WINDOW
    client.connect("127.0.0.1", port, 600, clean_start=False, properties=properties)
    client.loop_start()
    while arrived.wait():
        arrived.clear()
        taken = [waiting.popleft() for _ in range(len(waiting))]
        now = time_ns() // 1000
        journal.extend([(now, flags(0, 1, False), 0, one.topic.encode(), one.payload) for one in taken])
        journal.seal()
        journal.write()
        for one in taken:
            client.ack(one.mid, one.qos)
        count.add(len(taken))


PEERS: Final = {"paho": paho, "gmqtt": gmqtt, "aiomqtt": aiomqtt}
SUBSCRIBERS: Final = {"only acknowledges": acknowledge, "bridge": bridge, **PEERS}


if __name__ == "__main__":
    _name, _port, _directory, _every = sys.argv[1:]
    _running = SUBSCRIBERS[_name](_name, int(_port), Path(_directory), Count(int(_every)))
    if _running is not None:
        asyncio.run(_running)
