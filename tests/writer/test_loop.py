"""The writer's loop on a real journal: whatever the database does, everything arrives, once."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from functools import partial, partialmethod
from pathlib import Path

import pytest

from amqtt_db.config import load_section
from amqtt_db.database.engines import engine_for
from amqtt_db.journal import Journal, JournalReader, Progress, read_progress, read_report
from amqtt_db.message import PUBLISH, Batch, flags
from amqtt_db.writer import loop
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.loop import GATHER, Stop, WriterLoop
from amqtt_db.writer.writer import Writer
from tests.workbench import Workbench

PATIENCE = 30.0


class Mill:
    """A journal, a database and the loop between them, in a thread of this process."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = directory / "db" / "mqtt.db"
        self.journal = Journal.open(directory / "journal", max_size=2**30, sync="never")
        self.guard = CrashGuard(directory / "attempt")
        self.stop = Stop()
        self.thread: threading.Thread | None = None
        self.sent = 0

    def start(self, is_bloated: Callable[[], bool] = lambda: False) -> None:
        """Start the loop."""
        url = f"sqlite:///{self.database}"
        make_writer = partial(Writer, engine_for(url), load_section({}).routes, self.guard)
        drain = WriterLoop(self.journal.path, make_writer, self.guard, self.stop, is_bloated)
        self.thread = threading.Thread(target=drain.run)
        self.thread.start()

    def send(self, count: int) -> None:
        """Put messages into the journal."""
        for _ in range(count):
            self.journal.append(flags(PUBLISH, 1), 1_700_000_000_000_000, 0, b"t", b'{"n": %d}' % self.sent)
            self.sent += 1
        self.journal.commit()

    def rows(self) -> list[int]:
        """Return the rows that are stored so far."""
        try:
            connection = sqlite3.connect(f"file:{self.database}?mode=ro", uri=True, timeout=PATIENCE)
        except sqlite3.OperationalError:
            return []
        try:
            return [int(n) for (n,) in connection.execute("SELECT n FROM t WHERE n IS NOT NULL ORDER BY id")]
        except sqlite3.OperationalError:
            return []
        finally:
            connection.close()

    def until_stored(self) -> None:
        """Wait until everything is stored, once and in order."""
        self.until(lambda: len(self.rows()) >= self.sent)
        assert self.rows() == list(range(self.sent))

    def until(self, holds: Callable[[], bool]) -> None:
        """Wait for what another thread does to a file."""
        deadline = time.monotonic() + PATIENCE
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def end(self) -> None:
        """Ask the loop to end, and wait for it."""
        self.stop.request(PATIENCE)
        if self.thread is not None:
            self.thread.join(PATIENCE)
            assert not self.thread.is_alive()
        self.guard.close()
        self.journal.close()


@pytest.fixture
def mill(tmp_path: Path) -> Iterator[Mill]:
    """A mill whose database directory is there."""
    (tmp_path / "db").mkdir()
    made = Mill(tmp_path)
    yield made
    made.end()


def _complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def test_what_comes_is_stored_and_reported(mill: Mill) -> None:
    """Batch after batch; the progress file says how far the owner may trim."""
    mill.start()
    for _ in range(5):
        mill.send(100)
        mill.until_stored()
    stored = Progress(mill.journal.token, mill.journal.next)
    mill.until(lambda: read_progress(mill.journal.path) == stored)


def test_a_database_that_is_away_at_start(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The journal grows; when the database comes, everything is stored; the complaint is logged once."""
    caplog.set_level(logging.INFO)
    mill = Mill(tmp_path)
    mill.start()
    mill.send(100)
    mill.until(lambda: bool(_complaints(caplog)))
    mill.send(100)
    (tmp_path / "db").mkdir()
    mill.until_stored()
    mill.end()
    (complaint,) = _complaints(caplog)
    assert "cannot create the database" in complaint
    assert [record for record in caplog.records if "working again" in record.getMessage()]


def test_the_end_does_not_wait_for_a_database_if_nothing_else_does(tmp_path: Path) -> None:
    """Without a database and without messages the loop ends when it is asked to; with messages, at its deadline."""
    for count, within in ((0, PATIENCE), (1, 0.2)):
        (tmp_path / str(count)).mkdir()
        mill = Mill(tmp_path / str(count))
        mill.start()
        mill.send(count)
        mill.until(lambda mill=mill: read_report(mill.journal.path) is not None)  # type: ignore[misc]
        mill.stop.request(within)
        assert mill.thread is not None
        mill.thread.join(0.5 * PATIENCE)
        assert not mill.thread.is_alive()
        mill.end()


@pytest.mark.slow
def test_a_database_locked_by_another_program(mill: Mill, caplog: pytest.LogCaptureFixture) -> None:
    """Nothing is lost while another program holds the lock longer than the writer waits."""
    mill.start()
    mill.send(10)
    mill.until_stored()
    other = sqlite3.connect(mill.database, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    mill.send(10)
    mill.until(lambda: bool(_complaints(caplog)))
    assert "locked" in _complaints(caplog)[0]
    other.execute("ROLLBACK")
    other.close()
    mill.until_stored()


@pytest.mark.parametrize("change", ["DROP TABLE t", "DROP VIEW t_view; ALTER TABLE t DROP COLUMN n"])
def test_a_table_dropped_under_a_running_writer(mill: Mill, change: str, caplog: pytest.LogCaptureFixture) -> None:
    """It is made again; what was in it is gone by the user's own hand, no later message is."""
    mill.start()
    mill.send(10)
    mill.until_stored()
    other = sqlite3.connect(mill.database)
    other.executescript(change)
    other.close()
    mill.send(10)
    mill.until(lambda: mill.rows()[-10:] == list(range(10, 20)))
    assert [record for record in caplog.records if "repaired with" in record.getMessage()]


def test_several_openings_are_stored_one_after_the_other(mill: Mill) -> None:
    """A journal that was opened three times before its writer ran: all of it, in order."""
    for _ in range(3):
        mill.send(10)
        mill.journal.close()
        mill.journal = Journal.open(mill.journal.path, max_size=2**30, sync="never")
    mill.send(10)
    mill.start()
    mill.until_stored()
    connection = sqlite3.connect(mill.database)
    assert connection.execute("SELECT count(*) FROM mqtt_journal").fetchone() == (4,)
    connection.close()


def test_errors_tell_no_payloads(mill: Mill, caplog: pytest.LogCaptureFixture) -> None:
    """A constraint of the user's own: the message is a dead letter, and the log has no value of it."""
    mill.start()
    mill.send(1)
    mill.until_stored()
    other = sqlite3.connect(mill.database)
    other.execute("CREATE TRIGGER no BEFORE INSERT ON t WHEN NEW.n = 1 BEGIN SELECT RAISE(ABORT, 'no'); END")
    other.close()
    mill.send(2)
    mill.until(lambda: mill.rows() == [0, 2])
    assert '"n"' not in caplog.text


@pytest.mark.slow
def test_nothing_is_busy_when_nothing_comes(mill: Mill) -> None:
    """An idle loop uses less than one per cent of a processor."""
    mill.start()
    mill.send(1)
    mill.until_stored()
    before = time.process_time()
    time.sleep(2)
    assert time.process_time() - before < 0.02


def test_a_loop_that_sleeps_is_woken(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once it knows that somebody tells of news, it checks a quiet journal rarely, and stores at once what comes."""
    monkeypatch.setattr("amqtt_db.writer.loop.QUIET", 0.0)
    monkeypatch.setattr("amqtt_db.writer.loop.ASLEEP", 2 * PATIENCE)
    mill.stop.wake()
    mill.start()
    for count in (1, 2):
        mill.send(count)
        mill.stop.wake()
        mill.until_stored()


def test_a_stream_is_stored_in_groups(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages that come one by one share commits: there is a pause after each small one."""
    ends: list[int] = []
    store = Writer.store

    def counting(self: Writer, number: int, previous: int | None, position: int, batch: Batch) -> None:
        ends.append(batch.end)
        store(self, number, previous, position, batch)

    monkeypatch.setattr(Writer, "store", counting)
    mill.start()
    started = time.monotonic()
    for _ in range(200):
        mill.send(1)
        time.sleep(0.002)
    mill.until_stored()
    assert len(ends) <= (time.monotonic() - started) / GATHER + 2


def test_a_parent_that_gathers_ends_the_pause(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it tells of is stored at once, also after a small batch."""
    monkeypatch.setattr(loop, "ASLEEP", 2 * PATIENCE)
    monkeypatch.setattr(loop, "IDLE", 2 * PATIENCE)
    mill.stop.wake(paces=True)
    mill.start()
    for count in (1, 2, 3):
        mill.send(count)
        mill.stop.wake(paces=True)
        mill.until_stored()


@pytest.mark.parametrize(("spent", "is_at_once"), [(0.0, True), (GATHER, False)])
def test_news_during_a_batch_end_the_pause_unless_it_was_slow(spent: float, is_at_once: bool) -> None:
    """Else a slow disk would never rest."""
    stop = Stop()
    stop.wake(paces=True)
    began = time.monotonic()
    stop.rest(spent)
    assert (time.monotonic() - began < 0.9 * GATHER) == is_at_once


def test_what_is_committed_just_before_the_end_is_stored(mill: Mill) -> None:
    """An idle loop that is asked to end looks once more."""
    mill.start()
    mill.send(1)
    mill.until_stored()
    mill.send(10)
    mill.stop.request(PATIENCE)
    assert mill.thread is not None
    mill.thread.join(PATIENCE)
    assert mill.rows() == list(range(11))


def test_a_batch_of_few_messages_may_leave_some_behind(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    """Long topics fill a batch, too; what it leaves is stored although nothing else is committed."""
    monkeypatch.setattr(JournalReader, "read", partialmethod(JournalReader.read, max_bytes=1000))
    mill.send(1)
    for _ in range(20):
        mill.send(10)
    mill.start()
    mill.until_stored()


@pytest.mark.slow
def test_a_commit_without_messages_is_news_too(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop is not told of a message that follows soon after it, so it stays awake for a while."""
    monkeypatch.setattr(loop, "QUIET", 1.0)
    monkeypatch.setattr(loop, "ASLEEP", 3 * PATIENCE)
    mill.start()
    mill.send(1)
    mill.stop.wake()
    mill.until_stored()
    time.sleep(1.2)  # nothing tells when it falls asleep
    mill.journal.remember("scope", "key", b"value")
    mill.journal.commit()
    mill.stop.wake()
    time.sleep(0.2)
    mill.send(1)
    mill.until_stored()


def test_a_deleted_database_file_is_noticed(mill: Mill, caplog: pytest.LogCaptureFixture) -> None:
    """Messages that went into the deleted file are stored again in the new one."""
    mill.start()
    mill.send(5)
    mill.until_stored()
    for file in mill.database.parent.iterdir():
        file.unlink()
    mill.send(5)
    mill.until(lambda: mill.rows()[-5:] == list(range(5, 10)))
    assert "deleted or replaced" in caplog.text


def test_a_process_that_begins_too_big_works_all_the_same(mill: Mill) -> None:
    """Below a memory limit that it can never keep it stores a batch, and is replaced only then."""
    mill.send(1)
    mill.start(is_bloated=lambda: True)
    mill.until_stored()
    assert mill.thread is not None
    mill.thread.join(PATIENCE)
    assert not mill.thread.is_alive()


def test_a_journal_that_is_replaced_is_opened_again(mill: Mill) -> None:
    """Its owner writes a new one after a removal; the loop continues with that."""
    mill.start()
    mill.send(1)
    mill.until_stored()
    mill.journal.path.unlink()
    mill.send(1)
    mill.until_stored()


@pytest.mark.slow
def test_views_that_are_due_at_the_end_are_made(mill: Mill, monkeypatch: pytest.MonkeyPatch) -> None:
    """400 new topics, each once, and then the end: every topic has its view."""
    monkeypatch.setattr(loop, "LONGEST_FINISH", PATIENCE)
    mill.send(1)
    for number in range(400):
        mill.journal.append(flags(PUBLISH, 1), 1_700_000_000_000_000, 0, b"x/%d" % number, b'{"n": 1}')
    mill.journal.commit()
    mill.start()
    mill.until_stored()
    mill.stop.request(PATIENCE)
    assert mill.thread is not None
    mill.thread.join(PATIENCE)
    with closing(sqlite3.connect(mill.database)) as connection:
        (views,) = connection.execute("SELECT count(*) FROM sqlite_master WHERE type = 'view'").fetchone()
    assert views == 401


def test_a_property_that_comes_last_is_in_the_view(tmp_path: Path) -> None:
    """900 properties, a new one, and then the end: the view of documents shows it."""
    bench = Workbench(tmp_path, {"topic": "#", "model": "document"})
    bench.send(("a", {f"p{number}": 1 for number in range(900)}))
    bench.writer.do_idle_work()
    bench.send(("b", {"fresh": 1}))
    bench.writer.finish_views(lambda: False)
    bench.close()
    assert bench.sql("SELECT fresh FROM all_view WHERE topic = 'b'") == [(1.0,)]


def test_the_work_is_reported(mill: Mill) -> None:
    """What was stored, and when; also what kept the writer from storing, until it works again."""
    blocked = mill.database.parent.rename(mill.directory / "elsewhere")
    mill.send(1)
    mill.start()
    mill.until(lambda: (report := read_report(mill.journal.path)) is not None and report.is_failing)
    blocked.rename(mill.database.parent)
    mill.send(2)
    mill.until_stored()
    mill.until(lambda: _reported(mill) == {"stored": 3, "records": 3})
    mill.until(lambda: (report := read_report(mill.journal.path)) is not None and not report.is_failing)
    report = read_report(mill.journal.path)
    assert report is not None
    assert (report.tables, len(report.failures)) == (1, 1)
    assert "No such file or directory" in report.failures[0].cause


def _reported(mill: Mill) -> Mapping[str, int]:
    report = read_report(mill.journal.path)
    return {} if report is None else report.counts.get("#", {})
