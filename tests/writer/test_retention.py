"""`keep:` on every engine: old records are deleted in small steps with all their rows; everything else stays."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from amqtt_db.config import load_section
from amqtt_db.database.engines import engine_for
from amqtt_db.reader.topics import list_topics
from amqtt_db.writer import retention
from amqtt_db.writer.remodel import Remodel
from amqtt_db.writer.transaction import CheckpointMoved
from tests.database.engines.servers import Site
from tests.workbench import ARRIVAL, Sent, Workbench, routes

HOUR = 3600.0
MODELS = ("wide", {"wide": {"table": "x"}}, "eav", "narrow", "document")


def _route(model: Any = "wide", keep: str | None = "1 h", **more: Any) -> dict[str, Any]:
    return {"topic": "t/#", "model": model, "keep": keep, **more}


def _after(bench: Workbench, hours: float) -> None:
    """Let time pass, and delete what is too old then."""
    bench.now = ARRIVAL / 1_000_000 + hours * HOUR
    bench.writer.retention.finish()


def _values(bench: Workbench, topic: str = "#") -> list[float]:
    return [data["v"] for data in bench.data(topic)]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_what_is_too_old_goes(model: Any, site: Site) -> None:
    """From the first microsecond after `keep` on; rows of values go with their messages; counters stay."""
    bench = Workbench(site, _route(model), {"topic": "#", "model": "eav"})
    bench.send(*((f"t/{n % 2}", {"v": n, "s": "x"}) for n in range(10)), ("other", {"v": -1}))
    _after(bench, 1)
    assert len(bench.records()) == 11
    bench.now += 4.5
    bench.writer.retention.finish()
    assert sorted(_values(bench, "t/#")) == [5.0, 6.0, 7.0, 8.0, 9.0]
    _after(bench, 3)
    assert _values(bench) == [-1.0]
    assert {table: rows for table, rows in _rows(bench).items() if rows} == {"mqtt_message": 1, "mqtt_value": 1}
    assert bench.counts()["t/#"] == {"stored": 10, "records": 10}


def _rows(bench: Workbench) -> dict[str, int]:
    names = [row[0] for row in bench.sql("SELECT name FROM mqtt_table WHERE substr(mqtt_table.key, 1, 7) <> '$lookup'")]
    return {name: bench.sql(f"SELECT count(*) FROM {name}")[0][0] for name in names}


def test_parts_of_a_message_grow_old_on_their_own(site: Site) -> None:
    """Each record's own time counts, not its message's or its neighbours'."""
    bench = Workbench(site, _route("eav", each="", time="at"))
    now = ARRIVAL / 1_000_000
    bench.send(("t", [{"v": 1, "at": now - 2 * HOUR}, {"v": 2, "at": now}, {"v": 3, "at": now - 3 * HOUR}]))
    _after(bench, 0)
    assert _values(bench) == [2.0]


def test_late_messages_are_stored_and_go_with_the_next_step(site: Site) -> None:
    """A message that is too old when it arrives is no error."""
    bench = Workbench(site, _route(time="at"))
    bench.send(("t", {"v": 1, "at": ARRIVAL / 1_000_000 - 2 * HOUR}))
    _after(bench, 0)
    assert (bench.records(), bench.dead()) == ([], [])
    assert bench.counts()["t/#"] == {"stored": 1, "records": 1}


def test_a_step_deletes_so_many_records_and_no_more(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step ends when its time is over; readers see whole records after each; the next one goes on."""
    monkeypatch.setattr(retention, "STEP", 7)
    monkeypatch.setattr(retention, "SLICE", 0.0)
    bench = Workbench(site, _route("eav"))
    bench.send(*(("t", {"v": n, "w": n}) for n in range(30)))
    bench.now += 3 * HOUR
    bench.restart()
    left = {len(bench.records())}
    while bench.records():
        bench.writer.retention.step(quiet=True)
        assert all(data == {"v": data["v"], "w": data["v"]} for data in bench.data())
        left.add(len(bench.records()))
    assert left == {30, 23, 16, 9, 2, 0}


def test_while_messages_wait_there_is_a_rest_after_a_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many times as long as the step took; when there is nothing to store, there is none."""
    monkeypatch.setattr(retention, "STEP", 1)
    monkeypatch.setattr(retention, "SLICE", 0.0)
    monkeypatch.setattr(retention, "REST", 1e9)
    bench = Workbench(tmp_path, _route(time="at"))
    for _ in range(10):
        bench.send(("t", {"at": 1}))
    assert len(bench.records()) == 9
    bench.restart()
    bench.writer.retention.step(quiet=True)
    bench.writer.retention.step(quiet=True)
    assert len(bench.records()) == 7


def test_a_changed_keep_takes_effect_at_the_next_start(site: Site) -> None:
    """Longer, shorter, and none at all."""
    bench = Workbench(site, _route(keep="1 h"))
    bench.send(*(("t", {"v": n}) for n in range(3)))
    bench.now += 2 * HOUR
    bench.restart(_route(keep="1 day"))
    bench.writer.retention.finish()
    bench.restart(_route(keep=None))
    bench.writer.retention.finish()
    assert len(bench.records()) == 3
    bench.restart(_route(keep="90 min"))
    bench.writer.retention.finish()
    assert bench.records() == []


def test_past_places_grow_old_too(site: Site) -> None:
    """Old records also leave tables that a route used earlier; other routes' records there stay."""
    bench = Workbench(site, {"topic": "#", "model": "eav"})
    bench.send(("t/a", {"v": 1}), ("other", {"v": 2}))
    bench.restart(_route("narrow"), {"topic": "#", "model": "eav"})
    bench.send(("t/a", {"v": 3}))
    _after(bench, 1.0002)
    assert _values(bench) == [2.0, 3.0]
    _after(bench, 2)
    assert _values(bench) == [2.0]


def test_routes_of_one_model_keep_their_own(site: Site) -> None:
    """`keep` gives a route its own tables; topics that changed their route follow it."""
    bench = Workbench(site, {"topic": "a/#", "model": "document", "keep": "1 h"}, {"topic": "#", "model": "document"})
    bench.send(("a/x", {"v": 1}), ("b", {"v": 2}))
    assert [table for table in _rows(bench) if table.endswith("document")] == ["a_document", "mqtt_document"]
    bench.restart({"topic": "a/x", "model": "document", "keep": "5 h"}, {"topic": "#", "model": "document"})
    bench.send(("a/x", {"v": 3}))
    _after(bench, 3)
    assert _values(bench) == [1.0, 2.0, 3.0]
    _after(bench, 6)
    assert _values(bench) == [2.0]


def test_topics_of_other_writers_are_theirs(site: Site) -> None:
    """A route that covers everything deletes nothing of what another broker has stored under another route."""
    other = Workbench(site, {"topic": "b/#", "model": "eav"}, token="b")
    other.send(("b/x", {"v": 1}))
    bench = Workbench(site, {"topic": "#", "model": "eav", "keep": "1 h"})
    bench.send(("t", {"v": 2}))
    _after(bench, 5)
    assert _values(bench) == [1.0]


def test_the_topics_command_shows_nothing_odd(site: Site) -> None:
    """A topic without records left is a topic with no rows."""
    bench = Workbench(site, _route("eav"))
    bench.send(("t/a", {"v": 1}))
    _after(bench, 5)
    (topic,) = list_topics(bench.url)
    assert (topic.rows, topic.first, topic.last) == (0, None, None)


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_what_is_old_is_found_through_an_index(model: Any, tmp_path: Path) -> None:
    """Of the whole table, and of one topic."""
    bench = Workbench(tmp_path, _route(model))
    bench.send(("t/a", {"v": 1}), ("t/b", {"v": 1}))
    statements: list[tuple[str, Any]] = []
    sa.event.listen(
        bench.writer._database, "before_cursor_execute", lambda *args: statements.append((args[2], args[3]))
    )
    _after(bench, 2)
    bench.restart({"topic": "t/a", "model": model, "keep": "1 h"}, {"topic": "#", "model": "wide"})
    bench.send(("t/a", {"v": 1}))
    sa.event.listen(
        bench.writer._database, "before_cursor_execute", lambda *args: statements.append((args[2], args[3]))
    )
    _after(bench, 2)
    looked = [(text, values) for text, values in statements if text.startswith(("SELECT t_", "SELECT x.", "DELETE"))]
    assert looked
    for text, values in looked:
        plan = " ".join(str(row[3]) for row in bench.sql(f"EXPLAIN QUERY PLAN {text}", values))
        assert "SEARCH" in plan
        assert "SCAN t_" not in plan


def test_nothing_is_deleted_while_somebody_moves_records(site: Site) -> None:
    """Retention waits for the maintenance lock, and a second holder is refused."""
    bench = Workbench(site, _route())
    bench.send(("t", {"v": 1}))
    bench.now += 2 * HOUR
    engine = engine_for(bench.url)
    database = engine.open(write=True)
    with engine.maintenance(database) as first, engine.maintenance(database) as second:
        assert (first, second) == (True, False)
        bench.writer.retention.finish()
        bench.writer.retention.step(quiet=True)
        assert len(bench.records()) == 1
    database.dispose()
    bench.writer.retention.finish()
    assert bench.records() == []


HOLDER = """
import sys, time
from amqtt_db.database.engines import engine_for
engine = engine_for(sys.argv[1])
with engine.maintenance(engine.open(write=True)) as is_mine:
    print(is_mine, flush=True)
    time.sleep(60)
"""


def test_the_lock_ends_with_its_holder(site: Site) -> None:
    """However that ends."""
    bench = Workbench(site, _route())
    engine = engine_for(bench.url)
    database = engine.open(write=True)

    def is_free() -> bool:
        with engine.maintenance(database) as is_mine:
            return is_mine

    with subprocess.Popen([sys.executable, "-c", HOLDER, bench.url], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        assert not is_free()
        holder.kill()
    deadline = time.monotonic() + 30
    while not is_free():
        assert time.monotonic() < deadline
    database.dispose()


@pytest.mark.slow
@pytest.mark.parametrize(("old", "new"), [("eav", "wide"), ("wide", "narrow"), ("narrow", "document")])
def test_records_that_grow_old_while_they_move(old: str, new: str, site: Site) -> None:
    """A remodel that was stopped goes on, though what it had moved is partly gone on one side."""
    bench = Workbench(site, _route(old, keep=None))
    bench.send(*(("t", {"v": n}) for n in range(20)))
    wanted = routes(_route(new), url=bench.url)
    remodel = Remodel(bench.url, wanted, lambda: bench.now)
    (move,) = remodel.moves()
    next(remodel.move(move))
    bench.restart(_route(new))
    bench.now += HOUR + 4.5
    left = [index for index in range(20) if index > 3]
    table = remodel._shop.tables(move.current)
    remodel.close()
    assert table
    name = next(name for _, name in table.values() if not name.endswith(("point", "value")))
    bench.sql(f"DELETE FROM {name} WHERE id % 1048576 < 3")
    remodel = Remodel(bench.url, wanted, lambda: bench.now)
    (move,) = remodel.moves()
    list(remodel.move(move))
    list(remodel.drop(move))
    remodel.close()
    bench.writer.retention.finish()
    assert _values(bench) == [float(index) for index in left if index > 4]


def test_an_error_is_told_once_and_ingestion_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is wrong with deleting, messages are stored."""
    monkeypatch.setattr(retention, "PENALTY", 0.0)
    monkeypatch.setattr(retention, "REST", 0)
    bench = Workbench(tmp_path, _route())
    bench.send(("t", {"v": 1}))
    bench.sql("CREATE TRIGGER no BEFORE DELETE ON t BEGIN SELECT RAISE(ABORT, 'not that'); END")
    bench.now += 2 * HOUR
    bench.restart()
    with caplog.at_level(logging.ERROR):
        for value in range(3):
            bench.send(Sent("t", {"v": value}))
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == [
        "cannot delete old records: IntegrityError: not that; trying again later, messages are still stored"
    ]
    assert len(bench.records()) == 4


def test_a_model_that_is_gone_stops_only_its_own(tmp_path: Path) -> None:
    """If an assignment's class can no longer be imported, that is logged, and the other topics' records are deleted."""
    bench = Workbench(tmp_path, _route())
    bench.send(("t/1", {"v": 1}))
    columns = "hash, sequence, state, topic, key, route, model"
    gone = "'ff', 1, 'past', 'old', 'old', 'old', '{\"gone_package.Model\": {}}'"
    bench.sql(f"INSERT INTO mqtt_assignment ({columns}) VALUES ({gone})")
    bench.now = ARRIVAL / 1_000_000 + 2 * HOUR
    with pytest.raises(ValueError, match="gone_package"):
        bench.writer.retention.finish()
    assert bench.sql("SELECT count(*) FROM t_1") == [(0,)]


def test_sessions_and_dead_letters_grow_old(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that ended, or arrived, before the time go in steps; open sessions and all records stay."""
    monkeypatch.setattr("amqtt_db.writer.retention_system.ROWS_AT_ONCE", 3)
    keep = load_section({"keep": {"sessions": "1 h", "dead_letters": "2 h"}}).keep
    bench = Workbench(site, {"topic": "#", "decode": "json"}, keep=keep)
    bench.send(*(("t", b"{broken" if n % 2 else {"v": n}) for n in range(10)))
    for number in range(1, 9):
        ended = "NULL" if number == 4 else f"'2023-11-14 22:13:{number:02}'"
        row = f"{bench.number << 40 | number}, {bench.number}, '2023-11-14 22:13:00', {ended}"
        bench.sql(f"INSERT INTO mqtt_session (id, journal, connected, disconnected) VALUES ({row})")
    bench.now = ARRIVAL / 1_000_000 - 20 + HOUR + 5.5
    bench.writer.retention.finish()
    left = [row[0] % 2**40 for row in bench.sql("SELECT id FROM mqtt_session ORDER BY id")]
    assert left == [4, 6, 7, 8]
    assert len(bench.dead()) == 5
    bench.now += HOUR + 20
    bench.writer.retention.finish()
    assert [row[0] % 2**40 for row in bench.sql("SELECT id FROM mqtt_session ORDER BY id")] == [4]
    assert [letter.id % 2**40 for letter in bench.dead()] == [8, 10]
    assert len(bench.records()) == 5


@pytest.mark.parametrize("model", ["wide", "eav", "narrow", "document"])
def test_topics_whose_records_are_all_too_old_are_forgotten(model: str, site: Site) -> None:
    """Once a day, with the tables and views they had alone; others stay, and a new message is stored as the first."""
    bench = Workbench(site, _route(model, time="at"), {"topic": "#"})
    bench.send(("t", {"v": 1}), ("u", {"v": 2}))
    bench.writer._views.finish()
    _after(bench, 2)
    assert {one.topic for one in list_topics(bench.url)} == {"t", "u"}
    bench.now += 24 * HOUR
    bench.writer.retention.finish()
    assert [one.topic for one in list_topics(bench.url)] == ["u"]
    assert bench.sql("SELECT count(*) FROM mqtt_assignment")[0][0] == 1
    assert [row[0] for row in bench.sql("SELECT name FROM mqtt_table WHERE name = 't'")] == []
    late = bench.batch(Sent("t", {"v": 3, "at": bench.now}))
    with pytest.raises(CheckpointMoved):
        bench.store(late)
    bench.restart()
    bench.store(late)
    assert sorted(record["v"] for record in bench.records()) == [2.0, 3.0]
