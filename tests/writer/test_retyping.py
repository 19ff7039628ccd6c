"""A route that declares its properties later: what is stored becomes what is declared, wherever it fits exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from amqtt_db.message import Batch
from amqtt_db.writer.remodel import Remodel
from amqtt_db.writer.retyping import RetypeProgress
from amqtt_db.writer.transaction import CheckpointMoved
from tests.database.engines.servers import Site
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
