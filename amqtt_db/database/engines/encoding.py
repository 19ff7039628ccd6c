"""Encoders that engines share: columns of values in the form that a driver accepts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, time, timedelta, timezone
from functools import lru_cache
from math import copysign, isnan
from typing import Any, Final

from amqtt_db.database.engines.base import ColumnEncoder, Unfit
from amqtt_db.record import EPOCH, EXACT, to_micros

_WHOLE_SECOND: Final = 1_000_000
_MINUTE: Final = 60 * _WHOLE_SECOND
_SECONDS: Final = tuple(f"{second:02d}." for second in range(60))
_THOUSAND: Final = tuple(f"{number:03d}" for number in range(1000))
_FIRST_TIME: Final = to_micros(datetime.min.replace(tzinfo=timezone.utc))
_LAST_TIME: Final = to_micros(datetime.max.replace(tzinfo=timezone.utc))


def present(column: Sequence[Any]) -> Sequence[Any]:
    """Return the values that are not None."""
    return [value for value in column if value is not None] if None in column else column


def each(encode: Callable[[Any], Any]) -> ColumnEncoder:
    """Return an encoder that works value by value; values that ``encode`` rejects do not fit."""

    def encode_column(column: Sequence[Any]) -> Sequence[Any]:
        try:
            return [None if value is None else encode(value) for value in column]
        except (OverflowError, ValueError) as error:
            raise Unfit from error

    return encode_column


def plain_numbers(column: Sequence[Any]) -> Sequence[Any]:
    """Return a column of doubles.  Raises Unfit for NaN and −0.0.

    The sum finds NaN, the extremes find integers beyond a double, the sign of zeros finds −0.0.
    """
    if not _are_plain(present(column)) and not all(map(is_plain_double, present(column))):
        raise Unfit
    return column


def _are_plain(numbers: Sequence[Any]) -> bool:
    try:
        if isnan(sum(numbers)) or min(numbers) < -EXACT or max(numbers) > EXACT:
            return False
        return 0.0 not in numbers or -1.0 not in {copysign(1.0, number) for number in numbers if number == 0.0}
    except (OverflowError, ValueError):  # an integer beyond a double; an empty column
        return False


def is_plain_double(value: float) -> bool:
    """Return True for a double that is neither NaN nor −0.0."""
    if type(value) is int:
        return -EXACT <= value <= EXACT
    return not isnan(value) and (value != 0.0 or copysign(1.0, value) > 0)


def is_unicode(value: str) -> bool:
    """Return True if text has no lone surrogates."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


@lru_cache(4096)
def _minute_text(minute: int) -> str:
    return (EPOCH + timedelta(minutes=minute)).replace(tzinfo=None).isoformat(" ", "minutes") + ":"


def timestamp_text(moment: int) -> str:
    """Return microseconds since 1970 as ``2026-01-31 12:00:00.000000``, UTC; texts are looked up faster than made."""
    second, fraction = _SECONDS[moment // _WHOLE_SECOND % 60], _THOUSAND[moment // 1000 % 1000]
    return f"{_minute_text(moment // _MINUTE)}{second}{fraction}{_THOUSAND[moment % 1000]}"


def timestamp_texts(column: Sequence[Any]) -> Sequence[Any]:
    """Return :func:`timestamp_text` of each value; the rows of one record have the same time, which is written once."""
    if column[:1] != column[1:2]:
        return [None if value is None else timestamp_text(value) for value in column]
    texts = {value: None if value is None else timestamp_text(value) for value in set(column)}
    return list(map(texts.__getitem__, column))


def timestamps(column: Sequence[Any]) -> Sequence[Any]:
    """Return aware datetimes as microseconds since 1970.  Raises Unfit for one without a zone or out of range."""
    try:
        times = [None if value is None else to_micros(value) for value in column]
    except TypeError as error:
        raise Unfit from error
    there = present(times)
    if there and not (min(there) >= _FIRST_TIME and max(there) <= _LAST_TIME):
        raise Unfit
    return times


def datetime_texts(column: Sequence[Any]) -> Sequence[Any]:
    """Return aware datetimes as :func:`timestamp_text`."""
    return timestamp_texts(timestamps(column))


def is_aware(value: datetime) -> bool:
    """Return True for a datetime with a zone that is in range in UTC."""
    try:
        return value.astimezone(timezone.utc).year > 0 and value.tzinfo is not None
    except (OverflowError, ValueError):
        return False


def utc(value: datetime) -> datetime:
    """Return an aware datetime in UTC.  Raises Unfit for a naive one, OverflowError for one out of range."""
    if value.tzinfo is None:
        raise Unfit
    return value if value.tzinfo is timezone.utc else value.astimezone(timezone.utc)


def naive_time(value: time) -> time:
    """Return a time without a zone.  Raises Unfit for one with a zone."""
    if value.tzinfo is not None:
        raise Unfit
    return value


def time_text(value: time) -> str:
    """Return a time without a zone as ``12:00:00.000000``."""
    return naive_time(value).isoformat("microseconds")
