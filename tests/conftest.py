"""What all tests share: how hard hypothesis tries."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("fast", max_examples=30, deadline=None, derandomize=False)
settings.register_profile("full", max_examples=1000, deadline=None, derandomize=False)
settings.load_profile("fast")
