"""All errors of the project, under one root; logging a repeated error once; pauses between attempts.

AmqttDbError
├── ConfigError           the YAML is wrong: all mistakes at once, each with its path
├── JournalError          the journal cannot be opened, read or written
│   └── JournalInUse      another process owns it, or another writer is using it
├── Rejected              this message cannot be stored as it is: it becomes a dead letter
│   ├── DecodeError       bytes → plain data
│   ├── EntityError       plain data → typed entity
│   └── StructureError    typed entity → rows
└── DatabaseError         the target database cannot be used; no message is at fault
    ├── NoDatabaseYet     nothing has been stored so far
    ├── UnreadableRecords some records hold values that nothing here writes
    └── Busy              another writer is changing the schema
"""

from __future__ import annotations

import os
import sysconfig
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import ClassVar, Final

import attrs

_PACKAGE: Final = os.path.join(os.path.dirname(__file__), "")
_LIBRARIES: Final = tuple(sysconfig.get_paths()[name] for name in ("stdlib", "platstdlib", "purelib", "platlib"))
_SAME_CAUSE_SECONDS: Final = 60.0
_MOST_CAUSES: Final = 100


class AmqttDbError(Exception):
    """The root of all errors that this project raises on purpose."""


@attrs.frozen
class Problem:
    """One mistake in the configuration: where it is ("" for the whole), what is wrong, what would be right.

    ``line`` is its line in the file, counted from 1, None if that is unknown.
    """

    path: str
    message: str
    line: int | None = attrs.field(default=None, eq=False)

    def __str__(self) -> str:
        line = None if self.line is None else f"line {self.line}"
        return ": ".join(part for part in (line, self.path, self.message) if part)


class ConfigError(AmqttDbError):
    """The configuration cannot be used.

    ``problems`` holds every mistake found in it, ``notes`` what is valid but may surprise.
    """

    def __init__(self, *problems: Problem, notes: Iterable[Problem] = ()) -> None:
        self.problems = problems
        self.notes = tuple(notes)
        super().__init__("\n".join(map(str, problems)))


class JournalError(AmqttDbError):
    """The journal cannot be opened, read or written; the message names the file and what to do."""


class JournalInUse(JournalError):  # noqa: N818 - it reads as what is the case
    """Another process owns the journal, or another writer is using it."""


class Rejected(AmqttDbError):  # noqa: N818 - it reads as what happened to the message
    """A message cannot be stored as it is. ``step`` names the step that rejected it."""

    step: ClassVar[str] = "store"


class DecodeError(Rejected):
    """The payload is not what the route's decoder reads."""

    step = "decode"


class EntityError(Rejected):
    """The decoded data does not make the route's entity."""

    step = "deserialize"


class StructureError(Rejected):
    """The record does not fit the route's relational model."""

    step = "structure"


def describe_fault(error: BaseException) -> str:
    """Return an error's class and its text; an error from user code may fail to give its text."""
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def find_place(error: BaseException) -> str:
    """Return file and line of the user's code that an error came through last, such as ``plc.py, line 7``.

    For a user's code among the installed packages, this is where it was entered; "" if no such code was.
    """
    places = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    foreign = [place for place in places if not place[0].startswith((_PACKAGE, "<"))]
    mine = [place for place in foreign if not place[0].startswith(_LIBRARIES)] or foreign[:1]
    return "".join(f"{os.path.basename(file)}, line {line}" for file, line in mine[-1:])


@contextmanager
def blame_message(where: str = "") -> Iterator[None]:
    """Turn whatever user code raises into a StructureError, blaming the message; its text includes ``where``."""
    try:
        yield
    except Rejected:
        raise
    except Exception as error:
        places = ", ".join(filter(None, (where, find_place(error))))
        raise StructureError(f"{describe_fault(error)} (in {places})" if places else describe_fault(error)) from error


class DatabaseError(AmqttDbError):
    """The target database cannot be used; the error's text says what it answered and what to do."""


class NoDatabaseYet(DatabaseError):  # noqa: N818 - it reads as what is the case
    """Nothing has been stored: the database and its tables are created when the writer first starts."""


class UnreadableRecords(DatabaseError):  # noqa: N818 - it reads as what is the case
    """Some records hold values that nothing here writes; all others were read."""


class Busy(DatabaseError):  # noqa: N818 - it reads as what is the case
    """Another writer is changing the schema, and this one has waited long enough."""


def format_count(number: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun: ``1 row``, ``2 rows``; ``many`` is the plural if adding s is not enough."""
    return f"{number} {one if number == 1 else many or f'{one}s'}"


class OncePerCause:
    """Tells whether a failure has a new cause: each is logged once until something succeeds, and once a minute at most.

    So neither causes that take turns fill the log, nor something that works every other time.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._told_at: dict[str, float] = {}
        self._current: list[str] = []

    def is_new(self, cause: str) -> bool:
        """Note a failure; return True if its cause should be logged."""
        now = self._clock()
        if cause in self._current or now - self._told_at.get(cause, float("-inf")) < _SAME_CAUSE_SECONDS:
            return False
        if len(self._told_at) >= _MOST_CAUSES:  # texts that are never the same must not fill the memory
            self._told_at.clear()
            self._current.clear()
        self._told_at[cause] = now
        self._current.append(cause)
        return True

    def resolve(self) -> str | None:
        """Note a success.  Return the cause that was logged last and is over now, or None."""
        cause = self._current[-1] if self._current else None
        self._current.clear()
        return cause


class Backoff:
    """Pauses between attempts, in seconds: each twice as long as the one before, from ``first`` to ``longest``."""

    def __init__(self, first: float, longest: float) -> None:
        self._first = self._next = first
        self._longest = longest

    def next_pause(self) -> float:
        """Return how long to wait now; the next pause will be longer."""
        pause, self._next = self._next, min(2 * self._next, self._longest)
        return pause

    def reset(self) -> None:
        """Start with the first pause again, after a success."""
        self._next = self._first
