"""CBOR, with the library ``cbor2`` (extra ``cbor``); import this module only when it is needed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, datetime, time, timezone
from decimal import Decimal
from io import BytesIO
from typing import Any, Final
from uuid import UUID

from cbor2 import CBORSimpleValue, CBORTag, load, undefined

from amqtt_db.decode.checks import MAX_DEPTH, check_depth, is_like_json, shorten
from amqtt_db.errors import DecodeError

_CBOR_SCALARS: Final = frozenset({type(None), bool, int, float, date, time, Decimal, UUID})
_LONG_TAGS: Final = b"\xd8\xd9\xda\xdb"
_REFERENCES: Final = tuple(
    re.compile(start + rb"[\x19\x1d]").search for start in (rb"\xd8", rb"\xd9\0", rb"\xda\0{3}", rb"\xdb\0{7}")
)
"""Each finds a tag, of one length, that refers to something before it.  Such tags can make a payload fill the memory.

One pattern for all would take several times as long, because it would not begin with one byte.
"""

_NO_LABELS: Final[Mapping[int, str]] = {}


def decode(payload: bytes, labels: Mapping[int, str] = _NO_LABELS) -> Any:
    """Return CBOR as plain data; ``labels`` maps keys that are integers to names.

    Raises DecodeError, also for other keys that are not text and for unknown tags.
    """
    stream = BytesIO(payload)
    try:
        data = load(stream)
        if stream.tell() != len(payload):
            raise DecodeError("not CBOR: unexpected bytes at its end")
        if not _may_refer(payload) and is_like_json(data, len(payload)):
            return data
        data = _Plain(len(payload), labels).plain(data)
        if len(payload) > MAX_DEPTH:
            check_depth(data)
        return data
    except DecodeError:
        raise
    except RecursionError:
        raise DecodeError("not CBOR: nested too deeply") from None
    except Exception as error:
        raise DecodeError(f"not CBOR: {shorten(error)}") from None


def _may_refer(payload: bytes) -> bool:
    """Return False for a payload in which nothing refers to something else."""
    has_tags = len(payload.translate(None, _LONG_TAGS)) < len(payload)
    return has_tags and any(find(payload) for find in _REFERENCES)


class _Plain:
    """Turns what cbor2 returns into plain data.

    ``room`` is the number of bytes left of the payload: every item takes at least one, and text at least its length.
    Data that needs more comes from shared references, which can fill the memory.
    """

    __slots__ = ("_labels", "_room")

    def __init__(self, room: int, labels: Mapping[int, str]) -> None:
        self._room = room
        self._labels = labels

    def plain(self, item: Any) -> Any:
        kind = type(item)
        self._room -= 1 + len(item) if kind in {str, bytes} else 1
        if self._room < 0:
            raise DecodeError("CBOR with shared references is not supported")
        if kind in {str, bytes} or kind in _CBOR_SCALARS:
            return item
        if kind is dict:
            return {self._key(key): self.plain(value) for key, value in item.items()}
        if kind in {list, tuple}:
            return [self.plain(value) for value in item]
        if kind is datetime:
            return item.astimezone(timezone.utc) if item.tzinfo else item.replace(tzinfo=timezone.utc)
        if item is undefined:
            return None
        raise DecodeError(f"CBOR {_type_name(item)} cannot be stored")

    def _key(self, key: Any) -> str:
        if type(key) is int and key in self._labels:
            return self._labels[key]
        if type(key) is not str:
            raise DecodeError(f"a key of an object is a {type(key).__name__}, not text")
        self._room -= len(key)
        return key


def _type_name(item: Any) -> str:
    if isinstance(item, CBORTag):
        return f"tag {item.tag}"
    if isinstance(item, CBORSimpleValue):
        return f"simple value {item.value}"
    return type(item).__name__
