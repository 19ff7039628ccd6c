"""What a program does with a library to get from some formats what our decoders return, kept as short as it can be."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from importlib import import_module
from io import BytesIO, StringIO
from typing import Any

import cbor2
import msgpack
import orjson

_LONG_NUMBER = re.compile(rb"\d{19}").search
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)


def exact_json(payload: bytes) -> Any:
    """JSON, with integers that are exact."""
    return (json if _LONG_NUMBER(payload) else orjson).loads(payload)


def msgpack_with_text_keys(payload: bytes) -> Any:
    """MessagePack with times, if the keys of its object, or of each in a list, are text."""
    data = msgpack.unpackb(payload, timestamp=3)
    require_text_keys(data)
    return data


def whole_cbor(payload: bytes) -> Any:
    """CBOR, if nothing follows it and the keys of its object, or of each in a list, are text."""
    stream = BytesIO(payload)
    data = cbor2.load(stream)
    if stream.read(1):
        raise ValueError("more follows")
    require_text_keys(data)
    return data


def require_text_keys(data: Any) -> None:
    """Raise TypeError for other keys."""
    for item in data if isinstance(data, list) else [data]:
        if isinstance(item, dict) and not all(isinstance(key, str) for key in item):
            raise TypeError("a key is not text")


def csv_rows(payload: bytes) -> list[Any]:
    """The rows of CSV, as text."""
    return list(csv.DictReader(StringIO(payload.decode())))


def csv_rows_with_numbers(payload: bytes) -> list[Any]:
    """The rows of CSV, in which all that Python takes for a number is one."""
    rows: list[dict[str, Any]] = csv_rows(payload)
    for row in rows:
        for name, cell in row.items():
            with suppress(ValueError):
                row[name] = float(cell)
    return rows


def resolved_senml(payload: bytes) -> list[Any]:
    """The measurements of SenML by RFC 8428, if nothing is wrong with any."""
    base: dict[str, Any] = {}
    found = []
    for entry in orjson.loads(payload):
        base.update((label, value) for label, value in entry.items() if label[0] == "b")
        value = entry["v"] + base.get("bv", 0) if "v" in entry else entry["vb"]
        time = datetime.fromtimestamp(base.get("bt", 0) + entry.get("t", 0), timezone.utc)
        name, unit = base.get("bn", "") + entry.get("n", ""), entry.get("u", base.get("bu"))
        found.append({"name": name, "unit": unit, "value": value, "time": time})
    return found


def each_line(read: Callable[[bytes], Any] | None) -> Callable[[bytes], Any] | None:
    """What reads several lines, given what reads one."""
    return None if read is None else lambda payload: [read(line) for line in payload.split(b"\n")]


def line_parser() -> Callable[[bytes], Any] | None:
    """The parser of line protocol written in C, if it is installed."""
    try:
        parse = import_module("line_protocol_parser").parse_line
    except ImportError:
        return None
    return lambda payload: parse(payload.decode())


def line_as_record() -> Callable[[bytes], Any] | None:
    """The same, with tags and fields in one object and a time that is one."""
    parse = line_parser()
    if parse is None:
        return None

    def read_line(payload: bytes) -> dict[str, Any]:
        line = parse(payload)
        micros, finer = divmod(line["time"], 1000)
        record = {"measurement": line["measurement"], **line["tags"], **line["fields"]}
        record["time"] = _EPOCH + timedelta(microseconds=micros)
        return {**record, "nanoseconds": finer} if finer else record

    return read_line
