"""JSON that keeps every type of the project.

Plain JSON stays plain JSON: ``[1, "a", {"b": true}]`` is stored as it is.  What JSON or some database's JSON type
would not return exactly is tagged, as an object with one key: ``{"$number": "-0.0"}``, ``{"$bytes": "AAEC"}``,
``{"$datetime": "2026-01-31T12:00:00+00:00"}``, ``{"$text": "a\\\\u0000b"}``.  A key of the data that begins with ``$``
gets a second one; objects with keys that some database cannot hold become ``{"$object": [[key, value], ...]}``.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import orjson

from amqtt_db.record import EXACT, TaggedValue, as_plain, escape, unescape


class EncodedJson(str):
    """A value that is already tagged JSON text, and is passed on unchanged."""

    __slots__ = ()


def dumps(value: Any) -> str:
    """Return the tagged JSON text of a value.  Raises TypeError for a type that cannot be stored."""
    untagged = _dump_untagged((value,)) if type(value) in _CONTAINERS else None
    return (untagged or orjson.dumps(_encode(value))).decode()


def loads(text: str | bytes) -> Any:
    """Return the value that :func:`dumps` wrote; a :class:`TaggedValue` comes back as one."""
    data = orjson.loads(text)
    is_plain = '"$' not in text if isinstance(text, str) else b'"$' not in text
    return data if is_plain else _decode(data)


_SCALARS: Final = frozenset({bool, int, float, str})
_CONTAINERS: Final = frozenset({dict, list})
_ZERO_TO_NINE: Final = bytes.maketrans(b"123456789", b"000000000")
_MINUS_ZERO: Final = re.compile(rb"-0\.0(?!\d)")


def dumps_all(values: Sequence[Any]) -> Sequence[str | None]:
    """:func:`dumps` of many values, None as None; an object that occurs repeatedly is encoded once.

    :class:`EncodedJson` is passed on unchanged.
    """
    if set(map(type, values)) == {EncodedJson}:
        texts = "\n".join(values).split("\n")  # drivers are slow with a class of our own
        if len(texts) == len(values):  # JSON need not have line breaks, and hardly ever does
            return texts
    different = {id(value): value for value in values if value is not None}
    found = dict(zip(different, _tagged_texts(list(different.values())), strict=True))
    return list(map(found.get, map(id, values)))


def _tagged_texts(values: Sequence[Any]) -> Sequence[str]:
    together = _dump_untagged(values) if values else None
    return list(map(_text, values)) if together is None else together.decode().split("\n")


def _text(value: Any) -> str:
    return str(value) if type(value) is EncodedJson else dumps(value)


def _dump_untagged(values: Iterable[Any]) -> bytes | None:
    """The JSON of values that need no tag, one per line; None if a quick look cannot tell."""
    if not _is_json(values):
        return None
    try:
        text = b"\n".join([orjson.dumps(value, option=orjson.OPT_STRICT_INTEGER) for value in values])
    except TypeError:  # an integer beyond a double, a lone surrogate, a key that is not text
        return None
    return text if needs_no_tag(text) else None


def needs_no_tag(text: bytes) -> bool:
    """Return True if the JSON text of plain values certainly holds nothing that needs a tag.

    It searches the text itself, which is much faster than checking each value: a key or text that begins with ``$``,
    U+0000, NaN (which is ``null`` there), −0.0, an exponent, a number of more digits than a double's integers have.
    """
    if b'"$' in text or b"\\u0000" in text or b"null" in text or (b"-0.0" in text and _MINUS_ZERO.search(text)):
        return False
    digits = text.translate(_ZERO_TO_NINE)
    return b"0e" not in digits and b"0000000000000000." not in digits


def _is_json(values: Iterable[Any]) -> bool:
    """Return True if values, and everything in them, have JSON's own types other than null."""
    types = set(map(type, values))
    if types <= _SCALARS:
        return True
    if not types <= _SCALARS | _CONTAINERS:
        return False
    objects = (value.values() if type(value) is dict else value for value in values if type(value) in _CONTAINERS)
    return all(map(_is_json, objects))


def _encode(value: Any) -> Any:
    encoder = _ENCODERS.get(type(value))
    if encoder is not None:
        return encoder(value)
    plain = as_plain(value)
    if type(plain) not in _ENCODERS:
        raise TypeError(f"a {type(value).__name__} cannot be stored")
    return _encode(plain)


def _same(value: Any) -> Any:
    return value


def _encode_int(value: int) -> Any:
    return value if -EXACT <= value <= EXACT else {"$int": str(value)}


def _encode_float(value: float) -> Any:
    if -EXACT < value < EXACT and (value or math.copysign(1, value) > 0) and not 0 < abs(value) < 1e-300:
        return value
    return {"$number": repr(value)}


def _encode_text(value: str) -> Any:
    return value if is_clean(value) else {"$text": escape(value)}


def is_clean(text: str) -> bool:
    """Return True if every database can hold the text: no U+0000, no lone surrogates."""
    if text.isascii():
        return "\x00" not in text
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _encode_list(value: list[Any]) -> list[Any]:
    return [_encode(item) for item in value]


def _encode_dict(value: dict[str, Any]) -> Any:
    if not all(isinstance(key, str) for key in value):
        raise TypeError("a key of an object is not text")
    if all(map(is_clean, value)):
        return {"$" + key if key.startswith("$") else key: _encode(item) for key, item in value.items()}
    return {"$object": [[_encode(key), _encode(item)] for key, item in value.items()]}


def _encode_typed(value: TaggedValue) -> Any:
    return {"$typed": [value.kind, _encode(value.value)]}


_ENCODERS: Final[Mapping[type, Callable[[Any], Any]]] = {
    type(None): _same,
    bool: _same,
    int: _encode_int,
    float: _encode_float,
    str: _encode_text,
    list: _encode_list,
    tuple: _encode_list,
    dict: _encode_dict,
    bytes: lambda value: {"$bytes": base64.b64encode(value).decode()},
    datetime: lambda value: {"$datetime": value.isoformat()},
    date: lambda value: {"$date": value.isoformat()},
    time: lambda value: {"$time": value.isoformat()},
    Decimal: lambda value: {"$decimal": str(value)},
    UUID: lambda value: {"$uuid": str(value)},
    TaggedValue: _encode_typed,
}


def _decode(value: Any) -> Any:
    if isinstance(value, list):
        return [_decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((key, item),) = value.items()
        if key.startswith("$") and not key.startswith("$$"):
            return _DECODERS[key](item)
    return {key[1:] if key.startswith("$") else key: _decode(item) for key, item in value.items()}


_DECODERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "$int": int,
    "$number": float,
    "$text": unescape,
    "$bytes": base64.b64decode,
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$time": time.fromisoformat,
    "$decimal": Decimal,
    "$uuid": UUID,
    "$object": lambda pairs: {_decode(key): _decode(item) for key, item in pairs},
    "$typed": lambda pair: TaggedValue(pair[0], _decode(pair[1])),
}
