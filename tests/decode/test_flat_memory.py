"""Decoders hold on to nothing: memory is flat, over a million messages of each with ``--codec-messages 1000000``."""

from __future__ import annotations

import gc
import gzip
import os
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from types import GeneratorType
from typing import Any, Final

import bson
import cbor2
import msgpack
import orjson
import pytest
from google.protobuf import descriptor_pb2

from amqtt_db.decode import Arrival, RememberingDecoder, resolve
from tests.decode.edge_node import EdgeNode
from tests.decode.protos import add_field, descriptor_set, message_class
from tests.decode.test_avro import in_file, written
from tests.decode.vectors import plain_decoder

GROWTH: Final = 6 * 2**20
"""Bytes that the process may grow by: less than eight for each of a million messages."""

PAGE: Final = os.sysconf("SC_PAGE_SIZE")
SCHEMA: Final = {
    "type": "record",
    "name": "Reading",
    "fields": [{"name": "n", "type": "long"}, {"name": "name", "type": "string"}],
}

Write = Callable[[int], bytes]
"""Makes the payload with a number."""


def _reading(number: int) -> dict[str, Any]:
    return {"n": number, "name": f"sensor {number}", "value": number / 7, "ok": True}


PAYLOADS: Final[Mapping[str, Write]] = {
    "json": lambda n: orjson.dumps({f"p{n}": n, **_reading(n)}),
    "auto": lambda n: f"text {n}".encode(),
    "text": lambda n: f"text {n}".encode(),
    "msgpack": lambda n: msgpack.packb({f"p{n}": n, **_reading(n)}),
    "cbor": lambda n: cbor2.dumps({f"p{n}": [n], **_reading(n)}),
    "bson": lambda n: bson.encode({f"p{n}": n, **_reading(n)}),
    "influx": lambda n: b"m%d,tag=%d value=%d,f%d=2 17000%08d000000" % (n, n, n, n, n % 10**8),
    "csv": lambda n: b'name,p%d\n"sensor",%d\nother,%d' % (n, n, n),
    "tsv": lambda n: b"name\tp%d\nsensor\t%d" % (n, n),
    "senml": lambda n: orjson.dumps([{"bn": f"s{n}:", "n": "t", "v": n}, {"n": f"u{n}", "vs": "x"}]),
    "cayenne": lambda n: struct.pack(">BBh", n % 256, 0x67, n % 1000),
    "xml": lambda n: f"<r><p{n} at='{n}'>{n}</p{n}></r>".encode(),
    "gzip": lambda n: gzip.compress(f"text {n}".encode(), 1),
}


def _grown_by(decode: Callable[[int], object], count: int) -> int:
    """Return how many bytes the process has grown by, after its first hundreds of messages."""
    begun = max(500, count // 5)
    for number in range(begun):
        decode(number)
    gc.collect()
    before = _resident()
    for number in range(begun, begun + count):
        decode(number)
    gc.collect()
    return _resident() - before


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@pytest.fixture
def count(request: pytest.FixtureRequest) -> int:
    """How many messages each decoder gets."""
    return int(request.config.getoption("--codec-messages"))


@pytest.mark.parametrize("name", PAYLOADS)
def test_memory_is_flat(name: str, count: int) -> None:
    """With ever-new names and values."""
    decode, write = plain_decoder(name), PAYLOADS[name]
    assert _grown_by(lambda number: _exhaust(decode(write(number))), count) < GROWTH


def _exhaust(data: Any) -> None:
    for _ in data if isinstance(data, GeneratorType) else ():
        pass


def test_memory_is_flat_with_a_schema(count: int, tmp_path: Path) -> None:
    """Avro."""
    decode = plain_decoder(in_file(tmp_path, SCHEMA))
    assert _grown_by(lambda n: decode(written(SCHEMA, {"n": n, "name": f"sensor {n}"})), count) < GROWTH


def test_memory_is_flat_with_descriptors(count: int, tmp_path: Path) -> None:
    """Protobuf."""
    file = descriptor_pb2.FileDescriptorProto(name="reading.proto", package="plant", syntax="proto3")
    message = file.message_type.add(name="Reading")
    add_field(message, 1, "n", "int64")
    add_field(message, 2, "name", "string")
    (tmp_path / "plant.desc").write_bytes(descriptor_set(file))
    spec = {"protobuf": {"descriptors": str(tmp_path / "plant.desc"), "message": "plant.Reading"}}
    decode, cls = plain_decoder(spec), message_class(file, "plant.Reading")
    assert _grown_by(lambda n: decode(cls(n=n, name=f"sensor {n}").SerializeToString()), count) < GROWTH


def test_memory_is_flat_for_sparkplug(count: int) -> None:
    """A hundred edge nodes, which are born again with other aliases every now and then."""
    decoder = resolve("sparkplug", where="decode")
    memory: dict[str, str] = {}
    assert isinstance(decoder, RememberingDecoder)
    nodes = [EdgeNode({"": {"a": "Int32", "b": "String"}}, name=f"E{number}") for number in range(100)]

    def decode(number: int) -> None:
        node = nodes[number % 100]
        if number < 100 or number % 1009 == 0:
            node.first_alias = number
            topic, payload = node.birth(a=-7, b=f"text {number}")
        else:
            topic, payload = node.data(a=7, b=f"text {number}")
        found = decoder.decode(Arrival(topic, payload, {}, number), decoder.names(topic), memory)
        memory.update(found.changes)

    assert _grown_by(decode, count) < GROWTH
