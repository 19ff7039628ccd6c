"""`tail`: follow what is stored until Ctrl-C, and wait for a database that is unavailable."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from itertools import takewhile

import typer

from amqtt_db.cli.show import escape_text
from amqtt_db.config import Settings
from amqtt_db.errors import DatabaseError, OncePerCause
from amqtt_db.reader.follow import Follower
from amqtt_db.record import Record


class Interrupt:
    """Notes Ctrl-C without raising an exception while records are read; use it as a context manager.

    An exception at any moment could occur where nobody can catch it.
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
        """Sleep until the time is over or Ctrl-C comes."""
        self._waits = True
        with suppress(KeyboardInterrupt):
            if not self.came:
                time.sleep(seconds)
        self._waits = False

    def _handle(self, *_: object) -> None:
        self.came = True
        if self._waits:
            raise KeyboardInterrupt


def repeat_until_interrupted(interval: float) -> Iterator[None]:
    """Yield at once, and then every ``interval`` seconds until Ctrl-C comes."""
    with Interrupt() as interrupt:
        while not interrupt.came:
            yield
            interrupt.wait(interval)


def follow_until_interrupted(settings: Settings, topic: str, last: int, interval: float) -> Iterator[Record]:
    """Yield the ``last`` records that a topic filter covers, then new ones; query every ``interval`` seconds.

    If the database becomes unavailable, wait for it; each cause is printed once, on stderr.
    """
    causes = OncePerCause()
    follower = Follower(settings, topic)
    with Interrupt() as interrupt:
        yield from follower.newest(last)
        while not interrupt.came:
            try:
                yield from takewhile(lambda _: not interrupt.came, follower.news())
                causes.resolve()
            except DatabaseError as error:
                if causes.is_new(str(error)):
                    typer.echo(f"{escape_text(str(error))}; trying again until it works", err=True)
            interrupt.wait(interval)
