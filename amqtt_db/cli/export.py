"""What `export` and `tail` need beside the reader: files, and waiting."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

from amqtt_db.cli.show import visible
from amqtt_db.config import Settings
from amqtt_db.database.engines.urls import file_problem
from amqtt_db.errors import AmqttDbError, DatabaseError
from amqtt_db.reader.follow import Follower
from amqtt_db.record import Record


@contextmanager
def destination(path: Path | None) -> Iterator[BinaryIO]:
    """A file to write, which appears under its name when it is complete; without a path, standard output."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    reason = file_problem("output", path)
    if reason is not None:
        raise AmqttDbError(reason)
    partial = path.with_name(f"{path.name}.part")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


class Interrupt:
    """Ctrl-C as something that has come or not; it interrupts only waiting.  Use it as a context manager.

    An exception out of nowhere could strike where nobody can catch it.
    """

    def __init__(self) -> None:
        self.came = False
        self._waits = False

    def __enter__(self) -> Interrupt:
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *error: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def wait(self, seconds: float) -> None:
        """Sleep, as long as Ctrl-C does not come."""
        self._waits = True
        with suppress(KeyboardInterrupt):
            if not self.came:
                time.sleep(seconds)
        self._waits = False

    def _handle(self, *_: object) -> None:
        self.came = True
        if self._waits:
            raise KeyboardInterrupt


def follow(settings: Settings, topic: str, last: int, interval: float) -> Iterator[Record]:
    """The ``last`` records of a topic filter, then those that come: a look every ``interval`` seconds, until Ctrl-C.

    A database that goes away meanwhile is waited for; what it answers is told once, on stderr.
    """
    complaint = ""
    follower = Follower(settings, topic)
    with Interrupt() as interrupt:
        yield from follower.newest(last)
        while not interrupt.came:
            try:
                yield from takewhile(lambda _: not interrupt.came, follower.news())
                complaint = ""
            except DatabaseError as error:
                if complaint != str(error):
                    complaint = str(error)
                    print(f"{visible(complaint)}; trying again until it works", file=sys.stderr)  # noqa: T201
            interrupt.wait(interval)
