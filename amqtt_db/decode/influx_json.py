"""Line protocol as most senders write it, turned into JSON, which orjson reads in one call.

This is for speed only: a line with escapes, or with any mistake, is left to :mod:`amqtt_db.decode.influx`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any, Final

import orjson

from amqtt_db.record import EPOCH, MICROSECOND

_QUOTE, _BACKSLASH = b'"\\'
_BEYOND_INT64: Final = 2**63
_LETTERS: Final = bytes({*range(33, 256)} - {*b',="\\#\x7f\xef'})  # nor those that begin a comment or a byte order mark
_SEPARATORS: Final = re.compile(rb"((?:,=)*) =\0?((?:,=\0?)*) ?").fullmatch
_TRUE: Final = re.compile(rb"=(?:t|T|True|TRUE)(?=,|\Z)")
_FALSE: Final = re.compile(rb"=(?:f|F|False|FALSE)(?=,|\Z)")
_UNSIGNED: Final = re.compile(rb"=(\d+)u(?=,|\Z)")
_TIME_DIGITS: Final = 20
_MOST_SEPARATORS: Final = 1000  # so that the cache stays small
_is_free: Final = frozenset({"time", "nanoseconds", "tag", "field"}).isdisjoint


def read_plain_line(line: bytes, unit: int) -> dict[str, Any] | None:
    """Return the record of a plain line; None for any other, and for one with a mistake.

    ``unit`` is that of its time, in nanoseconds.
    """
    texts: list[bytes] = []
    if _QUOTE in line:
        parts = line.split(b'"')
        if len(parts) % 2 == 0 or _BACKSLASH in line:
            return None
        line, texts = b"\0".join(parts[::2]), parts[1::2]  # a null character stands for each text
    separators = line.translate(None, _LETTERS)
    count = _count_properties(separators) if len(separators) < _MOST_SEPARATORS else 0
    if not count:
        return None
    begin, _, rest = line.partition(b" ")
    fields, _, time = rest.partition(b" ")
    try:
        record = _read_fields(begin, fields, texts)
        if record is None or len(record) != count or not _is_free(record):
            return None
        if time:
            if not time.isdigit() or len(time) > _TIME_DIGITS:
                return None
            add_time(record, int(time) * unit)
    except (ValueError, TypeError, OverflowError):
        return None
    return record


@lru_cache(512)
def _count_properties(separators: bytes) -> int:
    """Return how many properties a plain line has, given its characters that are not plain letters; else 0."""
    found = _SEPARATORS(separators)
    return 0 if found is None else 2 + found[1].count(b"=") + found[2].count(b"=")


def _read_fields(begin: bytes, fields: bytes, texts: list[bytes]) -> dict[str, Any] | None:
    try:
        return _read_as_json(begin, fields, texts)
    except ValueError:
        spelled = _UNSIGNED.sub(rb"=\1i", _FALSE.sub(b"=false", _TRUE.sub(b"=true", fields)))
        return _read_as_json(begin, spelled, texts) if spelled != fields else None


def _read_as_json(begin: bytes, fields: bytes, texts: list[bytes]) -> dict[str, Any] | None:
    """Return the record of a line, without its time.  Raises ValueError, or returns None, if the line is not plain.

    Each value gets an exponent, with which only a number is JSON, and a float.  Integers, true and false lose it again.
    """
    begin = begin.replace(b",", b'","').replace(b"=", b'":"')
    written = fields.replace(b"=", b'":').replace(b",", b'e0,"') + b'e0,"'
    values = written.replace(b'ie0,"', b',"')
    integers = (len(written) - len(values)) // 3
    json = b'{"measurement":"%b","%b}' % (begin, values.replace(b'ee0,"', b'e,"')[:-2])
    if json.count(b'""'):  # something is empty
        return None
    record: dict[str, Any] = orjson.loads(_insert_texts(json, texts) if texts else json)
    if integers:
        found = [value for value in record.values() if type(value) is int and value < _BEYOND_INT64]
        if len(found) != integers:  # orjson makes floats of even larger ones
            return None
    return record


def _insert_texts(json: bytes, texts: list[bytes]) -> bytes:
    """Return JSON with its texts.  Raises TypeError if one of them is not a whole value."""
    return json.replace(b"%", b"%%").replace(b'":\0e0', b'":"%b"') % (*texts,)


def add_time(record: dict[str, Any], nanoseconds: int) -> None:
    """Add a time, and beside it the nanoseconds beyond its microseconds."""
    if not -(2**63) <= nanoseconds < 2**63:
        raise ValueError("its time, in nanoseconds, does not fit 64 bits")
    micros, finer = divmod(nanoseconds, 1000)
    record["time"] = EPOCH + micros * MICROSECOND
    if finer:
        record["nanoseconds"] = finer
