"""What all tests share: real servers, and how hard hypothesis tries."""

from __future__ import annotations

from hypothesis import settings

from tests.engines.servers import mysql, postgresql, servers, site, timescaledb
from tests.laws import pytest_addoption, pytest_configure

__all__ = ["mysql", "postgresql", "pytest_addoption", "pytest_configure", "servers", "site", "timescaledb"]

settings.register_profile("fast", max_examples=15, deadline=None, derandomize=False)
settings.register_profile("full", max_examples=1000, deadline=None, derandomize=False)
settings.load_profile("fast")
