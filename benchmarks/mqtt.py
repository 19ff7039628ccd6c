"""A broker in a separate process, with or without the plugin, and clients on raw sockets that keep it busy."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import attrs
import psutil
import yaml

from amqtt_db.testing import databases

WINDOW = 200  # messages in flight, over all clients
PATIENCE = 60.0
START = "from amqtt.scripts.broker_script import main; main()"
DATABASES = {database.name: database for database in databases.DATABASES}
QUIET = 0.05  # share of a core below which a broker counts as idle


@attrs.frozen
class Running:
    """A listening broker."""

    port: int
    process: psutil.Process
    directory: Path

    @property
    def writer(self) -> psutil.Process:
        """The plugin's child process."""
        return self.process.children()[0]

    @property
    def database(self) -> Path:
        """The path of an SQLite database."""
        return self.directory / "mqtt.db"

    @contextmanager
    def writer_paused(self) -> Iterator[None]:
        """Stop the writer for the duration of the block."""
        writer = self.writer
        writer.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            writer.send_signal(signal.SIGCONT)


@contextmanager
def broker(directory: Path, plugin: Mapping[str, Any] | None, before: str = "") -> Iterator[Running]:
    """Run a broker with ``plugin`` as the settings of amqtt_db, or without the plugin if None.

    On two processors it has the first to itself, and its writer has the other.  ``before`` is Python code that the
    broker's process runs first.
    """
    port = free_port()
    plugins: dict[str, Any] = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}
    if plugin is not None:
        journal = {"path": str(directory / "mqtt.journal")}
        plugins["amqtt_db.Plugin"] = {"database": f"sqlite:///{directory / 'mqtt.db'}", "journal": journal, **plugin}
    config = {"listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port}"}}, "plugins": plugins}
    path = directory / "broker.yaml"
    path.write_text(yaml.safe_dump(config))
    with (directory / "log").open("wb") as log:
        command = [sys.executable, "-c", f"{before}\n{START}", "-c", str(path)]
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=directory)
    try:
        await_port(port, process)
        running = Running(port, psutil.Process(process.pid), directory)
        _pin(running)
        yield running
    finally:
        children = psutil.Process(process.pid).children() if process.poll() is None else []
        process.terminate()
        process.wait(PATIENCE)
        psutil.wait_procs(children, PATIENCE)  # a writer outlives its broker for a moment, and still uses the directory


def step_aside() -> None:
    """Leave the first processor to the broker, if there are two and the system supports pinning."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, _others())


def cpu_seconds(process: psutil.Process) -> float:
    """Return the CPU seconds of a process so far, without its children."""
    try:
        return time.clock_gettime((~process.pid << 3) | 2)  # Linux: the clock of that process, to the nanosecond
    except (AttributeError, OSError):
        times = process.cpu_times()
        return float(times.user + times.system)


def until_quiet(process: psutil.Process, pause: float = 0.05) -> tuple[float, float]:
    """Wait until a process is idle; return when that was, and its CPU seconds by then."""
    used, now = cpu_seconds(process), perf_counter()
    while True:
        sleep(pause)
        before, used = used, cpu_seconds(process)
        if used - before < QUIET * pause:
            return now, used
        now = perf_counter()


def message(number: int, client: int = 0, qos: int = 1, topic: str | None = None) -> bytes:
    """Return a PUBLISH packet with seven fields; its topic is one of twenty unless it is given."""
    payload = json.dumps(
        {"seq": number, "temp": 21.5, "rh": 45.2, "press": 1013.2, "ok": True, "unit": "hall", "time": 1700000000}
    ).encode()
    body = _text(topic or f"site/{client % 20}/climate") + struct.pack("!H", number % 65535 + 1) + payload
    return bytes([0x30 | qos << 1]) + _length(len(body)) + body


def connect(port: int, name: str) -> socket.socket:
    """Return a connected client (CONNACK received)."""
    client = socket.create_connection(("127.0.0.1", port), timeout=PATIENCE)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    body = _text("MQTT") + bytes([4, 2]) + struct.pack("!H", 0) + _text(name)
    client.sendall(b"\x10" + _length(len(body)) + body)
    if client.recv(4) != b"\x20\x02\x00\x00":
        raise RuntimeError("the broker does not accept the client")
    return client


class Clients:
    """Clients that stay connected; a context manager."""

    def __init__(self, port: int, count: int) -> None:
        self._sockets = {client.fileno(): client for client in (connect(port, f"c{n}") for n in range(count))}
        self._poll = select.epoll() if hasattr(select, "epoll") else select.poll()
        for number in self._sockets:
            self._poll.register(number, select.POLLIN)

    def __enter__(self) -> Clients:
        return self

    def __exit__(self, *error: object) -> None:
        for client in self._sockets.values():
            client.sendall(b"\xe0\x00")
            client.close()

    def publish(self, count: int) -> float:
        """Publish with full windows; return the time of the last PUBACK."""
        share = count // len(self._sockets)
        waiting = {
            number: [message(index, client) for index in range(share)] for client, number in enumerate(self._sockets)
        }
        window = max(1, WINDOW // len(self._sockets))
        flying = dict.fromkeys(waiting, 0)
        rest = dict.fromkeys(waiting, 0)
        left = share * len(waiting)
        ready = list(waiting)
        while left:
            for number in ready:
                room, queue = window - flying[number], waiting[number]
                if queue and room >= (window + 1) // 2:
                    flying[number] += len(queue[:room])
                    self._sockets[number].sendall(b"".join(queue[:room]))
                    del queue[:room]
            ready = [number for number, _ in self._poll.poll(PATIENCE)]
            if not ready:
                raise RuntimeError(f"{left} messages were never acknowledged")
            for number in ready:
                done, rest[number] = divmod(rest[number] + len(self._sockets[number].recv(65536)), 4)
                flying[number] -= done
                left -= done
        return perf_counter()


def free_port() -> int:
    """Return a free port of 127.0.0.1."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _others() -> set[int]:
    return set(range(1, os.cpu_count() or 1)) or {0}


def _pin(running: Running) -> None:
    if hasattr(os, "sched_setaffinity"):
        for child in running.process.children():
            os.sched_setaffinity(child.pid, _others())
        os.sched_setaffinity(running.process.pid, {0})


def await_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until a broker listens."""
    deadline = perf_counter() + PATIENCE
    while perf_counter() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        sleep(0.02)
    raise RuntimeError("the broker does not listen")


def _text(value: str) -> bytes:
    return struct.pack("!H", len(value)) + value.encode()


def _length(value: int) -> bytes:
    out = b""
    while True:
        value, digit = divmod(value, 128)
        out += bytes([digit | (0x80 if value else 0)])
        if not value:
            return out
