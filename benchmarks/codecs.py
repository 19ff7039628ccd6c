"""Microseconds per payload for each decoder, beside a library's own decoding of the same bytes.

usage: python benchmarks/codecs.py [--rounds 5] [--times 20000] [--json FILE]

The payloads hold the same values: a room, three numbers, an integer, true or false, and a time.  The library is the one
that a program without this project would use; where there is none, only our own figure is shown.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from importlib import import_module
from io import BytesIO, StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from timeit import timeit
from typing import Any

import bson
import cbor2
import fastavro
import msgpack
import orjson
import xmltodict
from cayennelpp import LppFrame
from common import show_and_save
from google.protobuf import json_format, timestamp_pb2

from amqtt_db.decode import Arrival, Decoder, RememberingDecoder, resolve
from amqtt_db.decode.sparkplug.layout import make_payload_class

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.decode.edge_node import EdgeNode
from tests.decode.protos import add_field, descriptor_set, message_class, pb

WIDTHS = (-16, 10, 10, 8, 12)
SECONDS = 1_700_000_000
READING = {"room": "kitchen", "temp": 21.5, "rh": 46.25, "press": 1013.2, "seq": 123_456, "ok": True}
WITH_TIME = {**READING, "time": SECONDS}
MOMENT = datetime.fromtimestamp(SECONDS, timezone.utc)

Codec = tuple[str, Any, bytes, Callable[[bytes], Any] | None]
"""A name, the decoder or its spec, a payload, and what a library makes of it."""

BSON_OPTIONS: Any = bson.CodecOptions(tz_aware=True)  # as every program needs that is to tell times apart


def main(arguments: Sequence[str] | None = None) -> None:
    """Time each decoder and print its figures."""
    parser = argparse.ArgumentParser(description="Microseconds per payload.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--times", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as directory:
        rows = (measure(codec, options.rounds, options.times) for codec in codecs(Path(directory)))
        show_and_save(rows, WIDTHS, options.json)


def measure(codec: Codec, rounds: int, times: int) -> dict[str, Any]:
    """Return the best of some rounds, in which the decoder and the library take turns."""
    name, spec, payload, library = codec
    decode = spec if callable(spec) else resolve(spec, where="decode")
    decode(payload)
    ours, theirs = [], []
    for _ in range(rounds):
        ours.append(timeit(lambda: decode(payload), number=times, timer=process_time) / times * 10**6)
        if library is not None:
            theirs.append(timeit(lambda: library(payload), number=times, timer=process_time) / times * 10**6)
    own, other = min(ours), min(theirs, default=None)
    ratio = own / other if other else None
    return {"decoder": name, "ours": own, "library": other, "ratio": ratio, "messages/s": 10**6 / own}


def codecs(directory: Path) -> Iterator[Codec]:
    """Yield each decoder with a payload."""
    yield "json", "json", orjson.dumps(WITH_TIME), orjson.loads
    yield "msgpack", "msgpack", msgpack.packb(WITH_TIME), msgpack.unpackb
    yield "cbor", "cbor", cbor2.dumps(WITH_TIME), cbor2.loads
    yield "bson", "bson", bson.encode({**READING, "time": MOMENT}), lambda given: bson.decode(given, BSON_OPTIONS)
    line = b"climate,room=kitchen temp=21.5,rh=46.25,press=1013.2,seq=123456i,ok=true %d000000000" % SECONDS
    yield "influx", "influx", line, line_parser()
    table = ",".join(WITH_TIME).encode() + b"\n" + ",".join(map(str, WITH_TIME.values())).encode()
    yield "csv", "csv", table, lambda payload: list(csv.DictReader(StringIO(payload.decode())))
    yield (
        "csv, as text",
        {"csv": {"numbers": False}},
        table,
        lambda given: list(csv.DictReader(StringIO(given.decode()))),
    )
    pack = [{"bn": "kitchen:", "bt": SECONDS, "n": "temp", "u": "Cel", "v": 21.5}]
    yield "senml", "senml", orjson.dumps(pack), orjson.loads
    yield (
        "cayenne",
        "cayenne",
        bytes.fromhex("036700d704685c0573279406020064070001"),
        (lambda payload: [data.value for data in LppFrame.from_bytes(payload).data]),
    )
    xml = "".join(f"<{name}>{value}</{name}>" for name, value in WITH_TIME.items())
    yield "xml", "xml", f"<r>{xml}</r>".encode(), xmltodict.parse
    yield avro(directory)
    yield protobuf(directory)
    yield sparkplug()


def sparkplug() -> Codec:
    """Return Sparkplug's data of six metrics by alias; the library makes JSON of it, without names and types."""
    node = EdgeNode(
        {"": {"room": "String", "temp": "Float", "rh": "Float", "press": "Double", "seq": "Int32", "ok": "Boolean"}}
    )
    decoder, memory = resolve("sparkplug", where="decode"), {}
    assert isinstance(decoder, RememberingDecoder)
    for topic, payload in (node.birth(**READING), node.data(**READING)):
        names = decoder.names(topic)
        memory.update(decoder.decode(Arrival(topic, payload), names, memory).changes)
    cls = make_payload_class()
    decode: Decoder = lambda given: decoder.decode(Arrival(topic, given), names, memory)  # noqa: E731
    return "sparkplug", decode, payload, lambda given: json_format.MessageToDict(cls.FromString(given))


def line_parser() -> Callable[[bytes], Any] | None:
    """Return the parser of line protocol written in C, if it is installed."""
    try:
        parse = import_module("line_protocol_parser").parse_line
    except ImportError:
        return None
    return lambda payload: parse(payload.decode())


def avro(directory: Path) -> Codec:
    """Return Avro with a schema in a file."""
    types = ("string", "double", "double", "double", "long", "boolean")
    fields: list[dict[str, Any]] = [{"name": name, "type": kind} for name, kind in zip(READING, types, strict=True)]
    fields.append({"name": "time", "type": {"type": "long", "logicalType": "timestamp-millis"}})
    schema = {"type": "record", "name": "Reading", "fields": fields}
    (directory / "reading.avsc").write_text(json.dumps(schema))
    parsed, out = fastavro.parse_schema(schema), BytesIO()
    fastavro.schemaless_writer(out, parsed, {**READING, "time": MOMENT})
    spec = {"avro": {"schema": str(directory / "reading.avsc")}}
    return "avro", spec, out.getvalue(), lambda payload: fastavro.schemaless_reader(BytesIO(payload), parsed, None)


def protobuf(directory: Path) -> Codec:
    """Return Protobuf by a descriptor set; the library's own way to plain data is its JSON."""
    file = pb.FileDescriptorProto(name="reading.proto", package="bench", syntax="proto3")
    file.dependency.append(timestamp_pb2.DESCRIPTOR.name)
    message = file.message_type.add(name="Reading")
    for number, kind in enumerate(("string", "double", "double", "double", "int64", "bool"), start=1):
        add_field(message, number, [*READING][number - 1], kind)
    add_field(message, 7, "time", ".google.protobuf.Timestamp")
    (directory / "reading.desc").write_bytes(descriptor_set(file))
    cls = message_class(file, "bench.Reading")
    payload = cls(**READING, time={"seconds": SECONDS}).SerializeToString()
    spec = {"protobuf": {"descriptors": str(directory / "reading.desc"), "message": "bench.Reading"}}
    return "protobuf", spec, payload, lambda given: json_format.MessageToDict(cls.FromString(given))


if __name__ == "__main__":
    main()
