"""Batches are larger while messages spread over many tables, and only then."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from amqtt_db.config import load_section
from amqtt_db.database.engines import engine_for
from amqtt_db.errors import StructureError
from amqtt_db.journal import Journal, JournalReader
from amqtt_db.message import PUBLISH, Batch, flags
from amqtt_db.reader import read
from amqtt_db.writer import batch_size, loop
from amqtt_db.writer.batch_size import (
    LARGE_SECONDS,
    LARGEST_BATCH,
    ROWS_PER_TABLE,
    USUAL_BATCH,
    StoredBatch,
    longest_batch,
)
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.loop import Stop, WriterLoop
from amqtt_db.writer.transaction import TransactionWriter
from amqtt_db.writer.writer import Writer
from tests.workbench import Sent, Workbench


@pytest.mark.parametrize(
    ("stored", "size"),
    [
        (StoredBatch(USUAL_BATCH, 1, 0.1), USUAL_BATCH),
        (StoredBatch(USUAL_BATCH, USUAL_BATCH // ROWS_PER_TABLE, 0.1), USUAL_BATCH),
        (StoredBatch(USUAL_BATCH, 2000, 0.1), 2000 * ROWS_PER_TABLE),
        (StoredBatch(USUAL_BATCH, USUAL_BATCH, 0.1), LARGEST_BATCH),
        (StoredBatch(LARGEST_BATCH, 10_000, 1.0), LARGEST_BATCH),
        (StoredBatch(LARGEST_BATCH, LARGEST_BATCH, 1.0), LARGEST_BATCH),
        (StoredBatch(LARGEST_BATCH, 10, 0.5), USUAL_BATCH),
        (StoredBatch(LARGEST_BATCH, 0, 1.0), USUAL_BATCH),
        (StoredBatch(0, 0, 0.0), USUAL_BATCH),
    ],
)
def test_each_table_gets_a_few_rows(stored: StoredBatch, size: int) -> None:
    """Never fewer messages than usual, never more than the most; after a divided batch comes a usual one."""
    assert stored.next_size() == size


@pytest.mark.parametrize(("messages", "seconds"), [(USUAL_BATCH, 1.0), (10_000, 2.0), (20_000, 3.0)])
def test_a_larger_batch_does_not_last_long(messages: int, seconds: float) -> None:
    """If its messages take as long as those before."""
    size = StoredBatch(messages, 10_000, seconds).next_size()
    assert size == pytest.approx(messages * LARGE_SECONDS / seconds, abs=1)
    assert StoredBatch(messages, 10_000, 10 * LARGE_SECONDS).next_size() == USUAL_BATCH


def test_a_larger_batch_keeps_to_the_time_limit_of_user_code() -> None:
    """A limit of a second leaves room for half a second; none, or a long one, changes nothing."""
    assert (longest_batch(0), longest_batch(30), longest_batch(1)) == (LARGE_SECONDS, LARGE_SECONDS, 0.5)
    assert StoredBatch(USUAL_BATCH, USUAL_BATCH, 0.25).next_size(longest_batch(1)) == 2 * USUAL_BATCH


def test_the_writer_counts_the_tables_of_a_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, and none if the batch had to be divided."""
    bench = Workbench(tmp_path)

    def store(*values: int) -> int:
        batch = bench.batch(*(Sent(f"t/{value % 3}", {"v": value}) for value in values))
        return bench.writer.store(bench.number, None, batch.positions[0], batch)

    assert store(*range(30)) == 3
    write = TransactionWriter.write

    def reject_many(self: TransactionWriter, connection: Any, decoded: Any, *rest: Any) -> None:
        if decoded.counts["#"]["stored"] > 1:
            raise StructureError("too many")
        write(self, connection, decoded, *rest)

    monkeypatch.setattr(TransactionWriter, "write", reject_many)
    assert store(30, 31) == 0
    assert len(bench.records()) == 32


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every batch small, and time no object."""
    for module in (batch_size, loop):
        monkeypatch.setattr(module, "USUAL_BATCH", 10)
    monkeypatch.setattr(batch_size, "LARGEST_BATCH", 50)
    monkeypatch.setattr(batch_size, "LARGE_SECONDS", 1e9)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of the batches that are read."""
    found: list[int] = []
    read_journal = JournalReader.read

    def read_and_note(self: JournalReader, *arguments: Any, **options: Any) -> Batch | None:
        batch = read_journal(self, *arguments, **options)
        found.extend([] if batch is None else [len(batch)])
        return batch

    monkeypatch.setattr(JournalReader, "read", read_and_note)
    return found


def _drain(directory: Path, topic: Callable[[int], str], count: int) -> None:
    """Store messages as the writer's process does; each must be there once."""
    journal = Journal.open(directory / "journal", max_size=2**30, sync="never")
    guard, url = CrashGuard(directory / "attempt"), f"sqlite:///{directory / 'mqtt.db'}"
    for number in range(count):
        journal.append(flags(PUBLISH, 1), 1_700_000_000_000_000, 0, topic(number).encode(), b'{"v": %d}' % number)
    journal.commit()
    stop = Stop()
    stop.request(60)
    try:
        WriterLoop(journal.path, partial(Writer, engine_for(url), load_section({}).routes, guard), guard, stop).run()
    finally:
        journal.close()
        guard.close()
    assert sorted(record.properties()["v"][1] for record in read(url)) == list(range(count))


@pytest.mark.usefixtures("small")
def test_the_loop_takes_more_messages_for_many_tables(tmp_path: Path, sizes: list[int]) -> None:
    """From the second batch on."""
    _drain(tmp_path, lambda number: f"t/{number % 10}", 119)
    assert sizes == [10, 50, 50, 10]


@pytest.mark.usefixtures("small")
def test_the_loop_takes_no_more_messages_for_one_table(tmp_path: Path, sizes: list[int]) -> None:
    """However many there are."""
    _drain(tmp_path, lambda _: "t", 44)
    assert sizes == [10, 10, 10, 10, 5]


@pytest.mark.usefixtures("small")
def test_a_batch_that_fails_is_tried_again_as_a_usual_one(
    tmp_path: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that what fails once more is as little as usual."""
    store, failures = Writer.store, ["the disk is full"]

    def fail_once(self: Writer, number: int, previous: int | None, start: int, batch: Batch) -> int:
        if len(batch) > 10 and failures:
            raise OSError(failures.pop())
        return store(self, number, previous, start, batch)

    monkeypatch.setattr(Writer, "store", fail_once)
    _drain(tmp_path, lambda number: f"t/{number % 10}", 119)
    assert sizes == [10, 50, 10, 50, 50]
