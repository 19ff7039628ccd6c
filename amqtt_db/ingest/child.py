"""How a child process of the broker or the bridge begins: it reads its job, gives way to others, and logs."""

from __future__ import annotations

import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import attrs

from amqtt_db.config import Settings, load_section
from amqtt_db.config.operation import LogSettings
from amqtt_db.errors import ConfigError
from amqtt_db.ingest.logs import start_logging
from amqtt_db.ingest.supervisor import decode_job

logger = logging.getLogger(__name__)


def begin_child(name: str, *, logs_others: bool) -> Settings | None:
    """Return the settings in the job on standard input; None if it has mistakes, which are then on standard error.

    ``name`` is the process's name in the log.  With ``logs_others``, other packages log from the same level on, because
    user code may run here.  Ctrl-C is the parent's to answer.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        job = decode_job(sys.stdin.buffer.readline())
        lower_priority(job["niceness"])
        settings = load_section(job["config"], job["where"])
    except (ConfigError, ValueError) as error:
        print(error, file=sys.stderr)  # noqa: T201
        return None
    _log_like_parent(settings.log, job["level"], job["level"] if logs_others else logging.WARNING, name)
    return settings


def lower_priority(niceness: int) -> None:
    """Give way to other processes, by ``niceness``, if there are few processors.

    Linux may first divide the processors among sessions, and use niceness only within a session.  This process has its
    own session, so the session gets the niceness as well: see sched(7), "The autogroup feature".
    """
    os.nice(niceness)
    if niceness:
        with suppress(OSError):
            Path("/proc/self/autogroup").write_text(str(niceness))


def _log_like_parent(log: LogSettings, level: int, others: int, name: str) -> None:
    """Log where the parent does.  A file that cannot be written holds up nothing."""
    try:
        start_logging(log, level, others=others, name=name)
    except OSError as error:
        start_logging(attrs.evolve(log, file=None), level, others=others, name=name)
        logger.warning("log.file: %s cannot be written: %s; logging to stderr", log.file, error.strerror)
