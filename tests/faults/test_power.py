"""Power loss, as far as it can be simulated: all files at one random instant, with ends missing that no sync promised.

A test that is stopped copies what the operating system has; what a disk loses beyond that is cut off by hand.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from amqtt_db.journal import Journal, JournalReader, Sync
from amqtt_db.message import PUBLISH, flags
from tests.faults.conftest import Count
from tests.faults.load import Ledger, Load
from tests.faults.scene import Scene, Verdict
from tests.journal.test_salvage import overwrite

WAL_HEADER, FRAME_HEADER, PAGE = 32, 24, 4096


@contextmanager
def frozen(scene: Scene) -> Iterator[None]:
    """Broker and writer are both paused."""
    assert scene.process is not None
    processes = [scene.process.pid, scene.writer()]
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    scene.until(lambda: all(map(_stands_still, processes)), "both stand still")
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def _stands_still(process: int) -> bool:
    """Return True if a process has stopped: a signal takes time, and a write to the disk runs to its end."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def take(scene: Scene, names: str, directory: Path) -> None:
    """Copy the files of a scene as they are now, without SQLite's shared memory."""
    directory.mkdir(exist_ok=True)
    with frozen(scene):
        for file in scene.directory.glob(names):
            if not file.name.endswith((".lock", ".writer")):
                shutil.copyfile(file, directory / file.name)


def forget_memory(directory: Path) -> None:
    """Delete the index of the WAL, which is in memory only and does not outlive the machine."""
    for file in directory.glob("*-shm"):
        file.unlink()


@pytest.mark.fault("power loss of the whole machine")
def test_everything_at_one_instant(tmp_path: Path, rng: random.Random, count: Count, round_: int) -> None:
    """Journal and database copied under load: a broker on the copy has all that was acknowledged by then, once."""
    with Scene(tmp_path / "before") as scene:
        load = Load(scene.port)
        load.wait(rng.randrange(300, 1500))
        acknowledged = set(load.ledger.acknowledged)
        take(scene, "mqtt.*", tmp_path / "after")
        ledger = load.end()
    forget_memory(tmp_path / "after")
    with Scene(tmp_path / "after") as after:
        count(after.judge(Ledger(ledger.sent, acknowledged)))


@pytest.mark.fault("power loss in the database's log")
def test_the_database_loses_the_end_of_its_log(tmp_path: Path, rng: random.Random, count: Count, round_: int) -> None:
    """An SQLite database cut anywhere in its log, with a complete journal: everything is stored once."""
    after = tmp_path / "after"
    with Scene(tmp_path / "before") as scene:
        with scene.held():
            ledger = Load(scene.port, most=250).finished()
            take(scene, "mqtt.journal*", after)
        wanted = rng.randrange(1, len(ledger.acknowledged))
        scene.until_stored(wanted)
        take(scene, "mqtt.db*", after)
    cut_log(after / "mqtt.db", rng)
    forget_memory(after)
    with Scene(after) as again:
        count(again.judge(ledger))


def cut_log(database: Path, rng: random.Random) -> None:
    """Take a piece off a log's end, in the middle of a page, but nothing that has been copied out of it already."""
    shared = database.with_name(database.name + "-shm").read_bytes()
    # https://www.sqlite.org/walformat.html#the_wal_index_header
    frames, copied = struct.unpack_from("=I", shared, 16)[0], struct.unpack_from("=I", shared, 96)[0]
    left = rng.randint(copied, frames)
    length = WAL_HEADER + left * (FRAME_HEADER + PAGE) + rng.randrange(FRAME_HEADER + PAGE)
    os.truncate(database.with_name(database.name + "-wal"), length)


@pytest.mark.fault("power loss in the journal's log")
@pytest.mark.parametrize("sync", ["always", "1s"])
def test_what_was_synced_is_there(
    sync: Sync, tmp_path: Path, rng: random.Random, count: Count, round_: int, scale: int
) -> None:
    """If the log is cut anywhere after the last sync, or ends in random bytes, everything before can be read."""
    journal = Journal.open(tmp_path / "journal", max_size=2**30, sync=sync)
    wal = tmp_path / "journal-wal"
    number = 0
    copies = 0
    while copies < 5 * scale:
        safe, size = number, wal.stat().st_size
        for _ in range(rng.randrange(1, 20)):
            number = _commit_some(journal, number, rng)
            if sync == "always" or _synced(journal):
                safe, size = number, wal.stat().st_size
        if wal.stat().st_size < size:
            continue  # the log began again
        copies += 1
        _lose(tmp_path, rng, size)
        found = _numbers(tmp_path / "copy" / "journal")
        assert found[:safe] == list(range(safe))
        assert found == list(range(len(found)))
        count(Verdict(safe, len(found)))
    journal.close()


def _commit_some(journal: Journal, number: int, rng: random.Random) -> int:
    for _ in range(rng.randrange(1, 30)):
        journal.append(flags(PUBLISH, 1), number, 0, b"t", b"%d" % number + bytes(rng.randrange(400)))
        number += 1
    if journal.sync == "1s" and rng.random() < 0.2:
        journal._synced_at -= 1.0  # a second passes
    journal.commit()
    return number


def _synced(journal: Journal) -> bool:
    return not journal._unsynced


def _lose(directory: Path, rng: random.Random, synced: int) -> None:
    """Copy the journal; of its log keep what was synced, and of the rest a random part, perhaps followed by noise."""
    copy = directory / "copy"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for end in ("", "-wal"):
        shutil.copyfile(directory / f"journal{end}", copy / f"journal{end}")
    wal = copy / "journal-wal"
    size = wal.stat().st_size
    kept = rng.randint(synced, size)
    os.truncate(wal, kept)
    if rng.random() < 0.5:
        overwrite(wal, kept, rng.randbytes(rng.randrange(10_000)))


def _numbers(path: Path) -> list[int]:
    """Return the messages that a new owner of the journal finds."""
    Journal.open(path, max_size=2**30, sync="never").close()
    reader = JournalReader(path)
    try:
        found: list[int] = []
        for generation in reader.generations():
            position = generation.first
            while batch := reader.read(generation.token, position):
                kinds = zip(batch.times, batch.flags, strict=True)
                found += [time for time, sent in kinds if sent >> 4 == PUBLISH]
                position = batch.end
        return found
    finally:
        reader.close()


@pytest.mark.fault("a damaged journal: what can be read of it")
def test_a_damaged_journal(tmp_path: Path, rng: random.Random, count: Count, round_: int) -> None:
    """A journal with pages of random bytes is set aside; everything else is stored once, and the log says so."""
    scene = Scene(tmp_path).start()
    with scene.held():
        ledger = Load(scene.port, most=250).finished()
        scene.kill_both()
    journal = scene.journal
    with sqlite3.connect(journal) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    pages = journal.stat().st_size // PAGE
    assert pages > 8
    for page in rng.sample(range(4, pages), 2):
        overwrite(journal, page * PAGE, rng.randbytes(PAGE))
    with scene:
        scene.settle()
        stored = {(int(client), int(n)) for client, n in scene.sql("SELECT client, n FROM loads")}
        (aside,) = tmp_path.glob("mqtt.journal.damaged-*Z")
        assert scene.logged(f"set aside as {aside}")
        assert len(stored & ledger.acknowledged) > len(ledger.acknowledged) / 4
        count(scene.judge(Ledger(ledger.sent, ledger.acknowledged & stored), is_whole=False))
