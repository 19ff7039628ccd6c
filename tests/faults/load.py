"""Many clients that publish at every QoS, reconnect when disconnected, and remember what was acknowledged.

A client that was cut off sends what was not acknowledged again, as real ones do: that is published twice.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from typing import Any, Final

import attrs

from tests.ingest.broker.mqtt import connect_packet, publish, release

Key = tuple[int, int]
"""A client and a number: which message."""

Payload = Callable[[Key], dict[str, Any]]

PATIENCE: Final = 60.0

_CONNACK, _PUBACK, _PUBREC, _PUBCOMP, _PINGRESP = 2, 4, 5, 7, 13
_BACK: Final = 0.05  # seconds until a client that was cut off tries again


def sample(key: Key) -> dict[str, Any]:
    """Return a message with a value of every plain kind, each different in every message."""
    client, number = key
    return {"client": client, "n": number, "x": number / 8, "s": f"ä{client}-{number}", "ok": number % 3 == 0}


def topic_of(key: Key) -> str:
    """Return the topic that a client publishes to."""
    return f"load/{key[0]}"


@attrs.define
class Ledger:
    """The messages that were published, how often, and which of them were acknowledged."""

    sent: Counter[Key] = attrs.field(factory=Counter)
    acknowledged: set[Key] = attrs.field(factory=set)

    def add(self, other: Ledger) -> None:
        """Take another load's account in."""
        self.sent += other.sent
        self.acknowledged |= other.acknowledged


class Load:
    """Clients in a separate thread, from now until :meth:`end`."""

    def __init__(
        self,
        port: int,
        clients: int = 9,
        *,
        most: int | None = None,
        window: int = 50,
        first: int = 0,
        payload: Payload = sample,
        topic: Callable[[Key], str] = topic_of,
        qos: tuple[int, ...] = (0, 1, 2),
    ) -> None:
        """``most`` messages a client, numbered from ``first``; ``window`` of them without an acknowledgement."""
        self.ledger = Ledger()
        self.qos = qos
        self._port = port
        self._window = window
        self._payload = payload
        self._topic = topic
        self._numbers = range(first, first + most) if most is not None else range(first, first + 10**9)
        self._ending = False
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(clients,), daemon=True)
        self._thread.start()

    def wait(self, acknowledged: int) -> None:
        """Return when so many messages are acknowledged."""
        self.until(lambda: len(self.ledger.acknowledged) >= acknowledged)

    def more(self, messages: int = 600) -> None:
        """Wait until so many more messages are acknowledged."""
        self.wait(len(self.ledger.acknowledged) + messages)

    def goes_on(self, seconds: float) -> bool:
        """Return True if any message is acknowledged within these seconds."""
        before = len(self.ledger.acknowledged)
        time.sleep(seconds)
        return len(self.ledger.acknowledged) > before

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what the clients bring about."""
        pause = threading.Event()
        for _ in range(int(PATIENCE / 0.005)):
            if holds():
                return
            assert self._thread.is_alive() or holds(), self._failure or "all clients have ended"
            pause.wait(0.005)
        raise AssertionError(f"it has not happened: {len(self.ledger.acknowledged)} acknowledged")

    def stop(self) -> None:
        """Let the clients finish their windows, or give up where nobody listens; do not wait for it."""
        self._ending = True

    def end(self) -> Ledger:
        """Stop, and wait until the clients have ended; return what happened."""
        self.stop()
        return self.finished()

    def finished(self) -> Ledger:
        """Wait until the clients have sent all, or have been asked to end; return what happened."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self._failure is not None:
            raise self._failure
        return self.ledger

    def _run(self, clients: int) -> None:
        try:
            asyncio.run(self._all(clients))
        except BaseException as error:  # told by whoever waits
            self._failure = error

    async def _all(self, clients: int) -> None:
        await asyncio.gather(*(self._client(number) for number in range(clients)))

    async def _client(self, client: int) -> None:
        """One client: windows of messages, and the unacknowledged ones again after each interruption."""
        numbers: Iterator[int] = iter(self._numbers)
        unacknowledged: list[Key] = []
        while True:
            try:
                async with Connection(self._port, f"load{client}") as connection:
                    while keys := [*unacknowledged, *self._next(client, numbers, len(unacknowledged))]:
                        unacknowledged = keys if self.qos[client % len(self.qos)] else []
                        await self._send(connection, client, keys)
                        unacknowledged = []
                    return
            except (OSError, asyncio.IncompleteReadError):
                if self._ending:
                    return
            unacknowledged = [key for key in unacknowledged if key not in self.ledger.acknowledged]
            await asyncio.sleep(_BACK)

    def _next(self, client: int, numbers: Iterator[int], waiting: int) -> list[Key]:
        if self._ending:
            return []
        return [(client, number) for number in islice(numbers, self._window - waiting)]

    async def _send(self, connection: Connection, client: int, keys: list[Key]) -> None:
        qos = self.qos[client % len(self.qos)]
        self.ledger.sent.update(keys)
        messages = [(self._topic(key), json.dumps(self._payload(key)).encode()) for key in keys]
        await connection.publish(messages, qos, lambda index: self.ledger.acknowledged.add(keys[index]))


class Connection:
    """MQTT 3.1.1 from the publisher's side.  Raises OSError or IncompleteReadError when it is cut off."""

    def __init__(self, port: int, name: str, username: str | None = None) -> None:
        self._port = port
        self._hello = connect_packet(name, keep_alive=0, username=username)

    async def __aenter__(self) -> Connection:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            self.writer.write(self._hello)
            kind, _ = await self._packet()
            assert kind == _CONNACK
        except BaseException:
            self.writer.close()
            raise
        return self

    async def __aexit__(self, *error: object) -> None:
        with suppress(OSError):
            if error[0] is None:
                self.writer.write(b"\xe0\x00")
                await self.writer.drain()
            self.writer.close()
            await self.writer.wait_closed()

    async def publish(
        self, messages: list[tuple[str, bytes]], qos: int, acknowledged: Callable[[int], object] = lambda _: None
    ) -> None:
        """Send messages, and return when all are acknowledged; at QoS 0, when the broker has read them."""
        self.writer.write(b"".join(publish(*message, qos, index + 1) for index, message in enumerate(messages)))
        left = len(messages)
        if qos == 0:
            self.writer.write(b"\xc0\x00")
            left = 1
        await self.writer.drain()
        while left:
            kind, identifier = await self._packet()
            if kind == _PUBREC:
                self.writer.write(release(identifier))
            elif kind in (_PUBACK, _PUBCOMP):
                acknowledged(identifier - 1)
                left -= 1
            elif kind == _PINGRESP:
                left -= 1

    async def _packet(self) -> tuple[int, int]:
        """The next packet's type and identifier; all that a publisher gets are short."""
        first, length = await self.reader.readexactly(2)
        body = await self.reader.readexactly(length)
        return first >> 4, int.from_bytes(body[:2], "big")
