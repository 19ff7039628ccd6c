"""Line protocol as most senders write it, turned into JSON, which orjson reads in one call.

This is for speed only: a line with escapes, or with any mistake, is left to :mod:`amqtt_db.decode.influx`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import orjson

from amqtt_db.record import EPOCH, MICROSECOND

_TAB, _LINE_FEED, _CARRIAGE_RETURN = b"\t\n\r"  # JSON allows these beside a value
_QUOTE, _BACKSLASH, _PERCENT, _EQUALS = b'"\\%='
_BEYOND_INT64: Final = 2**63
_NOT_PLAIN: Final = (b"", 0)
_LETTERS: Final = bytes({*range(33, 256)} - {*b',="\\#\x7f\xef'})  # nor those that begin a comment or a byte order mark
_IN_TAGS: Final = re.compile(rb"(?:,=)*").fullmatch
_TRUE: Final = re.compile(rb"=(?:t|T|True|TRUE)(?=,|\Z)")
_FALSE: Final = re.compile(rb"=(?:f|F|False|FALSE)(?=,|\Z)")
_UNSIGNED: Final = re.compile(rb"=(\d+)u(?=,|\Z)")
_TIME_DIGITS: Final = 20
_LONGEST_BEGIN: Final = 1000  # bytes, so that the cache stays small
_is_free: Final = frozenset({"", "time", "nanoseconds", "tag", "field"}).isdisjoint


def read_plain_line(line: bytes, unit: int) -> dict[str, Any] | None:
    """Return the record of a plain line; None for any other, and for one with a mistake.

    ``unit`` is that of its time, in nanoseconds.
    """
    begin, _, rest = line.partition(b" ")
    opened, known = _open_json(begin) if len(begin) < _LONGEST_BEGIN else _NOT_PLAIN
    if not opened or _BACKSLASH in rest or _TAB in rest or _LINE_FEED in rest or _CARRIAGE_RETURN in rest:
        return None
    texts: tuple[bytes, ...] = ()
    if _QUOTE in rest:
        parts = rest.split(b'"')
        rest, texts = b"\0".join(parts[::2]), (*parts[1::2],)  # a null character stands for each text
        if len(parts) % 2 == 0 or rest.count(b"=\0") != len(texts):
            return None
    fields, _, time = rest.partition(b" ")
    try:
        record = _read_fields(opened, fields, texts)
        if record is None or len(record) != known + fields.count(_EQUALS) or not _is_free(record):
            return None
        if time:
            if not time.isdigit() or len(time) > _TIME_DIGITS:
                return None
            add_time(record, int(time) * unit)
    except (ValueError, TypeError, OverflowError):
        return None
    return record


@lru_cache(1024)
def _open_json(begin: bytes) -> tuple[bytes, int]:
    """Return JSON up to the name of the first field, and how many names it has, for a plain measurement with its tags.

    The JSON is empty for any other.
    """
    json = b'{"measurement":"%b","' % begin.replace(b",", b'","').replace(b"=", b'":"')
    plain = _IN_TAGS(begin.translate(None, _LETTERS)) is not None and b'""' not in json
    return (json, 1 + begin.count(b"=")) if plain else _NOT_PLAIN


def _read_fields(opened: bytes, fields: bytes, texts: tuple[bytes, ...]) -> dict[str, Any] | None:
    """Return the record of a line, without its time.  Raises TypeError, or returns None, if the line is not plain.

    Each value gets an exponent, with which only a number is JSON, and a float.  Integers, true and false lose it again.
    So a field that is not plain is not JSON.
    """
    written = fields.replace(b"=", b'":').replace(b",", b'e0,"') + b'e0,"'
    values = written.replace(b'ie0,"', b',"')
    integers = (len(written) - len(values)) // 3
    json = opened + values.replace(b'ee0,"', b'e,"')[:-2] + b"}"
    if texts:  # a text that is not a whole value is left, which is a TypeError
        json = (json.replace(b"%", b"%%") if _PERCENT in json else json).replace(b'":\0e0', b'":"%b"') % texts
    try:
        record: dict[str, Any] = orjson.loads(json)
    except ValueError:
        spelled = _UNSIGNED.sub(rb"=\1i", _FALSE.sub(b"=false", _TRUE.sub(b"=true", fields)))
        return _read_fields(opened, spelled, texts) if spelled != fields else None
    if integers:
        for value in record.values():
            if type(value) is int and value < _BEYOND_INT64:  # orjson makes floats of even larger ones
                integers -= 1
    return None if integers else record


def add_time(record: dict[str, Any], nanoseconds: int) -> None:
    """Add a time, and beside it the nanoseconds beyond its microseconds."""
    if not -(2**63) <= nanoseconds < 2**63:
        raise ValueError("its time, in nanoseconds, does not fit 64 bits")
    micros, finer = divmod(nanoseconds, 1000)
    record["time"] = EPOCH + micros * MICROSECOND
    if finer:
        record["nanoseconds"] = finer
