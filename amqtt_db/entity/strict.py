"""Conversions that never guess: ``'false'`` is not True, 1.9 is not 1, ``' 12 '`` is not a number.

Each takes a decoded value and returns exactly its type, or raises an exception if the value is not of this type.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import ROUND_FLOOR, Decimal
from typing import Any, Final, NoReturn
from uuid import UUID

from amqtt_db.record import EPOCH, Kind

Convert = Callable[[Any], Any]

SMALLEST: Final = -(2**63)
LARGEST: Final = 2**63 - 1

_HOUR = r"(?:[01]\d|2[0-3]):[0-5]\d"
_FRACTION = r"(?:[.,](\d+))?"
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII).fullmatch
_TIME = re.compile(rf"({_HOUR}(?::[0-5]\d{_FRACTION})?)(?:[Zz]|[+]00:?00)?", re.ASCII).fullmatch
_MOMENT = re.compile(
    rf"(\d{{4}}-\d\d-\d\d)[Tt ]({_HOUR})(?::([0-5]\d){_FRACTION})?(?:([Zz])|([+-]\d\d)(?::?(\d\d))?)?", re.ASCII
).fullmatch
_INTEGER = re.compile(r"[+-]?\d{1,19}", re.ASCII).fullmatch
_NUMBER = re.compile(r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][+-]?\d+)?", re.ASCII).fullmatch
_UUID = re.compile(r"[0-9a-fA-F]{32}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}").fullmatch


def to_bool(value: Any) -> bool:
    """Return a bool; nothing else is accepted."""
    return value if type(value) is bool else _refuse()


def to_int(value: Any) -> int:
    """Return a 64-bit integer, also from a whole float."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and not isinstance(value, bool) and SMALLEST <= value <= LARGEST:
        return int(value)
    return _refuse()


def to_float(value: Any) -> float:
    """Return a double, also from an integer or a Decimal that it represents exactly."""
    if isinstance(value, float):
        return float(value)
    if isinstance(value, int) and not isinstance(value, bool):
        number = float(value)
        return number if number == value else _refuse()
    if isinstance(value, Decimal):
        number = float(value)
        return number if Decimal(repr(number)) == value else _refuse()
    return _refuse()


def to_str(value: Any) -> str:
    """Return text; nothing else is accepted."""
    return str.__str__(value) if isinstance(value, str) else _refuse()


def to_bytes(value: Any) -> bytes:
    """Return bytes, also from base64 text."""
    if isinstance(value, bytes):
        return bytes(value)
    return base64.b64decode(value, validate=True) if isinstance(value, str) else _refuse()


def to_decimal(value: Any) -> Decimal:
    """Return a finite Decimal, also from an integer, a float (its shortest decimal form) or a number as text."""
    if isinstance(value, Decimal):
        return value if value.is_finite() else _refuse()
    if isinstance(value, bool):
        return _refuse()
    if isinstance(value, int):
        return Decimal(int(value))
    if isinstance(value, float):
        return to_decimal(Decimal(repr(float(value))))
    return Decimal(value) if isinstance(value, str) and _NUMBER(value) else _refuse()


def to_date(value: Any) -> date:
    """Return a date, also from ``2026-01-31``."""
    if isinstance(value, str):
        return date.fromisoformat(value) if _DATE(value) else _refuse()
    return value if isinstance(value, date) and not isinstance(value, datetime) else _refuse()


def to_time(value: Any) -> time:
    """Return a time of day in UTC, also from ISO 8601 text such as ``12:34:56.789``; other time zones are rejected."""
    if isinstance(value, str) and (found := _TIME(value)):
        clock, fraction = found.groups()
        whole = time.fromisoformat(clock[:8])
        return whole.replace(microsecond=_fraction_micros(fraction))
    if isinstance(value, time) and not value.utcoffset():
        return value.replace(tzinfo=None)
    return _refuse()


def to_uuid(value: Any) -> UUID:
    """Return a UUID, also from its text form, with or without hyphens."""
    if isinstance(value, str):
        return UUID(value) if _UUID(value) else _refuse()
    return value if isinstance(value, UUID) else _refuse()


def to_datetime(value: Any) -> datetime:
    """Return a moment in UTC, also from ISO 8601 text; without a time zone it is taken as UTC.

    Digits of the second beyond the sixth are dropped.
    """
    if isinstance(value, str):
        return _moment(value)
    return _utc(value) if isinstance(value, datetime) else _refuse()


def to_dict(value: Any) -> dict[str, Any]:
    """Return an object, with any content."""
    return value if isinstance(value, dict) else _refuse()


def to_list(value: Any) -> list[Any]:
    """Return a list, with any content."""
    return list(value) if isinstance(value, (list, tuple)) else _refuse()


def to_any(value: Any) -> Any:
    """Return anything, as it is."""
    return value


def epoch_reader(per_second: int) -> Convert:
    """Return a conversion to a moment in UTC from a count since 1970, ``per_second`` to a second.

    Accepts integers, floats, Decimals, numbers as text and moments.  Anything finer than a microsecond is dropped; a
    float is rounded to the nearest microsecond.
    """
    times, parts = max(1, 10**6 // per_second), max(1, per_second // 10**6)
    from_seconds = datetime.fromtimestamp

    def read(value: Any) -> datetime:
        if type(value) is int:
            whole, rest = divmod(value, per_second)
            moment = from_seconds(whole, timezone.utc)
            return moment.replace(microsecond=rest * 1_000_000 // per_second) if rest else moment
        if type(value) is float:
            return EPOCH + timedelta(microseconds=round(value * times / parts))
        if isinstance(value, str) and _NUMBER(value):
            value = Decimal(value)
        if isinstance(value, Decimal) and value.copy_abs() < 10**22:
            return EPOCH + timedelta(microseconds=_floor(value * 1_000_000 / per_second))
        return _utc(value) if isinstance(value, datetime) else _refuse()

    return read


def strptime_reader(layout: str) -> Convert:
    """Return a conversion to a moment in UTC from text in a layout of :meth:`datetime.strptime`.

    Raises ValueError for a layout that strptime does not understand.
    """
    try:
        datetime.strptime("", layout)  # noqa: DTZ007 - only the layout matters
    except ValueError as error:
        if "does not match" not in str(error) and "unconverted" not in str(error):
            raise ValueError(f"format: {layout!r} is not a strptime format: {error}") from None

    def read(value: Any) -> datetime:
        if isinstance(value, str):
            return _utc(datetime.strptime(value, layout))  # noqa: DTZ007 - made aware at once
        return _utc(value) if isinstance(value, datetime) else _refuse()

    return read


EPOCHS: Final[Mapping[str, int]] = {"epoch_s": 1, "epoch_ms": 1000, "epoch_us": 10**6, "epoch_ns": 10**9}
"""Formats of moments counted since 1970, and how many of their units make a second."""

CONVERT: Final[Mapping[type, Convert]] = {
    bool: to_bool,
    int: to_int,
    float: to_float,
    str: to_str,
    bytes: to_bytes,
    Decimal: to_decimal,
    datetime: to_datetime,
    date: to_date,
    time: to_time,
    UUID: to_uuid,
}
"""The conversion to each of the project's types."""


def to_column(convert: Convert, column: Sequence[Any]) -> Sequence[Any]:
    """Convert many values, None as None; if all have the right type, they are not examined one by one."""
    types = set(map(type, column)) - {type(None)}
    if len(types) == 1 and CONVERT.get(types.pop()) is convert:
        if convert in _PASSING:
            return column
        if convert is to_int and None not in column and min(column) >= SMALLEST and max(column) <= LARGEST:
            return column
    return [None if value is None else convert(value) for value in column]


_PASSING: Final = frozenset({to_bool, to_float, to_str, to_bytes, to_uuid})
"""Conversions that return each value of their own type unchanged."""

DECLARED_KIND: Final[Mapping[type, Kind]] = {
    bool: "bool",
    int: "int64",
    float: "number",
    str: "text",
    bytes: "bytes",
    Decimal: "decimal",
    datetime: "datetime",
    date: "date",
    time: "time",
    UUID: "uuid",
}
"""The kind of a property that is declared with a type; a declared ``int`` is an integer, not any number."""


def read_level(kind: Kind, text: str) -> Any:
    """Return the text of a topic's level as a payload would contain it for a property of ``kind``."""
    if kind == "bool":
        return {"true": True, "false": False}[text]
    if kind == "int64":
        return int(text) if _INTEGER(text) else _refuse()
    if kind == "number":
        return float(text) if _NUMBER(text) else _refuse()
    return text if kind != "json" else _refuse()


def _refuse() -> NoReturn:
    raise ValueError("not of the declared type")


def _moment(text: str) -> datetime:
    found = _MOMENT(text)
    if found is None:
        _refuse()
    day, clock, second, fraction, zulu, hours, minutes = found.groups()
    zone = f"{hours}:{minutes or '00'}" if hours else "+00:00"
    moment = datetime.fromisoformat(f"{day}T{clock}:{second or '00'}{zone}")
    if fraction:
        moment = moment.replace(microsecond=_fraction_micros(fraction))
    return moment if zulu else moment.astimezone(timezone.utc)


def _fraction_micros(fraction: str | None) -> int:
    return int(f"{fraction[:6]:0<6}") if fraction else 0


def _utc(moment: datetime) -> datetime:
    return moment.astimezone(timezone.utc) if moment.tzinfo else moment.replace(tzinfo=timezone.utc)


def _floor(number: Decimal) -> int:
    return int(number.to_integral_value(ROUND_FLOOR))
