"""More tables than a server has room for locks: one transaction reads them all."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from amqtt_db.reader import read
from amqtt_db.reader.export import export
from amqtt_db.reader.follow import Follower
from amqtt_db.reader.topics import list_topics
from tests.database.engines.servers import Site
from tests.faults.postgres import Cluster
from tests.workbench import Workbench

TABLES = 220


@pytest.fixture
def crowded(cluster: Cluster) -> Iterator[str]:
    """The URL of a fresh database on a server with room for a few hundred locks."""
    if cluster.runs():
        cluster.stop()
    cluster.start("max_locks_per_transaction=10", "max_connections=12", "max_wal_senders=0", "max_worker_processes=1")
    with cluster.database() as url:
        yield url
    cluster.stop()


@pytest.mark.slow
def test_readers_of_many_tables(tmp_path: Path, crowded: str) -> None:
    """`topics`, `export` and `tail` read all of them, and the database as it was when they began."""
    bench = Workbench(Site(tmp_path, crowded))
    follower = Follower(crowded)
    assert follower.newest(1) == []
    for first in range(0, TABLES, 20):
        bench.send(*((f"t/{number}", {"v": number}) for number in range(first, first + 20)))
    with psycopg.connect(crowded) as connection, pytest.raises(psycopg.errors.OutOfMemory):
        connection.execute("; ".join(f"SELECT v FROM t_{number} WHERE id = 0" for number in range(TABLES)).encode())
    assert len(list_topics(crowded)) == TABLES
    assert sum(1 for _ in follower.news()) == TABLES
    assert export(crowded, lambda _: None) == TABLES
    found = read(crowded)
    first_found = next(found)
    bench.send(*((f"t/{number}", {"v": -1}) for number in range(0, TABLES, 20)))
    assert [first_found["v"], *(record["v"] for record in found)] == list(range(TABLES))
