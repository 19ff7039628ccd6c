"""PUBACK latency and time until a row is visible, at a steady rate; and the CPU of an idle system.

usage: python benchmarks/latency.py [--rate 1000] [--seconds 10] [--rounds 3] [--clients 20] [--fsync 2]
                                    [--databases sqlite,postgresql] [--idle 10] [--directory DIR] [--json FILE]

QoS 1 messages leave at even intervals without waiting for replies.  Each PUBACK is timed at the bare broker, at one
with the plugin, and at one with a slow disk, whose process sleeps ``--fsync`` milliseconds in each commit of the
journal; the brokers take turns.  Then, with the plugin, each row is timed until another process can query it.
``--directory`` selects the disk of the journals.
"""

from __future__ import annotations

import argparse
import json
import select
import statistics
import struct
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

import sqlalchemy as sa
from common import show
from mqtt import DATABASES, PATIENCE, Running, broker, connect, cpu_seconds, message, step_aside

ROUTES = [{"topic": "site/{site}/climate", "model": {"wide": {"table": "climate"}}}]
POLL = 0.002  # seconds between queries for rows
SLOW_DISK = """
import time
from amqtt_db.journal import Journal
write = Journal.write
def slowly(journal):
    time.sleep({seconds})
    write(journal)
Journal.write = slowly
"""
WIDTHS = (-32, 10, 10, 10, 15, 15)
COLUMNS = ("p50", "p99", "max", "broker idle %", "writer idle %")

Times = dict[int, float]
"""Message number, starting at 0 → time of an event."""


def publish(port: int, clients: int, rate: float, count: int) -> tuple[Times, Times]:
    """Publish at a steady rate; return when each message was sent and acknowledged."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(connect(port, f"c{number}"))) for number in range(clients)]
        poll = select.poll()
        for client in sockets:
            poll.register(client, select.POLLIN)
        by_number = {client.fileno(): client for client in sockets}
        sent: Times = {}
        acknowledged: Times = {}
        started, deadline = perf_counter() + 0.05, perf_counter() + count / rate + PATIENCE
        while len(acknowledged) < count and perf_counter() < deadline:
            while len(sent) < count and perf_counter() >= started + len(sent) / rate:
                number = len(sent)
                sent[number] = perf_counter()
                sockets[number % clients].sendall(message(number, number % clients))
            wait = max(0.0, started + len(sent) / rate - perf_counter()) if len(sent) < count else 1.0
            for descriptor, _ in poll.poll(wait * 1000):
                data = by_number[descriptor].recv(65536)
                now = perf_counter()
                for at in range(2, len(data), 4):
                    acknowledged[struct.unpack_from("!H", data, at)[0] - 1] = now
        for client in sockets:
            client.sendall(b"\xe0\x00")
    return sent, acknowledged


def latencies(sent: Times, arrived: Times) -> dict[str, float]:
    """Return median, 99th percentile and maximum in milliseconds."""
    taken = sorted((arrived[number] - sent[number]) * 1000 for number in sent)
    return {"p50": statistics.median(taken), "p99": taken[int(len(taken) * 0.99)], "max": taken[-1]}


@contextmanager
def watched(database: sa.Engine, count: int) -> Iterator[Times]:
    """Return when a query first saw each row; wait for all of them."""
    seen: Times = {}

    def look() -> None:
        last, deadline = -1, perf_counter() + 2 * PATIENCE
        with database.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            while last < count - 1 and perf_counter() < deadline:
                rows = connection.exec_driver_sql(f"SELECT seq FROM climate WHERE seq > {last} ORDER BY seq").all()
                now = perf_counter()
                seen.update((int(number), now) for (number,) in rows)
                last = max(seen, default=-1)
                sleep(POLL)

    thread = threading.Thread(target=look)
    thread.start()
    yield seen
    thread.join()


def prepare(port: int, database: sa.Engine) -> None:
    """Have the writer create the table, empty it and add the index that the query needs.

    It publishes until a row comes, for a bridge may not be subscribed yet.
    """
    deadline = perf_counter() + PATIENCE
    while not (sa.inspect(database).has_table("climate") and _count(database)):
        if perf_counter() > deadline:
            raise RuntimeError("no row ever came")
        publish(port, 1, 100, 1)
        sleep(0.2)
    sleep(0.5)
    with database.begin() as connection:
        connection.exec_driver_sql("DELETE FROM climate")
        connection.exec_driver_sql("CREATE INDEX climate_seq ON climate (seq)")


def _count(database: sa.Engine) -> int:
    with database.connect() as connection:
        return int(connection.exec_driver_sql("SELECT count(*) FROM climate").scalar_one())


def visible(url: str, arguments: argparse.Namespace) -> dict[str, float]:
    """Measure publish → row visible in milliseconds, then the idle system in percent of a core."""
    count = int(arguments.rate * arguments.seconds)
    database = sa.create_engine(url)
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.directory)))
        running = stack.enter_context(broker(place, {"database": url, "routes": ROUTES}))
        prepare(running.port, database)
        with watched(database, count) as seen:
            sent, _ = publish(running.port, arguments.clients, arguments.rate, count)
        database.dispose()
        return {**latencies(sent, seen), **idle(running, arguments.idle)}


def idle(running: Running, seconds: float) -> dict[str, float]:
    """Return the idle CPU of broker and writer, in percent of a core."""
    sleep(min(1.0, seconds))
    processes = {"broker idle %": running.process, "writer idle %": running.writer}
    before = {name: cpu_seconds(process) for name, process in processes.items()}
    sleep(seconds)
    return {name: (cpu_seconds(process) - before[name]) / seconds * 100 for name, process in processes.items()}


def acknowledged(arguments: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Measure PUBACK latencies of each broker in milliseconds, medians over the rounds."""
    slow = SLOW_DISK.format(seconds=arguments.fsync / 1000)
    plugin: dict[str, Any] = {"routes": ROUTES}
    kinds = {"bare broker": (None, ""), "plugin": (plugin, ""), f"plugin, fsync {arguments.fsync:g} ms": (plugin, slow)}
    count = int(arguments.rate * arguments.seconds)
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in kinds}
    with ExitStack() as stack:
        brokers = {}
        for name, (settings, before) in kinds.items():
            place = stack.enter_context(tempfile.TemporaryDirectory(dir=arguments.directory))
            brokers[name] = stack.enter_context(broker(Path(place), settings, before))
        for _ in range(arguments.rounds):
            for name, running in brokers.items():
                rounds[name].append(latencies(*publish(running.port, arguments.clients, arguments.rate, count)))
    return {
        name: {key: statistics.median(row[key] for row in some) for key in some[0]} for name, some in rounds.items()
    }


def line(name: str, row: dict[str, float]) -> dict[str, Any]:
    """Return a line of the table; without idle figures if only PUBACKs are timed."""
    return {"milliseconds": name, **{key: row.get(key) for key in COLUMNS}}


def main() -> None:
    """Measure and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--fsync", type=float, default=2.0)
    parser.add_argument("--databases", default="sqlite,postgresql")
    parser.add_argument("--idle", type=float, default=10.0)
    parser.add_argument("--directory", type=Path)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    step_aside()
    results = {f"PUBACK, {name}": row for name, row in acknowledged(arguments).items()}
    for number, (name, row) in enumerate(results.items()):
        show(line(name, row), WIDTHS, head=number == 0)
    for kind in arguments.databases.split(","):
        name = f"row visible, {kind}"
        with DATABASES[kind].fresh() as url:
            results[name] = visible(url, arguments)
        show(line(name, results[name]), WIDTHS, head=False)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
