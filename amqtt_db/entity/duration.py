"""Lengths of time as users write them, in the YAML and on the command line alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Final

UNIT_SECONDS: Final[Mapping[str, int]] = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86_400),
    **dict.fromkeys(("w", "week", "weeks"), 7 * 86_400),
}
"""The accepted units, in seconds; upper and lower case mean the same."""

_WHOLE_UNITS: Final = ((timedelta(days=1), "day"), (timedelta(hours=1), "h"), (timedelta(minutes=1), "min"))
_UNEQUAL: Final = ("mo", "month", "months", "y", "year", "years")
LONGEST_DAYS: Final = 36_600
"""How many days a length of time may have, unless something else is asked for: a hundred years."""

_DURATION: Final = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s*", re.IGNORECASE | re.ASCII)


def read_duration(text: str, longest_days: int = LONGEST_DAYS) -> timedelta | None:
    """Return a length of time such as ``90 days``, ``24h`` or ``5 min``; None for text of another form.

    Raises ValueError for an unknown unit, and for more days than ``longest_days``.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    unit = match[2].casefold()
    if unit in _UNEQUAL:
        raise ValueError("months and years vary in length; write days or weeks, such as 365 days")
    if unit not in UNIT_SECONDS:
        raise ValueError(f"unknown unit {match[2][:10]!r}; use s, min, h, days, weeks")
    seconds = float(match[1]) * UNIT_SECONDS[unit]
    if seconds > longest_days * 86_400:
        raise ValueError(f"expected a length of time from 1 s to {longest_days} days")
    return timedelta(seconds=seconds)


def format_duration(length: timedelta) -> str:
    """Return a length of time in its largest whole unit, such as ``2 h``, so that :func:`read_duration` can read it."""
    for unit, name in _WHOLE_UNITS:
        number, rest = divmod(length, unit)
        if not rest:
            return f"{number} {name}{'s' * (name == 'day' and number != 1)}"
    return f"{length.total_seconds():.15g} s"
