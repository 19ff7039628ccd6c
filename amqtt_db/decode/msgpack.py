"""MessagePack, with the library ``msgpack`` (extra ``msgpack``); import this module only when it is needed."""

from __future__ import annotations

from typing import Any, Final

import msgpack
from msgpack import unpackb

from amqtt_db.decode.checks import MAX_DEPTH, check_depth, is_like_json, position, shorten
from amqtt_db.errors import DecodeError

_NESTING: Final = frozenset({dict, list})
_BINARY: Final = b"\xc4\xc5\xc6"


def decode(payload: bytes) -> Any:
    """Return MessagePack as plain data.  Raises DecodeError, also for keys that are not text and unknown extensions."""
    if len(payload) > MAX_DEPTH or len(payload.translate(None, _BINARY)) < len(payload):
        return _decode_any(payload)
    try:
        return unpackb(payload, timestamp=3, ext_hook=_refuse_extension)  # it refuses keys other than text and bytes
    except Exception:
        return _decode_any(payload)


def _decode_any(payload: bytes) -> Any:
    """Decode a payload that may also be too deep, have keys that are bytes, or be invalid: then the error says why."""
    try:
        data = unpackb(payload, timestamp=3, strict_map_key=False, ext_hook=_refuse_extension)
        if not is_like_json(data, len(payload)):
            if len(payload) > MAX_DEPTH:
                check_depth(data)
            _check_keys(data)
        return data
    except DecodeError:
        raise
    except UnicodeDecodeError as error:
        raise DecodeError(f"not MessagePack: text that is not UTF-8{position(error)}") from None
    except msgpack.StackError:
        raise DecodeError("not MessagePack: nested too deeply") from None
    except msgpack.ExtraData:
        raise DecodeError("not MessagePack: unexpected bytes at its end") from None
    except Exception as error:
        raise DecodeError(f"not MessagePack: {shorten(error)}") from None


def _check_keys(data: Any) -> None:
    """Raise DecodeError for an object with a key that is not text."""
    if type(data) is dict:
        for key in data:
            if type(key) is not str:
                raise DecodeError(f"a key of an object is a {type(key).__name__}, not text")
        data = data.values()
    elif type(data) is not list:
        return
    if not _NESTING.isdisjoint(map(type, data)):
        for item in data:
            _check_keys(item)


def _refuse_extension(code: int, _: bytes) -> Any:
    raise DecodeError(f"MessagePack extension type {code} is unknown")
