"""BSON, with the library ``bson`` of pymongo (extra ``bson``); import this module only when it is needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from bson import CodecOptions, Decimal128, Int64, ObjectId, Timestamp
from bson import decode as decode_bson
from bson.binary import Binary, UuidRepresentation
from bson.errors import InvalidBSON

from amqtt_db.decode.checks import MAX_DEPTH, shorten
from amqtt_db.errors import DecodeError

_CODEC_OPTIONS: Final[Any] = CodecOptions(tz_aware=True, uuid_representation=UuidRepresentation.STANDARD)
_PLAIN: Final = frozenset({type(None), bool, int, float, str, bytes, datetime, UUID})
_CONVERTED: Final[Mapping[type, Callable[[Any], Any]]] = {
    Binary: bytes,
    Decimal128: lambda value: value.to_decimal(),
    Int64: int,
    ObjectId: str,
    Timestamp: lambda value: value.as_datetime(),
}


def decode(payload: bytes) -> Any:
    """Return BSON as plain data.  Raises DecodeError, also for code, patterns and the like."""
    try:
        return _to_plain(decode_bson(payload, _CODEC_OPTIONS), MAX_DEPTH)
    except DecodeError:
        raise
    except RecursionError:
        raise DecodeError("not BSON: nested too deeply") from None
    except InvalidBSON:
        raise DecodeError("not BSON: its structure is broken, or it has a value out of range") from None
    except Exception as error:
        raise DecodeError(f"not BSON: {shorten(error)}") from None


def _to_plain(item: Any, levels: int) -> Any:
    """Return plain data for a value that may be nested so many levels deep."""
    kind = type(item)
    if kind in _PLAIN:
        return item
    if kind in _CONVERTED:
        return _CONVERTED[kind](item)
    if kind is not dict and kind is not list:
        raise DecodeError(f"BSON {kind.__name__} cannot be stored")
    if not levels:
        raise DecodeError(f"nested deeper than {MAX_DEPTH} levels")
    if kind is list:
        return [_to_plain(value, levels - 1) for value in item]
    if _PLAIN.issuperset(map(type, item.values())):
        return item
    return {key: _to_plain(value, levels - 1) for key, value in item.items()}
