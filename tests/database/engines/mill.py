"""A journal, a database server and the writer's loop between them: what the tests of trouble with servers stand on."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from amqtt_db.config import load_section
from amqtt_db.database.engines import engine_for
from amqtt_db.journal import Journal, read_progress
from amqtt_db.message import PUBLISH, flags
from amqtt_db.writer import loop as drain
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.writer import Writer
from tests.database.engines.servers import Site

PATIENCE = 60.0  # seconds that anything here may take at most
ARRIVAL = 1_700_000_000_000_000


class Mill:
    """One journal and its writer, in a thread of this process; ``url`` is the database's, the site's own by default."""

    def __init__(self, site: Site, *routes: dict[str, Any], name: str = "a", url: str | None = None) -> None:
        self._site, self._url = site, url or site.url
        self._routes = load_section({"routes": list(routes)} if routes else {}).routes
        self._journal = Journal.open(site.path / f"{name}.journal", max_size=2**30, sync="never")
        self._guard = CrashGuard(site.path / f"{name}.attempt")
        self._stop = drain.Stop()
        self._thread: threading.Thread | None = None
        site.stack.callback(self.end)

    def start(self) -> None:
        """Start the loop."""
        make_writer = partial(Writer, engine_for(self._url), self._routes, self._guard)
        loop = drain.WriterLoop(self._journal.path, make_writer, self._guard, self._stop)
        self._thread = threading.Thread(target=loop.run)
        self._thread.start()

    def send(self, *messages: tuple[str, Any]) -> None:
        """Put messages into the journal, as one group."""
        for topic, payload in messages:
            self._journal.append(flags(PUBLISH, 1), ARRIVAL, 0, topic.encode(), json.dumps(payload).encode())
        self._journal.commit()

    def until_stored(self) -> None:
        """Wait until everything has been stored, or become a dead letter."""
        until(self._is_done)

    def _is_done(self) -> bool:
        progress = read_progress(self._journal.path)
        return progress is not None and progress.position == self._journal.next

    def end(self) -> None:
        """Ask the loop to end, and wait for it."""
        if self._thread is not None:
            self._stop.request(PATIENCE)
            self._thread.join(PATIENCE)
            assert not self._thread.is_alive()
            self._thread = None
            self._guard.close()
            self._journal.close()


def until(holds: Callable[[], bool]) -> None:
    """Wait for what another thread or a server does."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def complaints(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the errors logged so far."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
