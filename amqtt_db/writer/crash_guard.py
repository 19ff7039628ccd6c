"""Finding what kills the writer: a note of what user code is working on, which survives the process.

User code decodes and types messages and lays out records, and may kill the whole process.  While it runs, a small file
names the range of messages; a range on which the writer died twice is run message by message, and a message on which it
died twice more is to blame.  User code that runs outside batches, for views or retention, is noted as a task; one on
which the writer died twice is skipped for a while.  The note is not synced to disk: it must survive a dead process, not
a power cut.

User code that does not return counts as a death too.  An operating system timer ends the process, because no Python
thread can be relied on: a runaway regular expression never releases the interpreter's lock.  Before the process ends,
:mod:`faulthandler` writes after the note where the code was.
"""

from __future__ import annotations

import faulthandler
import hashlib
import logging
import os
import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import orjson

import amqtt_db
from amqtt_db.errors import StructureError
from amqtt_db.message import Batch

logger = logging.getLogger(__name__)

FATAL: Final = 2  # deaths before a range is run message by message, and before a message or a task is blamed
LEFT_ALONE: Final = 3600.0  # seconds from a task's last death to its next attempt
MOST_TASKS: Final = 20  # tasks whose deaths are remembered
_NOTE_SIZE: Final = 4096
_FRAME: Final = re.compile(r'File "(.*)", line (\d+) in (.*)')
_OWN: Final = str(Path(amqtt_db.__file__).parent)


@attrs.frozen
class Suspect:
    """A range of positions in a generation, ``end`` excluded; how often the writer died on it, and why, if known."""

    token: str = ""
    first: int = 0
    end: int = 0
    deaths: int = 0
    cause: str = ""

    def covers(self, token: str, position: int) -> bool:
        """Return True if a position lies in the range."""
        return self.token == token and self.first <= position < self.end


@attrs.frozen
class SuspectTask:
    """How often the writer died on a task, and when it last did, in seconds since 1970."""

    deaths: int = 0
    died: float = 0.0

    @property
    def is_left_alone(self) -> bool:
        """True if the writer died on it too often, and recently."""
        return self.deaths >= FATAL and time.time() - self.died < LEFT_ALONE


class CrashGuard:
    """The note next to a journal: ``path`` is its file, made private to the user.

    ``limit`` is how many seconds user code may take for one batch or task before this process is ended; 0 means no
    limit.  There is one limit per process.  All methods raise OSError, with the path, if the file cannot be written.
    """

    def __init__(self, path: Path, limit: float = 0) -> None:
        self._path = path
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self.limit: Final = limit
        self._range = self._single = Suspect()
        self._tasks: dict[str, SuspectTask] = {}
        self._active = ""
        self._encode_known()
        self._read(self._read_trace())
        if limit:
            faulthandler.register(signal.SIGALRM, file=self._file, all_threads=False, chain=True)

    def close(self) -> None:
        """Close the file."""
        if self.limit:
            faulthandler.unregister(signal.SIGALRM)
        os.close(self._file)

    def is_suspicious(self, token: str, position: int) -> bool:
        """Return True if the range at a position must be run message by message."""
        return self._range.deaths >= FATAL and self._range.covers(token, position)

    def is_to_blame(self, token: str, position: int) -> bool:
        """Return True if the writer died twice on exactly this message."""
        return self._single.deaths >= FATAL and self._single.covers(token, position)

    @property
    def reason(self) -> str:
        """Why that message is to blame."""
        return f"it ended the writer twice{f': {self._single.cause}' if self._single.cause else ''}"

    @contextmanager
    def watch(self, batch: Batch) -> Iterator[None]:
        """Note that user code is working on a batch; a process that dies inside leaves the note behind."""
        first = batch.positions[0]
        before = self._range, self._single
        is_single = self.is_suspicious(batch.token, first)
        if is_single:
            self._single = _again(self._single, batch)
        else:
            self._range = _again(self._range, batch)
        if before != (self._range, self._single):
            self._encode_known()
        self._write("single" if is_single else "range")
        with self._run():
            yield

    @contextmanager
    def watch_task(self, name: str) -> Iterator[None]:
        """Note that user code is working on something that belongs to no batch.

        Raises StructureError if the writer has died on it twice, until some time has passed.
        """
        name = hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()  # the note is small
        if self._tasks.get(name, SuspectTask()).is_left_alone:
            raise StructureError(f"it ended the writer twice, so it is skipped for {LEFT_ALONE / 60:g} minutes")
        self._write("task " + name)
        with self._run():
            yield
        if self._tasks.pop(name, None) is not None:
            self._encode_known()
            self._write("")

    @contextmanager
    def _run(self) -> Iterator[None]:
        """Limit the time of the noted work, and erase the note afterwards, unless the process ends."""
        try:
            with self._timed():
                yield
        except Exception:
            self._write("")
            raise
        self._write("")  # anything but an Exception ends the process, and the note stays

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Erase the note and stop the timer while something other than user code runs."""
        active = self._active
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._write("")
        yield
        self._write(active)
        signal.setitimer(signal.ITIMER_REAL, self.limit)

    @contextmanager
    def _timed(self) -> Iterator[None]:
        signal.setitimer(signal.ITIMER_REAL, self.limit)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)

    def _read_trace(self) -> str:
        """Return where user code was when it took too long in the previous process; the next trace replaces it."""
        trace = os.pread(self._file, 65536, _NOTE_SIZE).decode(errors="replace")
        os.ftruncate(self._file, min(_NOTE_SIZE, os.fstat(self._file).st_size))
        os.lseek(self._file, _NOTE_SIZE, os.SEEK_SET)
        frames = [found.groups() for found in _FRAME.finditer(trace)]
        own = next((index for index, frame in enumerate(frames) if frame[0].startswith(_OWN)), len(frames))
        place = " from ".join(f"line {line} of {file} in {name}" for file, line, name in frames[:own][:3])
        return f"user code took longer than {self.limit:g} s{f', at {place}' if place else ''}" if trace else ""

    def _read(self, cause: str) -> None:
        """Read the previous process's note, and count its death if user code killed it."""
        try:
            note = orjson.loads(os.pread(self._file, _NOTE_SIZE, 0).rstrip())
            suspects = {name: Suspect(**note[name]) for name in ("range", "single")}
            tasks = {name: SuspectTask(*task) for name, task in note.get("tasks", {}).items()}
            active = str(note["active"])
        except (ValueError, TypeError, KeyError, AttributeError):
            return
        if active in suspects:
            died = suspects[active]
            suspects[active] = attrs.evolve(died, deaths=died.deaths + 1, cause=cause[:300])
        elif active:
            task = tasks.pop(active.partition(" ")[2], SuspectTask())
            tasks[active.partition(" ")[2]] = SuspectTask(task.deaths + 1, time.time())
        if active and cause:
            logger.error("%s; the writer was ended and will try again: see `time_limit`", cause)
        self._range, self._single = suspects["range"], suspects["single"]
        self._tasks = dict(list(tasks.items())[-MOST_TASKS:])
        self._encode_known()
        self._write("")  # so that this death is not counted twice

    def _encode_known(self) -> None:
        """Encode what a note says besides what is active: a batch has several notes, which differ only in that."""
        suspects = {"range": attrs.asdict(self._range), "single": attrs.asdict(self._single)}
        tasks = {name: attrs.astuple(task) for name, task in self._tasks.items()}
        self._known = orjson.dumps({**suspects, "tasks": tasks}).removeprefix(b"{")

    def _write(self, active: str) -> None:
        self._active = active
        note = b'{"active":"%s",%s' % (active.encode(), self._known)
        try:
            os.pwrite(self._file, note.ljust(_NOTE_SIZE), 0)
        except OSError as error:
            raise OSError(error.errno, error.strerror, str(self._path)) from error


def _again(suspect: Suspect, batch: Batch) -> Suspect:
    first = batch.positions[0]
    same = suspect.token == batch.token and suspect.first == first
    deaths, cause = (suspect.deaths, suspect.cause) if same else (0, "")
    return Suspect(batch.token, first, batch.end, deaths, cause)
