"""What the bridge tells its writer."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from amqtt_db.config.broker import BrokerSettings
from amqtt_db.ingest.bridge.bridge import Bridge
from amqtt_db.ingest.supervisor import Supervisor
from amqtt_db.journal import Journal
from amqtt_db.message import PUBLISH, flags


def test_the_writer_is_told_of_messages_not_of_notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else it would not be told of messages that follow soon, and wait for them."""
    told: list[float] = []
    monkeypatch.setattr(Supervisor, "tell_gathered", lambda _, began: told.append(began))

    async def commit_both() -> None:
        journal = Journal.open(tmp_path / "journal", max_size=2**30, sync="never")
        bridge = Bridge([BrokerSettings("mqtt", "127.0.0.1", 1, "me")], ["#"], journal, Supervisor(b"job"))
        commit = bridge._group_commit
        commit.remember("scope", "key", b"value")
        await commit.flush()
        commit.append(flags(PUBLISH, 1), 1, 0, b"t", b"x")
        await commit.flush()
        await asyncio.sleep(0)  # listeners run in the next turn
        await commit.close()

    asyncio.run(commit_both())
    assert len(told) == 1
