"""What all tests share: real servers, and how hard hypothesis tries."""

from __future__ import annotations

import gc
import os
import re
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest
from hypothesis import settings

from tests import laws, workbench
from tests.database.engines.servers import mysql, postgresql, servers, site, timescaledb
from tests.network import host
from tests.pairs import left_out

__all__ = ["host", "mysql", "postgresql", "servers", "site", "timescaledb"]

SERVERS: Final = frozenset({"mysql", "postgresql", "timescaledb"})
FAULTS: Final = Path(__file__).parent / "faults"

MEMORY: Final = Path("/dev/shm")  # noqa: S108 - a name of Linux
ROOM: Final = 4 * 2**30

if "TMPDIR" not in os.environ and os.access(MEMORY, os.W_OK) and shutil.disk_usage(MEMORY).free > ROOM:
    os.environ["TMPDIR"] = tempfile.tempdir = str(MEMORY)  # files in memory: tests need not wait for a disk

settings.register_profile("fast", max_examples=10, deadline=None, derandomize=False)
settings.register_profile("quick", max_examples=5, deadline=None, derandomize=False)
settings.register_profile("full", max_examples=1000, deadline=None, derandomize=False)
settings.load_profile("fast")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add options: the fault suite is short by default; the laws have their own option."""
    laws.pytest_addoption(parser)
    group = parser.getgroup("faults")
    group.addoption("--rounds", type=int, default=1, help="how many times to run every fault of tests/faults")
    group.addoption("--plant-minutes", type=int, default=1, help="how long the simulated Sparkplug plant works")
    group.addoption("--codec-messages", type=int, default=500, help="how many messages each decoder gets in a row")
    group.addoption("--kill-rounds", type=int, default=3, help="how many times to kill the bridge under load")
    group.addoption("--long", action="store_true", help="also run what takes long: RabbitMQ, and the largest payload")
    parser.getgroup("engines").addoption(
        "--all-pairs", action="store_true", help="run each test with all its parameters on each engine"
    )
    parser.getgroup("deploy").addoption("--image", help="the image to run with podman, made from deploy/Containerfile")
    parser.getgroup("copies").addoption("--copied", type=int, default=2000, help="how many messages a test copies")
    parser.getgroup("page").addoption("--screenshots", metavar="DIR", help="save pictures of the page into a directory")
    group.addoption("--soak", type=int, default=0, metavar="CLIENTS", help="run the soak test with so many clients")
    group.addoption("--write-faults", metavar="FILE", help="write the table of the faults into a Markdown file")


def pytest_configure(config: pytest.Config) -> None:
    """The marker that names a fault, and what the laws need."""
    laws.pytest_configure(config)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script; commands inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "fault(name): tries a fault; the name is that of the reliability page's table")
    config.addinivalue_line("markers", "server: needs a database server other than SQLite")
    config.addinivalue_line("markers", "slow: takes more than a second or two; left out of `make quick`")


def pytest_collection_finish() -> None:
    """Collect garbage less often: what collecting the tests has made stays, and SQLAlchemy makes much that goes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what the servers' turns make unnecessary; mark what needs a server and what tries a fault."""
    is_whole = config.getoption("--all-pairs") or config.getoption("--write-laws")
    left = frozenset() if is_whole else frozenset(left_out(items))
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in left]
    for item in items:
        if _needs_server(item):
            item.add_marker(pytest.mark.server)
        if FAULTS in item.path.parents and item.get_closest_marker("fault") is None:
            item.add_marker(pytest.mark.fault)


def _needs_server(item: pytest.Item) -> bool:
    """Return True if a fixture or a parameter of the test names a server."""
    parameters = re.split(r"[\[\]-]", item.name)[1:]
    return not SERVERS.isdisjoint({*getattr(item, "fixturenames", ()), *parameters})


@pytest.fixture
def kill_rounds(request: pytest.FixtureRequest) -> int:
    """How many times to kill the bridge under load."""
    return int(request.config.getoption("--kill-rounds"))


@pytest.fixture(autouse=True, scope="module")
def _workbenches_of_a_module() -> Iterator[None]:
    """Close what a module's fixtures have left open."""
    yield from _closing()


@pytest.fixture(autouse=True)
def _workbenches_of_a_test() -> Iterator[None]:
    """Close what a test has left open."""
    yield from _closing()


def _closing() -> Iterator[None]:
    before = len(workbench.OPEN)
    yield
    for bench in workbench.OPEN[before:]:
        bench.close()
