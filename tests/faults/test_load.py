"""Unexpected loads and misbehaving clients: everything acknowledged is stored, and the broker keeps running."""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.faults.conftest import Count
from tests.faults.load import Connection, Key, Ledger, Load, sample
from tests.faults.scene import Scene
from tests.ingest.broker.mqtt import publish
from tests.integration.broker import RawClient


@pytest.mark.fault("500 clients at once")
def test_many_clients(tmp_path: Path, count: Count, round_: int, scale: int) -> None:
    """Five hundred connections that all publish, at every QoS."""
    with Scene(tmp_path) as scene:
        ledger = Load(scene.port, 500, most=4 * scale, window=4).finished()
        assert len(ledger.sent) == 500 * 4 * scale
        verdict = scene.judge(ledger)
        assert verdict.stored == len(ledger.sent)
        assert scene.sql("SELECT count(DISTINCT session) FROM loads") == [(500,)]
        count(verdict)


@pytest.mark.fault("50,000 messages and goodbye")
def test_a_client_that_leaves_at_once(tmp_path: Path, count: Count, round_: int, scale: int) -> None:
    """Tens of thousands of QoS 0 messages at once, then DISCONNECT: each of them is stored."""
    most = 50_000 if scale > 1 else 20_000
    with Scene(tmp_path) as scene:
        with RawClient(scene.port, "much") as client:
            client.publish("load/0", (sample((0, number)) for number in range(most)), 0)
            client.disconnect()
        ledger = Ledger()
        ledger.sent.update((0, number) for number in range(most))
        scene.until_stored(most)
        verdict = scene.judge(ledger)
        assert verdict.stored == most
        count(verdict)


@pytest.mark.fault("a payload of 200 MB")
def test_a_large_payload(tmp_path: Path, count: Count, round_: int, scale: int) -> None:
    """Acknowledged, and stored byte by byte."""
    size = 200_000_000 if scale > 1 else 20_000_000
    payload = bytes(range(256)) * (size // 256)
    with Scene(tmp_path, routes=[{"topic": "#", "model": {"wide": {"table": "large"}}, "decode": "bytes"}]) as scene:

        async def send() -> None:
            async with Connection(scene.port, "large") as connection:
                await connection.publish([("large", payload)], 1)

        asyncio.run(send())
        scene.settle()
        ((stored,),) = scene.sql("SELECT value FROM large")
        assert hashlib.sha256(stored).digest() == hashlib.sha256(payload).digest()
        count(scene.verdict(Ledger(acknowledged={(0, 0)}), 1))


@pytest.mark.fault("a client that sends a byte now and then")
def test_a_slow_client(tmp_path: Path, count: Count, round_: int) -> None:
    """Fifty clients stop in the middle of a packet: no other client waits, and half a message is not stored."""

    async def stall(port: int, ready: asyncio.Event, done: asyncio.Event) -> None:
        connection = Connection(port, f"slow{id(ready)}{time.monotonic_ns()}")
        async with connection:
            for byte in publish("load/9", b'{"half": ', 1, 1)[:-1]:
                connection.writer.write(bytes([byte]))
                await connection.writer.drain()
            ready.set()
            await done.wait()
            connection.writer.transport.abort()

    async def scenario(scene: Scene) -> Ledger:
        done, events = asyncio.Event(), [asyncio.Event() for _ in range(50)]
        tasks = [asyncio.create_task(stall(scene.port, event, done)) for event in events]
        await asyncio.gather(*(event.wait() for event in events))
        ledger = await asyncio.to_thread(lambda: Load(scene.port, most=100).finished())
        done.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        return ledger

    with Scene(tmp_path) as scene:
        ledger = asyncio.run(scenario(scene))
        verdict = scene.judge(ledger)
        assert verdict.stored == len(ledger.sent)
        count(verdict)


@pytest.mark.fault("1,000 new property names a second")
def test_ever_new_properties(tmp_path: Path, count: Count, round_: int, scale: int) -> None:
    """Columns up to the limit, the rest in `extra`: every value is stored, and nothing stands still."""
    seconds = 60 if scale > 1 else 2

    def ever_new(key: Key) -> dict[str, Any]:
        return {"client": 0, "n": key[1], **{f"p{key[1] * 10 + index}": index for index in range(10)}}

    with Scene(tmp_path) as scene:
        ledger = Ledger()
        for second in range(seconds):
            started = time.monotonic()
            load = Load(scene.port, 1, most=100, first=second * 100, payload=ever_new, qos=(1,))
            ledger.add(load.finished())
            time.sleep(max(0.0, 1 - (time.monotonic() - started)) if scale > 1 else 0)
        scene.settle()
        names = [name for (name,) in scene.sql("SELECT name FROM pragma_table_info('loads')") if name[0] == "p"]
        columns = [name for name in names if name[1:].isdigit()]
        stored = {}
        for number, extra, *values in scene.sql(f"SELECT n, extra, {', '.join(columns)} FROM loads"):
            found = {name: value for name, value in zip(columns, values, strict=True) if value is not None}
            stored[0, int(number)] = {**found, **json.loads(extra or "{}"), "client": 0, "n": int(number)}
        assert stored == {key: ever_new(key) for key in ledger.sent}
        count(scene.verdict(ledger, len(stored)))


@pytest.mark.fault("10,000 new topics")
def test_ever_new_topics(tmp_path: Path, count: Count, round_: int, scale: int) -> None:
    """A table per topic up to `max_tables`; further topics share one; every message is stored with its topic."""
    topics = 10_000 if scale > 1 else 1500

    def topic(key: Key) -> str:
        return f"topics/{key[0]}/{key[1]}"

    with Scene(tmp_path, routes=[{"topic": "topics/#", "model": "wide", "max_tables": 50}]) as scene:
        ledger = Load(scene.port, 5, most=topics // 5, topic=topic, qos=(1,)).finished()
        scene.settle()
        tables = [name for (name,) in scene.sql("SELECT name FROM mqtt_table")]
        assert len(tables) == 51
        stored = set()
        for table in tables:
            for where, client, number in scene.sql(f'SELECT topic, client, n FROM "{table}"'):
                assert where == topic((int(client), int(number)))
                stored.add((int(client), int(number)))
        assert stored == ledger.acknowledged
        count(scene.verdict(ledger, len(stored)))


DECODERS = """
import json, os, time
kept = []
def decode(payload):
    data = json.loads(payload)
    what = data.get("do")
    if what == "raise":
        raise RuntimeError("a bug")
    if what == "exit":
        os._exit(9)
    if what == "hang":
        time.sleep(3600)
    if what == "leak":
        kept.append(bytearray(os.urandom(1)) * 200_000_000)
    return data
"""


def _with_decoder(directory: Path, **writer: Any) -> Scene:
    directory.mkdir(exist_ok=True)
    (directory / "decoders.py").write_text(DECODERS)
    return Scene(directory, routes=[{"topic": "#", "model": {"wide": {"table": "loads"}}, "decode": "decoders.decode"}],
                 writer=writer)  # fmt: skip


def _bad(scene: Scene, *deeds: str) -> tuple[Ledger, Ledger]:
    """A load with one bad message of each kind, all in the journal together; the good messages, and the bad ones."""
    with scene.held():
        return _waiting(scene, *deeds)


def _waiting(scene: Scene, *deeds: str) -> tuple[Ledger, Ledger]:
    """The same under a writer that stands still already."""
    bad = {(1, 20 * (index + 1)): deed for index, deed in enumerate(deeds)}

    def payload(key: Key) -> dict[str, Any]:
        return {**sample(key), "do": bad[key]} if key in bad else sample(key)

    ledger = Load(scene.port, 3, most=100, payload=payload).finished()
    good = Ledger(ledger.sent.copy(), ledger.acknowledged - set(bad))
    return good, Ledger(acknowledged=ledger.acknowledged & set(bad))


@pytest.mark.fault("a decoder that raises, hangs, or exits the process")
def test_a_bad_decoder(tmp_path: Path, count: Count, round_: int, scale: int) -> None:
    """Each such message becomes a dead letter with the reason, and all neighbours are stored."""
    wanted = {
        "raise": "RuntimeError: a bug",
        "hang": "user code took longer than 0.5 s",
        "exit": "ended the writer twice",
    }
    deeds = list(wanted)[: None if scale > 1 else 2]
    with _with_decoder(tmp_path, time_limit=0.5) as scene:
        good, bad = _bad(scene, *deeds)
        verdict = scene.judge(good)
        reasons = [reason for (reason,) in scene.sql("SELECT reason FROM mqtt_dead_letter ORDER BY id")]
        assert [deed for deed, reason in zip(deeds, reasons, strict=True) if wanted[deed] not in reason] == []
        count(verdict + scene.verdict(bad, 0))


@pytest.mark.fault("a decoder that leaks memory")
def test_a_leaking_decoder(tmp_path: Path, count: Count, round_: int) -> None:
    """Beyond its memory limit the writer is replaced by a fresh one, between two batches: nothing is dead."""
    with _with_decoder(tmp_path, memory_limit="150 MB") as scene:
        good, bad = _bad(scene, "leak")
        good.acknowledged |= bad.acknowledged
        verdict = scene.judge(good)
        scene.until_logged("the writer used more memory than memory_limit; it is being restarted")
        assert verdict.dead == 0
        count(verdict)


@pytest.mark.fault("a decoder that hangs and leaks memory, under `amqtt-db write`")
def test_a_bad_decoder_without_a_broker(tmp_path: Path, count: Count, round_: int) -> None:
    """The command replaces its writer as the broker does: what hangs is a dead letter, its neighbours are stored."""
    scene = _with_decoder(tmp_path, time_limit=0.5, memory_limit="150 MB").start()
    with scene.held():
        good, bad = _waiting(scene, "hang", "leak")
        scene.kill_both()
    with scene.written():
        verdict = scene.judge(good)
        ((reason,),) = scene.sql("SELECT reason FROM mqtt_dead_letter")
        assert "user code took longer than 0.5 s" in reason
        scene.until_logged("the writer used more memory than memory_limit; it is being restarted")
        count(verdict + scene.verdict(bad, 0))
