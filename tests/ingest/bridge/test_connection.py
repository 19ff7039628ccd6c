"""When a connection subscribes, and what is on disk at that time."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.ingest.bridge.wire import Commits, connected, publish

SUBSCRIBE = b"\x82"
PINGREQ, PINGRESP = b"\xc0\x00", b"\xd0\x00"
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
