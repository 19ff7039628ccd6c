"""How declared properties are read: where they are in a record, and how their values change before typing."""

from __future__ import annotations

import re
from collections.abc import Mapping, Set
from decimal import Decimal
from math import isfinite
from typing import Any, Final

import attrs

_TEXT_NUMBER: Final = re.compile(r"([+-]?(?:0|[1-9]\d*)([.,]\d+)?([eE][+-]?\d+)?)\s*(\D{0,12})", re.ASCII)
_ONE: Final = Decimal(1)
_ZERO: Final = Decimal(0)
_LONGEST_NUMBER: Final = 64  # characters; more digits are probably an identifier


@attrs.frozen
class Reading:
    """How one property is read.

    ``source`` are the keys that lead to it in a record.  ``meanings`` maps values to others.  Text that is a number is
    read as one if ``numbers`` is not empty, see :func:`read_number`; ``unit`` may follow it.  A number is multiplied
    by ``scale``, then ``offset`` is added.
    """

    source: tuple[str, ...]
    meanings: Mapping[Any, Any] = attrs.field(factory=dict)
    numbers: frozenset[str] = frozenset()
    unit: str = ""
    scale: Decimal = _ONE
    offset: Decimal = _ZERO

    def unscaled(self) -> Reading:
        """Return the same without scale and offset."""
        return attrs.evolve(self, scale=_ONE, offset=_ZERO)

    def read(self, value: Any) -> Any:
        """Return what a value of the record means; one that cannot be read is unchanged."""
        if isinstance(value, (str, int, float)) and value in self.meanings:
            return self.meanings[value]
        if isinstance(value, str) and self.numbers:
            number = read_number(self.numbers, value.strip().removesuffix(self.unit).strip())
            value = value if number is None else number
        is_scaled = self.scale != _ONE or self.offset != _ZERO
        if is_scaled and isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value):
            return float(Decimal(repr(value)) * self.scale + self.offset)
        return value


def read_number(accepted: Set[str], text: str) -> float | int | None:
    """Return the number that the text means, or None if it is not a number.

    ``accepted`` may contain ``comma``, for a decimal comma, and ``unit``, for any unit after the number.
    """
    found = _TEXT_NUMBER.fullmatch(text) if len(text) <= _LONGEST_NUMBER else None
    if found is None or (found[4] and "unit" not in accepted) or ("," in found[1] and "comma" not in accepted):
        return None
    return float(found[1].replace(",", ".")) if found[2] or found[3] else int(found[1])
