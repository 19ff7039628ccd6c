"""Rounds, chance, and the count of what every fault cost."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest

from tests.faults.mariadb import maria
from tests.faults.postgres import Cluster, cluster
from tests.faults.scene import Verdict
from tests.faults.server import NAMES, Server
from tests.faults.tally import TallyWriter

__all__ = ["cluster", "maria"]

Count = Callable[[Verdict], None]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Every fault as many times as rounds are asked for."""
    if "round_" in metafunc.fixturenames:
        metafunc.parametrize("round_", range(metafunc.config.getoption("--rounds")))


@pytest.fixture
def scale(request: pytest.FixtureRequest) -> int:
    """Return how much larger loads are than in the default run, in which every second counts."""
    return 10 if request.config.getoption("--rounds") > 1 else 1


@pytest.fixture
def rng(request: pytest.FixtureRequest) -> random.Random:
    """Chance, another for each fault and round; moments depend on the machine as well."""
    return random.Random(request.node.name)


@pytest.fixture
def count(request: pytest.FixtureRequest, round_: int) -> Count:
    """Count a verdict under the fault that the test's marker names, on the server that it is about."""
    marker = request.node.get_closest_marker("fault")
    assert marker is not None, "a fault needs a name"
    fault = marker.args[0].format(server=request.node.callspec.params.get("server"))
    return lambda verdict: request.node.user_properties.append(("fault", [fault, *attrs.astuple(verdict)]))


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the table, if one is to be written; a worker of a parallel run reports its counts to the run."""
    path = config.getoption("--write-faults")
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(TallyWriter(Path(path)))


@pytest.fixture
def postgres(cluster: Cluster) -> Iterator[str]:
    """The URL of a fresh database in a server that may be mistreated."""
    cluster.start()
    with cluster.database() as url:
        yield url
        cluster.start()


@pytest.fixture(params=NAMES)
def server(request: pytest.FixtureRequest) -> Server:
    """Each server in turn, running."""
    found: Server = request.getfixturevalue({"PostgreSQL": "cluster", "MariaDB": "maria"}[request.param])
    found.start()
    return found


@pytest.fixture
def account(server: Server) -> Iterator[str]:
    """The URL of a fresh database on the server, as its owner."""
    with server.account() as url:
        yield url
