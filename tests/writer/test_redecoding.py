"""Payloads that are kept beside a model, and messages stored again from them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.database.engines.base import Engine
from amqtt_db.reader.latest import latest
from amqtt_db.testing.bench import PowerCut, power_cut
from amqtt_db.writer.deletion import Deleter
from amqtt_db.writer.redecoding import RedecodeProgress, Redecoder
from amqtt_db.writer.renaming import Renamer
from tests.database.engines.servers import Site
from tests.values import same
from tests.workbench import Sent, Workbench
from tests.writer.test_deletion import arrival, workshop

MODELS = ("wide", "eav", "document", "narrow")


def redecode(bench: Workbench, *entries: dict[str, Any], **bounds: Any) -> RedecodeProgress:
    """Store everything again as `amqtt-db redecode` does; return the progress of the last topic."""
    with workshop(bench, *entries) as shop:
        redecoder, done = Redecoder(shop, **bounds), [RedecodeProgress()]
        for topic in redecoder.topics("#"):
            done += redecoder.redecode(topic)
    return done[-1]


def payloads(bench: Workbench) -> list[bytes]:
    """Return what is kept, segment by segment."""
    return [bytes(row[0]) for row in bench.sql("SELECT payload FROM mqtt_raw ORDER BY id, number")]


@pytest.mark.parametrize("model", MODELS)
def test_messages_are_stored_again_as_the_route_wants_them_now(model: str, site: Site) -> None:
    """With another decoder and other records of each message; what is refused now stays as it was."""
    old = {"topic": "x/+", "model": model, "decode": "text", "raw": True, "latest": True}
    bench = Workbench(site, old)
    bench.send(("x/a", b'[{"n": 1}, {"n": 2}]'), ("x/a", b"{broken"), Sent("x/a", b'[{"n": 3}]', 1, retain=True))
    assert payloads(bench) == [b'[{"n": 1}, {"n": 2}]', b"{broken", b'[{"n": 3}]']
    new = {**old, "decode": "json", "each": "", "entity": {"n": "int"}}
    done = redecode(bench, new)
    assert (done.messages, done.records, done.refused) == (2, 3, 1)
    assert done.reason is not None
    found = [(record.id % 2**40, record.part, record.properties()) for record in bench.records()]
    assert found == [
        (1, 0, {"n": ("int64", 1)}),
        (1, 1, {"n": ("int64", 2)}),
        (2, 0, {"value": ("text", "{broken")}),
        (3, 0, {"n": ("int64", 3)}),
    ]
    last = bench.records()[-1]
    assert (last.time, last.qos, last.retain) == (arrival(2), 1, True)
    assert next(latest(bench.url)).values["n"] == 3
    assert redecode(bench, new) == done
    bench.restart(new)
    bench.send(("x/a", [{"n": 4}]))
    assert len(payloads(bench)) == 4


def test_nothing_is_kept_unless_it_is_asked_for(tmp_path: Path) -> None:
    """Neither of other routes, nor of what is a dead letter, which has its payload itself."""
    bench = Workbench(tmp_path, {"topic": "x/+", "decode": "json", "raw": True}, {"topic": "#"})
    bench.send(("x/a", {"n": 1}), ("y", {"n": 2}), ("x/a", b"{broken"))
    assert payloads(bench) == [b'{"n": 1}']
    assert len(bench.dead()) == 1


def test_only_what_arrived_in_a_range(tmp_path: Path) -> None:
    """`--since` is included, `--before` is not."""
    old = {"topic": "x/+", "decode": "text", "raw": True}
    bench = Workbench(tmp_path, old)
    bench.send(*(("x/a", {"n": n}) for n in range(4)))
    done = redecode(bench, {**old, "decode": "json"}, since=arrival(1), before=arrival(3))
    assert done.messages == 2
    assert [sorted(record.properties()) for record in bench.records()] == [["value"], ["n"], ["n"], ["value"]]


def test_long_payloads_are_kept_in_segments(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as one statement each may carry."""
    for engine in (Engine, *Engine.__subclasses__()):
        monkeypatch.setattr(engine, "segment_size", lambda *_: 7, raising=False)
    old = {"topic": "x/+", "model": "document", "decode": "text", "raw": True}
    bench = Workbench(site, old)
    bench.send(("x/a", b'{"long": "0123456789"}'), ("x/a", b"1"))
    assert payloads(bench) == [b'{"long"', b': "0123', b'456789"', b"}", b"1"]
    assert redecode(bench, {**old, "decode": "json"}).messages == 2
    assert bench.data() == [{"long": "0123456789"}, {"value": 1.0}]


def test_payloads_go_and_move_with_their_topics(site: Site) -> None:
    """With `keep`, `delete` and `rename`."""
    route = {"topic": "x/+", "raw": True, "keep": "1 h", "model": "eav"}
    bench = Workbench(site, route)
    bench.send(*((f"x/{'ab'[n % 2]}", {"n": n}) for n in range(6)))
    with workshop(bench, route) as shop:
        list(Renamer(shop).rename("x/a", "x/c"))
        list(Deleter(shop, "x/b").delete("x/b"))
    assert payloads(bench) == [b'{"n": 0}', b'{"n": 2}', b'{"n": 4}']
    assert redecode(bench, {**route, "entity": {"n": "int"}}).messages == 3
    bench.restart()
    bench.now += 3600 + 3.5
    bench.writer.retention.finish()
    assert payloads(bench) == [b'{"n": 4}']


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_it_is_killed_and_started_again(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message reads as it was or as it is now, at any time."""
    monkeypatch.setattr("amqtt_db.database.raw_payloads.RAW_AT_ONCE", 3)
    old = {"topic": "x/+", "model": model, "decode": "text", "raw": True}
    new = {**old, "decode": "json"}
    bench = Workbench(tmp_path, old)
    bench.send(*(("x/a", {"n": n}) for n in range(8)))
    commits = 0
    while True:
        with workshop(bench, new) as shop:
            try:
                with power_cut(bench.url, commits):
                    list(Redecoder(shop).redecode(*Redecoder(shop).topics("#")))
                break
            except PowerCut:
                shop.views._due.clear()
        told = [record.get("n", record.get("value")) for record in bench.records()]
        assert all(value in (float(n), f'{{"n": {n}}}') for n, value in enumerate(told))
        assert len(told) == 8
        commits += 1
    assert commits > 3
    assert [record["n"] for record in bench.records()] == list(map(float, range(8)))


@pytest.mark.slow
@given(
    model=st.sampled_from(MODELS),
    sent=st.lists(
        st.one_of(
            st.dictionaries(st.sampled_from("abc"), st.one_of(st.integers(), st.text(max_size=3), st.none())),
            st.lists(st.dictionaries(st.sampled_from("ab"), st.booleans()), max_size=3),
            st.binary(max_size=5),
        ),
        min_size=1,
        max_size=6,
    ),
    options=st.fixed_dictionaries(
        {},
        optional={
            "entity": st.just({"a": "int"}),
            "each": st.just(""),
            "decode": st.sampled_from(["auto", "bytes"]),
            "drop": st.just(["b"]),
        },
    ),
)
def test_it_is_as_if_the_route_had_always_been_so(model: str, sent: list[Any], options: dict[str, Any]) -> None:
    """What is stored again equals what a new database has of the same messages."""
    old = {"topic": "x/+", "model": model, "raw": True}
    new = {**old, **options}
    with tempfile.TemporaryDirectory() as directory:
        one, other = (Path(directory) / name for name in ("one", "other"))
        one.mkdir()
        other.mkdir()
        again, fresh = Workbench(one, old), Workbench(other, new)
        for bench in (again, fresh):
            bench.send(*(("x/a", payload) for payload in sent))
        refused = {letter.id for letter in (*again.dead(), *fresh.dead())}
        redecode(again, new)
        found, wanted = (
            [(r.id, r.part, r.time, r.properties()) for r in bench.records() if r.id not in refused]
            for bench in (again, fresh)
        )
        again.close()
        fresh.close()
    assert same(found, wanted)
