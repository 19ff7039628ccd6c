"""How long the bridge waits before it connects again."""

from __future__ import annotations

import asyncio
from pathlib import Path

from amqtt_db.config.broker import BrokerSettings
from amqtt_db.ingest.bridge.bridge import Link
from amqtt_db.ingest.bridge.peer import Ending
from amqtt_db.ingest.group_commit import GroupCommit
from amqtt_db.journal import Journal


def test_pauses_grow_to_30_seconds_and_differ(tmp_path: Path) -> None:
    """From at most half a second, up to 30 s and never beyond; at random, so that many bridges do not come at once."""

    async def wait_often() -> list[float]:
        commit = GroupCommit(Journal.open(tmp_path / "mqtt.journal", max_size=2**20, sync="never"))
        link = Link(BrokerSettings("mqtt", "127.0.0.1", 1, "me"), ["#"], commit)
        pauses = [link._pause_after(Ending("cannot be reached")) for _ in range(200)]
        await commit.close()
        return pauses

    pauses = asyncio.run(wait_often())
    assert 0.25 <= pauses[0] <= 0.5
    assert all(0.25 <= pause <= 30 for pause in pauses)
    assert all(15 <= pause <= 30 for pause in pauses[8:])
    assert len({round(pause, 3) for pause in pauses[8:]}) > 100
