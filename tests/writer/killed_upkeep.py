"""Sum up, killed with SIGKILL again and again: ``python -m tests.writer.killed_upkeep URL ROUTE NOW KILLS``.

Each time is a process of its own, forked before anything is opened; it dies before one of its statements.  Prints how
many were killed before they were done.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import tempfile
from pathlib import Path

import sqlalchemy as sa

from amqtt_db.database.engines import engine_for
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.steady_clock import SteadyClock
from amqtt_db.writer.writer import Writer
from tests.workbench import routes


def work(url: str, route: str, now: float, statements: int) -> None:
    """Do everything that is due, and die after some statements."""
    with tempfile.TemporaryDirectory() as directory:
        guard = CrashGuard(Path(directory) / "attempt")
        clock = SteadyClock(lambda: now, lambda: now)
        writer = Writer(engine_for(url), routes(json.loads(route), url=url), guard, clock)
        writer.prepare()
        left = iter(range(statements))

        def count(*_: object) -> None:
            if next(left, None) is None:
                os.kill(os.getpid(), signal.SIGKILL)

        sa.event.listen(writer._database, "before_cursor_execute", count)
        writer.retention.finish()


def kill(url: str, route: str, now: float, statements: int) -> bool:
    """Let the work be killed after some statements; return True unless it was done before."""
    child = os.fork()
    if not child:
        work(url, route, now, statements)
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def main(url: str, route: str, now: str, kills: str) -> None:
    """Kill and count."""
    dice = random.Random(url)
    killed = sum(kill(url, route, float(now), dice.randrange(1, 25)) for _ in range(int(kills)))
    sys.stdout.write(str(killed))


if __name__ == "__main__":
    main(*sys.argv[1:])
