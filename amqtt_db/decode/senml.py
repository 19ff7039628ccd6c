"""SenML (RFC 8428) in JSON or CBOR: each measurement of a pack is a record, with the base values worked in.

A record has the ``name`` and the ``value``, and if they are there the ``unit``, ``sum``, ``time`` and ``update_time``.
A time that SenML counts from now is kept as ``time_offset``, in seconds from the arrival.
"""

from __future__ import annotations

import base64
import binascii
import sys
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from importlib import import_module
from typing import Any, Final

from amqtt_db.decode.checks import Decoder, as_records
from amqtt_db.decode.json_text import json_format
from amqtt_db.errors import DecodeError
from amqtt_db.record import EPOCH, MICROSECOND
from amqtt_db.registry import install_hint

CBOR_LABELS: Final = {
    -6: "bs", -5: "bv", -4: "bu", -3: "bt", -2: "bn", -1: "bver",
    0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}  # fmt: skip

_RELATIVE: Final = 2**28  # seconds: smaller times count from now
_VERSION: Final = 10
_LONGEST_NAME: Final = 256  # characters of a name or unit, because a base value is repeated in each record
_OWN_LABELS: Final = frozenset({"name", "unit", "value", "sum", "time", "time_offset", "update_time"})
_CBOR_ARRAY: Final = range(0x80, 0xA0)
_TAKEN_AS_NUMBER: Final = frozenset({int, float, Decimal})
_LARGEST_NUMBER: Final = sys.float_info.max / 2  # a base value is added
_read_json: Final = json_format()


def senml_format() -> Decoder:
    """Return a decoder of SenML in JSON, or in CBOR with the extra ``cbor``: the first byte tells which."""
    return _decode_senml


def _decode_senml(payload: bytes) -> Any:
    pack = _read_cbor(payload) if payload and payload[0] in _CBOR_ARRAY else _read_json(payload)
    if not isinstance(pack, list):
        raise DecodeError("not SenML: it is not a list of measurements")
    return as_records(_resolve(pack))


def _read_cbor(payload: bytes) -> Any:
    try:
        decode = import_module("amqtt_db.decode.cbor").decode
    except ImportError:
        raise DecodeError("SenML in CBOR needs the library cbor2: " + install_hint("cbor")) from None
    return decode(payload, CBOR_LABELS)


def _resolve(pack: list[Any]) -> Iterator[dict[str, Any]]:
    base: dict[str, Any] = {}
    for number, entry in enumerate(pack, start=1):
        try:
            labels, more = _sort_labels(entry, base)
            record = _resolve_one(base, labels) if labels or more else None
        except DecodeError as error:
            raise DecodeError(f"not SenML: record {number}: {error}") from None
        if record is not None:
            yield record | more if more else record


def _sort_labels(entry: Any, base: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Put an entry's base values into ``base``; return its other values, and those with other labels than SenML's."""
    if type(entry) is not dict:
        raise DecodeError("it is not an object")
    labels: dict[str, Any] = {}
    more: dict[str, Any] = {}
    for label, value in entry.items():
        check = _CHECKS.get(label)
        if check is not None:
            (base if label in _BASE else labels)[label] = check(label, value)
        elif label.endswith("_") or label in _OWN_LABELS:
            raise DecodeError("it has a label that must be understood, and is not")
        else:
            more[label] = value
    return labels, more


def _resolve_one(base: Mapping[str, Any], labels: Mapping[str, Any]) -> dict[str, Any]:
    """Return a measurement with the base values."""
    name, unit = base.get("bn", "") + labels.get("n", ""), labels.get("u", base.get("bu"))
    if not name:
        raise DecodeError("it has no name")
    if len(name) > _LONGEST_NAME or (unit is not None and len(unit) > _LONGEST_NAME):
        raise DecodeError(f"its name or unit has more than {_LONGEST_NAME} characters")
    record: dict[str, Any] = {"name": name}
    if unit is not None:
        record["unit"] = unit
    _add_values(record, base, labels)
    seconds = base.get("bt", 0) + labels.get("t", 0)
    if seconds:
        _add_time_or_offset(record, seconds)
    if "ut" in labels:
        record["update_time"] = labels["ut"]
    return record


def _add_values(record: dict[str, Any], base: Mapping[str, Any], labels: Mapping[str, Any]) -> None:
    """Add a measurement's value and sum."""
    given = labels.keys() & _VALUE_LABELS
    has_sum = "s" in labels or "bs" in base
    if len(given) != 1 and (given or not has_sum):
        raise DecodeError("it has several values" if given else "it has no value")
    for label in given:
        record["value"] = labels[label] + base.get("bv", 0) if label == "v" else labels[label]
    if has_sum:
        record["sum"] = base.get("bs", 0) + labels.get("s", 0)


def _add_time_or_offset(record: dict[str, Any], seconds: float) -> None:
    if abs(seconds) < _RELATIVE:
        record["time_offset"] = seconds
        return
    try:
        record["time"] = EPOCH + round(seconds * 10**6) * MICROSECOND
    except (OverflowError, ValueError):
        raise DecodeError("its time is beyond the year 9999") from None


def _to_number(label: str, value: Any) -> float:
    if type(value) not in _TAKEN_AS_NUMBER:
        raise DecodeError(f"{label} is not a number")
    number = float(value) if type(value) is Decimal else value  # which only CBOR has
    if not abs(number) <= _LARGEST_NUMBER:  # NaN is not, either
        raise DecodeError(f"{label} is too large")
    return number


def _to_text(label: str, value: Any) -> str:
    if not isinstance(value, str):
        raise DecodeError(f"{label} is not text")
    return value


def _to_truth(label: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise DecodeError(f"{label} is not true or false")
    return value


def _to_bytes(label: str, value: Any) -> bytes:
    """Return bytes: as they are in CBOR, as base64 for URLs in JSON."""
    if isinstance(value, bytes):
        return value
    text = _to_text(label, value)
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise DecodeError(f"{label} is not base64") from None


def _to_version(label: str, value: Any) -> int:
    if type(value) is not int or value > _VERSION:
        raise DecodeError(f"{label} is not a version up to {_VERSION}")
    return value


_VALUE_LABELS: Final = frozenset({"v", "vs", "vb", "vd"})
_BASE: Final = frozenset({"bn", "bt", "bu", "bv", "bs", "bver"})
_CHECKS: Final[Mapping[str, Callable[[str, Any], Any]]] = {
    **dict.fromkeys(("bn", "bu", "n", "u", "vs"), _to_text),
    **dict.fromkeys(("bt", "bv", "bs", "v", "s", "t", "ut"), _to_number),
    "bver": _to_version,
    "vb": _to_truth,
    "vd": _to_bytes,
}
"""What checks the value of each label."""
