"""The built-in decoders: each function here makes one from its options.

A decoder takes a payload and gives plain data, or raises DecodeError with a reason that repeats nothing of the payload.
"""

from __future__ import annotations

import json
import math
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Final

import orjson

from amqtt_db.errors import DecodeError

Decoder = Callable[[bytes], Any]
"""Bytes → plain data: dicts with text keys, lists, None, bool, int, float, str, bytes, datetime, Decimal, UUID."""

MAX_SIZE: Final = 64 * 2**20
"""The default maximum size of a decompressed payload, in bytes."""

MAX_DEPTH: Final = 200
"""The maximum nesting depth of lists and objects in a payload.

orjson writes at most 254 levels, and a record that is exported or moved to another model gets a few more.
"""


def json_format() -> Decoder:
    """Return a decoder of JSON.

    It takes what devices send as JSON: NaN, ±Infinity, lone surrogates, byte order marks, UTF-16 and UTF-32.

    Integers are exact whatever their size; a number that no double can hold is refused.
    """
    return _json


def text_format(*, encoding: str = "utf-8") -> Decoder:
    """Return a decoder of text in ``encoding``.  Raises ValueError for an encoding that Python does not know."""
    try:
        b"a".decode(encoding)
    except UnicodeDecodeError:
        pass
    except (LookupError, ValueError):  # the latter for text that cannot be a name
        raise ValueError(f"encoding: Python does not know {encoding!r}") from None

    def decode_text(payload: bytes) -> str:
        try:
            return payload.decode(encoding)
        except UnicodeError as error:
            raise DecodeError(f"not {encoding} text{position(error)}") from None

    return decode_text


def bytes_format() -> Decoder:
    """Return a decoder that leaves the payload as it is."""
    return _verbatim


def struct_format(*, format: str, names: list[str]) -> Decoder:  # noqa: A002 - the option's name
    """Return a decoder of a C struct: ``format`` as in Python's :mod:`struct`, ``names`` for its values in their order.

    Raises ValueError, with every mistake as an argument, for a wrong format or names that do not fit it.
    """
    problems = _names_problems(names)
    try:
        layout = struct.Struct(format)
    except struct.error as error:
        raise ValueError(f"format: {format!r} is not a format of Python's struct: {error}", *problems) from None
    if re.search(r"(?<!\d)0+p", format):
        problems.append("format: a Pascal string needs at least one byte, so '0p' cannot be read")
    if (count := _count_values(format)) != len(names):
        problems.append(f"names: {format!r} holds {count} values, but there are {len(names)} names")
    if problems:
        raise ValueError(*problems)
    return _struct_decoder(layout, tuple(names))


def msgpack_format() -> Decoder:
    """Return a decoder of MessagePack; its timestamps become datetimes in UTC.

    Raises ValueError without the extra ``msgpack``.
    """
    return _Lazy("msgpack", "amqtt_db.decode.msgpack", extra="msgpack")


def cbor_format() -> Decoder:
    """Return a decoder of CBOR; ``undefined`` becomes None, tags become datetime, date, Decimal, UUID or int.

    Raises ValueError without the extra ``cbor``.
    """
    return _Lazy("cbor2", "amqtt_db.decode.cbor", extra="cbor")


def gzip_format(*, max_size: int = MAX_SIZE) -> Decoder:
    """Return a decoder of a gzip file of at most ``max_size`` bytes; several members are joined."""
    return _decompressor("gzip", 31, max_size)


def zlib_format(*, max_size: int = MAX_SIZE) -> Decoder:
    """Return a decoder of a zlib stream (RFC 1950) of at most ``max_size`` bytes."""
    return _decompressor("zlib", 15, max_size)


def deflate_format(*, max_size: int = MAX_SIZE) -> Decoder:
    """Return a decoder of a raw deflate stream (RFC 1951) of at most ``max_size`` bytes."""
    return _decompressor("deflate", -15, max_size)


FORMATS: Final[Mapping[str, Callable[..., Decoder]]] = {
    "bytes": bytes_format,
    "cbor": cbor_format,
    "deflate": deflate_format,
    "gzip": gzip_format,
    "json": json_format,
    "msgpack": msgpack_format,
    "struct": struct_format,
    "text": text_format,
    "zlib": zlib_format,
}
"""The built-in decoders by name: functions whose keyword arguments are the decoder's options."""

GIVES_BYTES: Final = frozenset({"bytes", "deflate", "gzip", "zlib"})
"""The built-in decoders that another built-in one can follow."""


def shorten(error: BaseException) -> str:
    """Return a foreign exception as a reason: its class and at most 200 characters of its text."""
    text = str(error)
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def position(error: UnicodeError) -> str:
    """Return where decoding text failed, without the text."""
    return f" at byte {error.start}: {error.reason}" if isinstance(error, UnicodeDecodeError) else ""


def _verbatim(payload: bytes) -> bytes:
    return payload


_DIGITS_AND_MINUS: Final = bytes.maketrans(b"-123456789", b"0000000000")
_LONG_NUMBER: Final = b"0" * 20  # 20 digits, or a minus and 19: orjson makes a float of what exceeds 64 bits


def _json(payload: bytes) -> Any:
    if _LONG_NUMBER in payload.translate(_DIGITS_AND_MINUS):
        return _patient_json(payload, None)
    try:
        data = orjson.loads(payload)
    except orjson.JSONDecodeError as error:
        return _patient_json(payload, str(error))
    if len(payload) > 2 * MAX_DEPTH:  # each level takes two bytes at least
        _check_brackets(payload, data)
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
        raise DecodeError(f"not JSON: {reason or error}{_hint(payload)}") from None
    check_depth(data)
    return data


def _hint(payload: bytes) -> str:
    """Return what to do about a payload that looks like plain text rather than broken JSON."""
    with suppress(UnicodeDecodeError):
        if payload.decode().lstrip()[:1] not in '{["':
            return "; if this topic sends plain text, set `decode: text` on its route"
    return ""


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise DecodeError("a number is beyond the range of a double")
    return number


def _check_brackets(payload: bytes, data: Any) -> None:
    if payload.count(b"[") + payload.count(b"{") > MAX_DEPTH:
        check_depth(data)


def check_depth(data: Any) -> None:
    """Raise DecodeError for lists and objects that are nested too deeply to be written as JSON again."""
    level = [data]
    for _ in range(MAX_DEPTH + 1):
        inner = {id(child): child for item in level for child in _children(item)}  # one may stand in many places
        if not inner:
            return
        level = list(inner.values())
    raise DecodeError(f"nested deeper than {MAX_DEPTH} levels")


def _children(item: Any) -> Collection[Any]:
    if isinstance(item, Mapping):
        return item.values()
    return item if isinstance(item, (list, tuple)) else ()


def _names_problems(names: list[str]) -> list[str]:
    wrong = [name for name in names if not isinstance(name, str) or not name]
    problems = [f"names: {name!r} is not a name; quote it so that YAML reads it as text" for name in wrong]
    twice = [str(name) for name, count in Counter(map(str, names)).items() if count > 1]
    return problems + [f"names: {name!r} appears more than once" for name in twice]


def _count_values(layout: str) -> int:
    codes = re.findall(r"(\d*)([a-zA-Z?])", layout)
    return sum(1 if code in "sp" else int(count or 1) for count, code in codes if code != "x")


def _struct_decoder(layout: struct.Struct, names: tuple[str, ...]) -> Decoder:
    unpack, size = layout.unpack, layout.size

    def decode_struct(payload: bytes) -> dict[str, Any]:
        if len(payload) != size:
            raise DecodeError(f"expected {size} bytes for {layout.format!r}, got {len(payload)}")
        return dict(zip(names, unpack(payload), strict=True))

    return decode_struct


class _Lazy:
    """A decoder whose module is imported by the first message, for the broker's process decodes none.

    Raises ValueError where its library is missing; one that does not import is the reason that messages are told.
    """

    __slots__ = ("_decode", "_extra", "_library", "_module")

    def __init__(self, library: str, module: str, *, extra: str) -> None:
        if find_spec(library) is None:
            raise ValueError(f"needs the library {library}: pip install 'amqtt_db[{extra}]'")
        self._library, self._module, self._extra = library, module, extra
        self._decode: Decoder | None = None

    def __call__(self, payload: bytes) -> Any:
        if not payload:
            raise DecodeError("empty payload")
        if self._decode is None:
            self._decode = self._import()
        data = self._decode(payload)
        if len(payload) > MAX_DEPTH:  # each level takes a byte at least
            check_depth(data)
        return data

    def _import(self) -> Decoder:
        try:
            decode: Decoder = import_module(self._module).decode
        except ImportError:
            what = f"the library {self._library!r} cannot be imported; pip install 'amqtt_db[{self._extra}]'"
            raise DecodeError(what) from None
        return decode


def _decompressor(name: str, wbits: int, max_size: int) -> Decoder:
    if type(max_size) is not int or max_size < 1:
        raise ValueError(f"max_size: expected a number of bytes above 0, got {max_size!r}")

    def decompress(payload: bytes) -> bytes:
        try:
            return _inflate(payload, name, wbits, max_size)
        except zlib.error as error:
            raise DecodeError(f"not {name}: {error}") from None

    return decompress


def _inflate(payload: bytes, name: str, wbits: int, max_size: int) -> bytes:
    members: list[bytes] = []
    room = max_size
    while payload or not members:
        stream = zlib.decompressobj(wbits)
        members.append(stream.decompress(payload, room + 1))
        room -= len(members[-1])
        if room < 0:
            raise DecodeError(f"more than {max_size} bytes when decompressed")
        if not stream.eof:
            raise DecodeError(f"not {name}: it ends too early" if payload else "empty payload")
        payload = stream.unused_data.lstrip(b"\0")
        if payload and name != "gzip":
            raise DecodeError(f"not {name}: unexpected bytes at its end")
    return members[0] if len(members) == 1 else b"".join(members)
