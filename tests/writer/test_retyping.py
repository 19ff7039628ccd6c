"""A route that declares its properties later: what is stored becomes what is declared, wherever it fits exactly."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.entity import Entity
from amqtt_db.errors import EntityError
from amqtt_db.message import Batch
from amqtt_db.reader import read
from amqtt_db.reader.latest import latest
from amqtt_db.testing.bench import PowerCut, power_cut
from amqtt_db.testing.servers import Servers
from amqtt_db.testing.starting import connected
from amqtt_db.writer.disagreements import Disagreement, find_changes
from amqtt_db.writer.remodel import Remodel
from amqtt_db.writer.retyping import RetypeProgress
from amqtt_db.writer.transaction import CheckpointMoved
from tests.database.engines.servers import ENGINES, Site, make_site
from tests.effort import tried
from tests.values import same
from tests.workbench import Sent, Workbench, routes

MODELS = ("wide", "eav", "document", "narrow")


@contextmanager
def remodel(bench: Workbench, *entries: dict[str, Any]) -> Iterator[Remodel]:
    """The tool at work on a bench's database with other routes."""
    tool = Remodel(bench.url, routes(*entries, url=bench.url))
    try:
        yield tool
    finally:
        tool.close()


def retype(bench: Workbench, *entries: dict[str, Any]) -> RetypeProgress:
    """Rewrite everything as `amqtt-db remodel` does; return the counts."""
    with remodel(bench, *entries) as tool:
        return rewrite(tool)


def rewrite(tool: Remodel) -> RetypeProgress:
    """Move, type again and tidy; return the counts."""
    for move in tool.moves():
        list(tool.move(move))
    due = tool.retypings()
    done = [list(tool.retype(one))[-1] for one in due]
    assert tool.tidy(due) == []
    return RetypeProgress(*(sum(getattr(one, name) for one in done) for name in RetypeProgress.__match_args__))


def store_as_the_loop_does(bench: Workbench, batch: Batch) -> None:
    """Store a batch by the writer that is at work; one whose columns have changed starts again."""
    try:
        bench.store(batch)
    except CheckpointMoved:
        bench.restart()
        bench.store(batch)


def kinds(bench: Workbench, path: str) -> list[tuple[str, Any] | None]:
    """Return the kinds and values of a property, in the order of arrival."""
    return [record.properties().get(path) for record in bench.records()]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_numbers_become_integers_where_they_are_whole(model: str, site: Site) -> None:
    """`n` and its variant `n__int64` are one `n` again; what is not whole stays a number beside it."""
    old = {"topic": "x/{room}", "model": model}
    new = {**old, "entity": {"n": "int"}}
    bench = Workbench(site, old)
    bench.send(("x/a", {"n": 5, "s": "q"}), ("x/a", {"n": 1.5}), ("x/b", {"n": 2**60}))
    bench.restart(new)
    bench.send(("x/a", {"n": 6}))
    done = retype(bench, new)
    assert (done.read, done.rewritten, done.converted, done.left) == (4, 1, 1, 1)
    assert kinds(bench, "n") == [("int64", 5), ("number", 1.5), ("int64", 2**60), ("int64", 6)]
    assert kinds(bench, "s")[0] == ("text", "q")
    late = bench.batch(Sent("x/a", {"n": 7}), Sent("x/a", {"n": 2.5}))
    store_as_the_loop_does(bench, late)
    assert kinds(bench, "n")[-2:] == [("int64", 7), ("number", 2.5)]


@pytest.mark.slow
def test_the_plain_column_belongs_to_the_declared_kind(site: Site) -> None:
    """In the table and in the view, and the writer that was at work goes on with the new names."""
    old = {"topic": "x/+", "model": {"wide": {"table": "x"}}}
    new = {**old, "entity": {"n": "int"}}
    bench = Workbench(site, old)
    bench.send(("x/a", {"n": 5}), ("x/b", {"n": 6}))
    bench.restart(new)
    bench.send(("x/a", {"n": 7}))
    bench.writer._views.finish()
    assert "n__int64" in bench.columns("x")
    assert retype(bench, new).converted == 2
    for name in ("x", "x_view"):
        assert [column for column in bench.columns(name) if column.startswith("n")] == ["n"]
        assert sorted(bench.sql(f"SELECT n FROM {name}")) == [(5,), (6,), (7,)]
    with pytest.raises(CheckpointMoved):
        bench.store(bench.batch(Sent("x/a", {"n": 8.5})))
    bench.position -= 1
    bench.restart(new)
    bench.send(("x/a", {"n": 8}), ("x/a", {"n": 8.5}))
    assert sorted(row[0] for row in bench.sql("SELECT n FROM x WHERE n IS NOT NULL")) == [5, 6, 7, 8]
    assert kinds(bench, "n")[-1] == ("number", 8.5)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_levels_and_times_that_a_route_gains(model: str, site: Site) -> None:
    """A level is filled from the stored topic, the time of a record from the stored property."""
    bench = Workbench(site, {"topic": "home/+/x/+", "model": model})
    bench.send(("home/attic/x/7", {"at": 1_600_000_000, "v": 1}), ("home/hall/x/q", {"v": 2}))
    new = {"topic": "home/{room}/x/{n}", "model": model, "entity": {"n": "int", "at": "int"}, "time": "at"}
    done = retype(bench, new)
    assert (done.rewritten, done.left) == (2, 0)
    attic, hall = bench.records()
    assert attic.levels() == {"room": "attic"}
    assert attic.properties()["n"] == ("int64", 7)
    assert attic.time.year == 2020
    assert hall.levels() == {"room": "hall", "n": "q"}
    assert hall.time.year == 2023
    bench.restart(new)
    assert retype(bench, new) == RetypeProgress()
    bench.send(("home/attic/x/7", {"at": 1_600_000_001, "v": 3}))
    assert [record.topic for record in read(bench.url)] == ["home/attic/x/7", "home/attic/x/7", "home/hall/x/q"]


def is_cut(bench: Workbench, commits: int, *entries: dict[str, Any]) -> bool:
    """Rewrite until the power is cut after some commits; return False if it was not."""
    with remodel(bench, *entries) as tool:
        try:
            with power_cut(bench.url, commits):
                rewrite(tool)
        except PowerCut:
            tool._shop.views._due.clear()  # whoever is killed makes no view
            return True
    return False


@pytest.mark.slow
def test_it_is_killed_at_each_commit_and_goes_on(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """On each engine, with the model whose columns change their names."""
    require_resumption(Workbench(site, {"topic": "x/+", "model": "wide"}), "wide", monkeypatch)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS[1:])
def test_other_models_go_on_after_a_kill(model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever tables they have."""
    require_resumption(Workbench(tmp_path, {"topic": "x/+", "model": model}), model, monkeypatch)


def require_resumption(bench: Workbench, model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers see each record once at any time, as it was or as it will be; and the end is the same."""
    monkeypatch.setattr("amqtt_db.writer.workshop.BATCH", 4)
    new = {"topic": "x/+", "model": model, "entity": {"n": "int"}}
    bench.send(*(("x/a", {"n": n if n % 4 else n + 0.5, "s": str(n)}) for n in range(10)))
    bench.restart(new)
    bench.send(("x/a", {"n": 10}))
    bench.close()
    numbers = [value for _, value in filter(None, kinds(bench, "n"))]
    commits = 0
    while is_cut(bench, commits, new):
        assert [value for _, value in filter(None, kinds(bench, "n"))] == numbers
        commits += 1
    assert commits > 5
    assert kinds(bench, "n") == [("number" if value % 1 else "int64", value) for value in numbers]
    bench.restart(new)
    bench.send(("x/a", {"n": 11}), ("x/a", {"n": 11.5}))
    assert kinds(bench, "n")[-2:] == [("int64", 11), ("number", 11.5)]
    assert [record.properties()["s"][1] for record in bench.records()[:10]] == [str(n) for n in range(10)]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_the_view_shows_the_declared_kind_under_the_plain_name(model: str, site: Site) -> None:
    """Whatever the model: `n` is the integers, `n__number` what did not fit."""
    old = {"topic": "x/+", "model": model if model != "wide" else {"wide": {"table": "x"}}}
    new = {**old, "entity": {"n": "int"}}
    bench = Workbench(site, old)
    bench.send(("x/a", {"n": 5, "s": "q"}), ("x/b", {"n": 1.5}))
    bench.restart(new)
    bench.send(("x/a", {"n": 7}))
    bench.writer._views.finish()
    retype(bench, new)
    assert [column for column in bench.columns("x_view") if column in {"s", "n"} or "__" in column] == [
        "n",
        "s",
        "n__number",
    ]
    rows = bench.sql("SELECT n, n__number FROM x_view ORDER BY id")
    assert [(a, None if b is None else float(b)) for a, b in rows] == [(5, None), (None, 1.5), (7, None)]


@pytest.mark.slow
def test_the_newest_values_are_typed_too(site: Site) -> None:
    """And they are those of the records that are newest by the time that the route gained."""
    old = {"topic": "x/+", "model": "eav", "latest": True}
    bench = Workbench(site, old)
    bench.send(("x/a", {"at": 2_000, "n": 5}), ("x/a", {"at": 1_000, "n": 6}), ("x/a", {"at": 1_500, "s": "q"}))
    new = {**old, "entity": {"n": "int", "at": "float"}, "time": "at"}
    retype(bench, new)
    (state,) = latest(bench.url)
    assert state.values == {"at": 2000.0, "n": 5, "s": "q"}
    assert (state.properties["n"], state.time.timestamp()) == (("int64", 5), 2000)


def test_an_index_follows_the_plain_column(site: Site) -> None:
    """It is made again for the column that has the name now."""
    old = {"topic": "x/+", "model": {"wide": {"table": "x"}}, "indexes": [["n"]]}
    new = {**old, "entity": {"n": "int"}}
    bench = Workbench(site, old)
    bench.send(("x/a", {"n": 5}), ("x/b", {"n": 6.5}))
    bench.restart(new)
    bench.send(("x/a", {"n": 7}))
    retype(bench, new)
    with connected(bench.url) as connection:
        found = [index["column_names"] for index in sa.inspect(connection).get_indexes("x")]
    assert ["n"] in found
    assert ["n__number"] not in found


@pytest.mark.slow
def test_check_says_what_disagrees(tmp_path: Path) -> None:
    """Before, and no longer afterwards."""
    old = {"topic": "home/+/x", "model": "wide"}
    bench = Workbench(tmp_path, old)
    bench.send(("home/attic/x", {"at": 5, "n": 5, "s": "q"}))
    new = {"topic": "home/{room}/x", "entity": {"n": "int", "s": "str", "at": "float"}, "time": "at"}
    (change,) = find_changes(bench.url, routes(new))
    assert change.columns == (Disagreement("home_attic_x", "n", "number", "int64"),)
    assert (change.topics, change.levels, change.time) == (1, ("room",), "at")
    retype(bench, new)
    assert find_changes(bench.url, routes(new)) == []
    bench.restart(new)
    bench.send(("home/hall/x", {"at": 5, "n": 5, "s": "q"}))
    assert find_changes(bench.url, routes(new)) == []


_FITTING = st.one_of(
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False, width=32),
    st.booleans(),
    st.sampled_from(["ON", "off", "12", "1.50", "2026-01-31T12:00:00.1234567Z", "2026-01-31T12:00:00+02:00"]),
    st.sampled_from(["2026-01-31", "12:30", "AP8=", "00000000-0000-0000-0000-00000000000A", "é\u0000"]),
    st.lists(st.integers(0, 3), max_size=2),
)
_TYPES = ("int", "float", "bool", "str", "decimal", "datetime", "date", "time", "uuid", "bytes", "any")


_PAYLOADS = st.lists(st.dictionaries(st.sampled_from("abc"), _FITTING, max_size=3), min_size=1, max_size=8)
_SOME_MODELS = st.lists(st.sampled_from(MODELS), min_size=1, max_size=2, unique=True)
_DECLARED = st.dictionaries(st.sampled_from("abc"), st.sampled_from(_TYPES), min_size=1)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_any_payload_and_any_declaration(engine: str, servers: Servers) -> None:
    """A value has the declared kind and says the same, or it is as it was; in every model."""

    @given(models=_SOME_MODELS, payloads=_PAYLOADS, declared=_DECLARED)
    def check(models: list[str], payloads: list[Any], declared: dict[str, str]) -> None:
        with tempfile.TemporaryDirectory() as directory, make_site(servers, engine, Path(directory)) as site:
            require_law(site, models, payloads, declared)

    with tried(12 if engine == "sqlite" else 3):
        check()


def require_law(site: Site, models: list[str], payloads: list[Any], declared: dict[str, str]) -> None:
    """Store payloads before and after they are declared, in some models; a second time nothing is rewritten."""
    old = [{"topic": f"{model}/+", "model": model} for model in models]
    new = [{**route, "entity": declared} for route in old]
    bench = Workbench(site, *old)
    bench.send(*((f"{model}/a", payload) for model in models for payload in payloads))
    before = {model: bench.records(f"{model}/a") for model in models}
    bench.restart(*new)
    bench.send(*((f"{model}/b", payload) for model in models for payload in payloads))
    done = retype(bench, *new)
    assert done.converted + done.left <= sum(len(one.properties()) for some in before.values() for one in some)
    assert retype(bench, *new).rewritten == 0
    for model in models:
        after, fresh = bench.records(f"{model}/a"), bench.records(f"{model}/b")
        for was, now, typed in zip(before[model], after, fresh, strict=True):
            assert (was.id, was.time_us, was.topic) == (now.id, now.time_us, now.topic)
            for path, pair in was.properties().items():
                assert_converted(pair, now.properties()[path], typed.properties()[path])


def assert_converted(was: tuple[str, Any], now: tuple[str, Any], typed: tuple[str, Any]) -> None:
    """A value is what it would be if it had been declared from the start, or as it was if that would lose anything."""
    if now[0] == was[0]:
        assert same(now[1], was[1])
    else:
        assert now[0] == typed[0]
        assert same(now[1], typed[1]) or (now[0] in {"json", "decimal"} and now[1] == typed[1])


@pytest.mark.parametrize(
    ("declared", "stored", "wanted"),
    [
        ("int", 5.0, 5),
        ("int", -0.0, None),
        ("int", 1.5, None),
        ("int", Decimal("7.00"), 7),
        ("float", 2**53 + 2, float(2**53 + 2)),
        ("float", 2**53 + 1, None),
        ("decimal", 0.1, Decimal("0.1")),
        ("decimal", "1.50", Decimal("1.50")),
        ("datetime", "2026-01-31T12:00:00.1234560Z", datetime(2026, 1, 31, 12, 0, 0, 123456, timezone.utc)),
        ("datetime", "2026-01-31T12:00:00.1234567Z", None),
        ("str", 5.0, None),
        ("bytes", "AP8=", b"\x00\xff"),
        ("bool", "ON", None),
    ],
)
def test_what_fits_exactly(declared: str, stored: object, wanted: object) -> None:
    """None is what does not."""
    entity = Entity.inline({"p": declared})
    if wanted is None:
        with pytest.raises(EntityError):
            entity.convert("p", stored)
    else:
        _, found = entity.convert("p", stored)
        assert (type(found), repr(found)) == (type(wanted), repr(wanted))
