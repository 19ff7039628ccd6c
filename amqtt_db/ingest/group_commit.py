"""From the broker's event loop into the journal: group commit, and what happens when the journal cannot take more.

Entries are appended in memory and committed together after one more turn of the event loop, so that a group holds
whatever arrived meanwhile.  The commit runs on the loop itself, for handing it to a thread costs more than a fast disk
takes; where commits turn out to be slow, a thread does them and the loop goes on.
"""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any, Final

from amqtt_db.errors import JournalError, format_count
from amqtt_db.ingest.coalesce import WriteCoalescer
from amqtt_db.ingest.gate import BackpressureGate
from amqtt_db.journal import NO_LONGER_FULL, Journal, Progress, read_progress

logger = logging.getLogger(__name__)

HIGH: Final = 4 * 2**20
"""Bytes in memory, waiting for the journal, beyond which clients that publish are held back."""
MOST: Final = 64 * 2**20
"""Bytes in memory beyond which not even connections are recorded."""

_LOW: Final = HIGH // 2
_SLOW: Final = 0.002
_FAST: Final = 0.001
_WEIGHT: Final = 0.05
_FIRST_RETRY: Final = 0.05
_LAST_RETRY: Final = 5.0
_TRIM_PAUSE: Final = 0.01


class CommitFuture(asyncio.Future[None]):
    """Done once a group is committed.  Many tasks await it, so that none of them can cancel it for the others."""

    def cancel(self, msg: Any | None = None) -> bool:
        """Cancel nothing: a task that is cancelled learns so when the group is committed."""
        return False

    def abandon(self) -> None:
        """Cancel it for all who wait: it will not be committed."""
        super().cancel()


class GroupCommit:
    """Appends to a journal and commits in groups; belongs to one event loop, which need not run yet.

    ``gate`` is closed while too many bytes wait in memory.  ``cork`` is in while those run who waited for a commit.
    """

    def __init__(self, journal: Journal, loop: asyncio.AbstractEventLoop | None = None) -> None:
        self.gate = BackpressureGate()
        self.coalescer = WriteCoalescer()
        self._journal = journal
        self._loop = loop or asyncio.get_running_loop()
        self._thread = ThreadPoolExecutor(1, "amqtt_db journal")
        self._group: CommitFuture | None = None
        self._sealed: list[CommitFuture] = []
        self._scheduled = False
        self._writing: asyncio.Future[None] | None = None
        self._seconds = 0.0
        self._slow = False
        self._failing = False
        self._full = False
        self._retry = _FIRST_RETRY
        self._held = 0
        self._room = asyncio.Event()
        self._room.set()
        self._progress: Progress | None = None
        self._trim_to: Progress | None = None
        self._spare: asyncio.TimerHandle | None = None
        self._refused_before = 0
        self._closed = False

    @property
    def position(self) -> int:
        """The position that the next entry will get."""
        return self._journal.next

    @property
    def blocked(self) -> bool:
        """Whether the journal is full or cannot be written; then only what is small and must not be lost goes in."""
        return self._failing or self._full

    @property
    def overwhelmed(self) -> bool:
        """Whether there is no memory left for anything."""
        return self._journal.uncommitted > MOST

    def append(self, flags: int, time: int, session: int, topic: bytes, payload: bytes) -> CommitFuture:
        """Append an entry, see :meth:`Journal.append`; what is returned is done once the entry is committed.

        After the end nothing is taken, and what is returned is cancelled: who waited would hold up the broker's end.
        """
        if self._closed:
            return _abandoned(self._loop)
        journal = self._journal
        journal.append(flags, time, session, topic, payload)
        group = self._group
        if group is None:
            group = self._group = CommitFuture(loop=self._loop)
        if not self._scheduled:
            self._schedule()
        if journal.full or journal.uncommitted > HIGH:
            self._review()
        return group

    def refuse(self) -> None:
        """Count a message that is not taken."""
        self._journal.refuse()

    async def room(self, size: int) -> None:
        """Wait until the journal takes entries again, with ``size`` bytes to append."""
        self._held += size
        try:
            self._review()
            while self.blocked:
                await self._room.wait()
        finally:
            self._held -= size

    def tick(self) -> None:
        """What is to be done about once a second: trim behind the writer's progress, sync, count."""
        progress = read_progress(self._journal.path)
        if progress != self._progress:
            self._progress = self._trim_to = progress
        self._review()
        if not self._scheduled and (self._trim_to is not None or self._journal.busy):
            self._schedule()

    async def flush(self) -> None:
        """Commit what was appended, if it can be."""
        while self._writing is not None:
            await asyncio.wait([self._writing])
        if not self._closed:
            self._commit(aside=False)

    async def close(self) -> None:
        """Commit what was appended, if it can be, and give up the journal.  Nobody waits for it afterwards."""
        await self.flush()
        if self._closed:
            return
        self._closed = True
        if self._journal.uncommitted:
            logger.error(
                "journal %s: %d bytes could not be written before it was closed; none of it was acknowledged, but QoS 0"
                " is lost", self._journal.path, self._journal.uncommitted,
            )  # fmt: skip
        for group in self._sealed:
            group.abandon()
        self._thread.shutdown()
        self._journal.close()

    def _schedule(self) -> None:
        """Commit after one more turn of the loop, or after the commit that is under way."""
        self._scheduled = True
        if self._writing is None:
            self._loop.call_soon(self._schedule_now)

    def _schedule_now(self) -> None:
        self._loop.call_soon(self._commit)

    def _commit(self, aside: bool = True) -> None:
        """Commit what was appended: where that is slow, in a thread, unless ``aside`` is false."""
        if self._closed or self._writing is not None:
            return
        self._scheduled = False
        self._trim()
        self._seal()
        started = perf_counter()
        if self._slow and aside:
            self._writing = self._loop.run_in_executor(self._thread, self._journal.write)
            self._writing.add_done_callback(lambda written: self._written(written, started))
            return
        try:
            self._journal.write()
        except JournalError as error:
            self._failed(error)
        else:
            self._committed(perf_counter() - started)

    def _written(self, written: asyncio.Future[None], started: float) -> None:
        self._writing = None
        error = written.exception()
        if error is not None:
            self._failed(error if isinstance(error, JournalError) else JournalError(repr(error)))
            return
        self._committed(perf_counter() - started)

    def _committed(self, seconds: float) -> None:
        if self._failing:
            logger.warning("journal %s can be written again; %s refused meanwhile", self._journal.path, self._since())
        self._failing = self._scheduled = False
        self._retry = _FIRST_RETRY
        self._seconds += _WEIGHT * (seconds - self._seconds)
        self._slow = self._seconds > (_FAST if self._slow else _SLOW)
        for group in self._sealed:
            group.set_result(None)
        self._sealed.clear()
        self.coalescer.hold()
        self._loop.call_soon(self.coalescer.flush_all)
        self._review()
        self._go_on()

    def _go_on(self) -> None:
        if self._group is not None:
            self._schedule()
        elif self._journal.busy and self._spare is None:
            self._spare = self._loop.call_later(_TRIM_PAUSE, self._commit_spare)

    def _commit_spare(self) -> None:
        self._spare = None
        if not self._scheduled:
            self._commit()

    def _failed(self, error: JournalError) -> None:
        if not self._failing:
            self._refused_before = self._journal.refused
            logger.error("%s; until it works, QoS 1 and 2 are not acknowledged and QoS 0 is refused", error)
        self._failing = self._scheduled = True
        self._review()
        self._loop.call_later(self._retry, self._commit)
        self._retry = min(2 * self._retry, _LAST_RETRY)

    def _seal(self) -> None:
        self._journal.seal()
        if self._group is not None:
            self._sealed.append(self._group)
            self._group = None

    def _trim(self) -> None:
        progress, self._trim_to = self._trim_to, None
        if progress is None:
            return
        try:
            self._journal.trim(progress)
        except JournalError as error:
            logger.warning("cannot trim: %s", error)

    def _review(self) -> None:
        """Decide anew whether entries are taken, and whether clients may go on publishing."""
        journal = self._journal
        full = journal.size >= journal.max_size * (NO_LONGER_FULL if self._full else 1)
        if full != self._full:
            self._full = full
            self._tell_full()
        if self.blocked:
            self._room.clear()
        else:
            self._room.set()
        waiting = self._held + journal.uncommitted
        if waiting > HIGH:
            self.gate.close()
        elif waiting < _LOW and self.gate.closed:
            self.gate.open()

    def _tell_full(self) -> None:
        journal = self._journal
        if self._full:
            self._refused_before = journal.refused
            logger.error(
                "journal %s is full: %d bytes wait for the writer, max_size is %d; until it catches up, QoS 1 and 2 are"
                " not acknowledged and QoS 0 is refused; see why the database does not take them, or raise max_size",
                journal.path, journal.size, journal.max_size,
            )  # fmt: skip
        else:
            logger.warning("journal %s has room again; %s refused meanwhile", journal.path, self._since())

    def _since(self) -> str:
        return format_count(self._journal.refused - self._refused_before, "message")


def _abandoned(loop: asyncio.AbstractEventLoop) -> CommitFuture:
    group = CommitFuture(loop=loop)
    group.abandon()
    return group
