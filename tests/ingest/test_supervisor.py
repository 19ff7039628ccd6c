"""The writer's process is kept alive, told what to do, and ended in order: with real child processes."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.ingest.supervisor import QUIET, Supervisor, decode_job, encode_job

SECONDS = 20.0

OBEDIENT = """
import os, sys
log = open(sys.argv[1], "a", buffering=1)
log.write(f"began {os.getsid(0) == os.getpid()} {sys.stdin.readline()}")
sys.stdin.read()
log.write("ended\\n")
"""
ATTENTIVE = """
import sys
log = open(sys.argv[1], "a", buffering=1)
for line in sys.stdin:
    log.write(line)
log.write("ended\\n")
"""
STUBBORN = """
import signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
open(sys.argv[1], "a").write("began\\n")
time.sleep(60)
"""
PARENT = """
import asyncio, sys
from amqtt_db.ingest.supervisor import Supervisor
async def main():
    supervisor = Supervisor(b"job", (sys.executable, "-c", sys.argv[1], sys.argv[2]))
    supervisor.start()
    while not supervisor.pid:
        await asyncio.sleep(0.01)
    print(supervisor.pid, flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return the file that the children write to."""
    return tmp_path / "log"


def command(code: str, log: Path) -> tuple[str, ...]:
    """A child that runs the code."""
    return (sys.executable, "-c", code, str(log))


def lines(log: Path) -> list[str]:
    """Return the lines that the children have written."""
    return log.read_text().splitlines() if log.exists() else []


def written(log: Path, count: int) -> bool:
    """Return True if the children have written that many lines."""
    return len(lines(log)) == count


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what another process brings about."""
    for _ in range(int(SECONDS / 0.01)):
        if is_so():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it has not happened in time")


async def running(supervisor: Supervisor) -> int:
    """Return the child's process id; the child may write before its parent knows it."""
    await until(lambda: supervisor.pid is not None)
    assert supervisor.pid is not None
    return supervisor.pid


def exists(pid: int) -> bool:
    """Return True if there is such a process."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_the_child_gets_its_order_and_ends_by_itself(log: Path) -> None:
    """It gets one line of input and its own session; when its input ends, it may finish."""

    async def scenario() -> None:
        supervisor = Supervisor(b'{"a":\n1}', command(OBEDIENT, log))
        supervisor.start()
        await until(lambda: lines(log) != [])
        await supervisor.stop()
        await supervisor.stop()
        assert supervisor.pid is None

    asyncio.run(scenario())
    assert lines(log) == ['began True {"a": 1}', "ended"]


@pytest.mark.slow
def test_the_child_is_told_of_news_after_a_pause(log: Path) -> None:
    """The first commit is news, and one after a pause; those in between are not, because the child is awake then."""

    async def scenario() -> None:
        supervisor = Supervisor(b"job", command(ATTENTIVE, log))
        supervisor.start()
        await until(lambda: written(log, 1))
        for expected in (2, 3):
            for _ in range(5):
                supervisor.tell_news(time.perf_counter())
            await until(lambda: written(log, expected))  # noqa: B023
            supervisor._last_news -= QUIET
        await supervisor.stop()

    asyncio.run(scenario())
    assert lines(log) == ["job", "", "", "ended"]


def test_the_child_is_told_of_gathered_messages_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told of a commit at once if it was told of none shortly before, otherwise together with others."""
    told: list[bytes] = []
    monkeypatch.setattr(Supervisor, "_tell", lambda _, news: told.append(news))

    async def scenario() -> None:
        supervisor = Supervisor(b"job")
        for _ in range(3):
            supervisor.tell_gathered(time.perf_counter())
        assert len(told) == 1
        await until(lambda: len(told) == 2)
        supervisor._last_news -= QUIET
        supervisor.tell_gathered(time.perf_counter())
        await asyncio.sleep(3 * QUIET)

    asyncio.run(scenario())
    assert told == [b"+"] * 3


def test_a_killed_child_is_started_again(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each time it dies there is a new one; the log says why, once."""

    async def scenario() -> None:
        supervisor = Supervisor(b"job", command(OBEDIENT, log))
        supervisor.start()
        for count in range(1, 4):
            await until(partial(written, log, count))
            os.kill(await running(supervisor), signal.SIGKILL)
        await until(lambda: len(lines(log)) == 4)
        await supervisor.stop()

    asyncio.run(scenario())
    assert [record.message for record in caplog.records if record.name == "amqtt_db.ingest.supervisor"] == [
        "the writer was killed by signal 9; it is being restarted, and messages wait in the journal"
    ]


def test_a_child_that_cannot_be_configured_is_not_hurried(caplog: pytest.LogCaptureFixture) -> None:
    """Status 2 is logged and not retried in a tight loop; it does not delay the shutdown."""

    async def scenario() -> None:
        supervisor = Supervisor(b"job", (sys.executable, "-c", "raise SystemExit(2)"))
        supervisor.start()
        await until(lambda: "cannot use its configuration" in caplog.text)
        assert supervisor._pause == 30.0
        await supervisor.stop()

    asyncio.run(scenario())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("end", "told"),
    [("sys.exit(75)", "used more memory than memory_limit"), ("signal.alarm(1); signal.pause()", "by its time_limit")],
)
def test_a_child_that_ends_at_a_limit_is_replaced_at_once(
    end: str, told: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its limits are pause enough: the wait does not grow, however often this happens."""

    async def scenario() -> None:
        supervisor = Supervisor(b"job", (sys.executable, "-c", f"import signal, sys; {end}"))
        for _ in range(9):
            supervisor._backoff.next_pause()
        supervisor.start()
        await until(lambda: told in caplog.text)
        assert supervisor._pause < 0.3
        await supervisor.stop()

    asyncio.run(scenario())


def test_a_child_that_cannot_be_started_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """A command that is not there is an error in the log, and is tried again."""

    async def scenario() -> None:
        supervisor = Supervisor(b"job", ("/nowhere/python",))
        supervisor.start()
        await until(lambda: supervisor._pause > 0.3)
        await supervisor.stop()

    asyncio.run(scenario())
    assert caplog.text.count("the writer cannot be started: No such file or directory") == 1


def test_a_child_that_does_not_end_is_killed(log: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Even one that ignores the end of its input and SIGTERM is gone when ``stop`` returns.

    The wait is logged, with its limit.
    """
    caplog.set_level(logging.INFO, "amqtt_db")

    async def scenario() -> None:
        supervisor = Supervisor(b"job", command(STUBBORN, log), drain=0.1, kill=0.1)
        supervisor.start()
        await until(lambda: lines(log) != [])
        pid = await running(supervisor)
        await supervisor.stop()
        assert not exists(pid)

    asyncio.run(scenario())
    assert [record.message for record in caplog.records if record.name == "amqtt_db.ingest.supervisor"] == [
        "waiting up to 0.1 s for the writer to finish",
        "the writer did not stop within 0.1 s and is terminated; nothing is lost",
    ]


@pytest.mark.slow
def test_the_child_ends_with_its_parent(log: Path) -> None:
    """After kill -9 of the parent the child sees the end of its input, finishes and leaves no orphan."""
    arguments = [sys.executable, "-c", PARENT, OBEDIENT, str(log)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        while not lines(log):
            time.sleep(0.01)
        parent.kill()
    asyncio.run(until(lambda: lines(log)[-1] == "ended"))
    asyncio.run(until(lambda: not exists(child)))


_SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.dates(), st.binary(max_size=9),
    st.text(st.characters(exclude_categories=["Cs"])),
)  # fmt: skip


@given(st.recursive(_SCALARS, lambda inner: st.lists(inner) | st.dictionaries(_SCALARS, inner), max_leaves=20))
def test_the_writer_gets_the_configuration_as_it_is(value: object) -> None:
    """On one line; keys that are numbers, or true and false as for states, keep their types."""
    line = encode_job("amqtt_db.Plugin", {"routes": value})
    assert b"\n" not in line.rstrip(b"\n")
    assert decode_job(line)["config"] == {"routes": value}


def test_a_writer_is_told_what_yaml_has_no_type_for() -> None:
    """A program that runs the broker may give paths."""
    assert decode_job(encode_job("", {"path": Path("a.journal")}))["config"] == {"path": "a.journal"}
    for line in (b"", b"[", b"text"):
        with pytest.raises(ValueError, match="job"):
            decode_job(line)
