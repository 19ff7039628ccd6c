"""The writer's process: started by the plugin, or in the foreground by ``amqtt-db write``.

As a child it reads one line of JSON from standard input, ``{"where": …, "config": …, "level": …}``, and works until
standard input ends, which it does when its parent ends, however that happens.  Then it stores what it can within a
deadline and exits.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import orjson

from amqtt_db.config import Settings, load
from amqtt_db.engines import engine_for
from amqtt_db.errors import AmqttDbError, ConfigError
from amqtt_db.writer.attempt import Attempt
from amqtt_db.writer.claim import claim
from amqtt_db.writer.drain import Drain, Stop
from amqtt_db.writer.writer import Writer

DEADLINE: Final = 10.0  # seconds to store what is waiting once the parent has gone
MISCONFIGURED: Final = 2  # exit status: starting again would not help
BLOATED: Final = 75  # exit status: starting again makes it small

_BEHIND_THE_BROKER: Final = (
    5  # niceness: where processors are few, clients and broker come first, for the journal waits
)

logger = logging.getLogger(__name__)


def main() -> int:
    """The child's entry point; returns its exit status."""
    logging.basicConfig(format="%(asctime)s %(levelname)s amqtt_db writer: %(message)s", level=logging.INFO)
    os.nice(_BEHIND_THE_BROKER)
    stop = Stop()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: stop.ask(DEADLINE))
    try:
        order = orjson.loads(sys.stdin.buffer.readline())
        logging.getLogger().setLevel(order["level"])
        settings = load(order["config"], order["where"])
    except (ConfigError, ValueError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return MISCONFIGURED
    threading.Thread(target=_watch_parent, args=(stop,), daemon=True).start()
    return _work(settings, stop, partial(is_bloated, settings.writer.memory_limit))


def run_foreground(settings: Settings) -> int:
    """Write until SIGINT or SIGTERM; returns the exit status.  Nobody would start it again: it may grow."""
    stop = Stop()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.ask(DEADLINE))
    return _work(settings, stop, lambda: False)


def is_bloated(most: int) -> bool:
    """Whether this process takes more than ``most`` bytes of memory; never so where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return False
    return pages * os.sysconf("SC_PAGE_SIZE") > most


def calm_collector() -> None:
    """Have the garbage collector look less often: a batch makes some ten thousand tuples and no cycles."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 20)


def _work(settings: Settings, stop: Stop, is_bloated: Callable[[], bool]) -> int:
    calm_collector()
    journal = settings.journal.path
    try:
        lock = claim(journal, settings.routes)
    except AmqttDbError as error:
        logger.error("%s", error)
        return 1
    attempt = Attempt(journal.with_name(journal.name + ".attempt"), settings.writer.time_limit)
    try:
        make_writer = partial(Writer, engine_for(settings.database), settings.routes, attempt)
        Drain(journal, make_writer, attempt, stop, is_bloated).run()
    finally:
        attempt.close()
        os.close(lock)
    return BLOATED if is_bloated() and not stop.asked else 0


def _watch_parent(stop: Stop) -> None:
    while os.read(sys.stdin.fileno(), 4096):  # a thread inside Python's own buffer would spoil the process's end
        pass
    stop.ask(DEADLINE)


if __name__ == "__main__":
    sys.exit(main())
