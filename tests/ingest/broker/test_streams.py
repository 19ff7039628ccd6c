"""A connection's reader: what amqtt reads is what was sent, whatever pieces it arrives in."""

from __future__ import annotations

import asyncio

import pytest
from amqtt.adapters import StreamReaderAdapter
from amqtt.errors import MQTTError, NoDataError
from amqtt.mqtt.packet import MQTTFixedHeader
from amqtt.mqtt.publish import PublishPacket

from amqtt_db.ingest.broker import streams
from amqtt_db.ingest.broker.streams import GatedReader
from amqtt_db.ingest.gate import BackpressureGate, MemoryBudget
from tests.ingest.broker.mqtt import packet, publish, release, text

MESSAGE = b"\x32\x0b\x00\x03a/b\x00\x07text"
BIG = b"\x30\x84\x80\x10\x00\x02xy" + bytes(2**18)


def gated(
    stream: asyncio.StreamReader,
    gate: BackpressureGate | None = None,
    *,
    budget: int = 2**30,
    max_payload: int = 2**28,
    refused: list[str] | None = None,
) -> GatedReader:
    """A gated reader of a stream; ``refused`` gets the reasons of what it refuses."""
    note = ([] if refused is None else refused).append
    return GatedReader(StreamReaderAdapter(stream), gate or BackpressureGate(), MemoryBudget(budget), max_payload, note)


async def packets(reader: GatedReader) -> list[PublishPacket]:
    """Return the packets that amqtt reads from a stream until its end."""
    found = []
    while (header := await MQTTFixedHeader.from_stream(reader)) is not None:
        found.append(await PublishPacket.from_stream(reader, fixed_header=header))
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 13, 1000, 10**6])
def test_packets_are_the_same_in_pieces_of_any_size(size: int) -> None:
    """Small and big packets, cut anywhere."""

    async def scenario() -> None:
        stream = asyncio.StreamReader()
        reading = asyncio.create_task(packets(gated(stream)))
        data = 5 * MESSAGE + (BIG + MESSAGE) * (size > 100)
        for start in range(0, len(data), size):
            stream.feed_data(data[start : start + size])
            await asyncio.sleep(0)
        stream.feed_eof()
        found = await reading
        assert b"".join(packet.to_bytes() for packet in found) == data

    asyncio.run(scenario())


def test_a_stream_that_ends_within_a_packet_has_no_more_data() -> None:
    """The end comes as amqtt knows it, after the tasks that it has started have run."""

    async def scenario() -> None:
        stream = asyncio.StreamReader()
        stream.feed_data(MESSAGE + MESSAGE[:-1])
        stream.feed_eof()
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        with pytest.raises(NoDataError):
            await packets(gated(stream))
        counting.cancel()
        assert turns >= 2

    asyncio.run(scenario())


def test_a_reading_that_is_given_up_loses_nothing() -> None:
    """amqtt gives up waiting for a packet when the keep-alive time is over; the packet may still come."""

    async def scenario() -> None:
        stream = asyncio.StreamReader()
        reader = gated(stream)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(MQTTFixedHeader.from_stream(reader), 0.01)
        stream.feed_data(MESSAGE)
        stream.feed_eof()
        assert [packet.data for packet in await packets(reader)] == [b"text"]

    asyncio.run(scenario())


def test_a_connection_that_breaks_is_told() -> None:
    """An error of the connection reaches amqtt."""

    async def scenario() -> None:
        stream = asyncio.StreamReader()
        stream.set_exception(ConnectionResetError())
        with pytest.raises(ConnectionResetError):
            await gated(stream).read(1)

    asyncio.run(scenario())


def test_an_idle_connection_holds_nothing() -> None:
    """Bytes that amqtt has read are not kept until the next message comes."""

    async def scenario() -> None:
        stream = asyncio.StreamReader()
        reader = gated(stream)
        stream.feed_data(BIG)
        header = await MQTTFixedHeader.from_stream(reader)
        await PublishPacket.from_stream(reader, fixed_header=header)
        assert reader._held == b""

    asyncio.run(scenario())


def test_a_length_that_goes_on_is_given_up_as_amqtt_does() -> None:
    """amqtt discards such a packet and reads on at a new header; so the gate knows where a PUBLISH begins."""

    async def scenario() -> None:
        stream, gate = asyncio.StreamReader(), BackpressureGate()
        reader = gated(stream, gate)
        stream.feed_data(b"\xc0\xff\xff\xff\xff" + MESSAGE)
        with pytest.raises(MQTTError):
            await MQTTFixedHeader.from_stream(reader)
        gate.close()
        header = await MQTTFixedHeader.from_stream(reader)
        body = asyncio.create_task(PublishPacket.from_stream(reader, fixed_header=header))
        await asyncio.sleep(0.01)
        assert not body.done()
        gate.open()
        assert (await body).to_bytes() == MESSAGE

    asyncio.run(scenario())


def test_a_closed_gate_stops_bodies_of_publish_only() -> None:
    """Headers and other packets pass a closed gate, a PUBLISH body waits, and its end is where the next begins."""

    async def scenario() -> None:
        gate = BackpressureGate()
        gate.close()
        ping, message, last = b"\xc0\x00", publish("a", bytes(200)), publish("b", b"x")
        stream = asyncio.StreamReader()
        stream.feed_data(ping + release(1) + message + last)
        reader = gated(stream, gate)
        assert await reader.read(1) + await reader.read(1) == ping
        assert await reader.read(1) + await reader.read(1) + await reader.read(2) == release(1)
        assert [await reader.read(1) for _ in range(3)] == [b"\x30", b"\xcb", b"\x01"]
        length = asyncio.create_task(reader.read(2))
        for _ in range(5):
            await asyncio.sleep(0)
        assert not length.done()
        gate.open()
        assert await length + await reader.read(1) + await reader.read(200) == message[3:]
        gate.close()
        assert await reader.read(1) + await reader.read(1) == last[:2]

    asyncio.run(scenario())


BAD_PACKETS = {
    "ill-formed UTF-8": packet(0x32, text(b"haus/K\xfcche") + b"\x00\x07" + b"23.456789 degrees"),
    "a null character": packet(0x32, text(b"a\0b") + b"\x00\x07x"),
    "a surrogate": packet(0x30, text(b"\xed\xa0\x80") + b"x"),
    "a wildcard": packet(0x30, text(b"a/+/b") + publish("smuggled", b"x")),
    "another wildcard": packet(0x30, text(b"a/#") + b"x"),
    "a topic longer than the packet": packet(0x30, b"\x00\x09short"),
    "no room for the packet identifier": packet(0x32, text(b"topic") + b"\x00"),
    "QoS 3": packet(0x36, text(b"topic") + b"\x00\x07x"),
    "a payload that is too large": publish("topic", bytes(1001), 1, 7),
}


@pytest.mark.parametrize("kind", BAD_PACKETS)
def test_a_publish_that_no_broker_may_accept_ends_the_stream(kind: str) -> None:
    """Earlier packets are read, later ones are not, and the reason is reported once."""

    async def scenario() -> None:
        stream, refused = asyncio.StreamReader(), list[str]()
        stream.feed_data(MESSAGE + BAD_PACKETS[kind] + MESSAGE)
        reader = gated(stream, max_payload=1000, refused=refused)
        header = await MQTTFixedHeader.from_stream(reader)
        assert (await PublishPacket.from_stream(reader, fixed_header=header)).data == b"text"
        header = await MQTTFixedHeader.from_stream(reader)
        with pytest.raises(NoDataError):
            await PublishPacket.from_stream(reader, fixed_header=header)
        assert await MQTTFixedHeader.from_stream(reader) is None
        assert len(refused) == 1

    asyncio.run(scenario())


def test_a_payload_of_exactly_the_limit_is_taken() -> None:
    """At each QoS."""

    async def scenario() -> None:
        stream, refused = asyncio.StreamReader(), list[str]()
        for qos in range(3):
            stream.feed_data(publish("topic", bytes(1000), qos, 7))
        stream.feed_eof()
        assert len(await packets(gated(stream, max_payload=1000, refused=refused))) == 3
        assert refused == []

    asyncio.run(scenario())


@pytest.mark.parametrize("size", [100, 2**20])
def test_a_body_that_stops_ends_the_stream(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a packet and then silence: refused once the time is over; an idle connection between packets is not."""
    monkeypatch.setattr(streams, "_SILENCE_SECONDS", 0.05)

    async def scenario() -> None:
        stream, refused = asyncio.StreamReader(), list[str]()
        reader = gated(stream, refused=refused)
        idle = asyncio.create_task(MQTTFixedHeader.from_stream(reader))
        await asyncio.sleep(0.2)
        assert not idle.done()
        stream.feed_data(publish("topic", bytes(size))[: size // 2])
        with pytest.raises(NoDataError):
            await PublishPacket.from_stream(reader, fixed_header=await idle)
        assert await MQTTFixedHeader.from_stream(reader) is None
        assert len(refused) == 1

    asyncio.run(scenario())


def test_a_large_body_that_trickles_ends_the_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some bytes now and then keep no budget forever."""
    monkeypatch.setattr(streams, "_SILENCE_SECONDS", 0.1)
    monkeypatch.setattr(streams, "_SLOWEST", 2**30)

    async def scenario() -> None:
        stream, refused = asyncio.StreamReader(), list[str]()
        reader = gated(stream, refused=refused)
        stream.feed_data(publish("topic", bytes(2**20))[:100])
        reading = asyncio.create_task(packets(reader))
        while not refused:
            stream.feed_data(b"x")
            await asyncio.sleep(0.02)
        await asyncio.wait([reading])
        assert isinstance(reading.exception(), NoDataError)

    asyncio.run(scenario())


def test_large_bodies_wait_until_the_budget_has_room() -> None:
    """Of two that do not fit together the second is read after the first; one that is cancelled gives way."""

    async def scenario() -> None:
        budget, refused = MemoryBudget(3 * 2**19), list[str]()
        data = publish("topic", bytes(2**20))
        senders = [asyncio.StreamReader() for _ in range(3)]
        readers = [
            GatedReader(StreamReaderAdapter(stream), BackpressureGate(), budget, 2**28, refused.append)
            for stream in senders
        ]
        for stream in senders:
            stream.feed_data(data[:1000])
        first, second, third = (asyncio.create_task(packets(reader)) for reader in readers)
        await asyncio.sleep(0.01)
        assert budget._used == len(data) - 11
        second.cancel()
        for stream in (senders[0], senders[2]):
            stream.feed_data(data[1000:])
            stream.feed_eof()
        assert [len(await reading) for reading in (first, third)] == [1, 1]
        assert budget._used == 0
        assert not budget._waiting

    asyncio.run(scenario())
