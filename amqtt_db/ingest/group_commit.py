"""Group commit: from an event loop into the journal.

Entries are appended in memory and committed together after one more turn of the event loop, so a group holds whatever
arrived in the meantime.  The commit runs on the loop itself, because handing it to a thread takes longer than a fast
disk.  If commits turn out to be slow, a thread does them and the loop goes on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import perf_counter
from typing import Any, Final

from amqtt_db.errors import Backoff, JournalError, OncePerCause, format_count
from amqtt_db.ingest.coalesce import WriteCoalescer
from amqtt_db.ingest.gate import BackpressureGate
from amqtt_db.journal import NO_LONGER_FULL, Entry, Journal, Progress, read_progress
from amqtt_db.journal.report import SECONDS_BOUNDS, Distribution

logger = logging.getLogger(__name__)

HIGH: Final = 4 * 2**20
"""Bytes in memory, waiting for the journal, beyond which publishing clients are held back."""
MOST: Final = 64 * 2**20
"""Bytes in memory beyond which not even connections are recorded."""

_LOW: Final = HIGH // 2
_LINGER_BYTES: Final = 64 * 2**10  # a larger group does not linger
_SLOW: Final = 0.002
_FAST: Final = 0.001
_WEIGHT: Final = 0.05
_FIRST_RETRY: Final = 0.05
_LAST_RETRY: Final = 5.0
_MANY_DELAYS: Final = 1000  # counted together, because that costs less
_TRIM_PAUSE: Final = 0.01


class CommitFuture(asyncio.Future[None]):
    """Done once a group is committed.  Many tasks await it, so none may cancel it for the others.

    ``began`` is when the group's first entry came, by the clock of ``perf_counter``.
    """

    def __init__(self, *, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop=loop)
        self.began = perf_counter()

    def cancel(self, msg: Any | None = None) -> bool:
        """Do nothing: a cancelled task learns that when the group is committed."""
        return False

    def abandon(self) -> None:
        """Cancel it for all waiting tasks: the group will not be committed."""
        super().cancel()


class GroupCommit:
    """Appends to a journal and commits in groups; belongs to one event loop, which need not run yet.

    ``gate`` is closed while too many bytes wait in memory.  ``coalescer`` holds while the tasks that waited for a
    commit run.  ``began`` is when the last commit began, by ``perf_counter``.  With ``linger``, a small group waits
    that many seconds for more entries before it is committed.
    """

    def __init__(self, journal: Journal, loop: asyncio.AbstractEventLoop | None = None, *, linger: float = 0.0) -> None:
        self.gate = BackpressureGate()
        self.coalescer = WriteCoalescer()
        self._journal = journal
        self._loop = loop or asyncio.get_running_loop()
        self._linger = linger
        self._lingering: asyncio.TimerHandle | None = None
        self._attention = HIGH  # uncommitted bytes beyond which an append has consequences
        self._thread = ThreadPoolExecutor(1, "amqtt_db journal")
        self._group: CommitFuture | None = None
        self._sealed: list[CommitFuture] = []
        self._delays = Distribution.empty(SECONDS_BOUNDS)
        self._new_delays: list[float] = []
        self._sealed_end = journal.next
        self._listeners: list[Callable[[int], None]] = []
        self._scheduled = False
        self._writing: asyncio.Future[None] | None = None
        self.began = self._seconds = 0.0
        self._slow = self._failing = self._full = False
        self._backoff = Backoff(_FIRST_RETRY, _LAST_RETRY)
        self._causes = OncePerCause()
        self._trim_causes = OncePerCause()
        self._held = 0
        self._room = asyncio.Event()
        self._room.set()
        self._progress: Progress | None = None
        self._trim_to: Progress | None = None
        self._rest: asyncio.TimerHandle | None = None
        self._refused_before = 0
        self._closed = False

    @property
    def position(self) -> int:
        """The position that the next entry will get."""
        return self._journal.next

    @property
    def blocked(self) -> bool:
        """True if the journal is full or cannot be written; it then takes only small entries that must not be lost."""
        return self._failing or self._full

    @property
    def accepts(self) -> bool:
        """True if a message can be appended at once: nothing is held back, so it overtakes no other."""
        return not (self._failing or self._full or self._held or self.gate.closed)

    @property
    def received(self) -> int:
        """The number of messages that this process has taken."""
        return self._journal.received

    @property
    def refused(self) -> int:
        """The number of messages that all owners of this journal have refused."""
        return self._journal.refused

    @property
    def size(self) -> int:
        """The bytes in the journal, committed or not."""
        return self._journal.size

    @property
    def delays(self) -> Distribution:
        """The seconds from the first entry of each group to its commit, after which it is acknowledged."""
        self._add_delays()
        return self._delays

    @property
    def overwhelmed(self) -> bool:
        """True if there is no memory left for anything."""
        return self._journal.uncommitted > MOST

    def append(self, flags: int, time: int, session: int, topic: bytes, payload: bytes) -> CommitFuture:
        """Append an entry, see :meth:`Journal.append`; the future returned is done once the entry is committed.

        After :meth:`close` nothing is accepted, and the future is cancelled, so that nothing delays the shutdown.
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
        if journal.full or journal.uncommitted > self._attention:
            self._react()
        return group

    def extend(self, entries: Sequence[Entry]) -> CommitFuture:
        """Append many entries at once; the future returned is done once all of them are committed.

        They get consecutive positions, beginning with :attr:`position`.  After :meth:`close`: see :meth:`append`.
        """
        if self._closed:
            return _abandoned(self._loop)
        journal = self._journal
        journal.extend(entries)
        if self._group is None:
            self._group = CommitFuture(loop=self._loop)
        group = self._group
        if not self._scheduled:
            self._schedule()
        if journal.full or journal.uncommitted > self._attention:
            self._react()
        return group

    def add_listener(self, listener: Callable[[int], None]) -> None:
        """Call ``listener`` after each commit, with the position behind the last committed entry.

        It runs in the same turn of the loop as the tasks that waited for the commit, before them, and while the
        coalescer holds.
        """
        self._listeners.append(listener)

    def remember(self, scope: str, key: str, value: bytes | None) -> None:
        """Keep a note, see :meth:`Journal.remember`; the future of the next entries is done once it is committed.

        There may be no entries: ``extend(())``.
        """
        self._journal.remember(scope, key, value)

    def notes(self, scope: str) -> Mapping[str, bytes]:
        """Return the current notes of a scope, including those that are not committed yet."""
        return self._journal.notes(scope)

    def refuse(self) -> None:
        """Count a message that is not accepted."""
        self._journal.refuse()

    async def wait_for_room(self, size: int) -> None:
        """Wait until the journal has room again for ``size`` bytes."""
        size += 1  # so that even an empty message is held
        self._held += size
        try:
            self._review()
            while self.blocked:
                await self._room.wait()
        finally:
            self._held -= size

    def tick(self) -> None:
        """Do the periodic work, about once a second: look for the file, trim, sync, count."""
        self._journal.check_file()
        progress = read_progress(self._journal.path)
        if progress != self._progress:
            self._progress = self._trim_to = progress
        self._review()
        if not self._scheduled and (self._trim_to is not None or self._journal.busy):
            self._schedule()

    async def flush(self) -> None:
        """Commit what was appended, if possible."""
        while self._writing is not None:
            await asyncio.wait([self._writing])
        if not self._closed:
            self._commit(aside=False)

    async def close(self) -> None:
        """Commit what was appended, if possible, and close the journal.  Afterwards nothing waits for it."""
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
        """Commit after one more turn of the loop, after lingering, or after the current commit."""
        self._scheduled = True
        if self._writing is not None:
            return
        if self._linger and self._journal.uncommitted <= _LINGER_BYTES:
            self._attention = _LINGER_BYTES
            self._lingering = self._loop.call_later(self._linger, self._stop_lingering)
        else:
            self._loop.call_soon(self._schedule_now)

    def _schedule_now(self) -> None:
        self._loop.call_soon(self._commit)

    def _stop_lingering(self) -> None:
        """Commit a group that waits for more entries."""
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
            self._attention = HIGH
            self._schedule_now()

    def _react(self) -> None:
        """React to too many bytes in memory, or a full journal."""
        self._stop_lingering()
        self._review()

    def _commit(self, aside: bool = True) -> None:
        """Commit what was appended: in a thread if commits are slow, unless ``aside`` is false."""
        if self._closed or self._writing is not None:
            return
        self._scheduled = False
        self._trim()
        self._seal()
        if len(self._new_delays) > _MANY_DELAYS:
            self._add_delays()
        self.began = started = perf_counter()
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
        if self._causes.resolve() is not None:
            logger.warning(
                "journal %s can be written again; %s refused in the meantime", self._journal.path, self._refusals()
            )
        self._failing = self._scheduled = False
        self._backoff.reset()
        self._seconds += _WEIGHT * (seconds - self._seconds)
        self._slow = self._seconds > (_FAST if self._slow else _SLOW)
        for listener in self._listeners:
            self._loop.call_soon(listener, self._sealed_end)
        now = perf_counter()
        for group in self._sealed:
            self._new_delays.append(now - group.began)
            group.set_result(None)
        self._sealed.clear()
        self.coalescer.hold()
        self._loop.call_soon(self.coalescer.flush_all)
        self._review()
        self._continue()

    def _add_delays(self) -> None:
        self._delays = self._delays.add(*self._new_delays)
        self._new_delays.clear()

    def _continue(self) -> None:
        if self._group is not None:
            self._schedule()
        elif self._journal.busy and self._rest is None:
            self._rest = self._loop.call_later(_TRIM_PAUSE, self._commit_rest)

    def _commit_rest(self) -> None:
        self._rest = None
        if not self._scheduled:
            self._commit()

    def _failed(self, error: JournalError) -> None:
        if not self._failing:
            self._refused_before = self._journal.refused
        if self._causes.is_new(str(error)):
            logger.error("%s; until it works, QoS 1 and 2 are not acknowledged and QoS 0 is refused", error)
        self._failing = self._scheduled = True
        self._review()
        self._loop.call_later(self._backoff.next_pause(), self._commit)

    def _seal(self) -> None:
        self._sealed_end = self._journal.seal()
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
            if self._trim_causes.is_new(str(error)):
                logger.warning("cannot trim: %s", error)
        else:
            self._trim_causes.resolve()

    def _review(self) -> None:
        """Decide whether entries are accepted, and whether clients may go on publishing."""
        journal = self._journal
        full = journal.size >= journal.max_size * (NO_LONGER_FULL if self._full else 1)
        if full != self._full:
            self._full = full
            self._log_full()
        if self.blocked:
            self._room.clear()
        else:
            self._room.set()
        waiting = self._held + journal.uncommitted
        if waiting > HIGH:
            self.gate.close()
        elif waiting < _LOW and self.gate.closed:
            self.gate.open()

    def _log_full(self) -> None:
        journal = self._journal
        if self._full:
            self._refused_before = journal.refused
            logger.error(
                "journal %s is full: %d bytes wait for the writer, max_size is %d; until it catches up, QoS 1 and 2 are"
                " not acknowledged and QoS 0 is refused; check why nothing reaches the database, or raise max_size",
                journal.path, journal.size, journal.max_size,
            )  # fmt: skip
        else:
            logger.warning("journal %s has room again; %s refused in the meantime", journal.path, self._refusals())

    def _refusals(self) -> str:
        return format_count(self._journal.refused - self._refused_before, "message")


def _abandoned(loop: asyncio.AbstractEventLoop) -> CommitFuture:
    group = CommitFuture(loop=loop)
    group.abandon()
    return group
