"""Keeping a child process alive, the writer or the page, and stopping it cleanly."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from time import monotonic, perf_counter
from typing import Any, Final

import yaml

from amqtt_db.errors import Backoff, OncePerCause
from amqtt_db.ingest.logs import PROJECT

logger = logging.getLogger(__name__)


def make_command(module: str, function: str) -> tuple[str, ...]:
    """Return a command that exits with what a function returns.

    Unlike ``python -m``, it does not prefer modules in the current directory over Python's own.
    """
    lines = ("import sys", 'if sys.path[:1] == [""]: sys.path.pop(0)', f"from {module} import {function}")
    return sys.executable, "-c", "\n".join((*lines, f"sys.exit({function}())"))


WORKER: Final = make_command("amqtt_db.writer.process", "run_writer")
"""The command that runs the writer."""
PAGE_SERVER: Final = make_command("amqtt_db.web.process", "run_page")
"""The command that serves the page."""
MISCONFIGURED: Final = 2
"""Exit status of a child that cannot use its configuration and has logged why."""
BLOATED: Final = 75
"""Exit status of a child that has used too much memory and must be replaced."""
QUIET: Final = 0.024
"""Seconds without a commit after which the next one is news; the writer may sleep until it is told of it."""
GATHERED_NEWS: Final = b"+"
"""What the child reads if this process has gathered messages before a commit, so that the child need not."""
_LATEST_NEWS: Final = 0.03  # seconds after which the child is told of a commit even if no other follows it

_EXPECTED: Final[Mapping[int | str, str]] = {
    BLOATED: "used more memory than memory_limit",
    -signal.SIGALRM: "was ended by its time_limit",
}
_PAGE_NICENESS: Final = 5  # like the writer: the broker and the journal come first
_PAGE_SECONDS: Final = 8.0  # for the page to answer what it was asked
_FIRST_WAIT: Final = 0.1
_LAST_WAIT: Final = 30.0
_STEADY_SECONDS: Final = 60.0
_NEWS: Final = b"\n"
_SILENCE: Final = 0.5  # seconds of waiting that need no log line


def encode_job(where: str, config: Mapping[str, Any], *, niceness: int = 0) -> bytes:
    """Return a child's job as one line of YAML, for its standard input; unlike JSON, that keeps every key as it is.

    The keys keep their order, too: the columns of a table follow it.

    ``config`` is a plugin section of the YAML, ``where`` its path there; ``niceness`` is added to this process's own.
    The child logs at this process's level.
    """
    level = PROJECT.getEffectiveLevel()
    job = {"where": where, "config": config, "level": level, "niceness": niceness}
    return yaml.dump(
        job, Dumper=_JobDumper, default_style='"', default_flow_style=True, width=math.inf, sort_keys=False
    ).encode()


def decode_job(line: bytes) -> dict[str, Any]:
    """Return the job that :func:`encode_job` encoded.  Raises ValueError for anything else."""
    try:
        job = yaml.safe_load(line)
    except yaml.YAMLError as error:
        raise ValueError(f"not a job: {error}") from None
    if not isinstance(job, dict):
        raise ValueError("not a job")
    return job


class _JobDumper(yaml.SafeDumper):
    """Writes whatever YAML has no type for, such as a path, as text."""


_JobDumper.add_multi_representer(dict, lambda dumper, data: dumper.represent_dict(dict(data)))
_JobDumper.add_multi_representer(object, lambda dumper, data: dumper.represent_str(str(data)))


class Supervisor:
    """Runs a command as a child process, and starts it again whenever it ends.

    The child gets ``job`` as the first line of its standard input, so its command line contains no secrets.  It must
    end by itself when its standard input ends, which happens when it should stop and when this process dies.  It has
    its own session, so a terminal's Ctrl-C reaches only this process.
    """

    def __init__(
        self,
        job: bytes,
        command: Sequence[str] = WORKER,
        *,
        child: str = "the writer",
        meanwhile: str = "messages wait in the journal",
        drain: float = 12.0,
        kill: float = 2.0,
    ) -> None:
        """``drain``: seconds for the child to end by itself; ``kill``: seconds for it to end after SIGTERM.

        ``child`` and ``meanwhile`` say in the log who has ended, and what that means until it runs again.
        ``restarts`` counts how often a child that had ended was started again.
        """
        self._child = child
        self._meanwhile = meanwhile
        self._job = job.replace(b"\n", b" ") + b"\n"
        self._command = command
        self._drain = drain
        self._kill = kill
        self.restarts = 0
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._backoff = Backoff(_FIRST_WAIT, _LAST_WAIT)
        self._causes = OncePerCause()
        self._pause = 0.0
        self._last_news = -math.inf
        self._reminder: asyncio.TimerHandle | None = None

    @property
    def pid(self) -> int | None:
        """The process id of the child, None while no child is running."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    def start(self) -> None:
        """Start the child, and keep it alive from now on."""
        self._task = asyncio.create_task(self._keep_running(), name="amqtt_db supervisor")

    def tell_news(self, began: float) -> None:
        """Tell the child that something was committed, if it may have gone to sleep.

        ``began`` is when the commit began, by ``perf_counter``: others may see it long before this is called.
        """
        before, self._last_news = self._last_news, began
        if perf_counter() - before > QUIET:
            self._tell(_NEWS)

    def tell_gathered(self, began: float) -> None:
        """Tell the child that messages were gathered and committed: at once, or a little after it was told of others.

        It may sleep until then.  ``began`` means what it means for :meth:`tell_news`.
        """
        if perf_counter() - self._last_news > QUIET:
            self._tell_of_gathered(began)
        elif self._reminder is None:
            self._reminder = asyncio.get_running_loop().call_later(_LATEST_NEWS, self._tell_late)

    def _tell_late(self) -> None:
        self._tell_of_gathered(perf_counter())

    def _tell_of_gathered(self, now: float) -> None:
        if self._reminder is not None:
            self._reminder.cancel()
            self._reminder = None
        self._last_news = now
        self._tell(GATHERED_NEWS)

    def _tell(self, news: bytes) -> None:
        stdin = None if self._process is None else self._process.stdin
        if stdin is not None and not stdin.is_closing():
            stdin.write(news)

    async def stop(self) -> None:
        """Stop the child: let it end by itself, else terminate it, else kill it; return when it is gone."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        process = self._process
        if process is None or process.returncode is not None:
            return
        _close_input(process)
        if await self._has_drained(process):
            return
        logger.warning("%s did not stop within %g s and is terminated; nothing is lost", self._child, self._drain)
        process.terminate()
        if not await _ended(process, self._kill):
            process.kill()
            await process.wait()

    async def _has_drained(self, process: Process) -> bool:
        """Wait for the child to end by itself; return True if it does so in time.  If it takes a while, log that."""
        silence = min(_SILENCE, self._drain)
        if await _ended(process, silence):
            return True
        logger.info("waiting up to %g s for %s to finish", self._drain, self._child)
        return await _ended(process, self._drain - silence)

    async def _keep_running(self) -> None:
        while True:
            started = monotonic()
            status = await self._run_once()
            if monotonic() - started > _STEADY_SECONDS:
                self._backoff.reset()
                self._causes.resolve()
            cause = status if isinstance(status, str) else _describe(status)
            if self._causes.is_new(cause):
                logger.error("%s %s; it is being restarted, and %s", self._child, cause, self._meanwhile)
            if status in _EXPECTED:
                self._backoff.reset()
            self._pause = _LAST_WAIT if status == MISCONFIGURED else self._backoff.next_pause()
            await asyncio.sleep(self._pause)
            self.restarts += 1

    async def _run_once(self) -> int | str:
        """Run the child until it ends; return its exit status, or why it cannot be started."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, start_new_session=True, env=_same_modules()
            )
        except OSError as error:
            return f"cannot be started: {error.strerror or error}"
        if self._process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(self._job)
                await self._process.stdin.drain()
        return await self._process.wait()


def supervise_page(where: str, config: Mapping[str, Any]) -> Supervisor:
    """Return a supervisor of the page for a plugin section of the YAML; ``where`` is its path there."""
    job = encode_job(where, config, niceness=_PAGE_NICENESS)
    return Supervisor(job, PAGE_SERVER, child="the page", meanwhile="nothing else depends on it", drain=_PAGE_SECONDS)


def _describe(status: int) -> str:
    if status == MISCONFIGURED:
        return "cannot use its configuration (see above)"
    if status in _EXPECTED:
        return _EXPECTED[status]
    return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"


def _same_modules() -> dict[str, str]:
    """Return an environment in which the child finds the modules that this process finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _close_input(process: Process) -> None:
    if process.stdin is not None:
        process.stdin.close()


async def _ended(process: Process, seconds: float) -> bool:
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except asyncio.TimeoutError:
        return False
    return True
