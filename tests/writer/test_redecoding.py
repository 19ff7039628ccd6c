"""Payloads that are kept beside a model, and messages stored again from them."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.config import load_section
from amqtt_db.database.engines.base import Engine
from amqtt_db.reader.latest import latest
from amqtt_db.testing.bench import PowerCut, power_cut
from amqtt_db.writer.deletion import Deleter
from amqtt_db.writer.fill_latest import refill_latest
from amqtt_db.writer.redecoding import RedecodeProgress, Redecoder
from amqtt_db.writer.remodel import Remodel
from amqtt_db.writer.renaming import Renamer
from tests.database.engines.servers import Site
from tests.values import same
from tests.workbench import Sent, Workbench, routes
from tests.writer.test_deletion import arrival, workshop

MODELS = ("wide", "eav", "document", "narrow")


def redecode(bench: Workbench, *entries: dict[str, Any], **bounds: Any) -> RedecodeProgress:
    """Store everything again as `amqtt-db redecode` does; return the progress."""
    with workshop(bench, *entries) as shop:
        redecoder, done = Redecoder(shop, **bounds), [RedecodeProgress()]
        topics = redecoder.topics("#")
        done += redecoder.redecode(*topics)
    section = {"database": bench.url, "journal": {"path": str(bench.path.parent / "none")}, "routes": list(entries)}
    refill_latest(load_section(section), topics)
    return done[-1]


def payloads(bench: Workbench) -> list[bytes]:
    """Return what is kept, segment by segment."""
    return [bytes(row[0]) for row in bench.sql("SELECT payload FROM mqtt_raw ORDER BY id, number")]


@pytest.mark.slow
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
    assert list(done.refusals) == ["x/a"]
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


@pytest.mark.parametrize("model", MODELS)
def test_records_move_to_the_model_of_the_route_now(model: str, site: Site) -> None:
    """From wherever they are; the counters follow, and those that are refused stay in the old model."""
    old = {"topic": "x/+", "model": model, "decode": "text", "raw": True}
    bench = Workbench(site, old)
    bench.send(("x/a", b'[{"n": 1}, {"n": 2}]'), ("x/b", b'{"n": 3}'), ("x/a", b"{broken"))
    bench.restart({**old, "model": "document"})
    bench.send(("x/a", b'[{"n": 4}]'))
    other = MODELS[MODELS.index(model) - 1]
    new = {"topic": "x/{room}", "model": other, "decode": "json", "each": "", "raw": True}
    done = redecode(bench, new)
    assert (done.messages, done.records, done.refused) == (3, 4, 1)
    found = [(one.id % 2**40, one.part, one["n"], one.levels()) for one in bench.records() if one.get("n")]
    assert found == [
        (1, 0, 1.0, {"room": "a"}),
        (1, 1, 2.0, {"room": "a"}),
        (2, 0, 3.0, {"room": "b"}),
        (4, 0, 4.0, {"room": "a"}),
    ]
    assert len(bench.records()) == 5
    counts = bench.counts()
    assert [sum(some[name] for some in counts.values()) for name in ("stored", "records")] == [4, 5]
    assert redecode(bench, new) == done
    assert bench.counts() == counts


def test_newest_values_are_those_of_the_records_that_are_left(site: Site) -> None:
    """A property that the newest message has no more is that of an older one."""
    old = {"topic": "x", "model": "eav", "raw": True, "latest": True}
    bench = Workbench(site, old)
    bench.send(("x", {"n": 1, "m": 1}), ("x", {"n": 2, "m": 2}), ("x", {"n": 3, "gone": 3}))
    assert next(latest(bench.url)).values == {"n": 3.0, "m": 2.0, "gone": 3.0}
    redecode(bench, {**old, "drop": ["gone"]}, since=arrival(2))
    assert next(latest(bench.url)).values == {"n": 3.0, "m": 2.0}
    redecode(bench, {**old, "entity": {"n": "int"}, "unknown": "ignore"}, since=arrival(1))
    assert next(latest(bench.url)).values == {"n": 3, "m": 1.0}


def test_a_value_that_the_database_refuses_spoils_no_other(site: Site) -> None:
    """Its message stays as it was."""
    old = {"topic": "x", "model": "eav", "decode": "text", "raw": True}
    bench = Workbench(site, old)
    bench.send(("x", {"n": 1}), ("x", {"n" * 70_000: 1}), ("x", {"n": 3}))
    done = redecode(bench, {**old, "decode": "json"})
    assert (done.messages, done.refused) == (2, 1)
    assert "at most" in done.refusals["x"][1]
    assert [sorted(record.properties()) for record in bench.records()] == [["n"], ["value"], ["n"]]


def test_messages_that_made_no_record_may_make_one_now(site: Site) -> None:
    """Because they were empty, or said nothing new; and the other way round."""
    old = {"topic": "x", "model": "wide", "only": "changes", "drop": ["m"], "raw": True}
    bench = Workbench(site, old)
    bench.send(("x", {"n": 1, "m": 1}), ("x", {"n": 1, "m": 2}), ("x", b""), ("x", {"n": 1, "m": 2}))
    assert [record.id % 2**40 for record in bench.records()] == [1]
    new = {"topic": "x", "only": "changes", "raw": True}
    redecode(bench, new)
    assert [record.id % 2**40 for record in bench.records()] == [1, 2]
    redecode(bench, {**new, "decode": "bytes", "only": None})
    assert [record.id % 2**40 for record in bench.records()] == [1, 2, 3, 4]
    redecode(bench, old)
    assert [record.id % 2**40 for record in bench.records()] == [1]
    assert bench.counts()["x"] == {"stored": 1, "records": 1, "empty": 1, "unchanged": 2}


def test_rows_of_a_model_that_readers_have_left_are_no_obstacle(site: Site) -> None:
    """`remodel` leaves them, until they are dropped."""
    old = {"topic": "x", "model": "wide", "raw": True}
    bench = Workbench(site, old)
    bench.send(("x", {"n": 1}), ("x", {"n": 2}))
    eav = {**old, "model": "eav"}
    bench.restart(eav)
    bench.send(("x", {"n": 3}))
    remodel = Remodel(bench.url, routes(eav, url=bench.url))
    for move in remodel.moves():
        list(remodel.move(move))
    remodel.close()
    redecode(bench, {**old, "entity": {"n": "int"}})
    assert [record["n"] for record in bench.records()] == [1, 2, 3]
    assert bench.sql("SELECT count(*) FROM mqtt_value") == [(0,)]


def test_payloads_are_read_within_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of bytes and of topics; each message is stored again once, in the order of arrival."""
    monkeypatch.setattr("amqtt_db.database.raw_payloads.RAW_AT_ONCE", 4)
    monkeypatch.setattr("amqtt_db.database.raw_payloads.MOST_RAW_BYTES", 20)
    monkeypatch.setattr("amqtt_db.database.raw_payloads.MOST_HASHES", 1)
    old = {"topic": "#", "model": "document", "decode": "text", "raw": True}
    bench = Workbench(tmp_path, old)
    bench.send(*((f"{'xyz'[n % 3]}", {"n": n, "s": "s" * (n % 5)}) for n in range(30)))
    with workshop(bench, {**old, "decode": "json"}) as shop:
        redecoder = Redecoder(shop)
        assert redecoder.topics("#") == ["x", "y", "z"]
        steps = list(redecoder.redecode("x", "y"))
    assert steps[-1].messages == 20
    assert [(record.topic, record.get("n")) for record in bench.records()] == [
        ("xyz"[n % 3], float(n) if n % 3 < 2 else None) for n in range(30)
    ]


def test_payloads_grow_old_without_raw(site: Site) -> None:
    """`keep` deletes them also when the route keeps no more of them."""
    bench = Workbench(site, {"topic": "x", "raw": True, "keep": "1 h"})
    bench.send(("x", {"n": 1}), ("x", {"n": 2}))
    bench.restart({"topic": "x", "keep": "1 h"})
    bench.now += 3600 + 0.5
    bench.writer.retention.finish()
    assert payloads(bench) == [b'{"n": 2}']


@pytest.mark.slow
def test_a_payload_is_renamed_with_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When a renaming is killed, no message can be stored again under the topic that it has no more."""
    monkeypatch.setattr("amqtt_db.writer.workshop.BATCH", 3)
    route = {"topic": "x/+", "raw": True}
    bench = Workbench(tmp_path, route)
    bench.send(*(("x/a", {"n": n} if n % 4 else b"") for n in range(12)), ("x/b", {"n": -1}))
    for commits in range(50):
        with workshop(bench, route) as shop:
            try:
                with power_cut(bench.url, commits):
                    list(Renamer(shop).rename("x/a", "x/b"))
                break
            except PowerCut:
                shop.views._due.clear()
        redecode(bench, route)
        assert [record["n"] for record in bench.records()] == [*(float(n) for n in range(12) if n % 4), -1.0]
        if not bench.records("x/a"):
            break
    assert commits > 3
    with workshop(bench, route) as shop:
        Renamer(shop)._rename_payloads("x/a", "x/b")
    assert {record.topic for record in bench.records()} == {"x/b"}


MESSAGES = st.lists(
    st.one_of(
        st.dictionaries(st.sampled_from("abc"), st.one_of(st.integers(), st.text(max_size=3), st.none())),
        st.lists(st.dictionaries(st.sampled_from("ab"), st.booleans()), max_size=3),
        st.binary(max_size=5),
    ),
    min_size=1,
    max_size=6,
)
OPTIONS = st.fixed_dictionaries(
    {"model": st.sampled_from(MODELS)},
    optional={
        "entity": st.just({"a": "int"}),
        "each": st.just(""),
        "decode": st.sampled_from(["auto", "bytes"]),
        "drop": st.just(["b"]),
        "only": st.just("changes"),
        "latest": st.just(True),
    },
)


@pytest.mark.slow
@given(OPTIONS, MESSAGES, OPTIONS)
def test_it_is_as_if_the_route_had_always_been_so(
    before: dict[str, Any], sent: list[Any], options: dict[str, Any]
) -> None:
    """What is stored again equals what a new database has of the same messages, newest values included."""
    old, new = ({"topic": "x/+", "raw": True, **some} for some in (before, options))
    with tempfile.TemporaryDirectory() as directory:
        one, other = (Path(directory) / name for name in ("one", "other"))
        one.mkdir()
        other.mkdir()
        again, fresh = Workbench(one, old), Workbench(other, new)
        for bench in (again, fresh):
            bench.send(*((f"x/{'ab'[n % 2]}", payload) for n, payload in enumerate(sent)))
        refused = {letter.id for letter in (*again.dead(), *fresh.dead())}
        redecode(again, new)
        found, wanted = (
            [(r.id, r.part, r.time, r.properties()) for r in bench.records() if r.id not in refused]
            for bench in (again, fresh)
        )
        has_latest = "latest" in new and not refused and bool(wanted)
        states = [
            [(s.device, s.time, s.properties) for s in latest(b.url)] if has_latest else [] for b in (again, fresh)
        ]
        again.close()
        fresh.close()
    if not (refused and "only" in new):  # what is a dead letter in one of them says nothing new there
        assert same(found, wanted)
        assert same(*(sorted(some) for some in states))


@pytest.mark.parametrize("model", MODELS)
def test_a_preview_says_the_same_and_changes_nothing(model: str, site: Site) -> None:
    """Not even where the topics are assigned."""
    old = {"topic": "x/+", "model": model, "decode": "text", "raw": True}
    bench = Workbench(site, old)
    bench.send(*((f"x/{n % 2}", [{"n": n}, {"n": n}]) for n in range(5)), ("x/0", b"{broken"))
    new = {**old, "model": MODELS[MODELS.index(model) - 1], "decode": "json", "each": ""}
    before = bench.records(), bench.sql("SELECT * FROM mqtt_assignment ORDER BY topic"), bench.counts()
    with workshop(bench, new) as shop:
        preview = Redecoder(shop).preview("#")
    assert (bench.records(), bench.sql("SELECT * FROM mqtt_assignment ORDER BY topic"), bench.counts()) == before
    assert (preview.messages, preview.records, preview.refused) == (5, 10, 1)
    assert redecode(bench, new) == preview
