"""What systemd is told, on a real socket."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from amqtt_db.cli.systemd import being_watched, notify, watchdog_seconds
from tests.cli.test_cli import configuration
from tests.ports import free_port

PATIENCE = 60.0


@pytest.fixture
def channel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Yield the socket at which systemd would listen."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(tmp_path / "notify"))
        made.settimeout(PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield made


def test_lines_are_sent(channel: socket.socket) -> None:
    """In one datagram."""
    notify("READY=1", "STATUS=all is well")
    assert channel.recv(1000) == b"READY=1\nSTATUS=all is well"


def test_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its name begins with a zero byte, which the variable has as @."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        name = f"amqtt-db-test-{os.getpid()}"
        channel.bind(f"\0{name}")
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        notify("READY=1")
        assert channel.recv(1000) == b"READY=1"


def test_nobody_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without systemd, and when its socket is gone, nothing happens."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")
    assert list(tmp_path.iterdir()) == []


def test_nobody_reads(channel: socket.socket) -> None:
    """The service is not held up when systemd's queue is full: what does not fit is left out."""
    for _ in range(2000):
        notify("WATCHDOG=1")
    channel.setblocking(False)
    received = 0
    with suppress(BlockingIOError):
        while channel.recv(1000) == b"WATCHDOG=1":
            received += 1
    assert 0 < received < 2000
    notify("STOPPING=1")
    assert channel.recv(1000) == b"STOPPING=1"


@pytest.mark.parametrize(
    ("micros", "process", "seconds"),
    [("2000000", "", 2.0), ("2000000", "own", 2.0), ("2000000", "1", None), ("", "", None), ("0", "", None)],
)
def test_the_watchdog_is_for_one_process(
    micros: str, process: str, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child inherits the variables, but systemd waits for its parent."""
    monkeypatch.setenv("WATCHDOG_USEC", micros)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if process == "own" else process)
    assert watchdog_seconds() == seconds


def test_signs_of_life_come_as_long_as_the_loop_turns(channel: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice in the time that systemd allows; a loop that hangs sends none."""
    monkeypatch.setenv("WATCHDOG_USEC", "20000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)

    async def watch() -> None:
        async with being_watched():
            received = [await asyncio.to_thread(channel.recv, 1000) for _ in range(4)]
            assert received == [b"READY=1", *[b"WATCHDOG=1"] * 3]

    asyncio.run(watch())


@pytest.mark.slow
def test_a_broker_is_ready_alive_and_stopping(channel: socket.socket, tmp_path: Path) -> None:
    """`run` says so itself; its writer, which inherits the variables, is silent."""
    port = free_port()
    path = configuration(tmp_path, port)
    known = {**os.environ, "WATCHDOG_USEC": "400000"}
    command = [sys.executable, "-m", "amqtt_db", "run", str(path)]
    with subprocess.Popen(command, cwd=tmp_path, env=known, stdout=subprocess.DEVNULL) as process:
        assert channel.recv(1000) == b"READY=1"
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE):
            assert channel.recv(1000) == b"WATCHDOG=1"
        process.send_signal(signal.SIGTERM)
        while (told := channel.recv(1000)) != b"STOPPING=1":
            assert told == b"WATCHDOG=1"
        assert process.wait(PATIENCE) == 0
