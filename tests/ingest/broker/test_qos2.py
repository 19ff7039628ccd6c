"""QoS 2 is owned from PUBREC: stored exactly once through a killed broker, however far the handshake had got."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from amqtt_db.ingest.broker import qos2
from amqtt_db.ingest.broker.qos2 import Qos2Ledger, forget_abandoned
from amqtt_db.ingest.group_commit import CommitFuture, GroupCommit
from amqtt_db.journal import Journal
from tests.ingest.broker.mqtt import Client, publish, release
from tests.ingest.broker.setup import Setup, running

pytestmark = pytest.mark.slow

PUBREC, PUBCOMP = 5, 7


def killed_after(setup: Setup, scenario: Callable[[Client], Awaitable[None]], *, clean: bool) -> None:
    """Run a client against a broker in a separate process, and kill that broker."""

    async def talk() -> None:
        client = await Client.connect(setup.port, "me", clean=clean, username="me")
        await scenario(client)
        client.writer.transport.abort()

    with running(setup) as child:
        assert child.stdout is not None
        child.stdout.readline()
        asyncio.run(talk())
        child.kill()


@pytest.mark.parametrize("clean", [False, True])
def test_a_message_with_a_pubrec_is_stored_once_through_kill_9(tmp_path: Path, clean: bool) -> None:
    """PUBLISH, PUBREC, kill -9, restart, PUBREL: PUBCOMP, and one entry."""
    setup = Setup(tmp_path, {}, {})

    async def begin(client: Client) -> None:
        client.send(publish("a", b"once", 2, 9))
        assert await client.acknowledged() == (PUBREC, 9)

    async def end(client: Client) -> None:
        for _ in range(2):
            client.send(release(9))
            assert await client.acknowledged() == (PUBCOMP, 9)

    killed_after(setup, begin, clean=clean)
    assert [message.payload for message in setup.entries()] == [b"once"]
    killed_after(setup, end, clean=clean)
    assert [message.payload for message in setup.entries()] == [b"once"]


@pytest.mark.parametrize("clean", [False, True])
def test_a_message_sent_again_after_kill_9_is_stored_once(tmp_path: Path, clean: bool) -> None:
    """A client that has not seen PUBREC sends it again, with DUP; what it sends after PUBCOMP is another message."""
    setup = Setup(tmp_path, {}, {})

    async def begin(client: Client) -> None:
        client.send(publish("a", b"once", 2, 9))
        assert await client.acknowledged() == (PUBREC, 9)

    async def again(client: Client) -> None:
        client.send(publish("a", b"once", 2, 9, dup=True))
        assert await client.acknowledged() == (PUBREC, 9)
        client.send(release(9))
        assert await client.acknowledged() == (PUBCOMP, 9)

    async def another(client: Client) -> None:
        await again(client)
        client.send(publish("a", b"once", 2, 9))
        assert await client.acknowledged() == (PUBREC, 9)

    killed_after(setup, begin, clean=clean)
    killed_after(setup, another, clean=clean)
    assert [message.payload for message in setup.entries()] == [b"once"] * 2


class Sender:
    """A client that keeps its own side of QoS 2 through lost connections, with a window of 20 messages."""

    def __init__(self, count: int) -> None:
        self.waiting = list(range(count))
        self.unconfirmed: dict[int, int] = {}  # packet identifier → message, until PUBREC
        self.unreleased: list[int] = []  # packet identifiers between PUBREC and PUBCOMP

    @property
    def is_done(self) -> bool:
        """True if every message has its PUBCOMP."""
        return not (self.waiting or self.unconfirmed or self.unreleased)

    def resume(self, client: Client) -> None:
        """Send again what a new connection must send again."""
        for packet_id, number in self.unconfirmed.items():
            client.send(publish("a", b"%d" % number, 2, packet_id, dup=True))
        client.send(*(release(packet_id) for packet_id in self.unreleased))

    async def step(self, client: Client) -> None:
        """Fill the window, and take one answer."""
        while self.waiting and len(self.unconfirmed) + len(self.unreleased) < 20:
            used = {*self.unconfirmed, *self.unreleased}
            packet_id = next(number for number in range(1, 22) if number not in used)
            self.unconfirmed[packet_id] = self.waiting.pop(0)
            client.send(publish("a", b"%d" % self.unconfirmed[packet_id], 2, packet_id))
        kind, packet_id = await client.acknowledged()
        if kind == PUBREC:
            if self.unconfirmed.pop(packet_id, None) is not None:
                self.unreleased.append(packet_id)
            client.send(release(packet_id))
        elif packet_id in self.unreleased:
            self.unreleased.remove(packet_id)


@pytest.mark.parametrize("clean", [False, True])
def test_kills_at_any_moment_of_the_handshake_lose_and_double_nothing(tmp_path: Path, clean: bool) -> None:
    """A broker is killed again and again under load; each message of QoS 2 is stored exactly once."""
    setup, sender, rng = Setup(tmp_path, {}, {}), Sender(600), random.Random(7)

    async def send(steps: int | None) -> None:
        client = await Client.connect(setup.port, "me", clean=clean, username="me")
        sender.resume(client)
        while not sender.is_done and steps != 0:
            await sender.step(client)
            steps = None if steps is None else steps - 1
        child.kill()
        client.writer.transport.abort()

    for steps in [rng.randrange(50, 250) for _ in range(5)] + [None]:
        with running(setup) as child:
            assert child.stdout is not None
            child.stdout.readline()
            try:
                asyncio.run(send(steps))
            finally:
                child.kill()
    assert sender.is_done
    assert sorted(int(message.payload) for message in setup.entries()) == list(range(600))


@pytest.mark.parametrize(("payload", "dup"), [(b"another", True), (b"one", False)])
def test_an_identifier_that_is_used_for_another_message_hides_nothing(
    tmp_path: Path, payload: bytes, dup: bool
) -> None:
    """A client that has lost its memory with the broker's gets its new message stored."""
    setup = Setup(tmp_path, {}, {})

    async def begin(client: Client) -> None:
        client.send(publish("a", b"one", 2, 9))
        assert await client.acknowledged() == (PUBREC, 9)

    async def another(client: Client) -> None:
        client.send(publish("a", payload, 2, 9, dup=dup))
        assert await client.acknowledged() == (PUBREC, 9)

    killed_after(setup, begin, clean=True)
    killed_after(setup, another, clean=True)
    assert [message.payload for message in setup.entries()] == [b"one", payload]


def test_identifiers_that_nobody_releases_are_forgotten_after_a_week(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that never come back leave nothing behind forever."""

    async def scenario() -> None:
        group_commit = GroupCommit(Journal.open(tmp_path / "journal", max_size=2**30, sync="never"))
        ledger = Qos2Ledger(group_commit, "me")

        def append() -> CommitFuture:
            return group_commit.append(4, 1, 0, b"a", b"x")

        now = 1_800_000_000.0
        for packet_id, days in ((1, 0), (2, 5)):
            monkeypatch.setattr(qos2, "time", lambda days=days: now + days * 86_400)
            await ledger.take(packet_id, b"a", b"x", False, append)
        monkeypatch.setattr(qos2, "time", lambda: now + 8 * 86_400)
        forget_abandoned(group_commit)
        assert list(group_commit.notes("qos 2")) == ["2 me"]
        await group_commit.close()

    asyncio.run(scenario())
