"""What a property says of the time of its event."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, Final

from amqtt_db.record import to_micros

_SECOND: Final = 1_000_000
_EARLIEST: Final = to_micros(datetime.min.replace(tzinfo=timezone.utc))
_LATEST: Final = to_micros(datetime.max.replace(tzinfo=timezone.utc))


def event_times(column: Sequence[Any], arrivals: Sequence[int]) -> Sequence[int]:
    """The times of events, by a column of what their properties say: the arrival where that is missing or absurd."""
    if set(map(type, column)) == {datetime}:
        with suppress(TypeError):  # one has no zone
            times = list(map(to_micros, column))
            if min(times) >= _EARLIEST and max(times) <= _LATEST:
                return times
    told = map(event_time, column)
    return [arrival if time is None else time for time, arrival in zip(told, arrivals, strict=True)]


def event_time(value: Any) -> int | None:
    """A property's value as microseconds since 1970 (UTC), None where it is missing or absurd.

    Numbers are seconds, milliseconds, microseconds or nanoseconds since 1970, told apart by their size; text is ISO
    8601; without a zone it is UTC.
    """
    try:
        moment = _micros(value)
    except (ValueError, OverflowError, ArithmeticError):
        return None
    return moment if moment is not None and _EARLIEST <= moment <= _LATEST else None


def _micros(value: Any) -> int | None:
    if isinstance(value, datetime):
        return to_micros(value if value.tzinfo else value.replace(tzinfo=timezone.utc))
    if isinstance(value, str):
        return _micros(datetime.fromisoformat(value.replace("Z", "+00:00") if value.endswith("Z") else value))
    if type(value) is int and abs(value) < 10**11:
        return value * _SECOND
    if isinstance(value, (int, float, Decimal)) and not isinstance(value, bool):
        return _epoch(Decimal(repr(value)) if isinstance(value, float) else Decimal(value))
    return None


def _epoch(value: Decimal) -> int:
    """Decimal, for a double holds 1700000000.123456 but not its product with a million."""
    for limit, factor in ((10**11, _SECOND), (10**14, 1000), (10**17, 1)):
        if abs(value) < limit:
            return round(value * factor)
    return int(value / 1000)
