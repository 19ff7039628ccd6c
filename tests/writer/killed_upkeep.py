"""Sum up, killed with SIGKILL again and again: ``python -m tests.writer.killed_upkeep URL ROUTE NOW KILLS``.

Each time is a process of its own, forked before anything is opened; it prints how many were killed while they worked.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from amqtt_db.database.engines import engine_for
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.steady_clock import SteadyClock
from amqtt_db.writer.writer import Writer
from tests.workbench import routes


def work(url: str, route: str, now: float) -> None:
    """Do everything that is due, after a byte that says that it begins."""
    with tempfile.TemporaryDirectory() as directory:
        guard = CrashGuard(Path(directory) / "attempt")
        clock = SteadyClock(lambda: now, lambda: now)
        writer = Writer(engine_for(url), routes(json.loads(route), url=url), guard, clock)
        writer.prepare()
        os.write(1, b".")
        writer.retention.finish()


def kill(url: str, route: str, now: float, after: float) -> bool:
    """Kill the work some time after it has begun; return True unless it was done before."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.dup2(writing, 1)
        work(url, route, now)
        os._exit(0)
    os.close(writing)
    os.read(reading, 1)
    time.sleep(after)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(url: str, route: str, now: str, kills: str) -> None:
    """Kill and count."""
    dice = random.Random(url)
    killed = sum(kill(url, route, float(now), dice.uniform(0.005, 0.15)) for _ in range(int(kills)))
    sys.stdout.write(str(killed))


if __name__ == "__main__":
    main(*sys.argv[1:])
