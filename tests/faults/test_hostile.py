"""Senders with bad intentions: what they send is stored as data, and is nothing else anywhere."""

from __future__ import annotations

import asyncio
import json
import random
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqtt_db import read
from amqtt_db.errors import JournalError
from amqtt_db.journal import Journal
from tests.faults.conftest import Count
from tests.faults.load import Connection, Ledger
from tests.faults.scene import Scene
from tests.journal.test_journal import everything
from tests.workbench import Workbench

SQL = "'\"); DROP TABLE mqtt_journal; --"
NAMES = (
    SQL, "`x`; DELETE FROM mqtt_counter", "%s %(a)s :a ? $1", "a/b/../../c", "a_b", "a b", "A_B", "a__b", "a-b",
    "mqtt_journal", "mqtt_dead_letter", "sqlite_master", "sqlite_sequence", "pg_class", "pg_catalog.pg_user",
    "information_schema/tables", "select", "id", "part", "time", "topic", "session", "qos", "retain", "extra", "rowid",
    "ctid", "xmin", "oid", "tableoid", "_rowid_", "ID", "Time",
)  # fmt: skip
TERMINAL = "\x1b]0;owned\x07\x1b[2J\x1b[31mred\r2026-01-01 ERROR amqtt_db: all is lost"
BOMBS = (
    b"[" * 100_000, b'{"a":' * 100_000 + b"1" + b"}" * 100_000, b"1" * 1_000_000, b'{"a": 1e999999999}',
    b'{"' + b"k" * 1_000_000 + b'": 1}', b'{"a": "' + b"\\ud800" * 1000 + b'"}', b'{"a": 1, "a": 2}', b"\xff\xfe{\x00",
    b"[" + b"1," * 200_000 + b"1]",
)  # fmt: skip


@pytest.mark.fault("SQL, system names and terminal escapes in topics, clients, users, properties and values")
@pytest.mark.parametrize("engine", ["sqlite", "postgresql"])
def test_hostile_names(engine: str, tmp_path: Path, count: Count, round_: int, request: pytest.FixtureRequest) -> None:
    """Every name and value comes back exactly as sent, nothing else happens, and the log has clean lines."""
    url = request.getfixturevalue("postgres") if engine == "postgresql" else None
    values = [{name: name, "n": number, "what": [SQL]} for number, name in enumerate((*NAMES, TERMINAL))]
    sent = [(f"evil/{name}", json.dumps(value).encode()) for name, value in zip(NAMES, values, strict=False)]
    sent += [("all", json.dumps({name: number for number, name in enumerate(NAMES)}).encode())]
    sent += [("evil/" + TERMINAL.replace("\x1b", "\x1b\n"), b"{\x1b[2J no json")]

    async def publish(port: int) -> None:
        async with Connection(port, SQL + TERMINAL, username=SQL) as connection:
            await connection.publish(sent, 1)

    with Scene(tmp_path, url, routes=[{"topic": "#", "model": "wide"}]) as scene:
        asyncio.run(publish(scene.port))
        state = scene.settle()
        found = {record.topic: record.data() for record in read(url or f"sqlite:///{scene.database}")}
        assert found == {topic: json.loads(payload) for topic, payload in sent[:-1]}
        assert scene.sql("SELECT client_id, username FROM mqtt_session") == [(SQL + TERMINAL, SQL)]
        assert sum(counts.dead for counts in state.counters or ()) == 1
        log = scene.log.read_text()
        assert "\x1b" not in log
        assert not any(line.startswith("2026-01-01 ERROR") for line in log.splitlines())
        ledger = Ledger(acknowledged={(0, number) for number in range(len(sent))})
        count(scene.verdict(ledger, len(sent) - 1, 1))


@pytest.mark.fault("JSON bombs")
def test_bombs(tmp_path: Path, count: Count, round_: int) -> None:
    """Deep, long, odd and broken: each is stored or a dead letter, and the writer that met them is still alive."""

    async def publish(port: int) -> None:
        async with Connection(port, "bomber") as connection:
            await connection.publish([(f"bomb/{number}", bomb) for number, bomb in enumerate(BOMBS)], 1)
            await connection.publish([("fine", b'{"a": 1}')], 1)

    with Scene(tmp_path, routes=[{"topic": "#", "model": "document"}]) as scene:
        writer = scene.writer()
        asyncio.run(publish(scene.port))
        state = scene.settle()
        stored, dead = (sum(getattr(one, name) for one in state.counters or ()) for name in ("stored", "dead"))
        assert stored + dead == len(BOMBS) + 1
        assert scene.writer() == writer
        count(scene.verdict(Ledger(acknowledged={(0, number) for number in range(len(BOMBS) + 1)}), stored, dead))


TOPICS = st.text(min_size=1, max_size=60).filter(lambda topic: not topic.startswith("$"))  # these match no wildcard


@given(st.lists(st.tuples(TOPICS, st.text(max_size=20), st.text()), min_size=1, max_size=5))
@settings(max_examples=25, deadline=None)
def test_any_topic_and_any_property(messages: list[tuple[str, str, str]]) -> None:
    """Arbitrary text as topic, property and value: stored and read back exactly, or a dead letter with a reason."""
    with TemporaryDirectory() as directory:
        bench = Workbench(Path(directory))
        bench.send(*((topic.encode(errors="replace").decode(), {key: value}) for topic, key, value in messages))
        dead = bench.dead()
        assert all(letter.reason for letter in dead)
        assert len(bench.records()) + len(dead) == len(messages)
        expected = [{key: value} for topic, key, value in messages if "\x00" not in topic]
        assert bench.data() == expected
        bench.close()


@given(st.data())
@settings(max_examples=25, deadline=None)
def test_any_damage_to_a_journal(data: Any) -> None:
    """Bytes changed anywhere: what a new owner finds is a part of what was there, and never something else."""
    rng = random.Random(data.draw(st.integers(0, 2**32)))
    with TemporaryDirectory() as directory:
        path = Path(directory) / "journal"
        journal = Journal.open(path, max_size=2**30, sync="never")
        payloads = {journal.append(2, 1, 0, b"t", rng.randbytes(rng.randrange(2000))): None for _ in range(50)}
        journal.commit()
        journal.close()
        before = _entries(path)
        assert len(before) == len(payloads) + 1
        raw = bytearray(path.read_bytes())
        for _ in range(rng.randrange(1, 20)):
            raw[rng.randrange(len(raw))] = rng.randrange(256)
        path.write_bytes(raw)
        try:
            Journal.open(path, max_size=2**30, sync="never").close()
        except JournalError:
            return
        assert {entry for entry in _entries(path) if entry[4]} <= before


def _entries(path: Path) -> set[tuple[Any, ...]]:
    return {(position, time, kind, topic, payload)
            for batch in everything(path) for position, time, kind, _, topic, payload in batch}  # fmt: skip
