"""Keeps the writer's process alive, and ends it in order."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any, Final

import orjson

logger = logging.getLogger(__name__)

WORKER: Final = (sys.executable, "-m", "amqtt_db.writer.process")
MISCONFIGURED: Final = 2
"""Exit status of a child that cannot use its configuration and has said so."""
BLOATED: Final = 75
"""Exit status of a child that wants to be replaced by a fresh one."""

_AT_ONCE: Final = {
    BLOATED: "has grown beyond its memory_limit",
    -signal.SIGALRM: "was ended by its time_limit",
}
_FIRST_WAIT: Final = 0.1
_LAST_WAIT: Final = 30.0
_STEADY: Final = 60.0
_SILENCE: Final = 0.5  # seconds of waiting that need no explanation


def order(where: str, config: Mapping[str, Any], *, niceness: int = 0) -> bytes:
    """What tells a writer's process its work, on one line.

    ``config`` is a plugin section of the broker's YAML, ``where`` its path there; ``niceness`` is added to this
    process's own.  The child logs what this process would.
    """
    level = logging.getLogger("amqtt_db").getEffectiveLevel()
    said = {"where": where, "config": config, "level": level, "niceness": niceness}
    return orjson.dumps(said, default=str, option=orjson.OPT_NON_STR_KEYS)


class Supervisor:
    """Runs a command as a child process, and again when it ends.

    The child gets ``order`` as the first line of its standard input, and nothing secret on its command line.  It has
    to end by itself when its standard input ends, which happens when it is to stop and when this process dies.  It is
    in a session of its own, so that a terminal's Ctrl-C reaches this process alone.
    """

    def __init__(
        self, order: bytes, command: Sequence[str] = WORKER, *, drain: float = 12.0, kill: float = 2.0
    ) -> None:
        """``drain``: seconds that the child may take to end by itself; ``kill``: to end once it is terminated."""
        self._order = order.replace(b"\n", b" ") + b"\n"
        self._command = command
        self._drain = drain
        self._kill = kill
        self._process: Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._wait = _FIRST_WAIT
        self._cause = ""

    @property
    def pid(self) -> int | None:
        """The process id of the child, None while there is none."""
        process = self._process
        return None if process is None or process.returncode is not None else process.pid

    def start(self) -> None:
        """Start the child, and see to it from now on."""
        self._task = asyncio.create_task(self._run_for_ever(), name="amqtt_db supervisor")

    async def stop(self) -> None:
        """End the child: let it end by itself, else terminate it, else kill it; return when it is gone."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        process = self._process
        if process is None or process.returncode is not None:
            return
        _end_input(process)
        if await self._has_drained(process):
            return
        logger.warning("the writer has not stopped within %g s and is terminated; nothing is lost", self._drain)
        process.terminate()
        if not await _ended(process, self._kill):
            process.kill()
            await process.wait()

    async def _has_drained(self, process: Process) -> bool:
        """Whether the child ends by itself in time; told of where it takes so long that one wonders."""
        silence = min(_SILENCE, self._drain)
        if await _ended(process, silence):
            return True
        logger.info("waiting up to %g s for the writer, which stores what it can", self._drain)
        return await _ended(process, self._drain - silence)

    async def _run_for_ever(self) -> None:
        while True:
            started = monotonic()
            cause = await self._run_once()
            steady = monotonic() - started > _STEADY
            self._tell(cause, steady)
            self._wait = _FIRST_WAIT if steady else self._wait
            await asyncio.sleep(self._wait)
            self._wait = min(2 * self._wait, _LAST_WAIT)

    async def _run_once(self) -> str:
        """Run the child until it ends; return how it did."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, stdin=PIPE, start_new_session=True, env=_same_modules()
            )
        except OSError as error:
            return f"cannot be started: {error.strerror or error}"
        if self._process.stdin is not None:
            with contextlib.suppress(ConnectionError):
                self._process.stdin.write(self._order)
                await self._process.stdin.drain()
        status = await self._process.wait()
        if status == MISCONFIGURED:
            self._wait = _LAST_WAIT
            return "cannot use its configuration, as it says above"
        if status in _AT_ONCE:
            self._wait = _FIRST_WAIT
            return _AT_ONCE[status]
        return f"was killed by signal {-status}" if status < 0 else f"ended with status {status}"

    def _tell(self, cause: str, steady: bool) -> None:
        if cause != self._cause or steady:
            logger.error("the writer %s; it is started again, and the journal keeps what arrives meanwhile", cause)
        self._cause = cause


def _same_modules() -> dict[str, str]:
    """The environment, with which the child finds the modules that this process finds."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def _end_input(process: Process) -> None:
    if process.stdin is not None:
        process.stdin.close()


async def _ended(process: Process, seconds: float) -> bool:
    try:
        await asyncio.wait_for(process.wait(), seconds)
    except asyncio.TimeoutError:
        return False
    return True
