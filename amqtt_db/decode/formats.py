"""The built-in decoders: each function here makes one from its options.

A decoder takes a payload and returns plain data, or raises DecodeError with a reason that reveals nothing of the
payload.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Final

from amqtt_db.decode.cayenne import cayenne_format
from amqtt_db.decode.checks import Decoder, names_problems, position
from amqtt_db.decode.delimited import Encoding, csv_format, tsv_format
from amqtt_db.decode.inflate import GZIP, MAX_SIZE, RAW_DEFLATE, ZLIB, inflate
from amqtt_db.decode.influx import influx_format
from amqtt_db.decode.json_text import auto_format, json_format, strip_ends
from amqtt_db.decode.libraries import import_library, make_lazy, read_file, read_folder
from amqtt_db.decode.senml import senml_format
from amqtt_db.decode.xml import xml_format
from amqtt_db.errors import DecodeError

MaxSize = Annotated[int, "The largest size of a decompressed payload, in bytes.  Default: 64 MiB."]


def text_format(*, encoding: Encoding = "utf-8") -> Decoder:
    """Return a decoder of text; it drops a byte order mark and null characters at the end.

    Raises ValueError for an encoding that Python does not know.
    """
    try:
        b"a".decode(encoding)
    except UnicodeDecodeError:
        pass
    except (LookupError, ValueError):  # ValueError: text that cannot be a name
        raise ValueError(f"encoding: Python does not know {encoding!r}") from None

    def decode_text(payload: bytes) -> str:
        try:
            return strip_ends(payload.decode(encoding))
        except UnicodeError as error:
            raise DecodeError(f"not {encoding} text{position(error)}") from None

    return decode_text


def bytes_format() -> Decoder:
    """Return a decoder of any bytes, which stay as they are."""
    return _verbatim


def struct_format(
    *,
    format: Annotated[str, "The format, as in Python's module struct."],  # noqa: A002 - the option's name
    names: Annotated[list[str], "The names of the values, in order."],
) -> Decoder:
    """Return a decoder of a C struct.

    Raises ValueError, with every mistake as an argument, for a wrong format or names that do not fit it.
    """
    problems = names_problems(names)
    try:
        layout = struct.Struct(format)
    except struct.error as error:
        raise ValueError(f"format: {format!r} is not a format of Python's struct: {error}", *problems) from None
    if re.search(r"(?<!\d)0+p", format):
        problems.append("format: a Pascal string needs at least one byte, so '0p' cannot be read")
    if (count := _count_values(format)) != len(names):
        problems.append(f"names: {format!r} holds {count} values, but there are {len(names)} names")
    if problems:
        raise ValueError(*problems)
    return _struct_decoder(layout, tuple(names))


def msgpack_format() -> Decoder:
    """Return a decoder of MessagePack; its timestamps become datetimes in UTC.

    Raises ValueError without the extra ``msgpack``.
    """
    return make_lazy("msgpack", "msgpack", "amqtt_db.decode.msgpack")


def cbor_format() -> Decoder:
    """Return a decoder of CBOR; ``undefined`` becomes None, tags become datetime, date, Decimal, UUID or int.

    Raises ValueError without the extra ``cbor``.
    """
    return make_lazy("cbor", "cbor2", "amqtt_db.decode.cbor")


def bson_format() -> Decoder:
    """Return a decoder of BSON; its times become datetimes in UTC, ids of objects become text.

    Raises ValueError without the extra ``bson``.
    """
    return make_lazy("bson", "bson", "amqtt_db.decode.bson")


def protobuf_format(
    *,
    descriptors: Annotated[str, "The file with the descriptor set that describes the message."],
    message: Annotated[str, "The full name of the message."],
) -> Decoder:
    """Return a decoder of Protobuf.

    Raises ValueError without the extra ``protobuf``, and for a file or a name that cannot be used.
    """
    make = import_library("protobuf", "google.protobuf", "amqtt_db.decode.protobuf").make_decoder
    decoder: Decoder = make(read_file("descriptors", descriptors), message)
    return decoder


def avro_format(
    *,
    schema: Annotated[str, "The file with the schema of all payloads."] = "",
    schemas: Annotated[str, "The folder with the schemas, for payloads with a header that says which."] = "",
) -> Decoder:
    """Return a decoder of Avro.

    Raises ValueError without the extra ``avro``, and for files that cannot be used.
    """
    if bool(schema) == bool(schemas):
        raise ValueError("expected either `schema`, a file, or `schemas`, a folder")
    avro = import_library("avro", "fastavro", "amqtt_db.decode.avro")
    decoder: Decoder = (
        avro.schema_decoder(read_file("schema", schema))
        if schema
        else avro.header_decoder(read_folder("schemas", schemas, ".avsc"))
    )
    return decoder


def sparkplug_format(
    *, rows: Annotated[str, "What becomes a record: a payload, or each metric.  Default: payload."] = "payload"
) -> Any:
    """Return a decoder of Sparkplug B.

    Raises ValueError without the extra ``sparkplug``, and for other ``rows`` than ``payload`` and ``metric``.
    """
    return import_library("sparkplug", "google.protobuf", "amqtt_db.decode.sparkplug.decoder").make_sparkplug(rows)


def gzip_format(*, max_size: MaxSize = MAX_SIZE) -> Decoder:
    """Return a decoder of a gzip file; several members are joined."""
    return _decompressor("gzip", GZIP, max_size)


def zlib_format(*, max_size: MaxSize = MAX_SIZE) -> Decoder:
    """Return a decoder of a zlib stream (RFC 1950)."""
    return _decompressor("zlib", ZLIB, max_size)


def deflate_format(*, max_size: MaxSize = MAX_SIZE) -> Decoder:
    """Return a decoder of a raw deflate stream (RFC 1951)."""
    return _decompressor("deflate", RAW_DEFLATE, max_size)


FORMATS: Final[Mapping[str, Callable[..., Decoder]]] = {
    "auto": auto_format,
    "avro": avro_format,
    "bson": bson_format,
    "bytes": bytes_format,
    "cayenne": cayenne_format,
    "cbor": cbor_format,
    "csv": csv_format,
    "deflate": deflate_format,
    "gzip": gzip_format,
    "influx": influx_format,
    "json": json_format,
    "msgpack": msgpack_format,
    "protobuf": protobuf_format,
    "senml": senml_format,
    "sparkplug": sparkplug_format,
    "struct": struct_format,
    "text": text_format,
    "tsv": tsv_format,
    "xml": xml_format,
    "zlib": zlib_format,
}
"""The built-in decoders by name: functions whose keyword arguments are the decoder's options."""

GIVES_BYTES: Final = frozenset({"bytes", "deflate", "gzip", "zlib"})
"""The built-in decoders that another built-in one can follow."""

GIVES_TIME: Final = {"influx": "time", "senml": "time", "sparkplug": "time"}
"""The built-in decoders that know the time of what they decode, and the property in which they give it."""


def _verbatim(payload: bytes) -> bytes:
    return payload


def _count_values(layout: str) -> int:
    codes = re.findall(r"(\d*)([a-zA-Z?])", layout)
    return sum(1 if code in "sp" else int(count or 1) for count, code in codes if code != "x")


def _struct_decoder(layout: struct.Struct, names: tuple[str, ...]) -> Decoder:
    unpack, size = layout.unpack, layout.size

    def decode_struct(payload: bytes) -> dict[str, Any]:
        if len(payload) != size:
            raise DecodeError(f"expected {size} bytes for {layout.format!r}, got {len(payload)}")
        return dict(zip(names, unpack(payload), strict=True))

    return decode_struct


def _decompressor(name: str, wbits: int, max_size: int) -> Decoder:
    if type(max_size) is not int or max_size < 1:
        raise ValueError(f"max_size: expected a number of bytes above 0, got {max_size!r}")

    def decompress(payload: bytes) -> bytes:
        return inflate(payload, name, wbits, max_size)

    return decompress
