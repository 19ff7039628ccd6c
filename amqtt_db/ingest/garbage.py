"""Python's garbage collector, in a process through which many messages pass."""

from __future__ import annotations

import gc
from typing import Final

_YOUNG_OBJECTS: Final = 10_000


def calm_collector() -> None:
    """Run the garbage collector less often: messages waiting for a commit are young, many, and not garbage."""
    young, *old = gc.get_threshold()
    if 0 < young < _YOUNG_OBJECTS:
        gc.set_threshold(_YOUNG_OBJECTS, *old)
