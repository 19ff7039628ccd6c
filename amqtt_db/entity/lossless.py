"""Whether a value that was stored under one kind lost nothing when it became one of another kind."""

from __future__ import annotations

import base64
import re
from datetime import datetime, time
from fractions import Fraction
from math import copysign
from typing import Any, Final

from amqtt_db.entity.strict import EPOCHS
from amqtt_db.record import to_micros

_FINER_THAN_MICROSECONDS: Final = re.compile(r"[.,]\d{6}\d*[1-9]", re.ASCII).search


def is_lossless(old: Any, new: Any) -> bool:
    """Return False if ``new``, which a declared type made of ``old``, says less than it did.

    The way in which text is written, such as the offset of a time or the case of a UUID, does not count.
    """
    if isinstance(old, str) and isinstance(new, (datetime, time)):
        return _FINER_THAN_MICROSECONDS(old) is None
    if isinstance(old, str) and isinstance(new, bytes):
        return base64.b64encode(new).decode() == old
    if isinstance(old, float) and type(new) is int:
        return old != 0 or copysign(1, old) > 0  # an integer has no −0
    if isinstance(old, (int, float)) and isinstance(new, datetime):
        return any(_is_count(old, to_micros(new), per_second) for per_second in EPOCHS.values())
    return True


def _is_count(number: float, micros: int, per_second: int) -> bool:
    """Return True if a moment is exactly so many units since 1970, or the nearest that a double can tell."""
    exact = Fraction(micros * per_second, 10**6)
    return float(exact) == number if isinstance(number, float) else exact == number
