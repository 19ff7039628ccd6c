"""JSON as devices send it, and ``auto``: JSON if it is JSON, else text or bytes."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum
from typing import Any, Final

from orjson import JSONDecodeError, loads

from amqtt_db.decode.checks import MAX_DEPTH, Decoder, check_depth, is_shallow, may_be_deep, position
from amqtt_db.errors import DecodeError


class Empty(Enum):
    """The type of :data:`EMPTY`."""

    EMPTY = "no record"


EMPTY: Final = Empty.EMPTY
"""The data of a payload that makes no record, such as the empty one that clears a retained message."""

_DIGITS_AND_MINUS: Final = bytes.maketrans(b"-123456789", b"0000000000")
_LONG_NUMBER: Final = b"0" * 20  # 20 digits, or a minus and 19: orjson turns integers beyond 64 bits into floats
_NEVER_DEEP: Final = 2 * MAX_DEPTH  # bytes
_NUL: Final = b"\0"
_LIKE_JSON: Final = re.compile(r'[ \t\r\n\ufeff]*(\{|\[[ \t\r\n]*([\[{"]|[-+.,\d\s]*$))').match


def auto_format() -> Decoder:
    """Return a decoder that accepts whatever a device sends.

    JSON is decoded as JSON, an empty payload makes no record, other UTF-8 is text, and the rest is bytes.  A payload
    that begins like a JSON object or list, but is not one, is rejected: part of it is probably missing.
    ``[D][main:12]: on`` does not begin like a list.
    """
    return _decode_auto


def json_format() -> Decoder:
    """Return a decoder of JSON.

    It accepts what devices send as JSON: NaN, ±Infinity, lone surrogates, byte order marks, UTF-16 and UTF-32, and null
    characters at the end.  Integers are exact whatever their size; a number beyond the range of a double is rejected.
    """
    return _decode_json


def decodes_json(decode: object) -> bool:
    """Return True for the decoders of this module, which :func:`decode_many` calls."""
    return decode is _decode_json or decode is _decode_auto


def decode_many(decode: Decoder, payloads: Sequence[bytes]) -> list[Any]:
    """Return what a decoder of this module makes of each payload, or the DecodeError that it raises.

    If no payload needs a close look, orjson takes one after the other without any Python code in between.
    """
    if not _are_simple(payloads):
        return [_decode_or_explain(decode, payload) for payload in payloads]
    found: list[Any] = []
    rest = iter(payloads)
    while len(found) < len(payloads):
        try:
            found.extend(map(loads, rest))
        except JSONDecodeError:  # what came before it is in the list
            found.append(_decode_or_explain(decode, payloads[len(found)]))
    return found


def _are_simple(payloads: Sequence[bytes]) -> bool:
    """Return True if no payload has a number that orjson does not read exactly, or is nested too deeply."""
    if _LONG_NUMBER in b" ".join(payloads).translate(_DIGITS_AND_MINUS):
        return False
    longest = max(map(len, payloads), default=0)
    return longest <= _NEVER_DEEP or not any(map(may_be_deep, payloads))


def _decode_or_explain(decode: Decoder, payload: bytes) -> Any:
    try:
        return decode(payload)
    except DecodeError as error:
        return error


def strip_ends(text: str) -> str:
    """Return text without a byte order mark at its beginning or null characters at its end."""
    return text.removeprefix("\ufeff").rstrip("\0")


def _decode_auto(payload: bytes) -> Any:
    try:
        return _decode_json(payload)
    except DecodeError as error:
        if not payload:
            return EMPTY
        try:
            text = payload.decode()
        except UnicodeDecodeError:
            text = None
        if _LIKE_JSON(payload.decode("latin-1") if text is None else text):
            raise error from None
        return payload if text is None else strip_ends(text) or payload


def _decode_json(payload: bytes) -> Any:
    digits = payload.translate(_DIGITS_AND_MINUS)
    if digits.replace(_LONG_NUMBER, b"") != digits:  # much faster than a search in such a short text
        return _patient_json(payload, None)
    try:
        data = loads(payload)
    except JSONDecodeError as error:
        return _patient_json(payload, str(error))
    if len(payload) > _NEVER_DEEP and may_be_deep(payload) and not is_shallow(data):
        check_depth(data)
    return data


def _patient_json(payload: bytes, reason: str | None) -> Any:
    if not payload:
        raise DecodeError("empty payload")
    try:
        data = json.loads(payload, parse_float=_finite)
    except DecodeError:
        raise
    except RecursionError:
        raise DecodeError(f"nested deeper than {MAX_DEPTH} levels") from None
    except UnicodeError as error:
        raise DecodeError(f"not JSON: {reason or 'not UTF-8' + position(error)}") from None
    except ValueError as error:
        if payload.endswith(_NUL):  # the end of a C string
            return _decode_json(payload.rstrip(_NUL))
        raise DecodeError(f"not JSON: {reason or error}{_hint(payload)}") from None
    check_depth(data)
    return data


def _hint(payload: bytes) -> str:
    """Return what to do about a payload that looks like plain text rather than broken JSON."""
    with suppress(UnicodeDecodeError):
        if payload.decode().lstrip()[:1] not in '{["':
            return "; if this topic sends plain text, set `decode: auto` or `decode: text` on its route"
    return ""


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise DecodeError("a number is beyond the range of a double")
    return number
