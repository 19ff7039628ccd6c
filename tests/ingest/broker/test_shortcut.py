"""The shortcut of messages past amqtt: it takes what is plain, leaves the rest to amqtt, and changes no order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from amqtt.broker import BrokerContext
from amqtt.plugins.base import BasePlugin
from amqtt.session import IncomingApplicationMessage

from amqtt_db.ingest.broker.delivery import JournalQueue
from amqtt_db.ingest.broker.shortcut import Acknowledger, Shortcut
from amqtt_db.ingest.group_commit import GroupCommit
from amqtt_db.ingest.refusals import Refusals
from amqtt_db.journal import Journal
from tests.ingest.broker.mqtt import Client, packet, publish, text
from tests.ingest.broker.setup import InHouse, Setup, journaled

MOST = 20_000
PLAIN = {
    "QoS 0": publish("a/b", b"0"),
    "QoS 1": publish("a/b", b"1", 1, 7),
    "retained": publish("ä", b"", 1, 65535, retain=True),
    "repeated": publish("a", b"2" * 200, 1, 8, dup=True),
}
LEFT = {
    "no message": b"\xc0\x00",
    "QoS 2": publish("a", b"x", 2, 1),
    "repeated QoS 0": publish("a", b"x", dup=True),
    "QoS 3": packet(0x36, text("a") + b"\0\1x"),
    "a wildcard": publish("a/+", b"x"),
    "ill-formed": packet(0x30, text(b"a\xff") + b"x"),
    "a null": publish("a\0", b"x"),
    "reserved": publish("$SYS/a", b"x"),
    "no topic": publish("", b"x"),
    "a topic longer than its packet": packet(0x30, b"\0\x09a"),
    "no identifier": packet(0x32, text("a") + b"\0"),
    "an empty body": packet(0x30, b""),
    "large": publish("a", bytes(MOST)),
    "larger than the limit": publish("a", bytes(201)),
    "incomplete": publish("a", b"x")[:-1],
    "half a header": b"\x30\x80",
    "a byte": b"\x32",
}


def with_shortcut(path: Path, use: Callable[[Shortcut, JournalQueue, list[bytes]], Awaitable[None]]) -> None:
    """Run something with a shortcut into a journal, its queue, and what is sent to the client."""

    async def run() -> None:
        commit = GroupCommit(Journal.open(path, max_size=2**20, sync="never"))
        queue, sent = JournalQueue(commit, Refusals(commit), "a", None), list[bytes]()
        await use(Shortcut(commit, Acknowledger(commit), queue, sent.append, 200, lambda: 1000), queue, sent)
        await commit.close()

    asyncio.run(run())


def test_what_is_no_plain_message_is_left_to_amqtt(tmp_path: Path) -> None:
    """Everything before it is taken; acknowledgements come with the commit, and so do messages for the broker."""

    async def use(shortcut: Shortcut, queue: JournalQueue, sent: list[bytes]) -> None:
        plain = b"".join(PLAIN.values())
        for name, left in LEFT.items():
            assert shortcut.take(b"\0" + plain + left, 1) == len(plain) + 1, name
        assert (queue.qsize(), sent) == (len(LEFT), [])
        await queue._group_commit.flush()
        await asyncio.sleep(0)
        assert sent == [b"\x40\x02\x00\x07", b"\x40\x02\xff\xff", b"\x40\x02\x00\x08"] * len(LEFT)
        assert queue.qsize() == 4 * len(LEFT)

    with_shortcut(tmp_path / "journal", use)
    stored = [(one.topic, one.payload, one.qos, one.retain) for one in journaled(tmp_path / "journal") if one.topic]
    assert stored == [
        (b"a/b", b"0", 0, False), (b"a/b", b"1", 1, False), ("ä".encode(), b"", 1, True), (b"a", b"2" * 200, 1, False)
    ] * len(LEFT)  # fmt: skip


def test_a_connection_waits_for_a_broker_that_is_far_behind(tmp_path: Path) -> None:
    """Messages that were acknowledged would otherwise fill the memory."""

    async def use(shortcut: Shortcut, queue: JournalQueue, _: list[bytes]) -> None:
        for _number in range(100):
            await shortcut.wait_for_broker()
            shortcut.take(publish("a", b"x"), 0)
        waiting = asyncio.create_task(shortcut.wait_for_broker())
        for _number in range(50):
            await asyncio.sleep(0)
            assert not waiting.done()
            queue.get_nowait()
        await waiting

    with_shortcut(tmp_path / "journal", use)


@pytest.mark.slow
def test_messages_keep_their_order_whichever_way_they_go(in_house: InHouse) -> None:
    """Large ones and those of QoS 2 go amqtt's way."""
    sizes = [10, MOST, 10, 10, MOST, MOST, 10] * 20
    payloads = [b"%d " % number + bytes(size) for number, size in enumerate(sizes)]

    async def scenario(setup: Setup) -> None:
        client = await Client.connect(setup.port, "a")
        client.send(*(publish("a", payload, n % 5 % 3, n + 1) for n, payload in enumerate(payloads)))
        await setup.until_stored(len(payloads))
        await client.leave()

    assert [message.payload for message in in_house(scenario).entries()] == payloads


class Watcher(BasePlugin[BrokerContext]):
    """Another plugin that wants to see each packet."""

    seen: ClassVar[list[str]] = []

    async def on_mqtt_packet_received(self, *, packet: Any, **_: object) -> None:
        """Note what came."""
        self.seen.append(type(packet).__name__)

    async def on_mqtt_packet_sent(self, *, packet: Any, **_: object) -> None:
        """Note what left."""
        self.seen.append(type(packet).__name__)


@pytest.mark.slow
def test_other_plugins_see_each_packet(in_house: InHouse) -> None:
    """If there is such a plugin, messages do not take the shortcut; they are stored all the same."""
    Watcher.seen.clear()

    async def scenario(setup: Setup) -> None:
        client = await Client.connect(setup.port, "a")
        client.send(publish("a", b"x", 1, 1))
        assert await client.acknowledged() == (4, 1)
        await setup.until(lambda: Watcher.seen[-2:] == ["PublishPacket", "PubackPacket"])
        await client.leave()

    setup = in_house(scenario, plugins={f"{__name__}.Watcher": {}})
    assert [message.payload for message in setup.entries()] == [b"x"]


@pytest.mark.slow
def test_subscribers_get_what_took_the_shortcut(in_house: InHouse) -> None:
    """In order, with their payloads, also from a client that leaves at once, and retained ones also later."""

    async def scenario(setup: Setup) -> None:
        client = await Client.connect(setup.port, "a")
        client.send(packet(0x82, b"\0\1" + text("#") + b"\0"))
        await client.packet()
        client.send(*(publish("a", b"%d" % n, 1, n + 1, retain=n == 99) for n in range(100)))
        packets = [await client.packet() for _ in range(200)]
        assert [one[4:] for one in packets if one[0] == 0x30] == [b"%d" % n for n in range(100)]
        hasty = await Client.connect(setup.port, "c")
        hasty.send(*(publish("a", b"%d" % n) for n in range(100)), b"\xe0\0")
        assert [(await client.packet())[4:] for _ in range(100)] == [b"%d" % n for n in range(100)]
        await hasty.leave()
        late = await Client.connect(setup.port, "b")
        late.send(packet(0x82, b"\0\1" + text("a") + b"\0"))
        assert b"99" in {(await late.packet())[4:] for _ in range(2)}
        await client.leave()
        await late.leave()

    in_house(scenario)


def test_a_message_that_is_passed_on_is_what_amqtt_makes_of_it(tmp_path: Path) -> None:
    """Other plugins are given it."""

    async def use(shortcut: Shortcut, queue: JournalQueue, _: list[bytes]) -> None:
        sent = publish("a", b"x", 0, retain=True)
        shortcut.take(sent, 0)
        item = queue.get_nowait()
        assert isinstance(item, IncomingApplicationMessage)
        assert (item.topic, item.data, item.qos, item.retain, item.packet_id) == ("a", b"x", 0, True, None)
        assert item.publish_packet is not None
        assert item.publish_packet.to_bytes() == sent

    with_shortcut(tmp_path / "journal", use)
