"""Numbers in sentences."""

from __future__ import annotations


def counted(number: int, one: str, many: str | None = None) -> str:
    """A number with what it counts: ``1 row``, ``2 rows``; ``many`` where more than an s is different."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"
