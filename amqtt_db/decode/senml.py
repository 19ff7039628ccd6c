"""SenML (RFC 8428) in JSON or CBOR: each measurement of a pack is a record, with the base values worked in.

A record has the ``name`` and the ``value``, and if they are there the ``unit``, ``sum``, ``time`` and ``update_time``.
A time that SenML counts from now is kept as ``time_offset``, in seconds from the arrival.
"""

from __future__ import annotations

import base64
import binascii
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from importlib import import_module
from typing import Any, Final

import attrs

from amqtt_db.decode.checks import Decoder, as_records
from amqtt_db.decode.json_text import json_format
from amqtt_db.errors import DecodeError
from amqtt_db.record import EPOCH, MICROSECOND
from amqtt_db.registry import install_hint

CBOR_LABELS: Final = {
    -6: "bs", -5: "bv", -4: "bu", -3: "bt", -2: "bn", -1: "bver",
    0: "n", 1: "u", 2: "v", 3: "vs", 4: "vb", 5: "s", 6: "t", 7: "ut", 8: "vd",
}  # fmt: skip

_NUMBER_LABELS: Final = frozenset({"bt", "bv", "bs", "v", "s", "t", "ut"})
_VALUE_TYPES: Final[Mapping[str, tuple[frozenset[type], str]]] = {
    **dict.fromkeys(("bn", "bu", "n", "u", "vs"), (frozenset({str}), "text")),
    **dict.fromkeys(_NUMBER_LABELS, (frozenset({int, float, Decimal}), "a number")),
    "bver": (frozenset({int}), "a number"),
    "vb": (frozenset({bool}), "true or false"),
    "vd": (frozenset({str, bytes}), "text"),
}
"""The types that the value of each label may have, and what they are called."""

_LABELS: Final = frozenset(_VALUE_TYPES)
_BASE_LABELS: Final = frozenset({"bn", "bt", "bu", "bv", "bs", "bver"})
_VALUE_LABELS: Final = frozenset({"v", "vs", "vb", "vd"})
_OWN_PROPERTIES: Final = frozenset({"name", "unit", "value", "sum", "time", "time_offset", "update_time", "label"})
_RELATIVE: Final = 2**28  # seconds: smaller times count from now
_VERSION: Final = 10
_LONGEST_NAME: Final = 256  # characters of a name or unit, because a base value is repeated in each record
_CBOR_ARRAY: Final = range(0x80, 0xA0)
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
            record = _resolve_one(entry, base)
        except DecodeError as error:
            raise DecodeError(f"not SenML: record {number}: {error}") from None
        if record is not None:
            yield record


def _resolve_one(entry: Any, base: dict[str, Any]) -> dict[str, Any] | None:
    """Put an entry's base values into ``base``; return its measurement, None if it has only base values."""
    if type(entry) is not dict:
        raise DecodeError("it is not an object")
    others = None if _LABELS.issuperset(entry) else _take_others(entry)
    form = _find_form(tuple(entry), tuple(map(type, entry.values())))
    for label, convert in form.converted:
        entry[label] = convert(entry[label])
    for label in form.numbers:
        if not -_LARGEST_NUMBER <= entry[label] <= _LARGEST_NUMBER:  # NaN is not, either
            raise DecodeError(f"{label} is too large")
    for label in form.base:
        base[label] = entry[label]
    if not form.is_measurement:
        return None
    record = _make_record(entry, form.value, base)
    return record | others if others else record


def _take_others(entry: dict[str, Any]) -> dict[str, Any]:
    """Take labels that SenML does not define out of an entry; return them as properties.

    RFC 8428, section 4.4: a receiver ignores a label that it does not know, unless it ends in an underscore.
    """
    others = {label: entry.pop(label) for label in [*entry] if label not in _VALUE_TYPES}
    if any(label.endswith("_") for label in others):
        raise DecodeError("it has a label that must be understood, and is not")
    hidden = {label: others.pop(label) for label in _OWN_PROPERTIES & others.keys()}
    return others | {"label": hidden} if hidden else others


@attrs.frozen
class _EntryForm:
    """What the labels of an entry, and the types of their values, say.

    ``converted`` has the labels whose values are converted, each with its function; ``numbers`` those of numbers;
    ``base`` those of base values; ``value`` is the label of the measurement's value, if it has one.
    """

    converted: tuple[tuple[str, Callable[[Any], Any]], ...]
    numbers: tuple[str, ...]
    base: tuple[str, ...]
    value: str | None
    is_measurement: bool


@lru_cache(512)
def _find_form(labels: tuple[str, ...], kinds: tuple[type, ...]) -> _EntryForm:
    """Return the form of an entry that has only SenML's labels.  Raises DecodeError."""
    for label, kind in zip(labels, kinds, strict=True):
        expected, name = _VALUE_TYPES[label]
        if kind not in expected:
            raise DecodeError(f"{label} is not {name}")
    values = [label for label in labels if label in _VALUE_LABELS]
    if len(values) > 1:
        raise DecodeError("it has several values")
    converters = [(label, _find_converter(label, kind)) for label, kind in zip(labels, kinds, strict=True)]
    return _EntryForm(
        tuple((label, convert) for label, convert in converters if convert is not None),
        tuple(label for label in labels if label in _NUMBER_LABELS),
        tuple(label for label in labels if label in _BASE_LABELS),
        values[0] if values else None,
        is_measurement=not _BASE_LABELS.issuperset(labels),
    )


def _find_converter(label: str, kind: type) -> Callable[[Any], Any] | None:
    if kind is Decimal:  # which only CBOR has
        return float
    if label == "vd" and kind is str:
        return _decode_base64
    return _check_version if label == "bver" else None


def _make_record(entry: Mapping[str, Any], value_label: str | None, base: Mapping[str, Any]) -> dict[str, Any]:
    """Return a measurement with the base values."""
    name, unit = base.get("bn", "") + entry.get("n", ""), entry.get("u", base.get("bu"))
    if not name:
        raise DecodeError("it has no name")
    if len(name) > _LONGEST_NAME or (unit is not None and len(unit) > _LONGEST_NAME):
        raise DecodeError(f"its name or unit has more than {_LONGEST_NAME} characters")
    record: dict[str, Any] = {"name": name}
    if unit is not None:
        record["unit"] = unit
    if value_label is not None:
        value = entry[value_label]
        record["value"] = value + base["bv"] if value_label == "v" and "bv" in base else value
    elif "bv" in base:
        record["value"] = base["bv"]
    if "s" in entry or "bs" in base:
        record["sum"] = base.get("bs", 0) + entry.get("s", 0)
    elif "value" not in record:
        raise DecodeError("it has no value")
    seconds = base.get("bt", 0) + entry.get("t", 0)
    if seconds:
        record |= _tell_time(seconds)
    if "ut" in entry:
        record["update_time"] = entry["ut"]
    return record


def _tell_time(seconds: float) -> dict[str, Any]:
    """Return a time of the calendar; one that is negative, or small, counts from now."""
    return {"time": _read_seconds(seconds)} if seconds >= _RELATIVE else {"time_offset": seconds}


@lru_cache(64)  # because the measurements of a pack often have the same time
def _read_seconds(seconds: float) -> datetime:
    try:
        return EPOCH + round(seconds * 10**6) * MICROSECOND
    except (OverflowError, ValueError):
        raise DecodeError("its time is beyond the year 9999") from None


def _decode_base64(text: str) -> bytes:
    """Return the bytes that a text in base64 for URLs stands for, as SenML in JSON has them."""
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise DecodeError("vd is not base64") from None


def _check_version(version: int) -> int:
    if version > _VERSION:
        raise DecodeError(f"bver is not a version up to {_VERSION}")
    return version
