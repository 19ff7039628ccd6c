"""What happens to databases, through the whole broker: acknowledgements go on, and everything is stored afterwards."""

from __future__ import annotations

import random
import sqlite3
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.faults.conftest import Count
from tests.faults.disk import full, made_read_only, make_writable, require_own, small_disk
from tests.faults.frame import judged
from tests.faults.load import Key, Load, sample
from tests.faults.postgres import Cluster
from tests.faults.scene import Scene
from tests.faults.server import Server


@pytest.mark.fault("database absent at start ({server})")
def test_absent_at_start(tmp_path: Path, server: Server, account: str, count: Count, round_: int) -> None:
    """Without a server the broker still accepts messages and stores them later; each cause is logged once.

    A server that has been started says for a moment that it is not ready, which is another cause.
    """
    server.stop()
    with Scene(tmp_path, account) as scene, judged(scene, count):
        scene.until_logged("retrying until it works; nothing is lost")
        server.start()
    causes = [line.partition(" ERROR ")[2] for line in scene.lines("retrying until it works")]
    assert len(causes) == len(set(causes))
    assert scene.logged("working again after")


@pytest.mark.fault("database crashed ({server})")
def test_crashed(tmp_path: Path, server: Server, account: str, rng: random.Random, count: Count, round_: int) -> None:
    """Crashed in the middle of a transaction: the checkpoint tells whether it happened."""
    with Scene(tmp_path, account) as scene, judged(scene, count) as load:
        time.sleep(rng.uniform(0, 0.4))
        server.crash()
        load.more()
        server.start()
        load.more()


@pytest.mark.fault("database restarted five times ({server})")
def test_restarted(tmp_path: Path, server: Server, account: str, count: Count, round_: int) -> None:
    """One restart after the other under load."""
    with Scene(tmp_path, account) as scene, judged(scene, count) as load:
        for _ in range(5):
            server.stop()
            server.start()
            load.more(100)


@pytest.mark.fault("database paused ({server}, SIGSTOP)")
def test_paused(tmp_path: Path, server: Server, account: str, count: Count, round_: int) -> None:
    """A server that does not answer: acknowledgements go on; when it answers again, nothing is stored twice."""
    with Scene(tmp_path, account) as scene, judged(scene, count) as load, server.paused():
        load.more(2000)


@pytest.mark.fault("database paused while the broker stops")
def test_paused_at_the_end(tmp_path: Path, cluster: Cluster, postgres: str, count: Count, round_: int) -> None:
    """The broker does not wait for ever; what is in its journal is stored by the next one."""
    scene = Scene(tmp_path, postgres).start()
    ledger = Load(scene.port, most=100).finished()
    with cluster.paused():
        more_ledger = Load(scene.port, 3, most=100, first=1000).finished()
        started = time.monotonic()
        assert scene.stop() == 0
        assert time.monotonic() - started < 25
    assert scene.logged("waiting up to 12 s for the writer")
    assert scene.logged("waiting in journal")
    ledger.add(more_ledger)
    with scene:
        count(scene.judge(ledger))


@pytest.mark.fault("out of connections ({server})")
def test_out_of_connections(tmp_path: Path, server: Server, account: str, count: Count, round_: int) -> None:
    """The writer loses its connection and gets no other: it waits for one."""
    with Scene(tmp_path, account) as scene, judged(scene, count) as load, server.crowded(account) as complaint:
        load.more()
        scene.until_logged(complaint)


@pytest.mark.fault("database read-only ({server})")
def test_read_only(tmp_path: Path, server: Server, account: str, count: Count, round_: int) -> None:
    """As after a failover to a standby: no message is blamed, and all are stored once it is writable again."""
    with Scene(tmp_path, account) as scene, judged(scene, count) as load, server.read_only(account) as complaint:
        load.more()
        scene.until_logged(complaint)


@pytest.mark.fault("privileges revoked and given back ({server})")
def test_privileges(tmp_path: Path, server: Server, account: str, count: Count, round_: int) -> None:
    """Messages that may not be written any more wait; none becomes a dead letter."""
    with Scene(tmp_path, account) as scene, judged(scene, count) as load:
        scene.until(lambda: scene.count() > 0, "there is a table")
        with server.unprivileged(account) as complaint:
            load.more()
            scene.until_logged(complaint)


@pytest.mark.fault("database disk full (PostgreSQL)")
def test_disk_full_postgresql(tmp_path: Path, cluster: Cluster, count: Count, round_: int) -> None:
    """No room for another page: it waits, and goes on when there is room again."""
    cluster.start()
    disk = cluster.directory.parent / f"disk{round_}"
    with small_disk(disk, 64 * 2**20):
        require_own(disk)
        with cluster.database(disk) as url, Scene(tmp_path, url) as scene:
            with judged(scene, count) as load, full(disk):
                scene.until_logged("No space left on device")
                load.more()
            scene.stop()


@pytest.mark.fault("database disk full (SQLite)")
def test_disk_full_sqlite(tmp_path: Path, count: Count, round_: int) -> None:
    """No room for another page: it waits, and goes on when there is room again."""
    with small_disk(tmp_path / "disk", 32 * 2**20) as disk, Scene(tmp_path / "scene", database=_file(disk)) as scene:
        scene.database = disk / "mqtt.db"
        with judged(scene, count) as load, full(disk, scene.writer()) as complaint:
            scene.until_logged(complaint)
            load.more()


@pytest.mark.fault("database read-only (SQLite)")
def test_read_only_sqlite(tmp_path: Path, count: Count, round_: int) -> None:
    """It becomes read-only under the writer's feet, as after an error of the disk."""
    with small_disk(tmp_path / "disk", 32 * 2**20) as disk, Scene(tmp_path / "scene", database=_file(disk)) as scene:
        scene.database = disk / "mqtt.db"

        def reopened() -> bool:
            is_made = made_read_only(disk, scene.database)
            scene.kill_writer()  # a file system with an open file cannot be made read-only
            return is_made

        with judged(scene, count) as load:
            scene.until(lambda: scene.count() > 0, "something is stored")
            scene.until(reopened, "the database is read-only")
            load.more()
            scene.until_logged("retrying until it works")
            make_writable(disk, scene.database)


@pytest.mark.fault("database locked by another program (SQLite)")
def test_locked_sqlite(tmp_path: Path, count: Count, round_: int) -> None:
    """While another program holds the write lock, acknowledgements go on."""
    with Scene(tmp_path) as scene, judged(scene, count) as load:
        scene.until(lambda: scene.count() > 0, "something is stored")
        other = sqlite3.connect(scene.database, isolation_level=None, timeout=30)
        other.execute("BEGIN IMMEDIATE")
        stored = scene.count()
        load.more(2000)
        assert scene.count() == stored
        other.execute("ROLLBACK")
        other.close()


@pytest.mark.fault("table locked by another program (PostgreSQL)")
def test_locked_postgresql(tmp_path: Path, postgres: str, count: Count, round_: int) -> None:
    """While another program locks the table, acknowledgements go on."""
    with Scene(tmp_path, postgres) as scene, judged(scene, count) as load:
        scene.until(lambda: scene.count() > 0, "something is stored")
        with psycopg.connect(postgres) as other:
            other.execute("LOCK TABLE loads")
            load.more(2000)


@pytest.mark.fault("schema changed by hand")
def test_schema_changed_by_hand(tmp_path: Path, count: Count, round_: int) -> None:
    """A column that is dropped under load is created again, and every message is there once."""
    with Scene(tmp_path) as scene:
        with judged(scene, count, payload=without_text) as load:
            scene.until(lambda: scene.count() > 0, "something is stored")
            other = sqlite3.connect(scene.database, isolation_level=None, timeout=30)
            other.executescript("DROP VIEW IF EXISTS loads_view; ALTER TABLE loads DROP COLUMN s")
            (last,) = other.execute("SELECT max(id) FROM loads").fetchone()
            other.close()
            load.more()
            scene.until_logged("the schema was changed by hand, or a model has changed; repaired with")
        assert scene.sql(f"SELECT count(*) FROM loads WHERE id > {last} AND s IS NULL") == [(0,)]


def without_text(key: Key) -> dict[str, Any]:
    """A message but for the column that was dropped."""
    return {name: value for name, value in sample(key).items() if name != "s"}


def _file(directory: Path) -> str:
    return f"sqlite:///{directory / 'mqtt.db'}"
