"""What all tests share: real servers, and how hard hypothesis tries."""

from __future__ import annotations

import pytest
from hypothesis import settings

from tests import laws
from tests.database.engines.servers import mysql, postgresql, servers, site, timescaledb

__all__ = ["mysql", "postgresql", "servers", "site", "timescaledb"]

settings.register_profile("fast", max_examples=15, deadline=None, derandomize=False)
settings.register_profile("full", max_examples=1000, deadline=None, derandomize=False)
settings.load_profile("fast")


def pytest_addoption(parser: pytest.Parser) -> None:
    """The fault suite is short unless it is asked to be long; the laws have an option of their own."""
    laws.pytest_addoption(parser)
    group = parser.getgroup("faults")
    group.addoption("--rounds", type=int, default=1, help="how many times to run every fault of tests/faults")
    group.addoption("--write-faults", metavar="FILE", help="write the table of the faults into a Markdown file")


def pytest_configure(config: pytest.Config) -> None:
    """The marker that names a fault, and what the laws need."""
    laws.pytest_configure(config)
    config.addinivalue_line("markers", "fault(name): the name of a fault in the table of the reliability page")
