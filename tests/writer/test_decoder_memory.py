"""What decoders remember is committed with the records: never ahead of them, never behind, there after a restart."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.decode import Arrival, Memory
from amqtt_db.testing.bench import PowerCut, power_cut
from amqtt_db.writer import memory as writer_memory
from amqtt_db.writer.copying import Copier
from amqtt_db.writer.redecoding import Redecoder
from amqtt_db.writer.replay import replay
from amqtt_db.writer.transaction import CheckpointMoved
from tests.database.engines.servers import Site
from tests.workbench import Sent, Workbench, routes
from tests.writer.test_deletion import workshop

TOTALS = f"{__name__}.Totals"
ROUTE: dict[str, Any] = {"topic": "n/{x}", "decode": TOTALS, "model": {"wide": {"table": "t"}}}
TOTAL = "SELECT total FROM t ORDER BY id"


class Totals:
    """Adds up the numbers in the payloads of all topics, and of each; ``bad`` is part of a record if it is negative."""

    def remembers(self, topic: str) -> Sequence[str]:
        """Return a name for all topics, and one for this."""
        return "all", topic

    def __call__(self, arrival: Arrival, memory: Memory) -> Any:
        """Return the sums so far."""
        number = int(arrival.payload)
        for name in ("all", arrival.topic):
            memory[name] = str(int(memory.get(name, "0")) + number)
        return {"total": int(memory["all"]), "own": int(memory[arrival.topic]), **({"bad": "x"} if number < 0 else {})}


def numbers(*given: int) -> list[Sent]:
    return [Sent(f"n/{number % 2}", str(number).encode()) for number in given]


def remembered(bench: Workbench) -> dict[str, int]:
    rows = bench.sql("SELECT m.name, m.text FROM mqtt_decoder_memory m")
    return {name.removeprefix(f"{TOTALS}:"): int(text) for name, text in rows}


def test_it_survives_a_restart(site: Site) -> None:
    """The next writer goes on where the last one was."""
    bench = Workbench(site, ROUTE)
    bench.send(*numbers(1, 2, 3))
    bench.restart()
    bench.send(*numbers(4))
    bench.send(*numbers(5, 6))
    assert bench.sql("SELECT x, total, own FROM t ORDER BY id") == [
        ("1", 1, 1), ("0", 3, 2), ("1", 6, 4), ("0", 10, 6), ("1", 15, 9), ("0", 21, 12),
    ]  # fmt: skip
    assert remembered(bench) == {"all": 21, "n/0": 12, "n/1": 9}


def test_a_power_cut_before_any_commit_changes_nothing(tmp_path: Path) -> None:
    """Whichever commit it hits, records and memory belong together afterwards."""
    bench = Workbench(tmp_path, ROUTE)
    bench.send(*numbers(1))
    for commit in range(6):
        batch = bench.batch(*numbers(10, 20))
        for attempt in (True, False):
            try:
                with power_cut(bench.url, commit if attempt else 1000):
                    bench.writer.store(bench.number, None, bench.checkpoint, batch)
            except PowerCut:
                bench.close()
                bench.open()
                if bench.checkpoint < batch.end:
                    continue
            bench.checkpoint = batch.end
            break
        assert bench.sql(TOTAL)[-1] == (1 + 30 * (commit + 1),)
        assert remembered(bench)["all"] == 1 + 30 * (commit + 1)


@pytest.mark.parametrize(
    "keys",
    [
        {"entity": {"total": "int", "own": "int"}, "unknown": "reject"},
        {"model": {"tests.writer.user_code.MoodyWriter": {"table": "t", "method": "write", "mood": "value error"}}},
    ],
    ids=["the entity", "the model"],
)
def test_a_message_that_cannot_be_stored_is_remembered_if_it_was_decoded(keys: dict[str, Any], tmp_path: Path) -> None:
    """Whoever refuses it, and however the batch is halved; one that cannot be decoded is not."""
    bench = Workbench(tmp_path, {**ROUTE, **keys})
    bench.send(*numbers(1, 2, -7), Sent("n/1", b"x"), *numbers(3, -2, 4))
    assert len(bench.dead()) == 3
    assert bench.sql(TOTAL) == [(1,), (3,), (-1,), (1,)]
    assert remembered(bench)["all"] == 1


@given(
    st.lists(st.lists(st.integers(-3, 9) | st.just(None), min_size=1, max_size=6), max_size=5),
    st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_batch_boundaries_halving_and_restarts_make_no_difference(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[int | None]], restarts: list[bool]
) -> None:
    """The sums are those of reading the messages one by one."""
    model = {"tests.writer.user_code.MoodyWriter": {"table": "t", "method": "write", "mood": "value error"}}
    bench = Workbench(tmp_path_factory.mktemp("bench"), {**ROUTE, "model": model})
    for given_numbers, restart in zip(batches, restarts, strict=False):
        bench.send(*(Sent("n/0", b"?" if number is None else str(number).encode()) for number in given_numbers))
        if restart:
            bench.restart()
    total, expected = 0, []
    for number in (number for some in batches for number in some if number is not None):
        total += number
        expected += [total] if number >= 0 else []
    assert [data["total"] for data in bench.data()] == expected
    assert remembered(bench).get("all", 0) == total
    bench.close()


def test_another_writers_memory_is_noticed(tmp_path: Path) -> None:
    """Two journals feed a database: the writer that is behind starts again, and nothing is lost or counted twice."""
    first = Workbench(tmp_path, ROUTE)
    first.send(*numbers(1))
    second = Workbench(tmp_path, ROUTE, token="b")
    second.send(*numbers(10))
    batch = first.batch(*numbers(2))
    with pytest.raises(CheckpointMoved):
        first.store(batch)
    first.close()
    first.open()
    first.store(batch)
    assert sorted(first.sql("SELECT total FROM t")) == [(1,), (11,), (13,)]


def test_a_new_name_that_another_writer_made_first_is_noticed(tmp_path: Path) -> None:
    """It is no fault of the message."""
    first, second = Workbench(tmp_path, ROUTE), Workbench(tmp_path, ROUTE, token="b")
    first.writer._memory.recall([f"{TOTALS}:all", f"{TOTALS}:n/1"])
    second.send(*numbers(1))
    with pytest.raises(CheckpointMoved):
        first.send(*numbers(3))
    assert first.dead() == []


def test_replayed_dead_letters_read_it_and_leave_it_as_it_is(tmp_path: Path) -> None:
    """What came later has been remembered already."""
    strict = {**ROUTE, "entity": {"total": "int", "own": "int"}, "unknown": "reject"}
    bench = Workbench(tmp_path, strict)
    bench.send(*numbers(-3, 5))
    lenient = {**strict, "unknown": "add"}
    assert [one.reason for one in replay(bench.url, routes(lenient))] == [None]
    assert bench.sql(TOTAL) == [(-1,), (2,)]
    assert remembered(bench)["all"] == 2


def test_storing_again_goes_on_from_message_to_message(tmp_path: Path) -> None:
    """It begins with what is remembered now, which stays as it is."""
    route = {**ROUTE, "raw": True}
    bench = Workbench(tmp_path, route)
    bench.send(*numbers(1, 2))
    with workshop(bench, route) as shop:
        redecoder = Redecoder(shop)
        list(redecoder.redecode(*redecoder.topics("#")))
    assert bench.sql(TOTAL) == [(4,), (6,)]
    assert remembered(bench)["all"] == 3


def test_a_copy_goes_on_where_the_old_database_was(tmp_path: Path) -> None:
    """Copied before and after the writer changes over; what it remembers in the new one is not replaced then."""
    old, url = Workbench(tmp_path, ROUTE), f"sqlite:///{tmp_path / 'new.db'}"
    for number in (1, 2):
        old.send(*numbers(number))
        _copy(old.url, url)
    old.close()
    with closing(sqlite3.connect(old.path)) as opened:
        before = opened.execute("SELECT name, text FROM mqtt_decoder_memory ORDER BY name").fetchall()
    old.url, old.path = url, tmp_path / "new.db"
    old.open()
    assert old.sql("SELECT name, text FROM mqtt_decoder_memory ORDER BY name") == before
    old.send(*numbers(10))
    _copy(f"sqlite:///{tmp_path / 'mqtt.db'}", url)
    old.send(*numbers(20))
    assert old.sql(TOTAL) == [(1,), (3,), (13,), (33,)]


def _copy(source: str, target: str) -> None:
    copier = Copier(source, target, routes(ROUTE, url=target))
    try:
        list(copier.copy())
    finally:
        copier.close()


def test_what_a_writer_knows_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it has forgotten it reads again."""
    monkeypatch.setattr(writer_memory, "MAX_REMEMBERED", 200)
    bench = Workbench(tmp_path, {**ROUTE, "topic": "#"})
    for number in range(60):
        bench.send(Sent(f"n/{number % 20}", b"1"))
    known = bench.writer._memory._known
    assert bench.writer._memory._size == sum(len(name) + len(one.text or "") for name, one in known.items())
    assert len(known) < 8
    assert bench.sql(TOTAL)[-1] == (60,)
    assert {remembered(bench)[f"n/{number}"] for number in range(20)} == {3}
