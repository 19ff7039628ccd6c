"""A decoder that makes several records of a message: all are stored, at their own times, or none."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from amqtt_db.decode import time_given_by
from amqtt_db.models import BUILTIN
from tests.workbench import Sent, Workbench

TABLE = {"wide": {"table": "t"}}
TIMES = "SELECT time FROM t ORDER BY part"
ARRIVAL = "2023-11-14 22:13:20.000000"
LINES = b"m a=1 1000000000000\nm a=2\nm a=3 3000000000000"


def bench_with(path: Path, payload: bytes, **route: Any) -> Workbench:
    bench = Workbench(path, {"topic": "#", "model": TABLE, **route})
    bench.send(Sent("a", payload))
    return bench


def test_records_have_the_times_of_the_payload(tmp_path: Path) -> None:
    """A line without a time has that of its arrival, and is counted."""
    bench = bench_with(tmp_path, LINES, decode="influx")
    assert bench.sql(TIMES) == [("1970-01-01 00:16:40.000000",), (ARRIVAL,), ("1970-01-01 00:50:00.000000",)]
    assert bench.counts() == {"#": {"stored": 1, "records": 3, "time_missing": 1}}


@pytest.mark.slow
@pytest.mark.parametrize("model", BUILTIN)
def test_every_model_stores_all_records(model: str, tmp_path: Path) -> None:
    """They are told apart by their part."""
    bench = Workbench(tmp_path, {"topic": "#", "model": model, "decode": "influx"})
    bench.send(Sent("a", LINES))
    assert [(record.part, record.properties()["a"][1]) for record in bench.records()] == [(0, 1), (1, 2), (2, 3)]


def test_a_routes_time_comes_first(tmp_path: Path) -> None:
    """Another property can be the event's time."""
    bench = bench_with(tmp_path, b"m at=60 1000000000000", decode="influx", time="at")
    assert bench.sql(TIMES) == [("1970-01-01 00:01:00.000000",)]


def test_an_entity_need_not_declare_the_time(tmp_path: Path) -> None:
    """It is the event's time all the same."""
    bench = bench_with(tmp_path, b"m a=1 1000000000000", decode="influx", entity={"a": "float"})
    assert bench.sql(TIMES) == [("1970-01-01 00:16:40.000000",)]


def test_a_mistake_in_one_record_refuses_the_message(tmp_path: Path) -> None:
    """Nothing of it is stored, and its neighbours are."""
    bench = Workbench(tmp_path, {"topic": "#", "model": TABLE, "decode": "influx"})
    bench.send(Sent("a", b"m a=1"), Sent("a", b"m a=2\nm a=3\nm a=x"), Sent("a", b"m a=4"))
    assert bench.sql("SELECT a FROM t ORDER BY id") == [(1,), (4,)]
    (letter,) = bench.dead()
    assert letter.step == "decode"
    assert letter.reason.startswith("not line protocol: line 3: ")


def test_each_record_may_be_split_further(tmp_path: Path) -> None:
    """``each`` is looked for in every record."""
    pack = b'[{"n": "a", "v": 1, "more": [1, 2]}, {"n": "b", "v": 2, "more": [3]}]'
    bench = bench_with(tmp_path, pack, decode="senml", each="more")
    assert bench.sql("SELECT name, more FROM t ORDER BY part") == [("a", 1), ("a", 2), ("b", 3)]


def test_an_empty_pack_makes_no_record(tmp_path: Path) -> None:
    """It is not a mistake."""
    bench = bench_with(tmp_path, b"[]", decode="senml")
    assert bench.dead() == []
    assert bench.counts() == {"#": {"stored": 1}}


def test_a_header_alone_is_not_lost(tmp_path: Path) -> None:
    """It may be a row of a payload without a header, so it becomes a dead letter."""
    bench = bench_with(tmp_path, b"21.5,46\n", decode="csv")
    assert len(bench.dead()) == 1
    assert bench.counts() == {"#": {"dead": 1}}


@pytest.mark.parametrize(
    ("spec", "given"),
    [
        ("influx", "time"),
        ({"influx": {"precision": "s"}}, "time"),
        (["gzip", "senml"], "time"),
        ("json", None),
        (None, None),
        ([], None),
        ({}, None),
        ([5], None),
    ],
)
def test_which_decoders_know_the_time(spec: Any, given: str | None) -> None:
    """The last stage of a pipeline tells; a spec with a mistake tells nothing."""
    assert time_given_by(spec) == given


def test_a_pipeline_ends_in_records(tmp_path: Path) -> None:
    """Compressed lines are lines."""
    bench = bench_with(tmp_path, gzip.compress(LINES), decode=["gzip", "influx"])
    assert bench.sql("SELECT a FROM t ORDER BY part") == [(1,), (2,), (3,)]
