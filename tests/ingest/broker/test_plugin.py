"""What the broker acknowledges is in the journal: a real broker, real sockets, real clients."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import paho.mqtt.client as paho
import pytest
from amqtt.broker import Broker
from amqtt.contexts import Action
from amqtt.errors import PluginInitError
from amqtt.plugins.base import BaseAuthPlugin, BaseTopicPlugin
from amqtt.session import Session
from paho.mqtt.enums import CallbackAPIVersion
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from amqtt_db.ingest.broker.streams import CoalescingWriter
from amqtt_db.ingest.refusals import DENIED, INTAKE_SCOPE
from amqtt_db.journal import Journal, JournalReader, write_progress
from amqtt_db.message import CONNECT, DISCONNECT, START
from tests.ingest.broker.mqtt import SECONDS, Client, connect_packet, packet, publish, release, text
from tests.ingest.broker.setup import InHouse, Setup, running

# amqtt does not close the transport of a client that has reset its connection.
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


class Forbidding(BaseTopicPlugin):
    """Lets nobody publish below ``forbidden/``."""

    async def topic_filtering(
        self, *, session: Session | None = None, topic: str | None = None, action: Action | None = None
    ) -> bool | None:
        """Permit all but ``forbidden/``, after giving way to others."""
        await asyncio.sleep(0)
        return action is not Action.PUBLISH or not (topic or "").startswith("forbidden/")


async def leave_at_once(port: int, number: int, qos: int, count: int) -> None:
    """Publish, and disconnect without waiting for anything but the acknowledgements."""
    client = await Client.connect(port, f"client-{qos}-{number}")
    client.send(*(publish(f"load/{number}", b"%d" % index, qos, index + 1) for index in range(count)))
    if qos:
        acknowledged = [await client.acknowledged() for _ in range(count)]
        assert sorted(acknowledged) == [(4, index + 1) for index in range(count)]
    await client.leave()


@pytest.mark.parametrize("qos", [0, 1])
def test_clients_that_leave_at_once_lose_nothing(in_house: InHouse, qos: int) -> None:
    """2,000 messages of clients that disconnect right after publishing are all in the journal, in order."""

    async def scenario(setup: Setup) -> None:
        await asyncio.gather(*(leave_at_once(setup.port, number, qos, 200) for number in range(10)))
        await setup.until_stored(2000)

    setup = in_house(scenario)
    messages = setup.entries()
    assert len(messages) == 2000
    for number in range(10):
        mine = [message for message in messages if message.topic == b"load/%d" % number]
        assert [message.payload for message in mine] == [b"%d" % index for index in range(200)]
        assert {(message.qos, message.retain) for message in mine} == {(qos, False)}


def test_a_client_that_says_everything_in_one_breath_is_heard(in_house: InHouse) -> None:
    """CONNECT, 500 PUBLISH and DISCONNECT in one write, with keep-alive 0 and no look at the answer: all stored."""

    async def scenario(setup: Setup) -> None:
        client = Client(*await asyncio.open_connection("127.0.0.1", setup.port))
        messages = (publish("a", b"%d" % index) for index in range(500))
        client.send(connect_packet("breathless", keep_alive=0), *messages, b"\xe0\x00")
        await client.vanish()
        await setup.until_stored(500)

    setup = in_house(scenario)
    assert [message.payload for message in setup.entries()] == [b"%d" % index for index in range(500)]


def test_a_client_that_says_nothing_and_leaves_is_hung_up_on(in_house: InHouse) -> None:
    """The broker closes its side too: no socket is left behind, and the broker can shut down on every Python."""

    async def scenario(setup: Setup) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", setup.port)
        writer.write_eof()
        assert await asyncio.wait_for(reader.read(), SECONDS) == b""
        writer.close()
        await writer.wait_closed()

    in_house(scenario)


def test_paho_is_acknowledged_what_is_stored(in_house: InHouse) -> None:
    """A usual client with all three QoS gets its acknowledgements, and everything is in the journal."""

    def open_snapshot(port: int) -> None:
        client = paho.Client(CallbackAPIVersion.VERSION2, "usual")
        client.connect("127.0.0.1", port)
        client.loop_start()
        sent = [client.publish("usual", b"%d" % index, qos=index % 3) for index in range(300)]
        for message in sent:
            message.wait_for_publish(SECONDS)
        client.disconnect()
        client.loop_stop()

    async def scenario(setup: Setup) -> None:
        await asyncio.to_thread(open_snapshot, setup.port)
        await setup.until_stored(300)

    setup = in_house(scenario)
    assert sorted(int(message.payload) for message in setup.entries()) == list(range(300))
    assert all(message.qos == int(message.payload) % 3 for message in setup.entries())


def test_a_client_on_a_websocket_is_acknowledged_what_is_stored(in_house: InHouse) -> None:
    """Its packets arrive and leave in a different way; still, 100 messages are acknowledged and stored."""

    def open_snapshot(port: int) -> None:
        client = paho.Client(CallbackAPIVersion.VERSION2, "web", transport="websockets")
        client.connect("127.0.0.1", port)
        client.loop_start()
        sent = [client.publish("web", b"%d" % index, qos=index % 3) for index in range(100)]
        for message in sent:
            message.wait_for_publish(SECONDS)
        client.disconnect()
        client.loop_stop()

    async def scenario(setup: Setup) -> None:
        await asyncio.to_thread(open_snapshot, setup.port)
        await setup.until_stored(100)

    setup = in_house(scenario, listener="ws")
    assert sorted(int(message.payload) for message in setup.entries()) == list(range(100))


def test_a_websocket_that_breaks_or_sends_too_much_stores_nothing_of_it(
    in_house: InHouse, caplog: pytest.LogCaptureFixture
) -> None:
    """amqtt alone would complete a packet from its last piece; what is larger than amqtt allows is told."""

    async def scenario(setup: Setup) -> None:
        pieces = publish("a", b"".join(b"%d," % number for number in range(99)), 1, 7)
        for sent in ([pieces], [pieces[:10], pieces[10:20], pieces[20:]], [pieces[:90]], [pieces[:20], pieces[20:90]],
                     [publish("a", bytes(2**20), 1, 7)]):  # fmt: skip
            async with connect(f"ws://127.0.0.1:{setup.port}", subprotocols=[Subprotocol("mqtt")]) as client:
                await client.send(connect_packet("web"))
                assert await client.recv() == b"\x20\x02\x00\x00"
                for piece in sent:
                    await client.send(piece)
                if b"".join(sent) == pieces:
                    assert await client.recv() == b"\x40\x02\x00\x07"
                elif len(sent[-1]) > 2**20:
                    await client.wait_closed()
        await setup.until(lambda: setup.plugin._connections.count == 0)
        assert setup.plugin._group_commit._journal.refused == 1

    with caplog.at_level(logging.WARNING):
        setup = in_house(scenario, listener="ws")
    assert len(setup.entries()) == 2
    (line,) = (record.getMessage() for record in caplog.records)
    assert line.startswith("client 'web' sent more than 1 MiB in one WebSocket message and is disconnected")


def test_acknowledgements_of_one_commit_leave_together(in_house: InHouse) -> None:
    """However many messages a commit has made durable, their acknowledgements come in one piece."""

    async def scenario(setup: Setup) -> None:
        client = await Client.connect(setup.port, "much")
        handler = setup.broker.sessions["much"][1]
        await setup.until(lambda: isinstance(handler.writer, CoalescingWriter))
        assert isinstance(handler.writer, CoalescingWriter)
        pieces: list[bytes] = []
        inner = handler.writer._writer
        send = inner.write

        def count(data: bytes) -> None:
            pieces.append(data)
            send(data)

        inner.write = count  # type: ignore[method-assign]
        journal = setup.plugin._group_commit._journal
        write, groups = journal.write, 0

        def commit() -> None:
            nonlocal groups
            groups += bool(journal._sealed)
            time.sleep(0.003)  # as long as a slow disk takes: commits are in a thread then, and messages gather
            write()

        journal.write = commit  # type: ignore[method-assign]
        setup.plugin._group_commit._slow, setup.plugin._group_commit._seconds = True, 0.003
        client.send(*(publish("a", b"x", 1, number) for number in range(1, 201)))
        assert [await client.acknowledged() for _ in range(200)] == [(4, number) for number in range(1, 201)]
        assert len(pieces) <= groups
        assert groups < 200
        await client.leave()

    in_house(scenario)


@pytest.mark.parametrize("qos", [1, 2])
def test_the_acknowledgement_waits_for_the_commit(in_house: InHouse, qos: int) -> None:
    """While the journal cannot be written there is no PUBACK and no PUBREC; afterwards there is."""

    async def scenario(setup: Setup) -> None:
        client = await Client.connect(setup.port, "patient")
        await setup.until_stored(1, CONNECT)
        other = sqlite3.connect(setup.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        client.send(publish("a", b"first", qos, 7))
        await client.ping()
        await setup.until(lambda: setup.plugin._group_commit.blocked)
        await client.ping()
        assert setup.entries() == []
        other.execute("ROLLBACK")
        other.close()
        assert await client.acknowledged() == (4 if qos == 1 else 5, 7)
        assert [message.payload for message in setup.entries()] == [b"first"]
        if qos == 2:
            client.send(release(7))
            assert await client.acknowledged() == (7, 7)
        await client.leave()

    in_house(scenario)


def test_a_repeated_qos_2_message_is_stored_once(in_house: InHouse) -> None:
    """PUBLISH sent again before PUBREL, on the same connection and after another one, makes one entry."""

    async def scenario(setup: Setup) -> None:
        client = await Client.connect(setup.port, "again", clean=False, username="me")
        client.send(publish("a", b"once", 2, 9))
        assert await client.acknowledged() == (5, 9)
        client.send(publish("a", b"once", 2, 9, dup=True))
        assert await client.acknowledged() == (5, 9)
        await client.vanish()
        client = await Client.connect(setup.port, "again", clean=False, username="me")
        client.send(publish("a", b"once", 2, 9, dup=True))
        assert await client.acknowledged() == (5, 9)
        client.send(release(9))
        while (await client.acknowledged())[0] != 7:
            pass
        await client.leave()

    setup = in_house(scenario)
    assert [message.payload for message in setup.entries()] == [b"once"]


def test_a_connection_lost_between_commit_and_pubcomp_stores_once(in_house: InHouse) -> None:
    """A QoS 2 message that was being released when its connection ended is not appended again on the next one."""

    async def scenario(setup: Setup) -> None:
        client = await Client.connect(setup.port, "unlucky", clean=False, username="me")
        client.send(publish("a", b"once", 2, 3))
        assert await client.acknowledged() == (5, 3)
        other = sqlite3.connect(setup.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        client.send(release(3))
        await setup.until(lambda: setup.plugin._group_commit.blocked)
        await client.vanish()
        await setup.broker.sessions["unlucky"][1]._reader_stopped.wait()
        other.execute("ROLLBACK")
        other.close()
        await setup.until_stored(1)
        client = await Client.connect(setup.port, "unlucky", clean=False, username="me")
        assert await client.acknowledged() == (5, 3)
        client.send(release(3))
        assert await client.acknowledged() == (7, 3)
        await client.leave()

    setup = in_house(scenario)
    assert [message.payload for message in setup.entries()] == [b"once"]


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_what_the_broker_refuses_is_not_stored(in_house: InHouse, qos: int, caplog: pytest.LogCaptureFixture) -> None:
    """Topics that are empty, begin with $ or are forbidden by a topic plugin leave no entry; others do, in order.

    What is forbidden is told once, and counted as denied.
    """

    async def scenario(setup: Setup) -> None:
        for number, topic in enumerate(("forbidden/a", "allowed/a", "$SYS/a", "")):
            client = await Client.connect(setup.port, f"client-{number}")
            for index in range(1, 4):
                client.send(publish(topic, b"%d" % index, qos, index))
                if qos == 2:
                    assert await client.acknowledged() == (5, index)
                    client.send(release(index))
                if qos:
                    assert await client.acknowledged() == (4 if qos == 1 else 7, index)
            await client.leave()
        await setup.until_stored(3)
        await setup.until_stored(4, DISCONNECT)

    with caplog.at_level(logging.INFO, "amqtt_db"):
        setup = in_house(scenario, plugins={f"{__name__}.Forbidding": {}})
    lines = [record.getMessage() for record in caplog.records]
    (denial,) = (line for line in lines if "may not publish" in line)
    assert denial == (
        "client 'client-0' may not publish to 'forbidden/a'; the message is not stored but counted as denied"
    )
    with closing(JournalReader(setup.path)) as reader:
        assert reader.notes(INTAKE_SCOPE) == {DENIED: b"3"}
    expected = [(b"allowed/a", b"%d" % index) for index in range(1, 4)]
    assert [(message.topic, message.payload) for message in setup.entries()] == expected


class Doorman(BaseAuthPlugin):
    """Lets in whoever is called Alice."""

    async def authenticate(self, *, session: Session) -> bool | None:
        """Ask for the name."""
        return session.username == "alice"


def test_who_comes_and_who_is_not_let_in_is_told(in_house: InHouse, caplog: pytest.LogCaptureFixture) -> None:
    """Each connection is a line when it begins and when it ends; failed logins are counted."""

    async def scenario(setup: Setup) -> None:
        for username in ("mallory", "alice"):
            reader, writer = await asyncio.open_connection("127.0.0.1", setup.port)
            writer.write(connect_packet("tester", username=username))
            code = (await reader.readexactly(4))[3]
            assert code == (0 if username == "alice" else 5)
            writer.close()
        await setup.until_stored(1, DISCONNECT)
        assert setup.plugin._refusals.logins_failed == 1

    with caplog.at_level(logging.INFO, "amqtt_db"):
        in_house(scenario, plugins={f"{__name__}.Doorman": {}})
    lines = [record.getMessage() for record in caplog.records if "client 'tester'" in record.getMessage()]
    assert lines[0] == "client 'tester' from 127.0.0.1 is not let in as user 'mallory'"
    assert re.fullmatch(r"client 'tester' connected from 127\.0\.0\.1:\d+ as user 'alice'", lines[1])
    assert lines[2:] == ["client 'tester' disconnected"]


@pytest.mark.parametrize("clean", [True, False])
def test_who_is_not_let_in_takes_nothing_from_the_client_of_that_name(in_house: InHouse, clean: bool) -> None:
    """Neither its connection, nor its subscriptions, nor its will; and no session is left of the stranger."""

    async def scenario(setup: Setup) -> None:
        alice = await Client.connect(setup.port, "one", clean=False, username="alice", will=("w", b"alice's", 1, False))
        alice.send(packet(0x82, b"\x00\x09" + text("a") + b"\x00"))
        assert await alice.acknowledged() == (9, 9)
        for name in ("one", "other"):
            will = ("w", b"mallory's", 1, False)
            mallory = await Client.connect(setup.port, name, clean=clean, username="mallory", will=will)
            assert await mallory.reader.read() == b""
            await mallory.vanish()
        alice.send(publish("a", b"still here"))
        assert (await alice.packet())[-10:] == b"still here"
        assert list(setup.broker.sessions) == ["one"]
        assert setup.plugin._refusals.logins_failed == 2
        await alice.vanish()
        await setup.until_stored(2)

    setup = in_house(scenario, plugins={f"{__name__}.Doorman": {}})
    assert [message.payload for message in setup.entries()] == [b"still here", b"alice's"]


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("topic", ["$x/a", ""])
def test_a_reserved_topic_is_counted_and_the_connection_stays_intact(
    in_house: InHouse, caplog: pytest.LogCaptureFixture, topic: str, qos: int
) -> None:
    """It is acknowledged, as MQTT 3.1.1 has no other answer; counted; logged once; the client is served as before."""

    async def scenario(setup: Setup) -> None:
        client = await Client.connect(setup.port, "reserved")
        for number in range(1, 4):
            client.send(publish(topic, b"x", qos, number))
            if qos == 2:
                assert await client.acknowledged() == (5, number)
                client.send(release(number))
            if qos:
                assert await client.acknowledged() == (4 if qos == 1 else 7, number)
        client.send(packet(0x82, b"\x00\x09" + text("a") + b"\x00"))
        assert await client.acknowledged() == (9, 9)
        client.send(publish("a", b"good"))
        assert (await client.packet())[-4:] == b"good"
        reader = JournalReader(setup.path)
        setup.plugin._group_commit.tick()
        await setup.until(lambda: reader.refused() == 3)
        reader.close()
        await client.leave()

    with caplog.at_level(logging.WARNING):
        setup = in_house(scenario)
    assert [message.payload for message in setup.entries()] == [b"good"]
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "is empty or begins with $" in line]) == 1


def test_an_ill_formed_topic_is_refused_and_its_sender_disconnected(
    in_house: InHouse, caplog: pytest.LogCaptureFixture
) -> None:
    """[MQTT-1.5.3-1]: no PUBACK, nothing stored of it, counted, told once; what came before is stored."""

    async def scenario(setup: Setup) -> None:
        for number in range(3):
            client = await Client.connect(setup.port, f"latin-{number}")
            client.send(publish("a", b"good", 1, 6))
            assert await client.acknowledged() == (4, 6)
            client.send(packet(0x32, text(b"haus/K\xfcche") + b"\x00\x07" + b"23.456789 degrees"))
            assert await client.reader.read() == b""
            await client.vanish()
        reader = JournalReader(setup.path)
        setup.plugin._group_commit.tick()
        await setup.until(lambda: reader.refused() == 3)
        reader.close()

    with caplog.at_level(logging.WARNING):
        setup = in_house(scenario)
    assert [message.payload for message in setup.entries()] == [b"good"] * 3
    lines = [record.getMessage() for record in caplog.records]
    assert len([line for line in lines if "not well-formed UTF-8" in line]) == 1


def test_a_malformed_packet_ends_its_connection(in_house: InHouse, caplog: pytest.LogCaptureFixture) -> None:
    """amqtt would take the next packet for a part of it, and answer nothing any more; what came before is stored."""
    malformed = (
        packet(0x30, b""), packet(0x32, b"\0\5a"), packet(0x40, b"\0"), packet(0x50, b""), packet(0x62, b"\0"),
        packet(0x82, b""), packet(0x82, b"\0\1"), packet(0x82, b"\0\1\0\x09topic"), packet(0x82, b"\0\1" + text("a")),
        packet(0xA2, b""), packet(0xC0, b"more"), packet(0xE0, b"more"), packet(0xF0, b"more"), packet(0x00, b""),
    )  # fmt: skip

    async def scenario(setup: Setup) -> None:
        for number, wrong in enumerate(malformed):
            client = await Client.connect(setup.port, f"client-{number}")
            client.send(publish("a", b"good", 1, 6))
            assert await client.acknowledged() == (4, 6)
            client.send(wrong)
            await asyncio.wait_for(client.reader.read(), SECONDS)  # until the end
            await client.vanish()

    with caplog.at_level(logging.WARNING):
        setup = in_house(scenario)
    assert [message.payload for message in setup.entries()] == [b"good"] * len(malformed)
    (line,) = (record.getMessage() for record in caplog.records)
    assert "sent a malformed packet and is disconnected" in line


@pytest.mark.parametrize(
    "options",
    [{"client_id": b"K\xfcche"}, {"username": b"K\xfcche"}, {"will": (b"K\xfcche", b"x", 1, False)}],
    ids=["client id", "user name", "will topic"],
)
def test_an_ill_formed_connect_is_refused_and_leaves_no_will(in_house: InHouse, options: dict[str, Any]) -> None:
    """[MQTT-1.5.3-1]: disconnected before its first message; others with odd but well-formed names are served."""

    async def scenario(setup: Setup) -> None:
        odd = await Client.connect(setup.port, "b'Küche'", username="b'\\x41'", will=("b'\\xzz'", b"odd", 1, False))
        client = await Client.connect(setup.port, **{"client_id": "latin", **options})
        client.send(publish("a", b"x", 1, 1))
        assert await client.reader.read() == b""
        await client.vanish()
        odd.send(publish("a", b"good", 1, 1))
        assert await odd.acknowledged() == (4, 1)
        await odd.leave()
        await setup.until_stored(2, DISCONNECT)

    assert [message.payload for message in in_house(scenario).entries()] == [b"good"]


def test_a_payload_beyond_the_limit_is_refused_and_counted(in_house: InHouse) -> None:
    """Before its body is read: the sender is disconnected, others are served."""

    async def scenario(setup: Setup) -> None:
        other = await Client.connect(setup.port, "other")
        client = await Client.connect(setup.port, "large")
        client.send(publish("a", bytes(2**20), 1, 1)[: 2**17])
        assert await client.reader.read() == b""
        other.send(publish("a", bytes(1000), 1, 1))
        assert await other.acknowledged() == (4, 1)
        assert setup.plugin._group_commit._journal.refused == 1
        client.writer.transport.abort()
        await other.leave()

    setup = in_house(scenario, max_payload=1000)
    assert [len(message.payload) for message in setup.entries()] == [1000]


def test_unfinished_packets_take_bounded_memory(tmp_path: Path) -> None:
    """20 clients send 20 MB of a PUBLISH of 200 MB and wait: the broker takes that of one, and gives it back."""
    setup = Setup(tmp_path, {}, {})
    part = publish("a", bytes(200_000_000), 1, 1)[:20_000_000]

    async def scenario(memory: Callable[[], int]) -> None:
        before = memory()
        clients = [await Client.connect(setup.port, f"client-{number}") for number in range(20)]
        for client in clients:
            client.send(part)
        sending = [asyncio.create_task(client.writer.drain()) for client in clients]
        await asyncio.wait(sending, return_when=asyncio.FIRST_COMPLETED)
        other = await Client.connect(setup.port, "other")
        other.send(publish("a", b"small", 1, 1))
        assert await other.acknowledged() == (4, 1)
        assert memory() - before < 80_000_000
        for task in sending:
            task.cancel()
        await asyncio.gather(*sending, return_exceptions=True)
        for client in clients:
            client.writer.transport.abort()
        await setup.until(lambda: memory() - before < 20_000_000)
        await other.leave()

    with running(setup) as child:
        assert child.stdout is not None
        child.stdout.readline()
        statm = Path(f"/proc/{child.pid}/statm")
        try:
            asyncio.run(scenario(lambda: int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")))
        finally:
            child.kill()


def test_a_subscriber_that_never_acknowledges_does_not_flood_the_log(
    in_house: InHouse, caplog: pytest.LogCaptureFixture
) -> None:
    """amqtt gives up each of 300 messages with two warnings and a traceback: one line of each kind is left."""

    async def scenario(setup: Setup) -> None:
        subscriber = await Client.connect(setup.port, "silent")
        subscriber.send(packet(0x82, b"\x00\x09" + text("a") + b"\x01"))
        assert await subscriber.acknowledged() == (9, 9)
        client = await Client.connect(setup.port, "busy")
        for number in range(1, 301):
            client.send(publish("a", b"x", 1, number))
            await client.acknowledged()
        handler = setup.broker.sessions["silent"][1]
        await setup.until(lambda: bool(handler._puback_waiters))
        await setup.until(lambda: not handler._puback_waiters)
        client.send(publish("a", b"x"))
        await client.leave()
        subscriber.writer.transport.abort()

    with caplog.at_level(logging.WARNING):
        in_house(scenario)
    places = [(record.pathname, record.lineno) for record in caplog.records if record.name.startswith("amqtt.")]
    assert places
    assert len(places) == len(set(places))


def test_a_retained_message_is_stored_once(in_house: InHouse) -> None:
    """The retain flag is kept, and a subscriber that gets the retained message later adds nothing."""

    async def scenario(setup: Setup) -> None:
        client = await Client.connect(setup.port, "retaining")
        client.send(publish("kept", b"x", 1, 1, retain=True))
        assert await client.acknowledged() == (4, 1)
        client.send(packet(0x82, b"\x00\x02" + text("kept") + b"\x00"))
        assert {(await client.packet())[0] >> 4 for _ in range(2)} == {9, 3}
        await client.leave()

    (message,) = in_house(scenario).entries()
    assert message.retain
    assert message.qos == 1


def test_a_will_is_stored(in_house: InHouse) -> None:
    """The will of a client that vanishes is stored with its connection; that of one that disconnects is not."""

    async def scenario(setup: Setup) -> None:
        await (await Client.connect(setup.port, "polite", will=("will/polite", b"-", 1, False))).leave()
        await setup.until_stored(1, DISCONNECT)
        await (await Client.connect(setup.port, "rude", will=("will/rude", b"gone", 1, True))).vanish()
        await setup.until_stored(2, DISCONNECT)

    setup = in_house(scenario)
    (will,) = setup.entries()
    assert (will.topic, will.payload, will.qos, will.retain) == (b"will/rude", b"gone", 1, True)
    assert will.session == setup.entries(CONNECT)[1].position


def test_connections_are_journaled(in_house: InHouse) -> None:
    """A connection's entries say who it was, from where; its messages and its end name it."""
    ports = []

    async def scenario(setup: Setup) -> None:
        for number in range(2):
            client = await Client.connect(setup.port, "me", clean=False, keep_alive=17, username="user")
            ports.append(client.writer.get_extra_info("sockname")[1])
            client.send(publish("a", b"%d" % number, 1, 1))
            await client.acknowledged()
            await client.leave()
            await setup.until_stored(number + 1, DISCONNECT)

    setup = in_house(scenario)
    connects = setup.entries(CONNECT)
    expected = {"client_id": "me", "username": "user", "address": "127.0.0.1", "keep_alive": 17, "clean_session": False}
    assert [orjson.loads(entry.payload) for entry in connects] == [{**expected, "port": port} for port in ports]
    assert [message.session for message in setup.entries()] == [entry.position for entry in connects]
    assert [message.session for message in setup.entries(DISCONNECT)] == [entry.position for entry in connects]
    assert len(setup.entries(START)) == 1


@pytest.mark.parametrize("clean", [True, False])
def test_a_take_over_ends_the_old_connection_only(in_house: InHouse, clean: bool) -> None:
    """A client that connects again while connected: the new connection stays open, its messages belong to it."""

    async def scenario(setup: Setup) -> None:
        old = await Client.connect(setup.port, "twin", clean=clean, username="user")
        new = await Client.connect(setup.port, "twin", clean=clean, username="user")
        await old.vanish()
        first, second = await setup.until_stored(2, CONNECT)
        (end,) = await setup.until_stored(1, DISCONNECT)
        assert end.session == first.position
        new.send(publish("a", b"x", 1, 1))
        await new.acknowledged()
        assert setup.entries()[0].session == second.position
        assert len(setup.entries(DISCONNECT)) == 1
        await new.leave()
        assert (await setup.until_stored(2, DISCONNECT))[1].session == second.position

    in_house(scenario)


def test_a_shutdown_ends_the_connections(in_house: InHouse) -> None:
    """Connections that are open when the broker stops are closed in the journal."""

    async def scenario(setup: Setup) -> None:
        await Client.connect(setup.port, "staying")
        await setup.until_stored(1, CONNECT)

    setup = in_house(scenario)
    assert [end.session for end in setup.entries(DISCONNECT)] == [setup.entries(CONNECT)[0].position]


def test_a_full_journal_holds_back_and_recovers(in_house: InHouse, caplog: pytest.LogCaptureFixture) -> None:
    """Full: QoS 1 is not acknowledged, QoS 0 counted as refused, one line; trimmed: it goes on by itself."""

    async def scenario(setup: Setup) -> None:
        client = await Client.connect(setup.port, "much")
        sent = 0
        while not setup.plugin._group_commit.blocked:
            sent += 1
            client.send(publish("a", bytes(1000), 1, sent))
            assert await client.acknowledged() == (4, sent)
        client.send(*(publish("a", b"waiting", 1, sent + number) for number in range(1, 6)))
        client.send(*(publish("a", b"refused") for _ in range(3)))
        await client.ping()
        await client.ping()
        stored = setup.entries()
        assert len(stored) == sent
        reader = JournalReader(setup.path)
        write_progress(setup.path, reader.generations()[0].token, stored[-1].position + 1)
        assert sorted([await client.acknowledged() for _ in range(5)]) == [(4, sent + n) for n in range(1, 6)]
        assert [message.payload for message in setup.entries()][-5:] == [b"waiting"] * 5
        await setup.until(lambda: reader.refused() == 3)
        reader.close()
        await client.leave()

    with caplog.at_level(logging.WARNING, "amqtt_db"):
        in_house(scenario, max_size=20_000)
    lines = [record.message for record in caplog.records if record.name.startswith("amqtt_db")]
    assert len(lines) == 2
    assert "is full" in lines[0]
    assert "3 messages refused in the meantime" in lines[1]


def test_a_full_disk_holds_back_and_recovers(in_house: InHouse, caplog: pytest.LogCaptureFixture) -> None:
    """SQLite has no more pages: no acknowledgement, QoS 0 counted, one line; with space again everything is stored."""

    async def scenario(setup: Setup) -> None:
        client = await Client.connect(setup.port, "much")
        await setup.until_stored(1, CONNECT)
        group_commit = setup.plugin._group_commit
        group_commit._journal._connection.execute("PRAGMA max_page_count = 1")
        client.send(publish("a", bytes(30_000), 1, 1))
        await setup.until(lambda: group_commit.blocked)
        client.send(publish("a", b"waiting", 1, 2), publish("a", b"refused"))
        await client.ping()
        assert setup.entries() == []
        group_commit._journal._connection.execute("PRAGMA max_page_count = 1000000")
        assert sorted([await client.acknowledged() for _ in range(2)]) == [(4, 1), (4, 2)]
        assert [len(message.payload) for message in setup.entries()] == [30_000, 7]
        await client.leave()

    with caplog.at_level(logging.WARNING, "amqtt_db"):
        in_house(scenario)
    lines = [record.message for record in caplog.records if record.name.startswith("amqtt_db")]
    assert len(lines) == 2
    assert "database or disk is full; free some space" in lines[0]
    assert "can be written again; 1 message refused in the meantime" in lines[1]


def test_a_client_that_vanishes_takes_nobody_with_it(in_house: InHouse) -> None:
    """If one of two clients waiting for a commit disconnects, the other is acknowledged and both are stored."""

    async def scenario(setup: Setup) -> None:
        one, two = [await Client.connect(setup.port, name) for name in ("one", "two")]
        await setup.until_stored(2, CONNECT)
        other = sqlite3.connect(setup.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        one.send(publish("one", b"", 1, 1))
        two.send(publish("two", b"", 1, 1))
        await asyncio.gather(one.ping(), two.ping())
        handler = setup.broker.sessions["one"][1]
        await one.vanish()
        await handler._reader_stopped.wait()
        other.execute("ROLLBACK")
        other.close()
        assert await two.acknowledged() == (4, 1)
        await two.leave()

    setup = in_house(scenario)
    assert sorted(message.topic for message in setup.entries()) == [b"one", b"two"]


def test_a_shutdown_does_not_wait_for_a_journal_that_cannot_be_written(
    in_house: InHouse, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker stops despite a message that cannot be committed, and logs what is not stored."""
    holders = []

    async def scenario(setup: Setup) -> None:
        client = await Client.connect(setup.port, "waiting")
        await setup.until_stored(1, CONNECT)
        other = sqlite3.connect(setup.path, isolation_level=None)
        holders.append(other)
        other.execute("BEGIN IMMEDIATE")
        client.send(publish("a", b"x", 1, 1))
        await setup.until(lambda: setup.plugin._group_commit.blocked)
        client.send(publish("a", b"x", 1, 2))
        await client.ping()

    setup = in_house(scenario)
    holders[0].close()
    assert "could not be written before it was closed" in caplog.text
    assert setup.entries() == []


def test_what_comes_after_the_end_holds_nobody_up(in_house: InHouse) -> None:
    """A message that arrives after the journal is closed is not acknowledged, and nothing waits for it."""

    async def scenario(setup: Setup) -> None:
        group_commit = setup.plugin._group_commit
        await setup.plugin.close()
        with pytest.raises(asyncio.CancelledError):
            await group_commit.append(2, 1, 0, b"t", b"late")

    in_house(scenario)


def test_a_sender_is_held_back_while_the_journal_is_full(in_house: InHouse) -> None:
    """Of 20 MB that cannot be taken no more than a bounded part is read; once there is room, all of it is stored."""

    async def scenario(setup: Setup) -> None:
        client = await Client.connect(setup.port, "hog")
        client.send(publish("a", bytes(30_000), 1, 1))
        await client.acknowledged()
        assert setup.plugin._group_commit.blocked
        count, size = 20, 1_000_000
        client.send(*(publish("a", bytes([number]) * size, 1, number) for number in range(2, count + 2)))
        await setup.until(lambda: setup.plugin._group_commit.gate.closed)
        held = setup.plugin._group_commit._held
        assert held < 8_000_000
        setup.plugin._group_commit._journal.max_size = 2**30
        assert sorted([(await client.acknowledged())[1] for _ in range(count)]) == list(range(2, count + 2))
        await client.leave()

    setup = in_house(scenario, max_size=20_000)
    assert sorted(message.payload[0] for message in setup.entries()) == [0, *range(2, 22)]


def test_a_slow_disk_does_not_stop_the_loop(in_house: InHouse) -> None:
    """A thread does slow commits; acknowledgements still wait for them, and nothing is lost."""

    async def scenario(setup: Setup) -> None:
        group_commit = setup.plugin._group_commit
        group_commit._slow, group_commit._seconds = True, 10.0
        await asyncio.gather(*(leave_at_once(setup.port, number, 1, 100) for number in range(5)))
        assert group_commit._slow
        assert len(setup.entries()) == 500

    in_house(scenario)


def test_settings_that_are_wrong_are_told_in_full(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """amqtt passes on no more than a class name, so the whole text is in the log."""

    async def start(journal: dict[str, Any]) -> None:
        Broker(Setup(tmp_path, journal, {}).config)

    with pytest.raises(PluginInitError):
        asyncio.run(start({"sync": "sometimes"}))
    assert "plugins.amqtt_db.Plugin.journal.sync" in caplog.text
    caplog.clear()
    with pytest.raises(PluginInitError):
        asyncio.run(start({"path": str(tmp_path / "nowhere" / "journal")}))
    assert "check that its directory exists" in caplog.text


def test_the_broker_needs_no_sqlalchemy(tmp_path: Path) -> None:
    """A running broker with the plugin has not imported SQLAlchemy."""
    with running(Setup(tmp_path, {}, {})) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "False\n"
        child.kill()


def test_a_killed_broker_keeps_what_it_acknowledged(tmp_path: Path) -> None:
    """kill -9 under load: every message with a PUBACK is in the journal once, and the next broker goes on."""
    setup = Setup(tmp_path, {}, {})
    acknowledged: list[int] = []

    async def load(kill: Callable[[], None]) -> None:
        client = await Client.connect(setup.port, "loader")
        client.send(*(publish("a", b"%d" % index, 1, index) for index in range(1, 5001)))
        try:
            while True:
                acknowledged.append((await client.acknowledged())[1])
                if len(acknowledged) == 1000:
                    kill()
        except (asyncio.IncompleteReadError, ConnectionError):
            client.writer.transport.abort()

    with running(setup) as child:
        assert child.stdout is not None
        child.stdout.readline()
        asyncio.run(load(child.kill))
    stored = [int(message.payload) for message in setup.entries()]
    assert len(acknowledged) >= 1000
    assert set(acknowledged) <= set(stored)
    assert len(stored) == len(set(stored))
    journal = Journal.open(setup.path, max_size=2**30, sync="always")
    assert journal.next > len(stored)
    journal.close()
