"""MessagePack, with the library ``msgpack`` (extra ``msgpack``); import this module only when it is needed."""

from __future__ import annotations

from typing import Any

import msgpack

from amqtt_db.decode.checks import position, shorten
from amqtt_db.errors import DecodeError


def decode(payload: bytes) -> Any:
    """Return MessagePack as plain data.  Raises DecodeError, also for keys that are not text and unknown extensions."""
    try:
        return msgpack.unpackb(
            payload,
            raw=False,
            timestamp=3,
            strict_map_key=False,
            object_pairs_hook=_object,
            ext_hook=_refuse_extension,
        )
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


def _object(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    for key, _ in pairs:
        if type(key) is not str:
            raise DecodeError(f"a key of an object is a {type(key).__name__}, not text")
    return dict(pairs)


def _refuse_extension(code: int, _: bytes) -> Any:
    raise DecodeError(f"MessagePack extension type {code} is unknown")
