"""The values of Sparkplug B by data type (version 3.0 of the specification, chapter 6.4.16)."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from struct import Struct, iter_unpack
from typing import Any, Final
from uuid import UUID

from amqtt_db.errors import DecodeError
from amqtt_db.record import EPOCH

MAX_WRITTEN: Final = 64 * 2**20
"""The most characters that names may take in all rows; a payload has each of them only once."""

_MILLISECOND: Final = timedelta(milliseconds=1)  # one that is multiplied is faster than one that is made

DATA_SET_TYPE: Final = 16
TEMPLATE_TYPE: Final = 19

Readers = Mapping[str, Callable[[Any], Any]]
"""What reads a value, by the field that it is in; a field that is missing cannot hold a value of the type."""


def readers_of(datatype: int) -> Readers:
    """Return what reads values of a data type.  Raises DecodeError for one that Sparkplug B does not have.

    0 is the unknown type: only values in fields that have a type can be read.
    """
    try:
        return _READERS[datatype]
    except KeyError:
        raise DecodeError(f"the data type {datatype} is not one of Sparkplug B") from None


def read_typed(message: Any, readers: Readers, kind: str, name: str) -> Any:
    """Return the value of a metric, a property, a parameter or an element, None if it has none.

    Raises DecodeError, which says what cannot be read: its ``kind`` and its ``name``.
    """
    field = message.WhichOneof("value")
    if field is None:
        return None
    read = readers.get(field)
    if read is None and readers is _SELF_EXPLAINING:
        raise DecodeError(f"the type of the {kind} {name} is unknown")
    if read is None:
        raise DecodeError(f"the {kind} {name} has no value of its type, but a {field}")
    try:
        return read(getattr(message, field))
    except DecodeError as error:
        raise DecodeError(f"the {kind} {name}: {error}") from None


def read_milliseconds(milliseconds: int) -> datetime:
    """Return a time given in milliseconds since 1970 (UTC), as in the payload: unsigned, in 64 bits."""
    signed = milliseconds if milliseconds < 2**63 else milliseconds - 2**64
    try:
        return EPOCH + signed * _MILLISECOND
    except OverflowError:
        raise DecodeError("a time is beyond the year 9999") from None


def read_properties(properties: Any, name: str) -> dict[str, Any]:
    """Return the property set of a metric of this name as an object.  Raises DecodeError."""
    if len(properties.keys) != len(properties.values):
        raise DecodeError(f"the metric {name} has {len(properties.keys)} names for {len(properties.values)} properties")
    pairs = zip(properties.keys, properties.values, strict=True)
    return {key: _read_property(value, f"{name}.{key}") for key, value in pairs}


def _read_property(value: Any, name: str) -> Any:
    if value.is_null:
        return None
    field = value.WhichOneof("value")
    if field == "propertyset_value":
        return read_properties(value.propertyset_value, name)
    if field == "propertysets_value":
        return [read_properties(one, name) for one in value.propertysets_value.propertyset]
    return read_typed(value, readers_of(value.type), "property", name)


def _read_data_set(data_set: Any) -> list[dict[str, Any]]:
    """Return the rows of a table as objects."""
    columns, rows = list(data_set.columns), data_set.rows
    if len(set(columns)) < len(columns) or len(data_set.types) != len(columns):
        raise DecodeError("its columns do not each have a name and a type of their own")
    if len(rows) * sum(map(len, columns)) > MAX_WRITTEN:
        raise DecodeError(f"it has more than {MAX_WRITTEN} characters when written out")
    readers = [readers_of(type_) for type_ in data_set.types]
    found = []
    for row in rows:
        if len(row.elements) != len(columns):
            raise DecodeError(f"a row has {len(row.elements)} elements, but there are {len(columns)} columns")
        elements = zip(columns, readers, row.elements, strict=True)
        found.append({name: read_typed(element, read, "column", name) for name, read, element in elements})
    return found


def _as_is(value: Any) -> Any:
    return value


def _signed_reader(bits: int, width: int) -> Callable[[int], int]:
    """Return what reads a signed integer: two's complement in its own bits, or extended to the field's width."""
    positive, own, extended, field = 1 << bits - 1, 1 << bits, (1 << width) - (1 << bits - 1), 1 << width

    def read_signed(value: int) -> int:
        if value < positive:
            return value
        if value >= extended:
            return value - field
        if value >= own:
            raise DecodeError(f"an integer does not fit {bits} bits")
        return value - own

    return read_signed


def _unsigned_reader(bits: int) -> Callable[[int], int]:
    limit = 1 << bits

    def read_unsigned(value: int) -> int:
        if value >= limit:
            raise DecodeError(f"an integer does not fit {bits} bits without a sign")
        return value

    return read_unsigned


def _read_uuid(text: str) -> Any:
    if _LIKE_UUID(text):
        with suppress(ValueError):
            return UUID(text)
    return text


def _array(code: str, convert: Callable[[Any], Any] = _as_is) -> Callable[[bytes], list[Any]]:
    """Return what reads an array of numbers of one size, packed with the lowest byte first."""
    layout = Struct(f"<{code}")

    def read_array(packed: bytes) -> list[Any]:
        if len(packed) % layout.size:
            raise DecodeError(f"an array of {len(packed)} bytes is not one of items of {layout.size} bytes")
        return [convert(item) for (item,) in iter_unpack(layout.format, packed)]

    return read_array


def _read_truths(packed: bytes) -> list[bool]:
    """Return an array of truths: their number in four bytes, then one bit each, the highest first."""
    count = int.from_bytes(packed[:4], "little")
    if len(packed) != 4 + (count + 7) // 8:
        raise DecodeError("an array of truths does not have the length that it says")
    return [bool(packed[4 + index // 8] >> 7 - index % 8 & 1) for index in range(count)]


def _read_texts(packed: bytes) -> list[str]:
    """Return an array of texts; each ends with a null byte."""
    *texts, rest = packed.split(b"\0")
    if rest:
        raise DecodeError("an array of texts does not end with a null byte")
    try:
        return [text.decode() for text in texts]
    except UnicodeDecodeError:
        raise DecodeError("an array of texts is not UTF-8") from None


_LIKE_UUID: Final = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").fullmatch

_STRING_FIELD: Final[Readers] = {"string_value": _as_is}
_BYTES: Final[Readers] = {"bytes_value": _as_is}
_FLOATING: Final[Readers] = {"float_value": _as_is, "double_value": _as_is}
_SELF_EXPLAINING: Final[Readers] = {
    **_FLOATING,
    **_STRING_FIELD,
    "boolean_value": _as_is,
    "dataset_value": _read_data_set,
}
_READERS: Final[Mapping[int, Readers]] = {
    0: _SELF_EXPLAINING,
    **{
        number: {"int_value": _signed_reader(bits, 32), "long_value": _signed_reader(bits, 64)}
        for number, bits in ((1, 8), (2, 16), (3, 32))
    },
    4: {"long_value": _signed_reader(64, 64)},
    **{number: dict.fromkeys(("int_value", "long_value"), _unsigned_reader(8 << number - 5)) for number in range(5, 9)},
    9: _FLOATING,
    10: _FLOATING,
    11: {"boolean_value": _as_is},
    12: _STRING_FIELD,
    13: {"long_value": read_milliseconds},
    14: _STRING_FIELD,
    15: {"string_value": _read_uuid},
    DATA_SET_TYPE: {"dataset_value": _read_data_set},
    17: _BYTES,
    18: _BYTES,
    TEMPLATE_TYPE: {},
    **{number: {"bytes_value": _array(code)} for number, code in enumerate("bhiqBHIQfd", start=22)},
    32: {"bytes_value": _read_truths},
    33: {"bytes_value": _read_texts},
    34: {"bytes_value": _array("Q", read_milliseconds)},
}
