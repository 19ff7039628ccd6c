"""InfluxDB's line protocol: ``measurement,tag=text field=1.5,other=2i 1700000000000000000``; each line is a record.

A record has the ``measurement``, the tags and the fields under their names, the ``time``, and the ``nanoseconds``
beyond its microseconds.  A field always has its own name; a tag of the same name goes below ``tag``.  So does a tag
that is called like one of the record's own properties; a field that is called like one goes below ``field``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final

from amqtt_db.decode.checks import Decoder, as_records, decode_utf8
from amqtt_db.decode.influx_json import add_time, read_plain_line
from amqtt_db.errors import DecodeError

PRECISIONS: Final = {"ns": 1, "us": 1000, "ms": 10**6, "s": 10**9}
"""The units that times may have, in nanoseconds."""

_OWN_NAMES: Final = frozenset({"measurement", "time", "nanoseconds", "tag", "field"})
_TRUTHS: Final = {
    **dict.fromkeys(("t", "T", "true", "True", "TRUE"), True),
    **dict.fromkeys(("f", "F", "false", "False", "FALSE"), False),
}
_LONGEST_TOLD_NAME: Final = 60  # letters of a name in a message
_WRITTEN_NUMBER: Final = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?", re.ASCII).fullmatch
_DIGITS: Final = re.compile(r"[-+]?\d{1,20}", re.ASCII).fullmatch

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
        record = read_plain_line(payload.rstrip(b"\n"), unit)
        return as_records(_scan_lines(decode_utf8(payload, "line protocol") + "\n", unit)) if record is None else record

    return decode_influx


def _scan_lines(text: str, unit: int) -> Iterator[dict[str, Any]]:
    position, size = 0, len(text)
    while position < size:
        end = text.find("\n", position)
        record = read_plain_line(text[position:end].encode(), unit)
        if record is not None:
            yield record
            position = end + 1
            continue
        position = _end(_SKIPPED_AT(text, position))
        if position < size:
            record, position = _scan_numbered(text, position, unit)
            yield record


def _scan_numbered(text: str, position: int, unit: int) -> tuple[dict[str, Any], int]:
    """Return the record of the line at a position, and where the next line begins; a mistake has the line's number."""
    try:
        return _scan_line(text, position, unit)
    except (DecodeError, ValueError) as error:
        number = text.count("\n", 0, position) + 1
        raise DecodeError(f"not line protocol: line {number}: {error}") from None


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
    record = {"measurement": _unescape(_ESCAPED_IN_MEASUREMENT, measurement[0]), **_merge_tags(tags, fields)}
    if rest[1] is not None:
        add_time(record, _read_integer(rest[1], unit))
    return record, rest.end()


def _scan_tags(text: str, position: int) -> tuple[int, dict[str, str]]:
    tags: dict[str, str] = {}
    while text.startswith(",", position):
        found = _TAG_AT(text, position)
        if found is None:
            raise DecodeError("one of its tags has no name or no value")
        name, value = (_unescape(_ESCAPED_IN_NAME, part) for part in found.groups())
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
            after = f" after the field {next(reversed(fields))[:_LONGEST_TOLD_NAME]!r}" if fields else ""
            raise DecodeError(f"a field with a name and a value is missing{after}")
        name = _unescape(_ESCAPED_IN_NAME, found[1])
        if name in fields:
            raise DecodeError("it has a field twice")
        fields[name] = _read_value(found[3]) if found[2] is None else _unescape(_ESCAPED_IN_TEXT, found[2])
        position = found.end()
        if not text.startswith(",", position):
            return position, fields
        position += 1


def _unescape(escaped: re.Pattern[str], text: str) -> str:
    return escaped.sub(r"\1", text) if "\\" in text else text


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


def _merge_tags(tags: dict[str, str], fields: dict[str, Any]) -> dict[str, Any]:
    """Return tags and fields as properties of one object."""
    hidden = {name: tag for name, tag in tags.items() if name in fields or name in _OWN_NAMES}
    more = {name: field for name, field in fields.items() if name in _OWN_NAMES}
    record = {name: value for name, value in {**tags, **fields}.items() if name not in _OWN_NAMES}
    return record | ({"tag": hidden} if hidden else {}) | ({"field": more} if more else {})
