"""Power loss of the bridge: what it has acknowledged to a broker is on disk, although all else is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from amqtt_db.journal import Sync
from tests.faults.bad_disk import BadDisk, bad_disk
from tests.faults.conftest import Count
from tests.faults.scene import Verdict
from tests.integration.bridge import MOSQUITTO, BridgeProcess, Mosquitto, numbers, until

__all__ = ["bad_disk"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(MOSQUITTO is None, reason="needs Mosquitto"),
]

PROOF: Final = 250
"""Messages after which ids have been in turn for longer than four windows."""
MESSAGES: Final = 200
"""How many are published at once, until the power goes off."""


@contextmanager
def bridged(directory: Path, sync: Sync) -> Iterator[tuple[Mosquitto, BridgeProcess]]:
    """A broker and a bridge that has stored the first messages."""
    journal = {"path": str(directory / "mqtt.journal"), "sync": sync}
    with Mosquitto(directory / "broker") as broker:
        bridge = BridgeProcess(directory, {"url": broker.url, "window": 50}, journal=journal)
        yield broker, bridge


def lose_power_under_load(bridge: BridgeProcess, broker: Mosquitto, disk: BadDisk, qos: int) -> tuple[list[int], int]:
    """Return what is stored after a start on what is left, and how many messages were published.

    The writer has stored nothing of them before, so they are in the journal or at the broker.  The last one is stored
    after everything that the broker still had.
    """
    bridge.environment = disk.environment("/mqtt.journal")
    bridge.start()
    until(lambda: bridge.logged(": subscribed to"), "the broker knows what to keep")
    broker.publish(numbers(0, PROOF), qos=qos)
    until(lambda: bridge.count() >= PROOF, "the first are stored")
    end = PROOF
    with bridge.without_writer(), disk.losing_power(20):
        while bridge.is_running:
            broker.publish(numbers(end, end + MESSAGES), qos=qos)
            end += MESSAGES
    bridge.environment = {}
    with bridge:
        broker.publish(['{"n": -1}'], qos=qos)
        until(lambda: -1 in bridge.stored(), "the last one is stored")
    return [number for number in bridge.stored() if number >= 0], end


@pytest.mark.fault("power loss of the bridge")
def test_what_the_bridge_has_acknowledged_is_on_disk(
    tmp_path: Path, bad_disk: BadDisk, count: Count, round_: int
) -> None:
    """At the loss, the journal has what was synced, and perhaps a part of the rest; the broker sends all else again."""
    with bridged(tmp_path, "always") as (broker, bridge):
        stored, published = lose_power_under_load(bridge, broker, bad_disk, 1 + round_ % 2)
    found = len(set(stored))
    count(Verdict(published, found, 0, published - found, len(stored) - found))
    assert stored == list(range(published))


def test_without_syncing_the_test_would_lose_messages(tmp_path: Path, bad_disk: BadDisk, scale: int) -> None:
    """With `sync: never` they are acknowledged and gone."""
    if scale == 1:
        pytest.skip("takes seconds, and shows only that the test can fail: pass --rounds 2")

    def loses(number: int) -> bool:
        directory = tmp_path / str(number)
        directory.mkdir()
        with bridged(directory, "never") as (broker, bridge):
            stored, published = lose_power_under_load(bridge, broker, bad_disk, 1)
        return len(set(stored)) < published

    assert any(map(loses, range(20)))  # a random part of what was not synced is gone, at times none of it
