"""A read-only replica: all that reads works on a hot standby of PostgreSQL, and what writes says so in a line."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from amqtt_db import latest
from amqtt_db.config import load_section
from amqtt_db.reader.export import export
from amqtt_db.reader.follow import Follower
from amqtt_db.reader.query import run_query
from amqtt_db.reader.status import read_status
from amqtt_db.reader.topics import list_topics
from amqtt_db.writer.loop import describe
from tests.database.engines.servers import Site
from tests.faults.postgres import Cluster
from tests.workbench import Workbench

MODELS = ("wide", "eav", "document", "narrow")


@pytest.fixture
def standby(cluster: Cluster) -> Iterator[Cluster]:
    """A hot standby of the cluster, in step with it when the fixture is made."""
    cluster.start()
    found = cluster.replicate()
    try:
        found.start()
        yield found
    finally:
        if found.runs():
            found.crash()
        shutil.rmtree(found.directory)


def _exported(url: str) -> bytes:
    lines: list[bytes] = []
    export(url, lines.append)
    return b"".join(lines)


@pytest.mark.slow
def test_a_standby_is_read_and_never_written(tmp_path: Path, postgres: str, request: pytest.FixtureRequest) -> None:
    """`status`, `topics`, `export`, `tail`, `latest` and `query` say what they say of the primary."""
    routes = [{"topic": f"{model}/+", "model": model, "latest": True} for model in MODELS]
    bench = Workbench(Site(tmp_path, postgres), *routes)
    bench.send(*((f"{model}/{number}", {"v": number, "s": "ä"}) for model in MODELS for number in range(3)))
    standby: Cluster = request.getfixturevalue("standby")
    replica = standby.url(sa.make_url(postgres).database or "")
    assert _exported(replica) == _exported(postgres)
    assert list_topics(replica) == list_topics(postgres)
    assert list(latest(replica)) == list(latest(postgres))
    assert Follower(replica).newest(3) == Follower(postgres).newest(3)
    query = "SELECT sum(number_value) FROM mqtt_value"
    assert run_query(replica, query).rows == run_query(postgres, query).rows
    journal = {"path": str(tmp_path / "journal")}
    status, wanted = (read_status(load_section({"database": url, "journal": journal})) for url in (replica, postgres))
    assert status.counters == wanted.counters
    with pytest.raises(sa.exc.DBAPIError) as refusal:
        Workbench(Site(tmp_path, replica), *routes, token="b")
    assert describe(refusal.value).endswith("cannot execute INSERT in a read-only transaction")
