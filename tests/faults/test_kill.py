"""`kill -9` at random moments, under load at every QoS: what was acknowledged is stored, once."""

from __future__ import annotations

import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.conftest import Count
from tests.faults.frame import judged
from tests.faults.load import Key, Ledger, Load
from tests.faults.scene import Scene

KILLS = 2


@pytest.mark.fault("kill -9 of the broker")
def test_a_killed_broker_keeps_what_it_acknowledged(
    tmp_path: Path, rng: random.Random, count: Count, round_: int
) -> None:
    """Killed under load and started again, while the clients keep trying: acknowledged is stored, once."""
    with Scene(tmp_path) as scene, judged(scene, count) as load:
        for _ in range(KILLS):
            time.sleep(rng.uniform(0, 0.4))
            scene.kill()
            scene.start()
            load.more(500)


@pytest.mark.fault("kill -9 of the writer")
def test_a_killed_writer_is_replaced(tmp_path: Path, rng: random.Random, count: Count, round_: int) -> None:
    """Killed under load, again and again: the next one goes on exactly where the transaction before ended."""
    with Scene(tmp_path) as scene, judged(scene, count) as load:
        for _ in range(2 * KILLS):
            time.sleep(rng.uniform(0, 0.3))
            scene.kill_writer()
            load.more(400)


@pytest.mark.fault("kill -9 of broker and writer")
def test_killed_together(tmp_path: Path, rng: random.Random, count: Count, round_: int) -> None:
    """Both at once, under load."""
    with Scene(tmp_path) as scene, judged(scene, count) as load:
        time.sleep(rng.uniform(0, 0.4))
        scene.kill_both()
        scene.start()
        load.more(500)


@pytest.mark.fault("kill -9 of the writer while tables are made")
def test_killed_during_ddl(tmp_path: Path, rng: random.Random, count: Count, round_: int) -> None:
    """A table per topic, and columns that keep coming: killed in the middle of the first tables."""

    def growing(key: Key) -> dict[str, object]:
        return {"client": key[0], "n": key[1], f"p{key[1] % 40}": key[1]}

    def topic(key: Key) -> str:
        return f"ddl/{key[0]}/{key[1] % 7}"

    with Scene(tmp_path, routes=[{"topic": "ddl/{a}/{b}", "model": "wide"}]) as scene:
        with scene.held():
            load = Load(scene.port, 6, most=60, payload=growing, topic=topic, qos=(1, 2))
            ledger = load.finished()
        for _ in range(3):
            time.sleep(rng.uniform(0, 0.15))
            scene.kill_writer()
        scene.settle()
        tables = [f"ddl_{client}_{number}" for client in range(6) for number in range(7)]
        properties = [f"p{number}" for number in range(40)]
        found = Ledger()
        for table in tables:
            names = [name for (name,) in scene.sql(f"SELECT name FROM pragma_table_info('{table}')")]
            columns = [name for name in names if name in properties]
            for client, number, *values in scene.sql(f"SELECT client, n, {', '.join(columns)} FROM {table}"):
                assert [value for value in values if value is not None] == [number]
                found.sent[int(client), int(number)] += 1
        assert found.sent == ledger.sent
        state = scene.settle()
        assert [counts.stored for counts in state.counters or ()] == [len(ledger.sent)]
        count(scene.verdict(ledger, len(ledger.sent)))


@pytest.mark.fault("kill -9 of the broker while the journal is trimmed")
def test_killed_during_trimming(tmp_path: Path, rng: random.Random, count: Count, round_: int, scale: int) -> None:
    """A backlog is stored and deleted from the journal: killed somewhere in between."""
    scene = Scene(tmp_path).start()
    with scene.held():
        ledger = Load(scene.port, most=300 * scale).finished()
    before = scene.count()
    scene.until(lambda: scene.count() > before, "the writer goes on")
    time.sleep(rng.uniform(0, 1.2))
    scene.kill()
    with scene.start():
        count(scene.judge(ledger))
        assert scene.journal.stat().st_size


@pytest.mark.fault("kill -9 of the broker while it shuts down")
def test_killed_during_shutdown(tmp_path: Path, rng: random.Random, count: Count, round_: int) -> None:
    """SIGTERM under load, and no patience: killed before it is done; the writer may still be at work."""
    scene = Scene(tmp_path).start()
    load = Load(scene.port)
    load.wait(1000)
    assert scene.process is not None
    scene.process.send_signal(signal.SIGTERM)
    time.sleep(rng.uniform(0, 0.3))
    scene.kill()
    ledger = load.end()
    with scene.start():
        count(scene.judge(ledger))


@pytest.mark.fault("the writer paused and continued")
def test_a_paused_writer(tmp_path: Path, count: Count, round_: int) -> None:
    """SIGSTOP of the writer: acknowledgements go on, and everything is stored when it continues."""
    with Scene(tmp_path) as scene, judged(scene, count) as load, scene.held():
        stored = scene.count()
        load.more(1000)
        assert scene.count() - stored <= 5000
