"""The writer's process: a child of the broker, or of ``amqtt-db write``.

It reads its job from standard input, a line made by :func:`amqtt_db.ingest.supervisor.encode_job`, and works
until standard input ends, which happens however its parent ends.  Then it stores what it can within a deadline and
exits.  If something delays it, such as a server that does not answer, it exits anyway, and the journal keeps what is
not committed.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import signal
import sys
import threading
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from typing import Final

from amqtt_db.config import Settings
from amqtt_db.database.engines import engine_for
from amqtt_db.errors import AmqttDbError
from amqtt_db.ingest.child import begin_child
from amqtt_db.ingest.supervisor import BLOATED, GATHERED_NEWS, MISCONFIGURED
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.lock import acquire_lock
from amqtt_db.writer.loop import Stop, WriterLoop, is_empty
from amqtt_db.writer.writer import Writer

DEADLINE: Final = 10.0  # seconds to store what is waiting once the parent has gone
IDLE_DEADLINE: Final = 1.0  # the same if nothing is waiting, so only views may be left
GRACE: Final = 1.0  # seconds to end cleanly after that

_NAME: Final = "amqtt_db writer"  # in the log

logger = logging.getLogger(__name__)


def run_writer() -> int:
    """Run the child; return its exit status."""
    stop = Stop()
    signal.signal(signal.SIGTERM, lambda *_: stop.request(DEADLINE))
    settings = begin_child(_NAME, logs_others=True)
    if settings is None:
        return MISCONFIGURED
    threading.Thread(target=_watch_parent, args=(stop, settings.journal.path), daemon=True).start()
    return _work(settings, stop)


def exceeds_memory(limit: int) -> bool:
    """Return True if this process uses more than ``limit`` bytes of memory; False if that is unknown."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            pages = int(file.read().split()[1])
    except OSError:
        return False
    return pages * os.sysconf("SC_PAGE_SIZE") > limit


def relax_collector() -> None:
    """Run the garbage collector less often: a batch creates some ten thousand tuples and no cycles."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)


def _work(settings: Settings, stop: Stop) -> int:
    relax_collector()
    journal = settings.journal.path
    has_grown = partial(exceeds_memory, settings.writer.memory_limit)
    note = journal.with_name(journal.name + ".attempt")
    with ExitStack() as stack:
        try:
            stack.callback(os.close, acquire_lock(journal, settings.routes))
            guard = stack.enter_context(closing(CrashGuard(note, settings.writer.time_limit)))
        except AmqttDbError as error:
            logger.error("%s", error)
            return 1
        except OSError as error:
            logger.error(
                "cannot write %s: %s; it must be a regular file that this user can write to", note, error.strerror
            )
            return 1
        make_writer = partial(Writer, engine_for(settings.database), settings.routes, guard, keep=settings.keep)
        WriterLoop(journal, make_writer, guard, stop, has_grown).run()
    return BLOATED if has_grown() and not stop.is_requested else 0


def _watch_parent(stop: Stop, journal: Path) -> None:
    while news := os.read(sys.stdin.fileno(), 4096):  # a thread in Python's own buffer would break the process's exit
        stop.wake(paces=GATHERED_NEWS in news)
    seconds = IDLE_DEADLINE if is_empty(journal) else DEADLINE
    stop.request(seconds)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    faulthandler.dump_traceback_later(seconds + GRACE, exit=True, file=nowhere)  # it needs none of Python's locks


if __name__ == "__main__":
    sys.exit(run_writer())
