"""History rewritten into another model: nothing lost, nothing doubled, at any moment."""

from __future__ import annotations

from contextlib import closing
from itertools import islice, permutations
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from amqtt_db.reader.topics import list_topics
from amqtt_db.record import Record
from amqtt_db.writer.remodel import Remodel
from amqtt_db.writer.transaction import CheckpointMoved
from amqtt_db.writer.view_refresh import ViewKeeper
from amqtt_db.writer.workshop import RewriteError
from tests.database.engines.servers import Site
from tests.history import messages
from tests.values import same
from tests.workbench import Sent, Workbench, routes

MODELS = ("wide", "eav", "document", "narrow")


def _route(model: Any) -> dict[str, Any]:
    return {"topic": "#", "model": model, "time": "at"}


def _told(records: list[Record]) -> list[tuple[Any, ...]]:
    return [
        (r.id, r.part, r.time, r.topic, r.session, r.qos, r.retain, dict(sorted(r.properties().items())))
        for r in records
    ]


def _run(bench: Workbench, model: Any, *, drop: bool = False) -> int:
    remodel = Remodel(bench.url, routes(_route(model)))
    try:
        moves = remodel.moves()
        list(remodel.move(*moves))
        for move in moves if drop else ():
            list(remodel.drop(move))
        return len(moves)
    finally:
        remodel.close()


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new"), list(permutations(MODELS, 2)))
def test_the_records_are_the_same_afterwards(old: str, new: str, tmp_path: Path) -> None:
    """From any model to any other, with the old rows deleted; and nothing is left to do."""
    bench = Workbench(tmp_path, _route(old))
    sent = [one for one in messages(120) if not one.topic.startswith("plugs/1")]  # half of the plugs are enough
    bench.send(*sent)
    before = _told(bench.records())
    assert _run(bench, new, drop=True) > 10
    assert same(_told(bench.records()), before)
    assert _run(bench, new) == 0
    bench.restart(_route(new))
    bench.send(*messages(10, seed=3))
    assert len(bench.records()) == len(sent) + 10


@pytest.mark.slow
@pytest.mark.server
def test_the_keys_of_an_object_in_a_list_have_no_order(postgresql: Site) -> None:
    """PostgreSQL keeps them in an order of its own where it stores JSON, but not where JSON is text, as in `narrow`."""
    bench = Workbench(postgresql, _route("narrow"))
    bench.send(("a", {"list": [{"name": 1, "id": 2, "": [{"b": 3, "a": 4}]}]}))
    before = _told(bench.records())
    for new in (*MODELS, "wide"):
        _run(bench, new, drop=True)
        assert _told(bench.records()) == before


def test_the_old_rows_stay_until_it_is_asked_for(tmp_path: Path) -> None:
    """Without `--drop` both tables have the rows, and readers see each record once."""
    bench = Workbench(tmp_path, _route("wide"))
    bench.send(("t", {"at": 1, "v": 1}), ("t", {"at": 2, "v": 2}))
    _run(bench, {"wide": {"table": "all_of_it"}})
    assert bench.sql("SELECT count(*) FROM t") == bench.sql("SELECT count(*) FROM all_of_it") == [(2,)]
    assert len(bench.records()) == 2
    _run(bench, {"wide": {"table": "all_of_it"}}, drop=True)
    assert bench.sql("SELECT count(*) FROM t") == [(0,)]
    assert len(bench.records()) == 2


def test_it_may_be_stopped_at_any_batch_and_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped after each batch, of one topic or several: readers see every record once all the time."""
    monkeypatch.setattr("amqtt_db.writer.workshop.BATCH", 7)
    monkeypatch.setattr("amqtt_db.writer.moving.TOPICS_AT_ONCE", 4)
    bench = Workbench(tmp_path, _route("wide"))
    sizes = {"long": 16, "a": 3, "b": 7, "c": 1, "d": 2, "e": 2}
    bench.send(*((topic, {"at": n, "v": n}) for topic, size in sizes.items() for n in range(size)))
    before = _told(bench.records())
    left: list[int] = []
    while not left or left[-1]:
        with closing(Remodel(bench.url, routes(_route("narrow")))) as remodel:
            moves = [move for move in remodel.moves() if not move.is_done]
            left.append(len(moves))
            with closing(remodel.move(*moves)) as steps:
                list(islice(steps, len(left)))
        assert same(_told(bench.records()), before)
    assert left[0] == len(sizes)
    assert len(left) > 4
    assert _run(bench, "narrow", drop=True) == len(sizes)
    assert same(_told(bench.records()), before)


@pytest.mark.slow
def test_new_messages_may_keep_arriving(tmp_path: Path) -> None:
    """Between the batches of a move, from a writer that has the new routes."""
    bench = Workbench(tmp_path, _route("wide"))
    bench.send(*(("t", {"at": n, "v": n}) for n in range(50)))
    bench.restart(_route("eav"))
    bench.send(("t", {"at": 50, "v": 50}))
    remodel = Remodel(bench.url, routes(_route("eav")))
    (move,) = remodel.moves()
    for number, _ in enumerate(remodel.move(move)):
        bench.send(("t", {"at": 51 + number, "v": 51 + number}))
    remodel.close()
    found = [data["v"] for data in bench.data()]
    assert found == [float(n) for n in range(len(found))]
    assert len(found) >= 52


def test_a_record_that_does_not_read_back_stops_it(tmp_path: Path) -> None:
    """The message names topic and id; the old rows stay and are still read."""
    bench = Workbench(tmp_path, _route("wide"))
    bench.send(("t", {"at": 1, "v": 1}), ("t", {"at": 2, "v": 2}))
    remodel = Remodel(bench.url, routes(_route({"wide": {"table": "new_t"}})))
    (move,) = remodel.moves()
    steps = remodel.move(move)
    next(steps)
    bench.sql("UPDATE new_t SET v = 3 WHERE v = 2")
    with pytest.raises(RewriteError, match="does not read back"):
        list(steps)
    with pytest.raises(RewriteError, match="topic t"):
        list(remodel.move(move))
    remodel.close()
    assert bench.sql("SELECT count(*) FROM t") == [(2,)]


def test_there_is_one_remodel_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one is refused until the first one ends, or its process does."""
    monkeypatch.setattr("amqtt_db.writer.workshop.PATIENCE", 0.0)
    bench = Workbench(tmp_path, _route("wide"))
    bench.send(("t", {"at": 1, "v": 1}))
    first, second = (Remodel(bench.url, routes(_route("eav"))) for _ in range(2))
    (move,) = first.moves()
    steps = first.move(move)
    next(steps)
    with pytest.raises(RewriteError, match="another remodel is"):
        next(second.move(move))
    list(steps)
    assert [after.is_done for after in second.moves()] == [True]
    first.close()
    second.close()


def test_only_the_topics_asked_for(tmp_path: Path) -> None:
    """A filter leaves the others where they are."""
    bench = Workbench(tmp_path, _route("wide"))
    bench.send(("a", {"at": 1}), ("b", {"at": 1}))
    remodel = Remodel(bench.url, routes(_route("document")))
    assert [move.topic for move in remodel.moves("a")] == ["a"]
    remodel.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("old", "new"), [("wide", "eav"), ("eav", "document"), ("document", "narrow"), ("narrow", "wide")]
)
def test_a_dashboard_on_the_view_does_not_notice(old: str, new: str, tmp_path: Path) -> None:
    """The view tells the same before the move, after it, and after the old rows are gone."""
    query = "SELECT time, topic, v, s FROM x_view ORDER BY id"
    table = {"wide": {"wide": {"table": "x"}}}
    bench = Workbench(tmp_path, {"topic": "x/+", "model": table.get(old, old)})
    bench.send(*((f"x/{n % 3}", {"v": n, "s": str(n)}) for n in range(20)))
    before = bench.sql(query)
    assert len(before) == 20
    remodel = Remodel(bench.url, routes({"topic": "x/+", "model": table.get(new, new)}))
    moves = remodel.moves()
    for move in moves:
        list(remodel.move(move))
        assert bench.sql(query) == before
    for move in moves:
        list(remodel.drop(move))
        assert bench.sql(query) == before
    remodel.close()


def test_each_view_is_replaced_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After all topics have been moved, in however many groups; then no view reads an old table.

    The new table is made with its columns: if there are thousands of tables, each ALTER TABLE takes SQLite long.
    """
    monkeypatch.setattr("amqtt_db.writer.moving.TOPICS_AT_ONCE", 2)
    bench = Workbench(tmp_path, _route("wide"))
    bench.send(*((f"t/{number}", {"v": number}) for number in range(5)))
    bench.writer._views.finish()
    statements: list[str] = []

    def execute(*given: Any) -> None:
        statements.append(given[2])

    sa.event.listen(sa.Engine, "before_cursor_execute", execute)
    try:
        _run(bench, {"wide": {"table": "all_of_it"}})
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", execute)
    made = [sql for sql in statements if sql.startswith("CREATE VIEW")]
    assert sorted(sql.split('"')[1] for sql in made) == ["all_of_it_view", *(f"t_{number}_view" for number in range(5))]
    assert all("UNION" not in sql and 'FROM "all_of_it"' in sql for sql in made)
    assert not any(sql.startswith("ALTER TABLE") for sql in statements)


@pytest.mark.parametrize("next_one", ["remodel", "writer"])
def test_killed_before_its_views_are_refreshed(next_one: str, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are due, and the next remodel or writer refreshes them; so nothing vanishes when the old rows go."""
    bench = Workbench(site, _route("wide"))
    bench.send(*((topic, {"v": number}) for number in range(3) for topic in ("a", "b")))
    bench.writer._views.finish()
    query = "SELECT v FROM {}_view ORDER BY id"
    before = [bench.sql(query.format(topic)) for topic in ("a", "b")]
    remodel = Remodel(bench.url, routes(_route("eav")))
    moves = remodel.moves()
    with monkeypatch.context() as patched:
        patched.setattr(ViewKeeper, "_refresh", _be_killed)
        with pytest.raises(KeyboardInterrupt):
            list(remodel.move(*moves))
    remodel._shop.snapshots.close()
    remodel._shop.database.dispose()
    assert bench.sql("SELECT count(*) FROM mqtt_view_due") == [(1,)]
    if next_one == "writer":
        bench.restart(_route("eav"))
        bench.writer.do_idle_work()
        bench.sql("DELETE FROM a")
        bench.sql("DELETE FROM b")
    else:
        assert _run(bench, "eav", drop=True) == 2
        assert bench.sql("SELECT count(*) FROM a") == [(0,)]
    assert [bench.sql(query.format(topic)) for topic in ("a", "b")] == before
    assert bench.sql("SELECT count(*) FROM mqtt_view_due") == [(0,)]


def _be_killed(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_writer_with_old_routes_cannot_write_to_the_old_tables(tmp_path: Path) -> None:
    """Its assignments are out of date: its commit is refused, it learns the new ones, and nothing becomes invisible."""
    bench = Workbench(tmp_path, _route("wide"))
    bench.send(("t", {"at": 1, "v": 1}))
    assert _run(bench, "eav", drop=True) == 1
    late = bench.batch(Sent("t", {"at": 2, "v": 2}))
    with pytest.raises(CheckpointMoved):
        bench.store(late)
    bench.restart(_route("eav"))
    bench.store(late)
    assert [data["v"] for data in bench.data()] == [1.0, 2.0]


def test_models_that_share_a_table_are_counted_apart(tmp_path: Path) -> None:
    """`topics` tells each topic's own rows."""
    bench = Workbench(tmp_path, {"topic": "e", "model": "eav"}, {"topic": "n", "model": "narrow"})
    bench.send(("e", {"v": 1}), ("n", {"v": 1}), ("n", {"v": 2}))
    assert {one.topic: one.rows for one in list_topics(bench.url)} == {"e": 1, "n": 2}


@pytest.mark.slow
def test_a_topic_may_come_back_to_its_first_model(tmp_path: Path) -> None:
    """There and back again without `--drop`: the old rows still in the tables do no harm."""
    bench = Workbench(tmp_path, _route("wide"))
    bench.send(*(("t", {"at": n, "v": n}) for n in range(10)))
    before = _told(bench.records())
    for model in ("eav", "wide", "eav", "wide"):
        assert _run(bench, model) > 0
        assert same(_told(bench.records()), before)
    _run(bench, "wide", drop=True)
    assert same(_told(bench.records()), before)


def test_a_writer_that_knows_old_places_learns_so_from_a_new_topic(tmp_path: Path) -> None:
    """After looking up a new topic's assignment, it does not rely on outdated ones."""
    bench = Workbench(tmp_path, _route("wide"))
    bench.send(("t", {"at": 1, "v": 1}))
    assert _run(bench, "eav") == 1
    late = bench.batch(Sent("t", {"at": 2, "v": 2}), Sent("new", {"at": 3, "v": 3}))
    with pytest.raises(CheckpointMoved):
        bench.store(late)
    bench.restart(_route("eav"))
    bench.store(late)
    assert _run(bench, "eav", drop=True) == 1
    assert sorted(data["v"] for data in bench.data()) == [1.0, 2.0, 3.0]


@pytest.mark.slow
def test_the_work_grows_with_the_topics_and_not_faster(tmp_path: Path) -> None:
    """Four times as many topics take four times as many statements, and no more connections."""
    few, many = (_count_work(tmp_path / str(topics), topics) for topics in (10, 40))
    assert many[0] < 4.5 * few[0]
    assert many[1] == few[1]


def _count_work(directory: Path, topics: int) -> tuple[int, int]:
    """Return how many statements and connections it takes to move topics, with all their views."""
    directory.mkdir()
    bench = Workbench(directory, {"topic": "#"})
    bench.send(*((f"t/{number}", {"v": number}) for number in range(topics)))
    bench.writer._views.finish()
    bench.close()
    statements: list[object] = []
    connections: list[object] = []

    def execute(*given: object) -> None:
        statements.append(given)

    def connect(*given: object) -> None:
        connections.append(given)

    sa.event.listen(sa.Engine, "before_cursor_execute", execute)
    sa.event.listen(sa.Engine, "do_connect", connect)
    try:
        remodel = Remodel(bench.url, routes({"topic": "#", "model": "eav"}))
        list(remodel.move(*remodel.moves()))
        remodel.close()
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", execute)
        sa.event.remove(sa.Engine, "do_connect", connect)
    return len(statements), len(connections)
