"""What is not taken is counted each time, and told once a minute."""

from __future__ import annotations

import asyncio
import logging
from contextlib import closing
from pathlib import Path

import pytest

from amqtt_db.ingest.group_commit import GroupCommit
from amqtt_db.ingest.refusals import Refusals, RepeatLimit
from amqtt_db.journal import Journal


def test_a_repeated_event_passes_once_a_minute() -> None:
    """With the number of those between."""
    now = [0.0]
    limit = RepeatLimit(lambda: now[0])
    assert [limit.admit("a"), limit.admit("a"), limit.admit("b"), limit.admit("a")] == [0, None, 0, None]
    now[0] = 60.0
    assert [limit.admit("a"), limit.admit("b")] == [2, 0]


def test_made_up_names_do_not_fill_the_memory() -> None:
    """However many there are."""
    limit = RepeatLimit(lambda: 0.0)
    for number in range(5000):
        limit.admit(number)
    assert len(limit._seen) <= 1000


def test_denied_messages_are_counted_across_restarts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each client that may not publish is told of; the count is in the journal."""

    async def deny(*clients: str) -> int:
        with closing(Journal.open(tmp_path / "journal", max_size=2**20, sync="never")) as journal:
            group_commit = GroupCommit(journal)
            refusals = Refusals(group_commit)
            for client in clients:
                refusals.deny(client, "secret/\x1b[2J")
            refusals.note()
            await group_commit.flush()
            group_commit._thread.shutdown()
        return refusals.denied

    with caplog.at_level(logging.WARNING, "amqtt_db"):
        assert [asyncio.run(deny("a", "a", "b")), asyncio.run(deny()), asyncio.run(deny("a"))] == [3, 3, 4]
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(" may not publish to ")[0] for line in lines] == ["client 'a'", "client 'b'", "client 'a'"]
    assert all("'secret/\\x1b[2J'" in line for line in lines)
