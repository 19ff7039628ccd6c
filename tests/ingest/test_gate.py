"""A connection's reader: what amqtt reads is what was sent, whatever pieces it arrives in."""

from __future__ import annotations

import asyncio

import pytest
from amqtt.adapters import StreamReaderAdapter
from amqtt.errors import MQTTError, NoDataError
from amqtt.mqtt.packet import MQTTFixedHeader
from amqtt.mqtt.publish import PublishPacket

from amqtt_db.ingest.broker.streams import GatedReader
from amqtt_db.ingest.gate import BackpressureGate

MESSAGE = b"\x32\x0b\x00\x03a/b\x00\x07text"
BIG = b"\x30\x84\x80\x10\x00\x02xy" + bytes(2**18)


async def packets(reader: GatedReader) -> list[PublishPacket]:
    """What amqtt makes of a stream until its end."""
    found = []
    while (header := await MQTTFixedHeader.from_stream(reader)) is not None:
        found.append(await PublishPacket.from_stream(reader, fixed_header=header))
    return found


@pytest.mark.parametrize("size", [1, 2, 3, 7, 13, 1000, 10**6])
def test_packets_are_the_same_in_pieces_of_any_size(size: int) -> None:
    """Small and big packets, cut anywhere."""

    async def scenario() -> None:
        stream = asyncio.StreamReader()
        reading = asyncio.create_task(packets(GatedReader(StreamReaderAdapter(stream), BackpressureGate())))
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
            await packets(GatedReader(StreamReaderAdapter(stream), BackpressureGate()))
        counting.cancel()
        assert turns >= 2

    asyncio.run(scenario())


def test_a_reading_that_is_given_up_loses_nothing() -> None:
    """amqtt gives up waiting for a packet when the keep-alive time is over; the packet may still come."""

    async def scenario() -> None:
        stream = asyncio.StreamReader()
        reader = GatedReader(StreamReaderAdapter(stream), BackpressureGate())
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
            await GatedReader(StreamReaderAdapter(stream), BackpressureGate()).read(1)

    asyncio.run(scenario())


def test_an_idle_connection_holds_nothing() -> None:
    """What amqtt has read is not kept until the next message comes."""

    async def scenario() -> None:
        stream = asyncio.StreamReader()
        reader = GatedReader(StreamReaderAdapter(stream), BackpressureGate())
        stream.feed_data(BIG)
        header = await MQTTFixedHeader.from_stream(reader)
        await PublishPacket.from_stream(reader, fixed_header=header)
        assert reader._held == b""

    asyncio.run(scenario())


def test_a_length_that_goes_on_is_given_up_as_amqtt_does() -> None:
    """amqtt discards such a packet and reads on at a new header; so the gate knows where a PUBLISH begins."""

    async def scenario() -> None:
        stream, gate = asyncio.StreamReader(), BackpressureGate()
        reader = GatedReader(StreamReaderAdapter(stream), gate)
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
