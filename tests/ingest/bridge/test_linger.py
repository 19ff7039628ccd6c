"""Messages wait for more only where that costs no throughput, and nothing is lost by it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import pytest

from amqtt_db.ingest.bridge.linger import GATHER_SECONDS, LINGER_SECONDS, Linger
from amqtt_db.ingest.bridge.peer import Ending
from amqtt_db.ingest.bridge.transport import acknowledge_bytes
from amqtt_db.ingest.bridge.websocket import WebSocket
from tests.ingest.bridge.wire import Commits, connected, publish

COMMIT: Final = 0.0005  # seconds from a message's arrival to the arrival of what its acknowledgement lets through


class HoldingBack:
    """A socket whose other end sends more once it knows that everything has arrived."""

    def __init__(self, send: Callable[[], None]) -> None:
        self._send = send

    def setsockopt(self, level: int, option: int, value: int) -> None:
        """Acknowledge what has arrived."""
        assert (level, option, value) == (socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
        asyncio.get_running_loop().call_soon(self._send)


@pytest.mark.parametrize("window", [1, 2, 8, 10, 15, 16, 20, 32, 50, 1000])
@pytest.mark.parametrize("is_known", [False, True])
def test_a_broker_that_always_fills_its_window_is_not_kept_waiting(window: int, is_known: bool) -> None:
    """It sends as many messages as may be in flight as soon as the last are acknowledged: few of these wait."""
    linger, now = Linger(window if is_known else 0, 0.0), 10.0
    linger.note(1, 1, now)
    waits = 0
    for _ in range(100):
        if linger.allows(1) and linger.allows(window):
            waits, now = waits + 1, now + LINGER_SECONDS
        now += COMMIT
        linger.note(window, window, now)
    assert waits <= 1


def test_messages_at_a_low_rate_wait() -> None:
    """A thousand in a second, if the broker's window is known to be wide; never more than half of it."""
    linger, now = Linger(1000, 0.0), 0.01
    for _ in range(10):
        linger.note(10, 10, now)
        now += LINGER_SECONDS
        assert linger.allows(15)
        assert not linger.allows(16)


def test_a_wide_window_is_found_out() -> None:
    """From messages that came at once, of which half may wait; before that, none waits."""
    linger = Linger(0, 0.0)
    linger.note(1, 1, 0.005)
    assert not linger.allows(1)
    for at_once, most in [(16, 8), (50, 25), (1000, 64), (1, 64)]:
        linger.note(at_once, at_once, 2.0)
        linger.note(1, 1, 2.005)
        assert linger.allows(most - 1)
        assert not linger.allows(most)


def test_a_message_that_comes_alone_does_not_wait() -> None:
    """None is to be expected while it would, so that would only make it late."""
    linger = Linger(1000, 0.0)
    linger.note(1000, 1000, 1.0)
    for number in range(1, 9):
        now = 1.0 + number * 1.1 * LINGER_SECONDS
        linger.note(1, 1, now)
        assert not linger.allows(1)
        assert not linger.rest(now)


@pytest.mark.parametrize(("rate", "parts"), [(50, 1), (600, 1), (700, 2), (1200, 2), (1400, 3), (1900, 3)])
def test_the_wait_is_a_whole_part_of_the_longest_if_sixteen_come_sooner(rate: int, parts: int) -> None:
    """So the last group before the writer is told is committed just then."""
    linger = Linger(1000, 0.0)
    linger.note(10, 10, 10 / rate)
    assert linger.seconds == pytest.approx(LINGER_SECONDS / parts)


def test_reading_rests_after_a_small_commit_if_the_window_is_far_wider() -> None:
    """Not after a large one, nor longer than the commit was too short, nor where a broker might wait for it."""
    linger = Linger(1000, 0.0)
    linger.note(30, 30, 1.0)
    assert linger.rest(1.0) == 0
    linger.note(200, 200, 1.0)
    assert linger.rest(1.0) == 0
    linger.note(30, 30, 1.0)
    assert linger.rest(1.0) == GATHER_SECONDS
    assert linger.rest(2.0) == 0


def test_reading_does_not_rest_where_messages_wait_anyway() -> None:
    """They would only come later."""
    linger = Linger(1000, 0.0)
    linger.note(1000, 1000, 1.0)
    linger.note(30, 30, 1.0 + LINGER_SECONDS)
    assert linger.seconds
    assert not linger.rest(1.0 + LINGER_SECONDS)


def test_few_messages_share_a_commit_and_are_acknowledged(tmp_path: Path) -> None:
    """Thirty arrive at once after a pause and are committed at once; the next wait for each other."""

    async def arrive() -> tuple[int, bytes]:
        connection, wire, commit = connected(tmp_path)
        commits = Commits(commit)
        await asyncio.sleep(0.05)
        connection.data_received(b"".join(map(publish, range(1, 31))))
        await commits.until(lambda: wire.written.endswith(b"\x40\x02\x00\x1e"))
        before = commits.count
        for number in range(31, 36):
            connection.data_received(publish(number))
        await commits.until(lambda: wire.written.endswith(b"\x40\x02\x00\x23"))
        await commit.close()
        return commits.count - before, wire.written

    commits, written = asyncio.run(arrive())
    assert commits == 1
    assert written.endswith(b"".join(b"\x40\x02\x00" + bytes((number,)) for number in range(1, 36)))


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="only Linux can acknowledge at once")
def test_the_broker_is_asked_for_more_before_the_messages_are_taken(tmp_path: Path) -> None:
    """It may hold small packets back until earlier ones are acknowledged by TCP; what it sends then is taken, too."""

    async def arrive() -> list[int]:
        connection, wire, commit = connected(tmp_path)
        commits = Commits(commit)
        wire.socket = HoldingBack(lambda: connection.data_received(publish(32) + publish(33)))
        await asyncio.sleep(0.05)
        connection.data_received(b"".join(map(publish, range(1, 31))))
        await commits.until(lambda: wire.written.endswith(b"\x40\x02\x00\x1e"))
        before = commits.count
        connection.data_received(publish(31))
        await commits.until(lambda: commits.count > before)
        await commit.close()
        return list(wire.written[-1:-17:-4])

    assert asyncio.run(arrive()) == [33, 32, 31, 30]


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="only Linux can acknowledge at once")
def test_the_broker_is_asked_through_a_websocket_too(tmp_path: Path) -> None:
    """Its socket is that of the connection below; an error here would leave messages waiting for ever."""

    async def ask() -> bool:
        connection, wire, commit = connected(tmp_path)
        over, asked = WebSocket(connection, "ws://localhost:1883/mqtt"), asyncio.Event()
        over.connection_made(wire)
        wire.socket = HoldingBack(asked.set)
        acknowledge_bytes(cast(asyncio.BaseTransport, over))
        await asyncio.sleep(0)
        await commit.close()
        return asked.is_set()

    assert asyncio.run(ask())


def test_periodic_work_does_not_end_a_wait(tmp_path: Path) -> None:
    """The message is committed with the one that follows."""

    async def arrive() -> int:
        connection, wire, commit = connected(tmp_path)
        commits = Commits(commit)
        await asyncio.sleep(0.05)
        connection.data_received(b"".join(map(publish, range(1, 31))))
        await commits.until(lambda: wire.written.endswith(b"\x40\x02\x00\x1e"))
        before = commits.count
        connection.data_received(publish(31))
        connection.tick()
        connection.data_received(publish(32))
        await commits.until(lambda: wire.written.endswith(b"\x40\x02\x00\x20"))
        await commit.close()
        return commits.count - before

    assert asyncio.run(arrive()) == 1


def test_qos_0_that_waits_when_the_connection_ends_is_stored(tmp_path: Path) -> None:
    """No broker delivers it again; what has an acknowledgement is left to the broker."""

    async def arrive() -> tuple[int, int]:
        connection, wire, commit = connected(tmp_path)
        commits = Commits(commit)
        await asyncio.sleep(0.05)
        connection.data_received(publish(1))
        await commits.until(lambda: wire.written.endswith(b"\x40\x02\x00\x01"))
        before = commit.received
        connection.data_received(publish(0, qos=0))
        connection.data_received(publish(2))
        waiting = commit.received
        connection.end(Ending("was left"))
        await commit.close()
        return waiting - before, commit.received - before

    assert asyncio.run(arrive()) == (0, 1)
