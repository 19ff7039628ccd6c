"""Backups: consistent copies while others write, and what a restored one does with the journal."""

from __future__ import annotations

import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

import amqtt_db
from amqtt_db.config import load_section
from amqtt_db.database.backup import STEP_PAGES, back_up
from amqtt_db.database.engines import engine_for
from amqtt_db.errors import AmqttDbError, DatabaseError
from amqtt_db.journal import Journal
from amqtt_db.message import PUBLISH, flags
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.loop import Stop, WriterLoop
from amqtt_db.writer.writer import Writer
from tests.workbench import Workbench
from tests.writer.rollup_life import HOUR, START, make_route, require_exact


def ignore(done: int, total: int) -> None:
    """Tell nobody."""


def append(journal: Journal, first: int, count: int) -> None:
    """Commit messages ``{"n": first}``, ``{"n": first + 1}``, … to a journal."""
    for number in range(first, first + count):
        journal.append(flags(PUBLISH, 1), 1_700_000_000_000_000 + number, 0, b"t", b'{"n": %d}' % number)
    journal.commit()


def store_all(url: str, journal: Path) -> None:
    """Run a writer until it has stored what the journal holds."""
    guard, stop = CrashGuard(journal.with_name("attempt")), Stop()
    routes = load_section({"database": url}).routes
    stop.request(60)
    WriterLoop(journal, lambda tally: Writer(engine_for(url), routes, guard, tally=tally), guard, stop).run()
    guard.close()


def numbers(url: str) -> list[float]:
    """The values of ``n`` that are stored, in order."""
    return sorted(record["n"] for record in amqtt_db.read(url))


@contextmanager
def opened(path: Path) -> Iterator[Journal]:
    """A journal and its owner."""
    journal = Journal.open(path, max_size=2**30, sync="never")
    try:
        yield journal
    finally:
        journal.close()


@pytest.mark.slow
def test_a_restored_backup_stores_what_the_journal_still_has(tmp_path: Path) -> None:
    """Its checkpoint is older than the journal's end: what came since is stored again, and nothing twice."""
    path, url, old = tmp_path / "j", f"sqlite:///{tmp_path / 'mqtt.db'}", tmp_path / "old.db"
    with opened(path) as journal:
        append(journal, 0, 100)
        store_all(url, path)
        back_up(url, path, old, ignore)
        append(journal, 100, 100)
        store_all(url, path)
        assert numbers(url) == list(range(200))
    for end in ("", "-wal", "-shm"):
        (tmp_path / f"mqtt.db{end}").unlink(missing_ok=True)
    (tmp_path / "j.progress").unlink()
    old.rename(tmp_path / "mqtt.db")
    assert numbers(url) == list(range(100))
    with opened(path) as journal:
        append(journal, 200, 50)
        store_all(url, path)
        store_all(url, path)
    assert numbers(url) == list(range(250))


@pytest.mark.slow
def test_sums_go_on_from_a_restored_backup(tmp_path: Path) -> None:
    """Records have expired before the backup and since, and one has come late that was not summed up yet."""
    bench = Workbench(tmp_path, make_route(keep="30 min"))
    first = [("t/a", {"at": START + 60 * n, "temp": n % 7, "door": ("open", "shut")[n % 2]}) for n in range(120)]
    late = [("t/a", {"at": START + 7, "temp": -100})]
    more = [("t/a", {"at": START + 60 * n + 30, "temp": n % 5}) for n in (3, *range(100, 180))]
    bench.send(*first)
    bench.now = START + 2 * HOUR
    bench.writer.retention.finish()
    bench.send(*late)
    (copy,) = back_up(bench.url, tmp_path / "no journal", tmp_path / "copy.db", ignore)
    bench.send(*more)
    bench.now += 2 * HOUR
    bench.writer.retention.finish()
    assert not bench.records()
    bench.close()
    for end in ("-wal", "-shm"):
        (tmp_path / f"mqtt.db{end}").unlink(missing_ok=True)
    copy.rename(bench.path)
    bench.open()
    bench.position = bench.checkpoint
    bench.send(*more)
    bench.writer.retention.finish()
    require_exact(bench.url, [*first, *late, *more])


@pytest.mark.slow
def test_both_copies_together_have_everything(tmp_path: Path) -> None:
    """On another machine the copied journal holds what the copied database did not have yet."""
    path, url = tmp_path / "j", f"sqlite:///{tmp_path / 'mqtt.db'}"
    with opened(path) as journal:
        append(journal, 0, 100)
        store_all(url, path)
        append(journal, 100, 100)
        copies = back_up(url, path, tmp_path / "copy", ignore)
    assert [one.name for one in copies] == ["copy.journal", "copy"]
    url = f"sqlite:///{tmp_path / 'copy'}"
    with opened(tmp_path / "copy.journal") as journal:
        append(journal, 200, 10)
        store_all(url, tmp_path / "copy.journal")
    assert numbers(url) == list(range(210))


def test_a_copy_is_of_one_moment(tmp_path: Path) -> None:
    """A writer commits between the steps: it does not wait, and the copy neither starts again nor shows any of it."""
    path = tmp_path / "mqtt.db"
    bench = Workbench(tmp_path, {"topic": "#"})
    bench.send(*(("t", {"n": 1, "text": "x" * 500}) for _ in range(20)))
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE ballast (content BLOB)")
        database.execute("INSERT INTO ballast VALUES (zeroblob(?))", (2 * STEP_PAGES * 4096,))
    steps: list[int] = []

    def write(done: int, total: int) -> None:
        steps.append(done)
        thread = threading.Thread(target=bench.send, args=(("t", {"n": 2}),))
        thread.start()
        thread.join(10)
        assert not thread.is_alive()

    (copy,) = back_up(bench.url, tmp_path / "no journal", tmp_path / "copy.db", write)
    assert len(steps) > 2
    assert steps == sorted(steps)
    assert numbers(f"sqlite:///{copy}") == [1.0] * 20
    assert len(numbers(bench.url)) == 20 + len(steps)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    with closing(sqlite3.connect(copy)) as database:
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_backup_does_not_replace_its_source(tmp_path: Path) -> None:
    """Neither the database nor the journal."""
    bench = Workbench(tmp_path, {"topic": "#"})
    for target in (bench.path, tmp_path / "j"):
        with pytest.raises(AmqttDbError, match="choose another file"):
            back_up(bench.url, tmp_path / "j", target, ignore)


def test_a_failed_backup_keeps_the_older_one(tmp_path: Path) -> None:
    """A damaged source leaves neither half a copy nor none."""
    (tmp_path / "mqtt.db").write_bytes(b"SQLite format 3\x00" + b"x" * 5000)
    (tmp_path / "copy.db").write_bytes(b"older")
    with pytest.raises(AmqttDbError, match=r"backup .*copy\.db: .*; check the disk"):
        back_up(f"sqlite:///{tmp_path / 'mqtt.db'}", tmp_path / "j", tmp_path / "copy.db", ignore)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["copy.db", "mqtt.db"]
    assert (tmp_path / "copy.db").read_bytes() == b"older"


@pytest.mark.parametrize(
    ("url", "command"),
    [
        (
            "postgresql://iot:geheim@db:5433/iot?sslmode=require&password=geheim",
            "pg_dump --format=custom --file=iot.dump 'postgresql://iot@db:5433/iot?sslmode=require'",
        ),
        ("postgresql:///iot", "pg_dump --format=custom --file=iot.dump postgresql:///iot"),
        (
            "mariadb://iot:geheim@db/iot",
            "mariadb-dump --single-transaction --host=db --user=iot --password --result-file=iot.dump iot",
        ),
        (
            "mysql+pymysql://iot:geheim@db:3307/iot",
            "mysqldump --single-transaction --host=db --port=3307 --user=iot --password --result-file=iot.dump iot",
        ),
    ],
)
def test_a_server_has_its_own_tool(url: str, command: str, tmp_path: Path) -> None:
    """The command is complete but for the password, and the journal is copied before."""
    with opened(tmp_path / "j"), pytest.raises(DatabaseError) as error:
        back_up(url, tmp_path / "j", tmp_path / "iot.dump", ignore)
    journal, what, tool = str(error.value).replace(f"{tmp_path}/", "").splitlines()
    assert journal == "journal copied to iot.dump.journal"
    assert (what, tool.strip()) == ("the database is not backed up yet: its server has a tool for that", command)
    assert "geheim" not in str(error.value)
