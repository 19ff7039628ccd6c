"""The writer on a real SQLite file: one transaction a batch, blame, replay, and what others do to the database."""

from __future__ import annotations

import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from amqtt_db.database.engines.base import RowBatch
from amqtt_db.database.engines.sqlite import SQLite
from amqtt_db.errors import DatabaseError, StructureError
from amqtt_db.message import CONNECT, DISCONNECT, START, Batch, flags, message_id
from amqtt_db.models.wide import Wide
from amqtt_db.record import Record
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.transaction import CheckpointMoved
from tests.database.engines.servers import Site
from tests.workbench import Sent, Workbench


def test_a_bad_message_does_not_sink_its_neighbours(site: Site) -> None:
    """Three messages, the middle one bad: two stored, one dead letter with topic, payload, step and reason."""
    bench = Workbench(site)
    bench.send(("t", {"v": 1}), ("t", b"{"), ("t", {"v": 3}))
    assert [data["v"] for data in bench.data()] == [1.0, 3.0]
    (letter,) = bench.dead()
    assert (letter.topic, letter.payload, letter.step) == (b"t", b"{", "decode")


def test_a_schema_change_in_the_middle_of_a_batch(site: Site) -> None:
    """Everything is stored, in order."""
    bench = Workbench(site)
    bench.send(("t", {"a": 1}), ("t", {"a": 2, "b": 1}), ("t", {"b": "x"}), ("t", {"a": 4}))
    assert bench.data() == [{"a": 1.0}, {"a": 2.0, "b": 1.0}, {"b": "x"}, {"a": 4.0}]


def test_points_are_inserted_in_the_order_of_their_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Series by series and each in the order of time, though messages of many topics come in turn."""
    inserted: list[tuple[Any, ...]] = []
    insert = SQLite.insert

    def note(self: SQLite, connection: Any, loads: Sequence[RowBatch]) -> None:
        inserted.extend(tuple(row[:3]) for load in loads if load.table == "mqtt_point" for row in load.rows)
        insert(self, connection, loads)

    monkeypatch.setattr(SQLite, "insert", note)
    bench = Workbench(tmp_path, {"topic": "#", "model": "narrow"})
    bench.send(*((f"t/{number % 3}", {"a": number, "b": number}) for number in range(9)))
    assert len(inserted) == 18
    assert inserted == sorted(inserted)


def test_identical_messages_are_all_kept(site: Site) -> None:
    """Two equal messages are two messages."""
    bench = Workbench(site)
    bench.send(("t", {"v": 1}), ("t", {"v": 1}))
    assert len(bench.records()) == 2


def test_a_replayed_range_is_stored_once(site: Site) -> None:
    """The checkpoint moves inside the transaction: the same journal entries a second time change nothing."""
    bench = Workbench(site)
    batch = bench.batch(Sent("t", {"v": 1}), Sent("t", {"v": 2}))
    bench.store(batch)
    with pytest.raises(CheckpointMoved):
        bench.store(batch)
    bench.restart()
    assert bench.checkpoint == batch.end
    assert len(bench.records()) == 2


def test_a_failed_commit_leaves_nothing_behind(tmp_path: Path) -> None:
    """Rows, counters and the checkpoint come and go together."""
    bench = Workbench(tmp_path)
    bench.send(("t", {"v": 1}))
    bench.sql("CREATE TRIGGER no BEFORE UPDATE ON mqtt_counter BEGIN SELECT RAISE(ABORT, 'no'); END")
    batch = bench.batch(Sent("t", {"v": 2}))
    with pytest.raises(sa.exc.DBAPIError):
        bench.store(batch)
    assert len(bench.records()) == 1
    assert bench.writer.checkpoint(bench.number) == batch.positions[0]
    bench.sql("DROP TRIGGER no")
    bench.store(batch)
    assert [data["v"] for data in bench.data()] == [1.0, 2.0]


def test_the_database_blames_one_value(tmp_path: Path) -> None:
    """A constraint of the user's own makes one dead letter of a batch of a hundred, without the value in its reason."""
    bench = Workbench(tmp_path)
    bench.send(("t", {"v": 0}))
    bench.sql("CREATE TRIGGER hot BEFORE INSERT ON t WHEN NEW.v = 42 BEGIN SELECT RAISE(ABORT, 'too hot'); END")
    bench.send(*(("t", {"v": value}) for value in range(1, 101)))
    assert [data["v"] for data in bench.data()] == [float(value) for value in range(101) if value != 42]
    (letter,) = bench.dead()
    assert letter.payload == b'{"v": 42}'
    assert letter.step == "store"
    assert "42" not in letter.reason
    assert bench.counts() == {"#": {"stored": 100, "records": 100, "dead": 1}}


def test_more_values_than_a_statement_takes(site: Site) -> None:
    """170 columns and 500 rows: 85,000 values, beyond any parameter limit, are all stored."""
    bench = Workbench(site)
    bench.send(*(("t", {f"p{column}": row for column in range(170)}) for row in range(500)))
    assert bench.sql("SELECT count(*), sum(p169) FROM t") == [(500, 124_750.0)]


def test_a_dropped_table_or_column_is_made_again(site: Site) -> None:
    """Somebody's DROP costs what was in it, but no message that comes after."""
    bench = Workbench(site)
    bench.send(("t", {"v": 1, "w": 2}))
    for change in ("DROP TABLE t", "ALTER TABLE t DROP COLUMN w"):
        bench.sql("DROP VIEW IF EXISTS t_view")
        bench.sql(change)
        batch = bench.batch(Sent("t", {"v": 3, "w": 4}))
        with pytest.raises(sa.exc.DBAPIError) as caught:
            bench.store(batch)
        assert not bench.writer._engine.is_value_fault(caught.value)
        assert bench.writer.repair(batch)
        assert not bench.writer.repair(batch)
        bench.store(batch)
        assert bench.data()[-1] == {"v": 3.0, "w": 4.0}


def test_a_column_added_by_hand_is_left_alone(site: Site) -> None:
    """It stays NULL; a property of that name gets another column."""
    bench = Workbench(site)
    bench.send(("t", {"v": 1}))
    bench.sql("ALTER TABLE t ADD COLUMN note TEXT")
    bench.send(("t", {"v": 2, "note": 5}))
    assert bench.data() == [{"v": 1.0}, {"v": 2.0, "note": 5.0}]


def test_a_foreign_table_is_not_taken(tmp_path: Path) -> None:
    """A table that another program created keeps its name and content; the topic's table gets another name."""
    (tmp_path / "x").mkdir()
    bench = Workbench(tmp_path / "x")
    bench.sql("CREATE TABLE t (mine TEXT)")
    bench.send(("t", {"v": 1}))
    assert bench.sql("SELECT count(*) FROM t") == [(0,)]
    assert bench.data() == [{"v": 1.0}]


def test_an_index_never_takes_a_tables_name(site: Site) -> None:
    """Topics named like another table's index."""
    bench = Workbench(site)
    bench.send(("a", {"v": 1}), ("ix/a/time", {"v": 2}), ("a/time", {"v": 3}))
    assert len(bench.records()) == 3


def test_two_writers_add_the_same_column(site: Site) -> None:
    """Both succeed, there is one column, and both write to it."""
    first, second = Workbench(site, token="a"), Workbench(site, token="b")
    first.send(("t", {"v": 1}))
    second.send(("t", {"v": 2}))
    first.send(("t", {"v": 3, "new": 1}))
    second.send(("t", {"v": 4, "new": 2}))
    assert first.number != second.number
    assert first.columns("t").count("new") == 1
    assert first.sql("SELECT v, new FROM t ORDER BY v") == [(1.0, None), (2.0, None), (3.0, 1.0), (4.0, 2.0)]


def test_four_writers_with_shuffled_new_shapes_lose_nothing(site: Site) -> None:
    """Concurrent DDL and inserts on the same tables: every record of every writer is there."""
    benches = [Workbench(site, token=token) for token in "abcd"]
    errors: list[BaseException] = []

    def work(index: int, bench: Workbench) -> None:
        try:
            for step in range(10):
                name = f"p{(step * (index + 3)) % 10}"
                bench.send(*((f"t/{step % 3}", {"who": index, "step": step, name: n}) for n in range(5)))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=item) for item in enumerate(benches)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    found = sorted((data["who"], data["step"]) for data in benches[0].data())
    assert found == sorted((float(who), float(step)) for who in range(4) for step in range(10) for _ in range(5))


def _entry(bench: Workbench, kind: int, session: int = 0, details: bytes = b"") -> Batch:
    position = bench.position
    bench.position += 1
    return Batch(bench.token, [position], [position * 1000], [flags(kind)], [session], [b""], [details], position + 1)


def test_sessions_are_recorded(tmp_path: Path) -> None:
    """A connection has a row; its messages carry the row's id; its end is noted."""
    bench = Workbench(tmp_path)
    details = (
        b'{"client_id":"c1","username":"u","address":"127.0.0.1","port":4711,"keep_alive":60,"clean_session":true}'
    )
    connect = _entry(bench, CONNECT, details=details)
    bench.store(connect)
    message = bench.batch(Sent("t", {"v": 1}))
    bench.store(Batch("a", message.positions, message.times, message.flags, [1], message.topics, message.payloads, 3))
    bench.store(_entry(bench, DISCONNECT, session=1))
    (row,) = bench.sql(
        "SELECT id, client_id, username, address, port, keep_alive, connected, disconnected FROM mqtt_session"
    )
    assert row[1:6] == ("c1", "u", "127.0.0.1", 4711, 60)
    assert row[6:] == ("1970-01-01 00:00:00.001000", "1970-01-01 00:00:00.003000")
    assert bench.sql("SELECT session FROM t") == [(row[0],)] == [(message_id(bench.number, 1),)]


def test_a_start_closes_what_the_opening_before_left_open(tmp_path: Path) -> None:
    """A broker that was killed never said goodbye for its clients."""
    old = Workbench(tmp_path, token="old")
    old.store(_entry(old, CONNECT, details=b'{"client_id":"c"}'))
    new = Workbench(tmp_path, token="new")
    start = _entry(new, START)
    new.writer.store(new.number, old.number, 1, start)
    assert new.sql("SELECT client_id, disconnected FROM mqtt_session") == [("c", "1970-01-01 00:00:00.001000")]


def test_a_dead_letter_knows_its_client(site: Site) -> None:
    """By the session that the message came through."""
    bench = Workbench(site)
    bench.store(_entry(bench, CONNECT, details=b'{"client_id":"c1"}'))
    bad = bench.batch(Sent("t", b"{"))
    bench.store(Batch("a", bad.positions, bad.times, bad.flags, [1], bad.topics, bad.payloads, bad.end))
    assert [letter.client for letter in bench.dead()] == [b"c1"]


class Clumsy(Wide):
    """A user's model with a bug."""

    def write(self, record: Record) -> Iterator[Any]:
        """Fails on one kind of record."""
        if 13 in record.values:
            raise ZeroDivisionError("unlucky")
        yield from super().write(record)


def test_a_bug_in_a_users_model_costs_only_its_message(site: Site) -> None:
    """The error's class is in the dead letter's reason."""
    bench = Workbench(site, {"topic": "#", "model": "tests.writer.test_writer.Clumsy"})
    bench.send(*(("t", {"v": value}) for value in range(10, 20)))
    assert len(bench.records()) == 9
    (letter,) = bench.dead()
    assert letter.step == "structure"
    assert "ZeroDivisionError" in letter.reason


DEADLY = """
import sys
from pathlib import Path
from tests.workbench import Sent, Workbench
bench = Workbench(Path(sys.argv[1]), {"topic": "#", "decode": "tests.deadly.decode"})
bench.position = bench.checkpoint
while bench.position < 21:
    suspicious = bench.guard.is_suspicious(bench.token, bench.position)
    size = 1 if suspicious else 21 - bench.position
    bench.store(bench.batch(*(Sent("t", b"die" if bench.position + n == 13 else b"1") for n in range(size))))
"""


@pytest.mark.slow
def test_a_message_that_kills_the_writer_becomes_a_dead_letter(tmp_path: Path) -> None:
    """Two deaths make the range suspicious, two more find the message; all others are stored once."""
    codes = [
        subprocess.run([sys.executable, "-c", DEADLY, str(tmp_path)], check=False, timeout=60).returncode
        for _ in range(5)
    ]
    assert codes == [7, 7, 7, 7, 0]
    bench = Workbench(tmp_path)
    assert len(bench.records()) == 19
    (letter,) = bench.dead()
    assert letter.payload == b"die"
    assert "ended the writer twice" in letter.reason


HANGING = """
import re, sys, time
from pathlib import Path
from amqtt_db.message import Batch, flags
from amqtt_db.writer.crash_guard import CrashGuard
guard = CrashGuard(Path(sys.argv[1]), limit=0.2)
def user_code():
    if sys.argv[2] == "sleep":
        time.sleep(60)
    re.match("(a+)+$", "a" * 64 + "b")
with guard.watch(Batch("a", [1], [0], [flags(0)], [0], [b"t"], [b""], 2)):
    user_code()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["sleep", "match"])
def test_user_code_that_hangs_is_a_death_with_a_reason(how: str, tmp_path: Path) -> None:
    """It holds even if no other thread gets a turn; after four deaths the message and the reason are known."""
    for _ in range(4):
        command = [sys.executable, "-c", HANGING, str(tmp_path / "note"), how]
        assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGALRM
    guard = CrashGuard(tmp_path / "note", limit=0.2)
    assert guard.is_to_blame("a", 1)
    assert "user code took longer than 0.2 s, at line" in guard.reason
    assert "in user_code" in guard.reason
    guard.close()


def test_user_code_has_its_time_for_itself(tmp_path: Path) -> None:
    """Work after it, and a look at the database in between, may take longer."""
    guard = CrashGuard(tmp_path / "note", limit=0.2)
    with guard.watch(Batch("a", [1], [0], [flags(0)], [0], [b"t"], [b""], 2)):
        with guard.pause():
            time.sleep(0.3)
        time.sleep(0.01)
    time.sleep(0.3)
    guard.close()


def test_a_writer_killed_elsewhere_blames_nobody(tmp_path: Path) -> None:
    """If no note says that user code was running, nothing is blamed; a damaged note does not stop the writer."""
    note = tmp_path / "note"
    for content in (b"", b"garbage", b'{"active": "range"}'):
        note.write_bytes(content)
        guard = CrashGuard(note)
        assert not guard.is_suspicious("a", 1)
        guard.close()


EACH = ("list", "", None)


@pytest.mark.slow
@pytest.mark.parametrize("payload", [{"v": 1}, {"v": 1, "list": None}, {"v": 1, "list": 5}, {"v": 1, "list": {"n": 1}}])
def test_each_without_a_list_is_one_record(payload: dict[str, Any], tmp_path: Path) -> None:
    """Absent, null or a single value: as if its route had no `each`; so is a payload that should be a list itself."""
    bench = Workbench(tmp_path, *({"topic": topic, "each": each} for topic, each in zip("tuv", EACH, strict=True)))
    bench.send(*((topic, payload) for topic in "tuv"))
    assert not bench.dead()
    (one, whole, plain) = bench.data()
    assert one == whole == plain
    assert [record.part for record in bench.records()] == [0, 0, 0]


def test_reading_needs_no_writer_and_changes_nothing(tmp_path: Path) -> None:
    """A user with a database browser does not block the writer."""
    bench = Workbench(tmp_path)
    bench.send(("t", {"v": 1}))
    reader = sqlite3.connect(bench.path)
    cursor = reader.execute("SELECT * FROM t")
    bench.send(("t", {"v": 2, "w": 1}))
    cursor.close()
    reader.close()
    assert len(bench.records()) == 2


def test_a_table_that_holds_another_topic_is_no_reason_for_dead_letters(tmp_path: Path) -> None:
    """`table:` with the name of a topic's own table: the writer says so, and the messages wait."""
    bench = Workbench(tmp_path)
    bench.send(("climate", {"v": 1}))
    bench.restart({"topic": "home/+", "model": {"wide": {"table": "climate"}}})
    with pytest.raises(DatabaseError, match="already holds the records"):
        bench.send(("home/a", {"v": 2}))
    assert bench.dead() == []


def test_a_note_outlives_what_ends_the_process(tmp_path: Path) -> None:
    """SystemExit in user code counts as a death; an exception does not; neither does a death outside user code."""
    batch = Batch("a", [1], [0], [flags(0)], [0], [b"t"], [b""], 2)
    deaths = [(SystemExit, True), (ValueError, False)]
    for number, (error, dies) in enumerate(deaths):
        note = tmp_path / str(number)
        for _ in range(2):
            guard = CrashGuard(note)
            with pytest.raises(error), guard.watch(batch):
                raise error
            guard.close()
        guard = CrashGuard(note)
        assert guard.is_suspicious("a", 1) == dies
        guard.close()
    guard = CrashGuard(tmp_path / "paused")
    with guard.watch(batch), guard.pause():
        assert b'"active":""' in (tmp_path / "paused").read_bytes()
    guard.close()


TASK = """
import os, sys
from pathlib import Path
from amqtt_db.errors import StructureError
from amqtt_db.writer.crash_guard import CrashGuard
guard = CrashGuard(Path(sys.argv[1]))
try:
    with guard.watch_task("views of a model"):
        os._exit(7)
except StructureError:
    with guard.watch_task("views of another"):
        sys.exit(0)
"""


def test_a_task_that_kills_the_writer_twice_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others go on, and after an hour it is tried again, so fixing the model is enough."""
    command = [sys.executable, "-c", TASK, str(tmp_path / "note")]
    assert [subprocess.run(command, check=False, timeout=60).returncode for _ in range(4)] == [7, 7, 0, 0]
    guard = CrashGuard(tmp_path / "note")
    with pytest.raises(StructureError, match="ended the writer twice"), guard.watch_task("views of a model"):
        pass
    now = time.time()
    monkeypatch.setattr("amqtt_db.writer.crash_guard.time.time", lambda: now + 3601)
    with guard.watch_task("views of a model"):
        pass
    monkeypatch.undo()
    with guard.watch_task("views of a model"):  # it has done no harm since
        pass
    guard.close()
