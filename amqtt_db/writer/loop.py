"""The writer's loop: store what is in the journal, from the checkpoint to its end, and never give up."""

from __future__ import annotations

import gc
import logging
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.snapshot import answer
from amqtt_db.errors import AmqttDbError, Backoff, DatabaseError, JournalError, OncePerCause
from amqtt_db.ingest.supervisor import QUIET
from amqtt_db.journal import Generation, JournalReader, read_backlog, read_progress, write_progress, write_report
from amqtt_db.message import Batch
from amqtt_db.writer.batch_size import USUAL_BATCH, StoredBatch, longest_batch
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.tally import Tally
from amqtt_db.writer.transaction import COLLISIONS, CheckpointMoved
from amqtt_db.writer.writer import Writer

logger = logging.getLogger(__name__)

IDLE: Final = 0.04  # seconds between checks of a quiet journal
ASLEEP: Final = 0.5  # the same once it has been quiet for long, if the parent wakes this process
LONGEST_FINISH: Final = 5.0  # seconds for the views that are due at the end
GATHER: Final = 0.025  # seconds after a small batch: a small commit keeps the disk as busy as a large one
SMALL: Final = 2500  # messages of a batch
FIRST_WAIT: Final = 0.1  # seconds before the second attempt after an error of the database
LONGEST_WAIT: Final = 5.0  # seconds between attempts, at most


@attrs.define
class Stop:
    """A request to end: once nothing is left to do, and at the deadline in any case.  It also passes on news."""

    is_requested: bool = False
    """True if the loop has been asked to end."""
    is_woken: bool = False
    """True if somebody tells of news, so that a quiet journal need not be checked often."""
    is_paced: bool = False
    """True if the parent gathers messages, and tells of each commit when enough have come for a batch."""
    _news: threading.Event = attrs.field(factory=threading.Event)
    _asked: threading.Event = attrs.field(factory=threading.Event)
    _deadline: float = float("inf")

    def request(self, within: float) -> None:
        """Ask the loop to store what is waiting, for at most ``within`` seconds, then to end."""
        self._deadline = time.monotonic() + within
        self.is_requested = True
        self._news.set()
        self._asked.set()

    def wake(self, *, paces: bool = False) -> None:
        """Tell the loop that there may be something in the journal; with ``paces``, enough for a batch."""
        self.is_woken = True
        self.is_paced = paces
        self._news.set()

    @property
    def is_overdue(self) -> bool:
        """True if the deadline has passed."""
        return time.monotonic() > self._deadline

    def rest(self, spent: float) -> None:
        """Sleep after a small batch, until enough for another one is there or the loop is asked to end.

        ``spent``: the seconds that the batch took.  On a slow disk, the news that came meanwhile wait like any other.
        """
        if self.is_paced and spent < GATHER:
            self.wait(ASLEEP)
        else:
            self._asked.wait(GATHER)

    def wait(self, seconds: float) -> None:
        """Sleep, but stop at news, or when the loop is asked to end."""
        if self.is_requested:
            time.sleep(min(seconds, max(0.0, self._deadline - time.monotonic())))
        else:
            self._news.wait(seconds)
            self._news.clear()


class BatchNotStored(Exception):  # noqa: N818 - it reads as what happened
    """A batch could not be stored; the cause says why."""

    def __init__(self, batch: Batch, error: Exception) -> None:
        super().__init__(str(error))
        self.batch = batch
        self.error = error


class WriterLoop:
    """Moves a journal's messages to the database."""

    def __init__(
        self,
        journal: Path,
        make_writer: Callable[..., Writer],
        guard: CrashGuard,
        stop: Stop,
        is_bloated: Callable[[], bool] = lambda: False,
    ) -> None:
        """``is_bloated`` returns True if the process has grown so much that a new one should replace it.

        ``make_writer`` takes the ``tally`` that the writer adds to.
        """
        self._path = journal
        self._make_writer = make_writer
        self._guard = guard
        self._stop = stop
        self._is_bloated = is_bloated
        self._tally = Tally()
        self._has_grown = False
        self._news_at = float("-inf")
        self._is_ahead = False
        self._reader: JournalReader | None = None
        self._writer: Writer | None = None
        self._numbers: dict[str, tuple[int, int]] = {}
        self._latest: tuple[Generation, int | None] | None = None
        self._identity: object = None
        self._told: set[str] = set()
        self._causes = OncePerCause()
        self._backoff = Backoff(FIRST_WAIT, LONGEST_WAIT)
        self._collisions = 0
        self._size = USUAL_BATCH
        self._longest = longest_batch(guard.limit)

    def run(self) -> None:
        """Store messages until asked to end; an error from the database or the journal only makes the loop wait."""
        try:
            while not self._stop.is_overdue and not self._has_grown:
                asked = self._stop.is_requested  # before reading, so that it sees everything committed by then
                worked = self._attempt_once()
                if not worked and asked:
                    break
            self._finish_views()
        finally:
            self._let_go()
            self._report(is_last=True)

    def _report(self, *, is_last: bool = False) -> None:
        """Write a report next to the journal; if that fails, go on."""
        if self._tally.is_due or is_last:
            with suppress(JournalError):
                write_report(self._path, self._tally.report())

    def _finish_views(self) -> None:
        """Refresh the views, as far as there is time."""
        end = time.monotonic() + LONGEST_FINISH
        if self._writer is not None:
            self._writer.finish_views(lambda: self._stop.is_overdue or time.monotonic() > end)

    def _attempt_once(self) -> bool:
        """Run once; return True if the next run should follow at once."""
        try:
            worked = self._round()
            self._relieved()
            if not worked:
                self._await_news()
            elif self._is_ahead and not self._stop.is_requested:
                self._stop.rest(time.monotonic() - self._news_at)
        except BatchNotStored as failure:
            return self._recover(failure.error, failure.batch)
        except Exception as error:  # whatever it is, ending must lose nothing
            return self._recover(error)
        self._has_grown = worked and self._is_bloated()  # replacing one that has stored nothing would not help
        return worked

    def _recover(self, error: Exception, batch: Batch | None = None) -> bool:
        """Prepare for the next attempt after an error; return True if it may follow at once."""
        if isinstance(error, CheckpointMoved) or self._is_collision(error):
            self._let_go()  # also forget what was learnt: a topic may be assigned elsewhere now
            return True
        self._endure(error, batch)
        return not isinstance(error, JournalError) and not self._is_done()

    def _is_done(self) -> bool:
        """Return True if the loop has been asked to end and no message waits, so that it need not wait either."""
        return self._stop.is_requested and is_empty(self._path)

    def _is_collision(self, error: Exception) -> bool:
        """Return True if another writer was in the way, and that has not happened too often."""
        if self._writer is None or not self._writer.is_collision(error):
            return False
        self._collisions += 1
        return self._collisions <= COLLISIONS

    def _round(self) -> bool:
        reader, writer = self._connected()
        has_read_all, self._is_ahead = self._is_ahead and self._latest is not None, False
        if not reader.has_news() and has_read_all:
            return False
        self._news_at = time.monotonic()  # after looking: the commit that was seen began before
        if self._latest is not None and self._store_next(reader, writer, *self._latest):
            return True
        previous: int | None = None
        generations = reader.generations()
        for generation in generations:
            number, _ = self._registered(writer, generation)
            if self._store_next(reader, writer, generation, previous):
                self._latest = (generation, previous) if generation is generations[-1] else None
                return True
            previous = number
        return False

    def _store_next(self, reader: JournalReader, writer: Writer, generation: Generation, previous: int | None) -> bool:
        number, position = self._numbers[generation.token]
        batch = reader.read(generation.token, position, max_messages=self._size)
        if batch is None:
            return False
        single = self._guard.is_suspicious(generation.token, batch.positions[0])
        if single:
            batch, _ = batch.split_at(1)
        self._numbers.pop(generation.token)  # until the transaction is known to be committed, the checkpoint is unknown
        started = time.perf_counter()
        try:
            tables = writer.store(number, previous, position, batch)
        except Exception as error:
            raise BatchNotStored(batch, error) from error
        self._require_same_file(writer)
        self._numbers[generation.token] = number, batch.end
        write_progress(self._path, generation.token, batch.end)
        stored = StoredBatch(len(batch), tables, time.perf_counter() - started)
        self._size = stored.next_size(self._longest)
        self._tally.add_batch(stored.messages, stored.seconds, batch.times[0])
        self._report()
        self._is_ahead = len(batch) < SMALL and not single and reader.has_read_all
        return True

    def _require_same_file(self, writer: Writer) -> None:
        """Raise DatabaseError if the file has been deleted: what was written to it is not stored."""
        if writer.identity() != self._identity:
            raise DatabaseError("the database's file was deleted or replaced while it was being written to")

    def _registered(self, writer: Writer, generation: Generation) -> tuple[int, int]:
        if generation.token not in self._numbers:
            self._numbers[generation.token] = writer.register(generation.token, generation.first)
            write_progress(self._path, generation.token, self._numbers[generation.token][1])
        return self._numbers[generation.token]

    def _connected(self) -> tuple[JournalReader, Writer]:
        if self._reader is None:
            self._reader = JournalReader(self._path)
        if self._writer is None:
            writer = self._make_writer(tally=self._tally)
            try:
                self._warn(writer.prepare())
                writer.require_whole_copy(read_progress(self._path))
            except BaseException:
                writer.close()
                raise
            self._writer, self._identity = writer, writer.identity()
        return self._reader, self._writer

    def _warn(self, weaknesses: Iterable[str]) -> None:
        """Log what the server's settings may lose, once however often it is connected to."""
        for weakness in weaknesses:
            if weakness not in self._told:
                logger.warning("%s", weakness)
                self._told.add(weakness)

    def _await_news(self) -> None:
        """Wait until something is committed."""
        looked_at = time.monotonic()  # before the journal is looked at: the next commit is told of if none is there yet
        while not self._stop.is_requested and self._reader is not None and not self._reader.changed():
            has_worked = self._writer is not None and self._writer.do_idle_work()
            self._report()
            is_quiet = self._stop.is_woken and not has_worked and looked_at - self._news_at > QUIET
            self._stop.wait(ASLEEP if is_quiet else IDLE)
            looked_at = time.monotonic()

    def _endure(self, error: Exception, batch: Batch | None) -> None:
        """Log once what is wrong, repair what can be repaired, and wait."""
        complaint = describe(error)
        self._tally.add_failure(complaint)
        if self._causes.is_new(complaint):
            foreseen = isinstance(error, (AmqttDbError, sa.exc.SQLAlchemyError, OSError))
            logger.error(
                "%s; retrying until it works; nothing is lost",
                complaint,
                exc_info=None if foreseen else error,
            )
        is_repaired = self._repair(batch)
        self._let_go()  # what was learnt may be about tables that are gone
        if is_repaired:
            return
        self._report()
        self._stop.wait(0.0 if self._is_done() else self._backoff.next_pause())

    def _repair(self, batch: Batch | None) -> bool:
        try:
            return self._writer is not None and batch is not None and self._writer.repair(batch)
        except (AmqttDbError, sa.exc.SQLAlchemyError, OSError):
            return False

    def _relieved(self) -> None:
        cause = self._causes.resolve()
        if cause is not None:
            logger.info("working again after: %s", cause)
        self._tally.note_relief()
        self._collisions = 0
        self._backoff.reset()

    def _let_go(self) -> None:
        if self._writer is not None:
            self._writer.close()
        if self._reader is not None:
            self._reader.close()
        self._writer = self._reader = None
        self._numbers.clear()
        self._latest = None
        self._size = USUAL_BATCH
        gc.collect()  # a writer consists of cycles, which the calmed collector would leave for long


def is_empty(journal: Path) -> bool:
    """Return True if no message waits in a journal, as far as is known without the database."""
    try:
        return read_backlog(journal).pending == 0
    except JournalError:
        return False


def describe(error: Exception) -> str:
    """Return an error as one line for the log: what the database said, without the statement's values."""
    if isinstance(error, sa.exc.DBAPIError):
        return answer(error)
    if isinstance(error, (DatabaseError, JournalError)):
        return str(error)
    return f"{type(error).__name__}: {error}"
