"""Checks and phrases that several decoders share."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from typing import Any, Final

import orjson

from amqtt_db.errors import DecodeError

Decoder = Callable[[bytes], Any]
"""Bytes → plain data: dicts with text keys, lists, None, bool, int, float, str, bytes, datetime, Decimal, UUID."""

MAX_DEPTH: Final = 200
"""The maximum nesting depth of lists and objects in a payload.

A record that is exported or moved to another model gets a few more, and orjson must be able to write these, too.
"""

_ORJSON_DEPTH: Final = 254  # levels that orjson writes at most
_NOTHING_ELSE: Final = (
    orjson.OPT_PASSTHROUGH_DATACLASS | orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_SUBCLASS
)
_LARGE: Final = 10 * MAX_DEPTH  # bytes: the lists around such data do not matter
_NO_STRUCTURE: Final = bytes({*range(256)} - {*b'[]{}"\\'})
_LISTS_AND_OBJECTS: Final = (dict, list, tuple, Mapping)
_NEVER_NESTED: Final = frozenset({type(None), bool, int, float, str, bytes})

_LONGEST_NUMBER_TEXT: Final = 64  # characters; more digits are rather an identifier, as are those that begin with 0
_DIGITS_FROM_1: Final = frozenset("123456789")
_BEGINS_NUMBER: Final = frozenset(" +-0") | _DIGITS_FROM_1
_WRITTEN_LIKE_NUMBER: Final = r" *[+-]?(?:0|[1-9]\d*)({point}\d+)?([eE][+-]?\d+)? *"


def number_reader(*, comma: bool = False) -> Callable[[str], Any]:
    """Return what reads text of a format without types: as a number if it is written like one, as None if it is empty.

    With ``comma``, numbers have a decimal comma.
    """
    point = "," if comma else "."
    match = re.compile(_WRITTEN_LIKE_NUMBER.format(point=re.escape(point)), re.ASCII).fullmatch

    def read_text(text: str) -> Any:
        if text[:1] not in _BEGINS_NUMBER or len(text) > _LONGEST_NUMBER_TEXT:
            return text or None
        if text[0] in _DIGITS_FROM_1 and text.isascii():  # most numbers need no pattern, which takes longer
            if text.isdigit():
                return int(text)
            if text[-1] != point and text.replace(point, "", 1).isdigit():
                return float(text.replace(",", ".") if comma else text)
        found = match(text)
        if found is None:
            return text
        if found.lastindex is None:
            return int(text)
        number = float(text.replace(",", ".") if comma else text)
        return text if number - number else number  # infinite

    return read_text


def as_text(text: str) -> str | None:
    """Return text as it is, None if it is empty."""
    return text or None


def shorten(error: BaseException) -> str:
    """Return another library's exception as a reason: its class and at most 200 characters of its text."""
    text = str(error)
    return f"{type(error).__name__}: {text[:200]}" if text else type(error).__name__


def position(error: UnicodeError) -> str:
    """Return where decoding text failed, without the text."""
    return f" at byte {error.start}: {error.reason}" if isinstance(error, UnicodeDecodeError) else ""


def decode_utf8(payload: bytes, what: str, encoding: str = "utf-8") -> str:
    """Return a payload as text without a byte order mark.  Raises DecodeError, saying that it is not ``what``."""
    if not payload:
        raise DecodeError("empty payload")
    try:
        return payload.decode(encoding).removeprefix("\ufeff")
    except UnicodeError as error:
        raise DecodeError(f"not {what}: not {encoding} text{position(error)}") from None


def as_records(parts: Iterable[Any]) -> Any:
    """Return a single record as it is, and several records, or none, as a generator."""
    rest = iter(parts)
    begun = [*islice(rest, 2)]
    return begun[0] if len(begun) == 1 else _generate(chain(begun, rest))


def _generate(parts: Iterable[Any]) -> Iterator[Any]:
    yield from parts


def check_depth(data: Any) -> None:
    """Raise DecodeError for lists and objects that are nested too deeply to be written as JSON."""
    level = [data] if isinstance(data, _LISTS_AND_OBJECTS) else []
    for _ in range(MAX_DEPTH):
        inner = {id(child): child for item in level for child in _nested_in(item)}
        if not inner:
            return
        level = list(inner.values())  # the same object may occur many times
    raise DecodeError(f"nested deeper than {MAX_DEPTH} levels")


def _nested_in(item: Any) -> Collection[Any]:
    """Return the lists and objects right within one."""
    children = item.values() if isinstance(item, Mapping) else item
    if _NEVER_NESTED.issuperset(map(type, children)):
        return ()
    return [child for child in children if isinstance(child, _LISTS_AND_OBJECTS)]


def is_like_json(data: Any, size: int) -> bool:
    """Return True for data that JSON can hold: keys are text, and nothing is nested too deeply.

    ``size`` is the payload's, in bytes; a level takes at least one.  False means only that somebody has to look: orjson
    looks at everything at once, faster than any loop here.
    """
    if size > _LARGE:
        return is_shallow(data)
    try:
        written = orjson.dumps(data, option=_NOTHING_ELSE)
    except TypeError:
        return False
    return size <= MAX_DEPTH or not may_be_deep(written) or is_shallow(data)


def may_be_deep(json: bytes) -> bool:
    """Return False for JSON that is certainly not nested too deeply."""
    if len(json) <= _LARGE and json.count(b"[") + json.count(b"{") <= MAX_DEPTH:
        return False
    # The number of quotes before a bracket in a text is odd, so if none is left, all brackets are real.
    structure = json.translate(None, _NO_STRUCTURE).replace(b'""', b"")
    if b'"' in structure or b"\\" in structure:
        return True
    around = structure.replace(b"{}", b"").replace(b"[]", b"")
    return len(around) // 2 + 2 > MAX_DEPTH  # the innermost two levels may be gone


def is_shallow(data: Any) -> bool:
    """Return True for data that JSON can hold and that is not nested too deeply: orjson takes it within more lists."""
    for _ in range(_ORJSON_DEPTH - MAX_DEPTH):
        data = [data]
    try:
        orjson.dumps(data, option=_NOTHING_ELSE)
    except TypeError:
        return False
    return True


def names_problems(names: Sequence[str]) -> list[str]:
    """Return the mistakes in names that the user gives to values."""
    wrong = [name for name in names if not isinstance(name, str) or not name]
    problems = [f"names: {name!r} is not a name; quote it so that YAML reads it as text" for name in wrong]
    twice = [str(name) for name, count in Counter(map(str, names)).items() if count > 1]
    return problems + [f"names: {name!r} appears more than once" for name in twice]
