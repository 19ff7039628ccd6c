"""InfluxDB's line protocol: ``measurement,tag=text field=1.5,other=2i 1700000000000000000``; each line is a record.

A record has the ``measurement``, the tags and the fields under their names, the ``time``, and the ``nanoseconds``
beyond its microseconds.  A field always has its own name; a tag of the same name goes below ``tag``.  So does a tag
that is called like one of the record's own properties; a field that is called like one goes below ``field``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Annotated, Any, Final

from amqtt_db.decode.checks import Decoder, as_records, decode_utf8
from amqtt_db.errors import DecodeError
from amqtt_db.record import EPOCH, MICROSECOND

PRECISIONS: Final = {"ns": 1, "us": 1000, "ms": 10**6, "s": 10**9}
"""The units that times may have, in nanoseconds."""

_OWN_NAMES: Final = frozenset({"measurement", "time", "nanoseconds", "tag", "field"})
_is_free: Final = (_OWN_NAMES - {"measurement"}).isdisjoint
_TRUTHS: Final = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), False),
}
_WRITTEN_NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII).fullmatch
_DIGITS: Final = re.compile(r"[-+]?\d{1,20}", re.ASCII).fullmatch

_LETTERS: Final = bytes(range(33, 127)).translate(None, b',="\\')
_COMMAS: Final = bytes.maketrans(b"= ", b",,")
_SEPARATORS: Final = re.compile(rb"((?:,=)*) =(?:,=)* ?").fullmatch
_MOST_SEPARATORS: Final = 1000  # so that the cache stays small

# A separator after a backslash is part of a name.  Text is in quotes, and may have line breaks in it.
_NAME_IN_LINE: Final = r"[^,= \n]+(?:(?<=\\)[,= ][^,= \n]*)*"
_MEASUREMENT_AT: Final = re.compile(r"[^, \n]+(?:(?<=\\)[, ][^, \n]*)*").match
_TAG_AT: Final = re.compile(rf",({_NAME_IN_LINE})=({_NAME_IN_LINE})(?!=)").match
_FIELD_AT: Final = re.compile(rf'({_NAME_IN_LINE})=(?:"([^"\\]*(?:\\.[^"\\]*)*)"|([^, \r\n"]+))', re.DOTALL).match
_SPACES_AT: Final = re.compile(" *").match
_REST_AT: Final = re.compile(r"(?: +([^ \r\n]+))? *\r?(?:\n|$)").match
_SKIPPED_AT: Final = re.compile(r"(?: *(?:#[^\n]*|\r?)(?:\n|$))* *").match
_ESCAPED_IN_MEASUREMENT: Final = re.compile(r"\\([, ])")
_ESCAPED_IN_NAME: Final = re.compile(r"\\([,= ])")
_ESCAPED_IN_TEXT: Final = re.compile(r'\\(["\\])')


def influx_format(
    *, precision: Annotated[str, "The unit of the times: ns (the default), us, ms or s."] = "ns"
) -> Decoder:
    """Return a decoder of InfluxDB's line protocol.

    Raises ValueError for a unit other than ns, us, ms and s.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    unit = PRECISIONS[precision]

    def decode_influx(payload: bytes) -> Any:
        record = _split_line(payload.rstrip(b"\n"), unit)
        if record is not None:
            return record
        text = decode_utf8(payload, "line protocol")
        return as_records(_scan_lines(text, unit) if '"' in text or "\\" in text else _split_lines(text, unit))

    return decode_influx


def _split_lines(text: str, unit: int) -> Iterator[dict[str, Any]]:
    """Yield the records of lines without quotes and backslashes."""
    for number, line in enumerate(text.split("\n"), start=1):
        record = _split_line(line.encode(), unit)
        if record is None:
            yield from _scan_lines(line, unit, number)
        else:
            yield record


def _split_line(line: bytes, unit: int) -> dict[str, Any] | None:
    """Return the record of a plain line; None for any other, and for one with a mistake."""
    separators = line.translate(None, _LETTERS)
    tags = _count_tags(separators) if len(separators) < _MOST_SEPARATORS else None
    if tags is None:
        return None
    parts = line.translate(_COMMAS).decode().split(",")
    time = None if len(parts) % 2 else parts.pop()
    names, values = ["measurement", *parts[1::2]], parts[::2]
    fields = values[tags + 1 :]
    try:
        numbers = values[tags + 1 :] = [_READ_PLAIN[text[-1]](text) for text in fields]
        record: dict[str, Any] = dict(zip(names, values))  # noqa: B905 - they are equally long, and it is faster
        if len(record) < len(names) or "" in record or "" in values or not _is_free(record):
            return None
        if _are_odd(fields, numbers) or line.startswith(b"#"):
            return None
        if time is not None:
            _add_time(record, _read_integer(time, unit))
    except (ValueError, LookupError, OverflowError):
        return None
    return record


@lru_cache(512)
def _count_tags(separators: bytes) -> int | None:
    """Return the number of a plain line's tags, given all its characters that are not plain letters."""
    found = _SEPARATORS(separators)
    return None if found is None else len(found[1]) // 2


def _are_odd(texts: list[str], numbers: list[Any]) -> bool:
    """Return True if a number may be infinite, or has an underscore, which Python allows."""
    total = sum(numbers)
    return total - total != 0 or "_" in "".join(texts)


def _scan_lines(text: str, unit: int, number: int = 1) -> Iterator[dict[str, Any]]:
    """Yield the records of any lines; ``number`` is that of the first."""
    position = counted = 0
    while (position := _end(_SKIPPED_AT(text, position))) < len(text):
        number, counted = number + text.count("\n", counted, position), position
        try:
            record, position = _scan_line(text, position, unit)
        except (DecodeError, ValueError) as error:
            raise DecodeError(f"not line protocol: line {number}: {error}") from None
        yield record


def _scan_line(text: str, position: int, unit: int) -> tuple[dict[str, Any], int]:
    """Return the record of the line at a position, and where the next line begins."""
    measurement = _MEASUREMENT_AT(text, position)
    if measurement is None:
        raise DecodeError("it has no measurement")
    position, tags = _scan_tags(text, measurement.end())
    position, fields = _scan_fields(text, position)
    rest = _REST_AT(text, position)
    if rest is None:
        raise DecodeError("after its fields there is more than a time")
    record = {"measurement": _ESCAPED_IN_MEASUREMENT.sub(r"\1", measurement[0]), **_merge_tags(tags, fields)}
    if rest[1] is not None:
        _add_time(record, _read_integer(rest[1], unit))
    return record, rest.end()


def _scan_tags(text: str, position: int) -> tuple[int, dict[str, str]]:
    tags: dict[str, str] = {}
    while text.startswith(",", position):
        found = _TAG_AT(text, position)
        if found is None:
            raise DecodeError("one of its tags has no name or no value")
        name, value = (_ESCAPED_IN_NAME.sub(r"\1", part) for part in found.groups())
        if name in tags:
            raise DecodeError("it has a tag twice")
        tags[name] = value
        position = found.end()
    return position, tags


def _scan_fields(text: str, position: int) -> tuple[int, dict[str, Any]]:
    fields: dict[str, Any] = {}
    begin = position
    position = _end(_SPACES_AT(text, begin))
    while True:
        found = None if position == begin else _FIELD_AT(text, position)
        if found is None:
            raise DecodeError("a field with a name and a value is missing")
        name = _ESCAPED_IN_NAME.sub(r"\1", found[1])
        if name in fields:
            raise DecodeError("it has a field twice")
        fields[name] = _read_value(found[3]) if found[2] is None else _ESCAPED_IN_TEXT.sub(r"\1", found[2])
        position = found.end()
        if not text.startswith(",", position):
            return position, fields
        position += 1


def _end(found: re.Match[str] | None) -> int:
    """Return where the match ends; the pattern also matches nothing at all, so there is always a match."""
    assert found is not None  # noqa: S101
    return found.end()


def _read_value(text: str) -> Any:
    try:
        read = _READ_BY_END[text[-1]]
        if read is not _read_float or _WRITTEN_NUMBER(text):
            return read(text)
    except LookupError:
        pass
    raise ValueError("a field's value is not a number, true, false or text in quotes")


def _read_float(text: str) -> float:
    """Return a number, and refuse what only Python allows: underscores, and numbers that are too large."""
    number = float(text)
    if number - number or "_" in text:
        raise ValueError("a number is beyond the range of a double")
    return number


def _read_integer(text: str, unit: int = 1) -> int:
    if not _DIGITS(text):
        raise ValueError("an integer or a time is not written in digits")
    return int(text) * unit


def _read_int64(text: str) -> int:
    value = _read_integer(text[:-1])
    if not -(2**63) <= value < 2**63:
        raise ValueError("an integer does not fit 64 bits")
    return value


def _read_uint64(text: str) -> int:
    value = _read_integer(text[:-1])
    if not 0 <= value < 2**64:
        raise ValueError("an unsigned integer does not fit 64 bits")
    return value


_READ_BY_END: Final[dict[str, Callable[[str], Any]]] = {
    **dict.fromkeys("0123456789.", _read_float),
    **dict.fromkeys("tTeEfF", _TRUTHS.__getitem__),
    "i": _read_int64,
    "u": _read_uint64,
}
"""What reads a value, by its last letter."""

_READ_PLAIN: Final = {**_READ_BY_END, **dict.fromkeys("0123456789.", float)}
"""The same for a plain line, whose numbers are checked together."""


def _merge_tags(tags: dict[str, str], fields: dict[str, Any]) -> dict[str, Any]:
    """Return tags and fields as properties of one object."""
    hidden = {name: tag for name, tag in tags.items() if name in fields or name in _OWN_NAMES}
    more = {name: field for name, field in fields.items() if name in _OWN_NAMES}
    record = {name: value for name, value in {**tags, **fields}.items() if name not in _OWN_NAMES}
    return record | ({"tag": hidden} if hidden else {}) | ({"field": more} if more else {})


def _add_time(record: dict[str, Any], nanoseconds: int) -> None:
    """Add a time, and beside it the nanoseconds beyond its microseconds."""
    if not -(2**63) <= nanoseconds < 2**63:
        raise ValueError("its time, in nanoseconds, does not fit 64 bits")
    micros, finer = divmod(nanoseconds, 1000)
    record["time"] = EPOCH + micros * MICROSECOND
    if finer:
        record["nanoseconds"] = finer
