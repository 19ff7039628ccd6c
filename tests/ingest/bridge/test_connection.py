"""When a connection subscribes, and what is on disk at that time."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from amqtt_db.ingest.bridge.link_state import LinkState, decode_state
from amqtt_db.record import EPOCH
from tests.ingest.bridge.wire import Commits, connected, publish

SUBSCRIBE = b"\x82"
PINGREQ, PINGRESP = b"\xc0\x00", b"\xd0\x00"
SUBACK = b"\x90\x04\x00\x01\x00"
GRANTED = {"filters": b'{"#":2}'}


def granted(path: Path) -> bytes:
    """The filters that are granted, as they are on disk."""
    with closing(sqlite3.connect(path / "journal")) as journal:
        return bytes(journal.execute("SELECT value FROM note WHERE key = 'filters'").fetchone()[0])


def test_a_new_session_is_subscribed_to_even_if_the_bridge_is_killed_then(tmp_path: Path) -> None:
    """Before SUBSCRIBE is sent, it is on disk that nothing is granted: the broker may never get it."""

    async def lose() -> bytes:
        _, wire, commit = connected(tmp_path, notes=GRANTED)
        await Commits(commit).until(lambda: SUBSCRIBE in wire.written)
        found = granted(tmp_path)
        await commit.close()
        return found

    assert asyncio.run(lose()) == b"{}"


@pytest.mark.parametrize(("answer", "is_subscribed"), [(PINGRESP, True), (publish(5), False), (publish(1), True)])
def test_in_doubt_about_the_session_the_connection_subscribes_if_nothing_comes(
    answer: bytes, is_subscribed: bool, tmp_path: Path
) -> None:
    """The broker has not answered an earlier CONNECT; a new session has no subscription, and its ids begin with 1."""

    async def doubt() -> tuple[bytes, bytes]:
        connection, wire, commit = connected(tmp_path, present=True, notes={**GRANTED, "connecting": b""})
        before = wire.written
        connection.data_received(answer)
        await Commits(commit).until(lambda: connection.is_streaming)
        await commit.close()
        return before, wire.written

    before, written = asyncio.run(doubt())
    assert (PINGREQ in before, SUBSCRIBE in before) == (True, False)
    assert (SUBSCRIBE in written) == is_subscribed
    assert granted(tmp_path) == (b"{}" if is_subscribed else GRANTED["filters"])


def test_another_qos_is_asked_for_while_connected(tmp_path: Path) -> None:
    """A Mosquitto that ignores the window is asked for QoS 1, until it is updated; nothing is asked for twice."""
    old, new = "mosquitto version 2.0.11", "mosquitto version 2.1.2"

    async def ask() -> list[int]:
        connection, wire, commit = connected(tmp_path)
        await Commits(commit).until(lambda: connection.is_streaming)
        asked = []
        for software in ("", old, old, new):
            connection.subscription.software = software
            connection.subscribe_again()
            if SUBSCRIBE in wire.written:
                asked.append(wire.written[-1] & 3)
                connection.subscribe_again()  # before the answer: the broker is not asked again
                connection.data_received(SUBACK + bytes((asked[-1],)))
            wire.written = b""
        await commit.close()
        return asked

    assert asyncio.run(ask()) == [2, 1, 2]


def test_a_refused_filter_is_not_asked_for_again_while_connected(tmp_path: Path) -> None:
    """Each look at what the broker is would repeat the error in the log."""

    async def ask() -> int:
        connection, wire, commit = connected(tmp_path)
        await Commits(commit).until(lambda: connection.is_streaming)
        connection.data_received(SUBACK + b"\x87")
        connection.subscription.software = "mosquitto version 2.1.2"
        connection.subscribe_again()
        await commit.close()
        return wire.written.count(SUBSCRIBE)

    assert asyncio.run(ask()) == 1


def test_what_the_broker_was_seen_to_be_decides_the_qos_of_the_next_process(tmp_path: Path) -> None:
    """So not even the first messages come with QoS 2."""
    state = LinkState("mqtt://localhost:1883", True, EPOCH, software="mosquitto version 2.0.11")

    async def ask() -> int:
        connection, wire, commit = connected(tmp_path, before=decode_state(state.encode()))
        await Commits(commit).until(lambda: connection.is_streaming)
        await commit.close()
        return wire.written[-1] & 3

    assert asyncio.run(ask()) == 1


def test_what_a_later_version_has_noted_of_a_broker_is_left_out() -> None:
    """So the bridge starts after a return to an earlier version."""
    state = LinkState("mqtt://localhost:1883", True, EPOCH)
    assert decode_state(b'{"new":[1],' + state.encode()[1:]) == state
