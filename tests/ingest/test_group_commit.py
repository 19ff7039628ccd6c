"""Group commit, as the plugin and the bridge use it: what it reports as committed is in the journal."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from amqtt_db.ingest.group_commit import GroupCommit
from amqtt_db.journal import Entry, Journal, JournalReader
from amqtt_db.message import PUBLISH, flags

QOS_1 = flags(PUBLISH, 1)


def entries(*payloads: bytes) -> list[Entry]:
    """Entries of published messages."""
    return [(1, QOS_1, 0, b"t", payload) for payload in payloads]


def stored(path: Path) -> dict[int, bytes]:
    """Payloads of the messages in a journal, by position."""
    reader = JournalReader(path)
    (generation,) = reader.generations()
    batch = reader.read(generation.token, generation.first)
    reader.close()
    assert batch is not None
    found = zip(batch.positions, batch.flags, batch.payloads, strict=True)
    return {position: payload for position, sent, payload in found if sent == QOS_1}


def run(path: Path, scenario: Callable[[GroupCommit], Awaitable[None]], *, linger: float = 0.0) -> None:
    """Run a scenario with a new journal."""

    async def live() -> None:
        group_commit = GroupCommit(Journal.open(path, max_size=2**30, sync="never"), linger=linger)
        try:
            await scenario(group_commit)
        finally:
            await group_commit.close()

    asyncio.run(live())


def test_many_entries_in_one_call_get_neighbouring_positions(tmp_path: Path) -> None:
    """When the future of `extend` is done, all its entries are in the journal, in order, next to those of `append`."""
    path = tmp_path / "journal"

    async def scenario(group_commit: GroupCommit) -> None:
        first = group_commit.position
        group_commit.append(QOS_1, 1, 0, b"t", b"before")
        await group_commit.extend(entries(b"one", b"two", b"three"))
        assert group_commit.position == first + 4
        expected = [b"before", b"one", b"two", b"three"]
        assert stored(path) == dict(enumerate(expected, first))

    run(path, scenario)


def test_a_listener_hears_of_committed_positions_only(tmp_path: Path) -> None:
    """After each commit it gets the position after it, before anything written in the meantime is sent."""
    path = tmp_path / "journal"
    heard: list[int] = []

    async def scenario(group_commit: GroupCommit) -> None:
        def listen(behind: int) -> None:
            assert group_commit.coalescer.is_holding
            assert max(stored(path)) < behind
            heard.append(behind)

        group_commit.add_listener(listen)
        for _ in range(3):
            await group_commit.extend(entries(b"a", b"b"))
            assert heard[-1] == group_commit.position

    run(path, scenario)
    assert len(heard) == 3


def test_a_small_group_lingers_and_a_large_one_does_not(tmp_path: Path) -> None:
    """With `linger`, entries of several turns of the loop share a commit; many bytes are committed at once."""
    path = tmp_path / "journal"
    heard: list[int] = []

    async def scenario(group_commit: GroupCommit) -> None:
        group_commit.add_listener(heard.append)
        small = group_commit.extend(entries(b"small"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not small.done()
        assert group_commit.append(QOS_1, 1, 0, b"t", b"also small") is small
        assert group_commit.extend(entries(bytes(2**17))) is small
        await asyncio.wait_for(small, 10)
        assert heard == [group_commit.position]
        large = group_commit.extend(entries(bytes(2**17)))
        await asyncio.wait_for(large, 10)

    run(path, scenario, linger=60.0)


def test_a_group_that_lingers_is_committed_when_its_time_is_over(tmp_path: Path) -> None:
    """Nothing waits for a larger group that never comes."""

    async def scenario(group_commit: GroupCommit) -> None:
        await asyncio.wait_for(group_commit.extend(entries(b"small")), 10)
        await asyncio.wait_for(group_commit.append(QOS_1, 1, 0, b"t", b"small"), 10)

    run(tmp_path / "journal", scenario, linger=0.01)
    assert list(stored(tmp_path / "journal").values()) == [b"small", b"small"]


def test_nothing_is_acknowledged_once_the_file_is_known_to_be_gone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """`rm` of a journal in use: noticed at the next tick, said once, and no commit; put back, everything goes on."""
    path, elsewhere = tmp_path / "journal", tmp_path / "elsewhere"

    async def scenario(group_commit: GroupCommit) -> None:
        await group_commit.extend(entries(b"before"))
        path.rename(elsewhere)
        group_commit.tick()
        waiting = group_commit.extend(entries(b"after"))
        for _ in range(3):
            await group_commit.flush()
            assert group_commit.blocked
            group_commit.tick()
        assert not waiting.done()
        elsewhere.rename(path)
        await group_commit.flush()
        assert waiting.done()
        assert not group_commit.blocked

    run(path, scenario)
    assert list(stored(path).values()) == [b"before", b"after"]
    first, second = (record.getMessage() for record in caplog.records)
    assert "was removed or replaced" in first
    assert "QoS 1 and 2 are not acknowledged and QoS 0 is refused" in first
    assert "can be written again" in second


def test_a_note_is_durable_when_the_future_of_the_next_entries_is_done(tmp_path: Path) -> None:
    """Even if there are no entries."""
    path = tmp_path / "journal"

    async def scenario(group_commit: GroupCommit) -> None:
        group_commit.remember("scope", "key", b"value")
        await group_commit.extend(())
        with closing(sqlite3.connect(path)) as other:
            assert other.execute("SELECT * FROM note").fetchall() == [("scope", "key", b"value")]
        assert group_commit.notes("scope")["key"] == b"value"

    run(path, scenario)


def test_what_comes_after_the_end_is_not_taken(tmp_path: Path) -> None:
    """A closed group commit returns a cancelled future, which is not taken as an acknowledgement."""

    async def scenario(group_commit: GroupCommit) -> None:
        await group_commit.close()
        with pytest.raises(asyncio.CancelledError):
            await group_commit.extend(entries(b"late"))

    run(tmp_path / "journal", scenario)


def test_plugin_and_bridge_share_code_that_knows_nothing_of_amqtt() -> None:
    """Group commit, gate and supervisor can be used without amqtt installed."""
    shared = ", ".join(f"amqtt_db.ingest.{name}" for name in ("group_commit", "gate", "coalesce", "supervisor"))
    code = f"import sys, {shared}; sys.exit('amqtt' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_each_group_is_measured_from_its_first_entry(tmp_path: Path) -> None:
    """One measurement per group, however many entries it has; a lingering group has waited."""
    delays: list[float] = []

    async def scenario(group_commit: GroupCommit) -> None:
        await group_commit.extend(entries(b"one", b"two"))
        await group_commit.append(QOS_1, 1, 0, b"t", b"three")
        delays.extend((sum(group_commit.delays.counts), group_commit.delays.total))

    run(tmp_path / "journal", scenario, linger=0.05)
    assert delays[0] == 2
    assert delays[1] >= 0.1
