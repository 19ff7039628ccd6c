"""What `export` and `tail` need beside the reader: files, and waiting."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from amqtt_db.config import Settings
from amqtt_db.errors import AmqttDbError
from amqtt_db.reader.follow import Follower
from amqtt_db.shape import Record


@contextmanager
def destination(path: Path | None) -> Iterator[BinaryIO]:
    """A file to write, which appears under its name when it is complete; without a path, standard output."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if path.is_dir():
        raise AmqttDbError(f"{path} is a directory; name a file")
    partial = path.with_name(f"{path.name}.part")
    try:
        with partial.open("wb") as file:
            yield file
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def follow(settings: Settings, topic: str, last: int, interval: float) -> Iterator[Record]:
    """The ``last`` records of a topic filter, and then those that come: a look every ``interval`` seconds, for ever."""
    follower = Follower(settings, topic)
    yield from follower.newest(last)
    while True:
        yield from follower.news()
        time.sleep(interval)
