"""What all tests share: real servers, and how hard hypothesis tries."""

from __future__ import annotations

from hypothesis import settings

from tests.engines.servers import mysql, postgresql, servers, site, timescaledb

__all__ = ["mysql", "postgresql", "servers", "site", "timescaledb"]

settings.register_profile("fast", max_examples=30, deadline=None, derandomize=False)
settings.register_profile("full", max_examples=1000, deadline=None, derandomize=False)
settings.load_profile("fast")
