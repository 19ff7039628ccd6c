"""More than one bridge, and more than one broker: what `docs/scaling.md` says was run.  Only with `--long`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
import sqlalchemy as sa

from tests.database.engines.servers import Site
from tests.integration.bridge import MOSQUITTO, BridgeProcess, Mosquitto, numbers, publish, until
from tests.integration.brokers import NATS, Nats
from tests.ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.fault]

MESSAGES: Final = 10_000
LONG: Final = 120.0


@pytest.fixture(autouse=True)
def _takes_long(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--long"):
        pytest.skip("takes long: pass --long")


def homes(directory: Path, count: int) -> Iterator[Path]:
    """Yield a directory for each bridge."""
    for number in range(count):
        home = directory / f"bridge{number}"
        home.mkdir()
        yield home


@pytest.mark.skipif(MOSQUITTO is None, reason="needs Mosquitto")
def test_bridges_of_a_group_fill_one_postgresql(tmp_path: Path, postgresql: Site) -> None:
    """A third joins, one is killed and comes back: together they store each message once."""
    database = sa.create_engine(postgresql.url)

    def stored() -> list[int]:
        if not sa.inspect(database).has_table("t"):
            return []
        with database.connect() as connection:
            return sorted(int(number) for (number,) in connection.exec_driver_sql("SELECT n FROM t"))

    with Mosquitto(tmp_path) as broker, ExitStack() as stack, ThreadPoolExecutor(1) as pool:
        settings = {"url": broker.url, "group": "store", "window": 100}
        one, two, three = (
            BridgeProcess(home, {**settings, "client_id": home.name}, database=postgresql.url)
            for home in homes(tmp_path, 3)
        )
        for bridge in (one, two):
            stack.enter_context(bridge)
            until(lambda: bridge.logged("subscribed to $share"), "it is in the group")  # noqa: B023
        broker.publish(numbers(0, 2000))
        until(lambda: len(stored()) == 2000, "ids have been in turn for longer than four windows")
        publishing = pool.submit(broker.publish, numbers(2000, MESSAGES))
        stack.enter_context(three)
        two.kill()
        publishing.result()
        two.start()
        until(lambda: len(set(stored())) == MESSAGES, "all are stored", LONG)
    assert stored() == list(range(MESSAGES))
    with database.connect() as connection:
        shares = connection.exec_driver_sql(
            "SELECT count(*) FROM t JOIN mqtt_session s ON t.session = s.id GROUP BY s.client_id"
        ).all()
    database.dispose()
    assert len(shares) == 3
    print(f"shares of three bridges: {sorted(count for (count,) in shares)}")  # noqa: T201 - it is asked for with -s


@pytest.mark.skipif(NATS is None, reason="needs NATS")
def test_bridges_with_disjoint_filters_outlive_a_node_of_a_nats_cluster(tmp_path: Path) -> None:
    """A bridge's node is killed under load and comes back: nothing is lost.

    What that node alone knew of acknowledgements is: the broker delivers some again, with new packet ids.
    """
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        nodes = start_cluster(tmp_path, stack)
        one, two = (
            BridgeProcess(home, {"url": node.url, "window": 100, "client_id": home.name}, routes=[{"topic": home.name}])
            for home, node in zip(homes(tmp_path, 2), nodes, strict=False)
        )
        for bridge in (one, two):
            stack.enter_context(bridge)
            until(lambda: bridge.logged(": subscribed to"), "it is subscribed")  # noqa: B023
        publishing = [
            pool.submit(publish, nodes[2].port, numbers(0, MESSAGES), home) for home in ("bridge0", "bridge1")
        ]
        until(lambda: len(one.stored("bridge0")) > 500, "some are stored")
        nodes[0].kill()
        for one_publishing in publishing:
            one_publishing.result()
        until(lambda: len(set(two.stored("bridge1"))) == MESSAGES, "the other bridge goes on", LONG)
        nodes[0].start()
        until(lambda: len(set(one.stored("bridge0"))) == MESSAGES, "all are stored", LONG)
    doubled = len(one.stored("bridge0")) - MESSAGES
    print(f"a node of NATS killed: {2 * MESSAGES} acknowledged, 0 lost, {doubled} doubled")  # noqa: T201 - as above
    assert two.stored("bridge1") == list(range(MESSAGES))


def start_cluster(directory: Path, stack: ExitStack) -> Sequence[Nats]:
    """Start three nodes, and wait until they have agreed on a leader."""
    ports = [free_port() for _ in range(3)]
    nodes = [Nats(directory / f"node{number}", [*ports[number:], *ports[:number]]) for number in range(3)]
    for node in nodes:
        stack.enter_context(node)
    until(lambda: any("new metadata leader" in node.log for node in nodes), "the nodes have a leader", LONG)
    until(lambda: all(node.log.count("Route connection created") >= 2 for node in nodes), "they know each other", LONG)
    return nodes
