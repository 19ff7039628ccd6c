"""Microseconds per payload for each decoder, beside a library's own decoding of the same bytes.

usage: python benchmarks/codecs.py [--rounds 5] [--times 20000] [--json FILE]

The payloads hold the same values: a room, three numbers, an integer, true or false, and a time; ``× 300`` is a list of
as many such objects.  The library is the one that a program without this project would use.  Where it does less than
the decoder, ``same`` is what a program needs besides for the same result (``codec_peers.py``).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from io import BytesIO
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from timeit import timeit
from types import GeneratorType
from typing import Any, cast

import attrs
import bson
import cbor2
import fastavro
import msgpack
import orjson
import xmltodict
from cayennelpp import LppFrame
from codec_peers import (
    csv_rows,
    csv_rows_with_numbers,
    each_line,
    exact_json,
    line_as_record,
    line_parser,
    msgpack_with_text_keys,
    resolved_senml,
    whole_cbor,
)
from common import show_and_save
from google.protobuf import json_format, timestamp_pb2

from amqtt_db.decode import Arrival, Decoder, RememberingDecoder, resolve
from amqtt_db.decode.sparkplug.layout import make_payload_class

sys.path.insert(0, str(Path(__file__).parents[1]))
from tests.decode.edge_node import EdgeNode
from tests.decode.protos import add_field, descriptor_set, message_class, pb

WIDTHS = (-16, 10, 10, 8, 10, 8, 12)
SECONDS = 1_700_000_000
READING = {"room": "kitchen", "temp": 21.5, "rh": 46.25, "press": 1013.2, "seq": 123_456, "ok": True}
WITH_TIME = {**READING, "time": SECONDS}
MOMENT = datetime.fromtimestamp(SECONDS, timezone.utc)

Decode = Callable[[bytes], Any]


@attrs.frozen
class Codec:
    """A decoder or its spec, a payload, what a library makes of it, and what makes the same of it as the decoder."""

    name: str
    spec: Any
    payload: bytes
    library: Decode | None
    same: Decode | None = None


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
    """Return the best of some rounds, in which the decoder, the library and what does the same take turns."""
    decode: Decode = codec.spec if callable(codec.spec) else cast(Decode, resolve(codec.spec, where="decode"))
    if type(decode(codec.payload)) is GeneratorType:
        decode = exhausting(decode)
    times = max(1, times * 100 // max(100, len(codec.payload)))
    ours, library, same = [], [], []
    for _ in range(rounds):
        ours.append(seconds(decode, codec.payload, times))
        library.append(seconds(codec.library, codec.payload, times))
        same.append(seconds(codec.same, codec.payload, times))
    best, other, equal = (min(found) * 10**6 or None for found in (ours, library, same))
    return {
        "decoder": codec.name,
        "ours": best,
        "library": other,
        "ratio": best / other if best and other else None,
        "same": equal,
        "its ratio": best / equal if best and equal else None,
        "messages/s": 10**6 / best if best else None,
    }


def seconds(decode: Decode | None, payload: bytes, times: int) -> float:
    """Return the seconds of CPU for a payload; 0 if nothing decodes it."""
    return timeit(lambda: decode(payload), number=times, timer=process_time) / times if decode is not None else 0


def exhausting(decode: Decode) -> Decode:
    """Return what makes a list of the records that a decoder yields."""
    return lambda payload: [*decode(payload)]


def codecs(directory: Path) -> Iterator[Codec]:
    """Yield each decoder with a payload."""
    many = [{**WITH_TIME, "temp": 20 + number / 7} for number in range(300)]
    yield Codec("json", "json", orjson.dumps(WITH_TIME), orjson.loads, exact_json)
    yield Codec("json × 300", "json", orjson.dumps(many), orjson.loads, exact_json)
    yield Codec("msgpack", "msgpack", msgpack.packb(WITH_TIME), msgpack.unpackb, msgpack_with_text_keys)
    yield Codec("msgpack × 300", "msgpack", msgpack.packb(many), msgpack.unpackb, msgpack_with_text_keys)
    yield Codec("cbor", "cbor", cbor2.dumps(WITH_TIME), cbor2.loads, whole_cbor)
    yield Codec("cbor × 300", "cbor", cbor2.dumps(many), cbor2.loads, whole_cbor)
    document = bson.encode({**READING, "time": MOMENT})
    yield Codec("bson", "bson", document, lambda payload: bson.decode(payload, BSON_OPTIONS))
    yield from lines_and_rows(many)
    yield Codec("senml", "senml", orjson.dumps(senml_pack()), orjson.loads, resolved_senml)
    yield Codec("senml × 60", "senml", orjson.dumps(senml_pack() * 60), orjson.loads, resolved_senml)
    cayenne = bytes.fromhex("036700d704685c0573279406020064070001")
    yield Codec("cayenne", "cayenne", cayenne, lambda payload: [one.value for one in LppFrame.from_bytes(payload).data])
    xml = "".join(f"<{name}>{value}</{name}>" for name, value in WITH_TIME.items())
    yield Codec("xml", "xml", f"<r>{xml}</r>".encode(), xmltodict.parse)
    yield avro(directory)
    yield protobuf(directory)
    yield sparkplug()


def lines_and_rows(many: list[dict[str, Any]]) -> Iterator[Codec]:
    """Yield line protocol, without and with text, and CSV."""
    line = b"climate,room=kitchen temp=%.17g,rh=46.25,press=1013.2,seq=123456i,ok=true%b %d000000000"
    short, text = line % (21.5, b"", SECONDS), line % (21.5, b',note="all is well"', SECONDS)
    yield Codec("influx", "influx", short, line_parser(), line_as_record())
    yield Codec("influx, text", "influx", text, line_parser(), line_as_record())
    lines = b"\n".join(line % (reading["temp"], b"", SECONDS) for reading in many)
    yield Codec("influx × 300", "influx", lines, each_line(line_parser()), each_line(line_as_record()))
    names = ",".join(WITH_TIME)
    table, rows = (
        "\n".join([names, *(",".join(map(str, row.values())) for row in some)]) for some in ([WITH_TIME], many)
    )
    yield Codec("csv", "csv", table.encode(), csv_rows, csv_rows_with_numbers)
    yield Codec("csv × 300", "csv", rows.encode(), csv_rows, csv_rows_with_numbers)
    yield Codec("csv, text", {"csv": {"numbers": False}}, table.encode(), csv_rows)


def senml_pack() -> list[dict[str, Any]]:
    """Return the measurements of a room."""
    measured = [("temp", "Cel", 21.5), ("rh", "%RH", 46.25), ("press", "hPa", 1013.2), ("seq", "1", 123_456)]
    first, *others = [{"n": name, "u": unit, "v": value} for name, unit, value in measured]
    return [{"bn": "kitchen:", "bt": SECONDS, **first}, *others, {"n": "ok", "vb": True}]


def sparkplug() -> Codec:
    """Return Sparkplug's data of six metrics by alias; the library makes JSON of it, without names and types."""
    node = EdgeNode(
        {"": {"room": "String", "temp": "Float", "rh": "Float", "press": "Double", "seq": "Int32", "ok": "Boolean"}}
    )
    decoder, memory = resolve("sparkplug", where="decode"), dict[str, str]()
    assert isinstance(decoder, RememberingDecoder)
    values: dict[str, Any] = READING
    for topic, payload in (node.birth(**values), node.data(**values)):
        names = decoder.names(topic)
        memory.update(decoder.decode(Arrival(topic, payload), names, memory).changes)
    cls = make_payload_class()
    decode: Decoder = lambda given: decoder.decode(Arrival(topic, given), names, memory)  # noqa: E731
    return Codec("sparkplug", decode, payload, lambda given: json_format.MessageToDict(cls.FromString(given)))


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
    return Codec("avro", spec, out.getvalue(), lambda given: fastavro.schemaless_reader(BytesIO(given), parsed, None))


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
    return Codec("protobuf", spec, payload, lambda given: json_format.MessageToDict(cls.FromString(given)))


if __name__ == "__main__":
    main()
