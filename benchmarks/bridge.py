"""The bridge, subscribed to Mosquitto: rate and CPU beside other clients, end to end, latency, idle, and memory.

usage: python benchmarks/bridge.py [--messages 40000] [--rounds 5] [--subscribers bridge,paho] [--rate 1000]
                                   [--seconds 10] [--databases sqlite,postgresql] [--idle 10] [--backlog 100000]
                                   [--directory DIR] [--json FILE]

``subscriber``: all clients of ``subscribers.py`` that are installed are connected at the same time and take turns.
A publisher floods the topic of one with QoS 1 messages of seven fields; the time is that until the last one is on disk,
and the CPU that of the client's process alone.  Ratios are medians of the ratios to the client that only acknowledges,
within each round.  ``database``: ``amqtt-db run`` with its writer, from the first message until the last row; then the
latency of rows at a steady rate, the CPU of the bridge at that rate and of bridge and writer when idle.  ``backlog``:
the memory of a bridge that finds so many messages at the broker, compared with one that finds a hundredth of that.
"""

from __future__ import annotations

import argparse
import json
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter, sleep
from typing import IO, Any, Final

import attrs
import psutil
import sqlalchemy as sa
import yaml
from common import show
from latency import ROUTES, latencies, prepare, publish, watched
from mqtt import DATABASES, PATIENCE, await_port, connect, cpu_seconds, free_port, message
from subscribers import PEERS, SUBSCRIBERS

FLOOR: Final = "only acknowledges"
IN_FLIGHT: Final = 500
LIMITS: Final = "max_queued_messages 0\nmax_inflight_messages 0\n"


@attrs.frozen
class Pace:
    """One round: messages per second until the last is on disk, and microseconds of CPU per message."""

    rate: float
    cpu: float


@attrs.frozen
class Mosquitto:
    """A listening Mosquitto."""

    port: int
    process: psutil.Process


@contextmanager
def mosquitto(directory: Path) -> Iterator[Mosquitto]:
    """Run Mosquitto without limits on its queues."""
    port = free_port()
    program = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        raise SystemExit("needs Mosquitto: install it (on Debian: mosquitto)")
    path = directory / "mosquitto.conf"
    path.write_text(f"listener {port} 127.0.0.1\nallow_anonymous true\n{LIMITS}")
    with (directory / "mosquitto.log").open("wb") as log:
        process = subprocess.Popen([program, "-c", str(path)], stdout=log, stderr=log)
    try:
        await_port(port, process)
        yield Mosquitto(port, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(PATIENCE)


def flood(port: int, topic: str, count: int) -> None:
    """Publish with QoS 1 as fast as the broker acknowledges."""
    packets = [message(number, topic=topic) for number in range(count)]
    with connect(port, "flood") as client:
        sent = done = rest = 0
        poll = select.poll()
        poll.register(client, select.POLLIN)
        while done < count:
            room = IN_FLIGHT - (sent - done)
            if sent < count and room >= IN_FLIGHT // 2:
                client.sendall(b"".join(packets[sent : sent + room]))
                sent = min(count, sent + room)
            if not poll.poll(PATIENCE * 1000):
                raise RuntimeError(f"{count - done} messages were never acknowledged")
            answered, rest = divmod(rest + len(client.recv(65536)), 4)
            done += answered
        client.sendall(b"\xe0\x00")


class Subscriber:
    """A running client of ``subscribers.py``."""

    def __init__(self, name: str, port: int, directory: Path, every: int) -> None:
        directory.mkdir()
        self.name = name
        self._port = port
        self._every = every
        command = [sys.executable, str(Path(__file__).with_name("subscribers.py")), name, str(port), str(directory)]
        self._running = subprocess.Popen([*command, str(every)], stdout=subprocess.PIPE, text=True)
        self._process = psutil.Process(self._running.pid)
        self._await_line("ready")

    def __enter__(self) -> Subscriber:
        return self

    def __exit__(self, *error: object) -> None:
        self._running.kill()
        self._running.communicate()

    def measure(self) -> Pace:
        """Flood it once."""
        used, started = cpu_seconds(self._process), perf_counter()
        flood(self._port, f"{self.name}/climate", self._every)
        self._await_line("done")
        seconds, cpu = perf_counter() - started, cpu_seconds(self._process) - used
        return Pace(self._every / seconds, cpu / self._every * 1e6)

    def _await_line(self, expected: str) -> None:
        output = self._running.stdout
        assert output is not None
        if not select.select([output], [], [], PATIENCE)[0] or output.readline().strip() != expected:
            raise RuntimeError(f"{self.name} does not say {expected}")


def compare(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure all subscribers in turn, after a warm-up round."""
    names = [FLOOR, *(name for name in arguments.subscribers.split(",") if name != FLOOR and is_installed(name))]
    paces: dict[str, list[Pace]] = {name: [] for name in names}
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.directory)))
        port = stack.enter_context(mosquitto(place)).port
        running = [stack.enter_context(Subscriber(name, port, place / name, arguments.messages)) for name in names]
        for number in range(arguments.rounds + 1):
            for subscriber in running:
                pace = subscriber.measure()
                if number:
                    paces[subscriber.name].append(pace)
    return {name: summary(found, paces[FLOOR]) for name, found in paces.items()}


def is_installed(name: str) -> bool:
    """Return True if the module of a subscriber is there; say if not."""
    missing = name in PEERS and find_spec(name) is None
    if missing:
        print(f"{name} is not installed")
    return not missing


def summary(paces: list[Pace], floor: list[Pace]) -> dict[str, float]:
    """Return medians, and medians of the ratios within each round."""
    return {
        "messages/s": statistics.median(pace.rate for pace in paces),
        "ratio": statistics.median(pace.rate / other.rate for pace, other in zip(paces, floor, strict=True)),
        "CPU µs": statistics.median(pace.cpu for pace in paces),
        "CPU ratio": statistics.median(pace.cpu / other.cpu for pace, other in zip(paces, floor, strict=True)),
    }


class Run:
    """``amqtt-db run`` with one broker; its session and its database outlive it."""

    def __init__(self, port: int, url: str, directory: Path, **settings: Any) -> None:
        self.config = directory / "bridge.yaml"
        broker = {"url": f"mqtt://127.0.0.1:{port}", "client_id": "bridge", **settings}
        journal = {"path": str(directory / "mqtt.journal")}
        document = {"broker": broker, "database": url, "journal": journal, "routes": ROUTES}
        self.config.write_text(yaml.safe_dump(document))
        self._log: IO[bytes] = (directory / "bridge.log").open("ab")

    def __enter__(self) -> psutil.Process:
        command = [sys.executable, "-m", "amqtt_db", "run", str(self.config)]
        self._running = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        return psutil.Process(self._running.pid)

    def __exit__(self, *error: object) -> None:
        self._running.terminate()
        self._running.wait(PATIENCE)
        self._log.close()


def count_rows(database: sa.Engine) -> int:
    """Return how many rows there are."""
    with database.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM climate").scalar_one())


def empty(database: sa.Engine) -> None:
    """Delete all rows."""
    with database.begin() as connection:
        connection.exec_driver_sql("DELETE FROM climate")


def await_rows(database: sa.Engine, count: int) -> None:
    """Wait until there are so many rows."""
    deadline = perf_counter() + PATIENCE + count / 1000
    while count_rows(database) < count:
        if perf_counter() > deadline:
            raise RuntimeError(f"only {count_rows(database)} of {count} rows came")
        sleep(0.02)


def store(url: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Measure the way into a database: rate, CPU, latency in milliseconds, and idle CPU in percent of a core."""
    database = sa.create_engine(url)
    count = int(arguments.rate * arguments.seconds)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.directory)))
        port = stack.enter_context(mosquitto(place)).port
        bridge = stack.enter_context(Run(port, url, place))
        prepare(port, database)
        writer = bridge.children()[0]
        paces = [flood_rows(port, database, arguments.messages, (bridge, writer)) for _ in range(arguments.rounds)]
        empty(database)
        used, started = cpu_seconds(bridge), perf_counter()
        with watched(database, count) as seen:
            sent, _ = publish(port, 1, arguments.rate, count)
            steady = (cpu_seconds(bridge) - used) / (perf_counter() - started) * 100
        idle = [cpu_seconds(process) for process in (bridge, writer)]
        sleep(arguments.idle)
        idle = [cpu_seconds(process) - before for process, before in zip((bridge, writer), idle, strict=True)]
        database.dispose()
    return {
        **{name: statistics.median(pace[name] for pace in paces) for name in paces[0]},
        **latencies(sent, seen), "bridge %": steady,
        "idle bridge %": idle[0] / arguments.idle * 100, "idle writer %": idle[1] / arguments.idle * 100,
    }  # fmt: skip


def flood_rows(port: int, database: sa.Engine, count: int, processes: tuple[psutil.Process, ...]) -> dict[str, float]:
    """Publish as fast as possible; return rows per second, and microseconds of CPU per message of two processes.

    The table is emptied first, so that counting its rows takes little from the others.
    """
    empty(database)
    used, started = [cpu_seconds(process) for process in processes], perf_counter()
    flood(port, "site/1/climate", count)
    await_rows(database, count)
    seconds = perf_counter() - started
    bridge, writer = (
        (cpu_seconds(process) - then) / count * 1e6 for process, then in zip(processes, used, strict=True)
    )
    return {"rows/s": count / seconds, "bridge µs": bridge, "writer µs": writer}


def drain(arguments: argparse.Namespace, count: int) -> dict[str, float]:
    """Return the most memory in MB that a bridge takes which finds ``count`` messages at the broker."""
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.directory)))
        port = stack.enter_context(mosquitto(place)).port
        url = f"sqlite:///{place / 'mqtt.db'}"
        database = sa.create_engine(url)
        with Run(port, url, place):
            prepare(port, database)
        flood(port, "site/1/climate", count)
        with Run(port, url, place) as bridge:
            await_rows(database, count)
            status = Path(f"/proc/{bridge.pid}/status").read_text()
        database.dispose()
    most = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    return {"memory MB": int(most) / 1024}


def print_table(title: str, rows: dict[str, dict[str, float]]) -> None:
    """Print rows that have the same columns."""
    for number, (name, row) in enumerate(rows.items()):
        show({title: name, **row}, (-20, *(max(10, len(column) + 2) for column in row)), head=number == 0)
    print()


def main() -> None:
    """Measure and print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--messages", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--subscribers", default=",".join(SUBSCRIBERS))
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--databases", default="sqlite,postgresql")
    parser.add_argument("--idle", type=float, default=10.0)
    parser.add_argument("--backlog", type=int, default=100_000)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    if arguments.subscribers:
        found["subscribers"] = compare(arguments)
        print_table("subscriber", found["subscribers"])
    found["databases"] = {}
    for kind in filter(None, arguments.databases.split(",")):
        with DATABASES[kind].fresh() as url:
            found["databases"][kind] = store(url, arguments)
    print_table("database", found["databases"])
    if arguments.backlog:
        found["backlog"] = {
            f"{count:,}": drain(arguments, count) for count in (arguments.backlog // 100, arguments.backlog)
        }
        print_table("backlog", found["backlog"])
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
