"""Who kills the writer: a note of what is being decoded, kept where it survives the process.

User code decodes and types messages, and may take the whole process with it.  While it runs, a small file says on which
range; a range on which the writer died twice is run message by message, and a message on which it died twice again is
to blame.  The note is not synced to disk: it must survive a dead process, not a power cut.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import attrs
import orjson

from amqtt_db.message import Batch

FATAL: Final = 2  # deaths until a range is run message by message, and until a message is to blame
_SIZE: Final = 512


@attrs.frozen
class Suspect:
    """A range of positions of an opening, ``end`` excluded, and how often the writer died on it."""

    token: str = ""
    first: int = 0
    end: int = 0
    deaths: int = 0

    def covers(self, token: str, position: int) -> bool:
        """Whether a position lies in the range."""
        return self.token == token and self.first <= position < self.end


class Attempt:
    """The note beside a journal: ``path`` is its file, made private to the user."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._range, self._single = self._read()
        self._active = ""

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def is_suspicious(self, token: str, position: int) -> bool:
        """Whether the range at a position must be run message by message."""
        return self._range.deaths >= FATAL and self._range.covers(token, position)

    def is_to_blame(self, token: str, position: int) -> bool:
        """Whether the writer died twice on this very message."""
        return self._single.deaths >= FATAL and self._single.covers(token, position)

    @contextmanager
    def guard(self, batch: Batch) -> Iterator[None]:
        """Note that user code is at work on a batch; a process that dies inside leaves the note behind."""
        first = batch.positions[0]
        if self.is_suspicious(batch.token, first):
            self._single = _again(self._single, batch)
            self._write("single")
        else:
            self._range = _again(self._range, batch)
            self._write("range")
        try:
            yield
        except Exception:
            self._write("")
            raise
        self._write("")  # what is no Exception ends the process, and the note stays

    @contextmanager
    def pause(self) -> Iterator[None]:
        """While something else than user code is at work inside a guard."""
        active = self._active
        self._write("")
        yield
        self._write(active)

    def _read(self) -> tuple[Suspect, Suspect]:
        try:
            note = orjson.loads(os.pread(self._file, _SIZE, 0).rstrip())
            suspects = {name: Suspect(**note[name]) for name in ("range", "single")}
        except (ValueError, TypeError, KeyError):
            return Suspect(), Suspect()
        if note["active"] in suspects:
            died = suspects[note["active"]]
            suspects[note["active"]] = attrs.evolve(died, deaths=died.deaths + 1)
        return suspects["range"], suspects["single"]

    def _write(self, active: str) -> None:
        self._active = active
        note = {"active": active, "range": attrs.asdict(self._range), "single": attrs.asdict(self._single)}
        os.pwrite(self._file, orjson.dumps(note).ljust(_SIZE), 0)


def _again(suspect: Suspect, batch: Batch) -> Suspect:
    first = batch.positions[0]
    same = suspect.token == batch.token and suspect.first == first
    return Suspect(batch.token, first, batch.end, suspect.deaths if same else 0)
