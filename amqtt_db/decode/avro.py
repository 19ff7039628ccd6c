"""Avro by schemas in files, with the library ``fastavro``; import this module only when it is needed."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from io import BytesIO
from typing import Any, Final

from fastavro import parse_schema, schemaless_reader
from fastavro.read import LOGICAL_READERS
from fastavro.schema import fingerprint, to_parsing_canonical_form

from amqtt_db.decode.checks import Decoder, position, shorten
from amqtt_db.errors import DecodeError
from amqtt_db.record import EPOCH

_REGISTRY_ID: Final = b"\0"
_SINGLE_OBJECT: Final = b"\xc3\x01"
OUR_TYPES: Final = "amqtt-db-"
"""Begins the names of the logical types that are read here and not by the library."""

_SIZES: Final = {"null": 0, "float": 4, "double": 8}
"""The smallest size of a value in bytes, for types whose values can take another number than 1."""


def schema_decoder(content: bytes) -> Decoder:
    """Return a decoder of payloads without a header, which all have the schema ``content``.

    Raises ValueError.
    """
    read = _reader(_load_schema("schema", content))

    def decode_avro(payload: bytes) -> Any:
        if not payload:
            raise DecodeError("empty payload")
        return read(payload)

    return decode_avro


def header_decoder(files: Mapping[str, bytes]) -> Decoder:
    """Return a decoder of payloads with a header that says which schema they have: of ``files``, schemas by name.

    The header is either a zero byte and the four bytes of a schema registry's id, which is the file's name; or two
    bytes and a fingerprint, as Avro itself defines it.

    Raises ValueError.
    """
    schemas = {name: _load_schema(f"schemas: {name}", content) for name, content in files.items()}
    by_id = {name: _reader(schema) for name, schema in schemas.items()}
    by_fingerprint = {
        fingerprint(to_parsing_canonical_form(schema), "CRC-64-AVRO"): by_id[name] for name, schema in schemas.items()
    }

    def decode_avro(payload: bytes) -> Any:
        if not payload:
            raise DecodeError("empty payload")
        if payload.startswith(_REGISTRY_ID) and len(payload) >= 5:
            key, body, readers = str(int.from_bytes(payload[1:5], "big")), payload[5:], by_id
        elif payload.startswith(_SINGLE_OBJECT) and len(payload) >= 10:
            key, body, readers = payload[2:10].hex(), payload[10:], by_fingerprint
        else:
            raise DecodeError("not Avro with a header: it begins with neither a schema's id nor a fingerprint")
        if key not in readers:
            raise DecodeError(f"no file has its schema, {key}")
        return readers[key](body)

    return decode_avro


def _load_schema(where: str, content: bytes) -> Any:
    """Return a schema with full names.  Raises ValueError, also if short payloads could fill the memory."""
    try:
        schema = parse_schema(json.loads(content))
    except Exception as error:
        raise ValueError(f"{where}: not an Avro schema: {shorten(error)}") from None
    try:
        return _Preparation().prepare(schema)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _reader(schema: Any) -> Callable[[bytes], Any]:
    parsed = parse_schema(schema)

    def read(body: bytes) -> Any:
        stream = BytesIO(body)
        try:
            data = schemaless_reader(stream, parsed, None)
        except DecodeError:
            raise
        except EOFError:
            raise DecodeError("not Avro of this schema: it ends too early") from None
        except UnicodeDecodeError as error:
            raise DecodeError(f"not Avro of this schema: text that is not UTF-8{position(error)}") from None
        except Exception as error:
            raise DecodeError(f"not Avro of this schema: {shorten(error)}") from None
        if stream.tell() != len(body):
            raise DecodeError("not Avro of this schema: unexpected bytes at its end")
        return data

    return read


class _Preparation:
    """Prepares a schema: some logical types get readers of ours, and no payload can be larger than its bytes allow.

    The library reads without bounds: a record in a record in a record until the process dies, a list of as many nulls
    as a payload claims, and decimals of a million digits.
    """

    def __init__(self) -> None:
        self._sizes: dict[str, int] = {}
        self._open: list[str] = []

    def prepare(self, node: Any) -> Any:
        """Return a schema, or a part of it, as it is to be used.  Raises ValueError."""
        if isinstance(node, str):
            if node in self._open:
                raise ValueError(f"{node} contains itself, which is not supported")
            return node
        if isinstance(node, list):
            return [self.prepare(branch) for branch in node]
        if isinstance(node["type"], (dict, list)):
            return self.prepare(node["type"])
        plain = {key: value for key, value in node.items() if not key.startswith("__")}
        plain.update(self._changes(node, node["type"]))
        if "name" in node:
            self._sizes[node["name"]] = self._size(plain)
        return plain

    def _changes(self, node: Mapping[str, Any], kind: str) -> dict[str, Any]:
        """Return what is different in a prepared type."""
        if kind in {"record", "error"}:
            return {"fields": self._prepare_fields(node)}
        if kind == "map":
            return {"values": self.prepare(node["values"])}
        if kind == "array":
            items = self.prepare(node["items"])
            if self._size(items) == 0:
                raise ValueError("an array of items that take no bytes is not supported")
            return {"items": items}
        ours = f"{OUR_TYPES}{node.get('logicalType')}"
        return {"logicalType": ours} if f"{kind}-{ours}" in LOGICAL_READERS else {}

    def _prepare_fields(self, record: Any) -> list[Any]:
        self._open.append(record["name"])
        fields = [{**field, "type": self.prepare(field["type"])} for field in record["fields"]]
        self._open.pop()
        return fields

    def _size(self, node: Any) -> int:
        """Return the smallest number of bytes that a value of a prepared part takes."""
        if isinstance(node, str):
            return self._sizes.get(node, _SIZES.get(node, 1))
        if isinstance(node, list):
            return 1
        if node["type"] in {"record", "error"}:
            return sum(self._size(field["type"]) for field in node["fields"])
        size: int = node["size"] if node["type"] == "fixed" else _SIZES.get(node["type"], 1)
        return size


def _read_decimal(data: bytes, schema: Mapping[str, Any], _: Any = None) -> Decimal:
    if len(data) > schema["precision"] + 1:
        raise DecodeError("a decimal has more digits than its schema allows")
    sign, digits, _exponent = Decimal(int.from_bytes(data, "big", signed=True)).as_tuple()
    return Decimal((sign, digits, -schema.get("scale", 0)))


def _read_local_millis(data: int, _: Any = None, __: Any = None) -> datetime:
    return EPOCH + timedelta(milliseconds=data)


def _read_local_micros(data: int, _: Any = None, __: Any = None) -> datetime:
    return EPOCH + timedelta(microseconds=data)


LOGICAL_READERS.update(
    {
        f"bytes-{OUR_TYPES}decimal": _read_decimal,
        f"fixed-{OUR_TYPES}decimal": _read_decimal,
        f"long-{OUR_TYPES}local-timestamp-millis": _read_local_millis,
        f"long-{OUR_TYPES}local-timestamp-micros": _read_local_micros,
    }
)
