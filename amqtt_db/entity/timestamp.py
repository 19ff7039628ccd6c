"""Times: of events, from properties; and as users write them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, Final

from amqtt_db.entity.duration import read_duration
from amqtt_db.entity.strict import to_datetime
from amqtt_db.record import to_micros

TIMES: Final = "ISO 8601 (UTC if it has no zone), or how long ago: 90s, 15 min, 24h, 7 days, 2w"
"""The accepted notations of a time."""

_DAY: Final = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII).fullmatch

_SECOND: Final = 1_000_000
_EARLIEST: Final = to_micros(datetime.min.replace(tzinfo=timezone.utc))
_LATEST: Final = to_micros(datetime.max.replace(tzinfo=timezone.utc))


def event_times(column: Sequence[Any], arrivals: Sequence[int]) -> Sequence[int]:
    """Return the times of events from a column of properties; the arrival time if one is missing or absurd."""
    if set(map(type, column)) == {datetime}:
        with suppress(TypeError):  # one has no zone
            times = list(map(to_micros, column))
            if min(times) >= _EARLIEST and max(times) <= _LATEST:
                return times
    told = map(event_time, column)
    return [arrival if time is None else time for time, arrival in zip(told, arrivals, strict=True)]


def event_time(value: Any) -> int | None:
    """Return a property's value as microseconds since 1970 (UTC); None if it is missing or absurd.

    Numbers are seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their size; text is ISO
    8601; without a zone it is UTC.
    """
    try:
        moment = _event_micros(value)
    except (ValueError, OverflowError, ArithmeticError):
        return None
    return moment if moment is not None and _EARLIEST <= moment <= _LATEST else None


def _event_micros(value: Any) -> int | None:
    if isinstance(value, datetime):
        return to_micros(value if value.tzinfo else value.replace(tzinfo=timezone.utc))
    if isinstance(value, str):
        return to_micros(_read_iso(value))
    if type(value) is int and abs(value) < 10**11:
        return value * _SECOND
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return _epoch(Decimal(repr(value)) if isinstance(value, float) else Decimal(value))
    return None


def _epoch(value: Decimal) -> int:
    """Return a number as microseconds since 1970; Decimal, because a double cannot hold 1700000000.123456 × 10⁶."""
    for limit, factor in ((10**11, _SECOND), (10**14, 1000), (10**17, 1)):
        if abs(value) < limit:
            return round(value * factor)
    return int(value / 1000)


def read_time(text: str) -> datetime:
    """Return a time written as :data:`TIMES` describes.  Raises ValueError."""
    try:
        ago = read_duration(text)
        return _read_iso(text) if ago is None else datetime.now(timezone.utc) - ago
    except (ValueError, TypeError, OverflowError):
        raise ValueError(f"{text!r} is not a time; write {TIMES}") from None


def _read_iso(text: str) -> datetime:
    """Return the moment that ISO 8601 text means, or midnight of a date; the same on every Python version."""
    return to_datetime(f"{text}T00:00" if _DAY(text) else text)
