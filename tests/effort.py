"""How hard hypothesis tries, where a test decides it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import settings


@contextmanager
def tried(examples: int, **more: Any) -> Iterator[None]:
    """Let hypothesis try so many examples by default, with further settings; the profile before is restored."""
    before = settings.get_current_profile_name()
    settings.register_profile("tried", max_examples=examples, database=None, deadline=None, **more)
    settings.load_profile("tried")
    try:
        yield
    finally:
        settings.load_profile(before)
