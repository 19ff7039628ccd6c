"""Tables → records, beside what the driver needs for the bare rows, in one run.

usage: python benchmarks/reader.py [--messages 100000] [--rounds 3]

Prints, per model, microseconds per record for everything, for one topic of twenty, and milliseconds for the ten newest
records of one topic (best of the rounds).  The ratio is that to the main table's bare rows, fetched in the same order.
"""

from __future__ import annotations

import argparse
import random
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

from writer import BATCH, ROUTES, payload

import amqtt_db
from amqtt_db.config import load
from amqtt_db.engines import engine_for
from amqtt_db.message import PUBLISH, Batch, flags
from amqtt_db.writer.attempt import Attempt
from amqtt_db.writer.writer import Writer

TABLES = {"wide, declared": "climate", "wide": "climate", "document": "mqtt_document"}
ONE = "site/3/climate"


def fill(directory: Path, route: dict[str, Any], messages: int) -> str:
    """A database with the messages, over 20 topics; returns its URL."""
    url, rng = f"sqlite:///{directory / 'mqtt.db'}", random.Random(1)
    attempt = Attempt(directory / "attempt")
    writer = Writer(engine_for(url), load({"routes": [route]}).routes, attempt)
    writer.prepare()
    number, _ = writer.register("a", 1)
    for start in range(1, messages + 1, BATCH):
        numbers = range(start, min(start + BATCH, messages + 1))
        topics = [f"site/{position % 20}/climate".encode() for position in numbers]
        count, payloads = len(numbers), [payload(rng, position) for position in numbers]
        times = [1_700_000_000_000_000 + position for position in numbers]
        entries = [flags(PUBLISH, 1)] * count
        batch = Batch("a", numbers, times, entries, [0] * count, topics, payloads, numbers.stop)
        writer.store(number, None, start, batch)
    writer.close()
    attempt.close()
    return url


def best(rounds: int, work: Callable[[], int]) -> tuple[float, int]:
    """The least seconds that some work takes, and what it returns."""
    times = []
    for _ in range(rounds):
        start = perf_counter()
        count = work()
        times.append(perf_counter() - start)
    return min(times), count


def bare(path: Path, table: str) -> int:
    """Fetch the bare rows of a table in order of time."""
    connection, count = sqlite3.connect(path), 0
    cursor = connection.execute(f"SELECT * FROM {table} ORDER BY time, id, part")
    while rows := cursor.fetchmany(2000):
        count += len(rows)
    connection.close()
    return count


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{'model':<22} {'all':>8} {'records/s':>10} {'one topic':>10} {'newest 10':>10} {'ratio':>6}")
    for name, route in ROUTES.items():
        with tempfile.TemporaryDirectory() as directory:
            url = fill(Path(directory), route, options.messages)
            whole, count = best(options.rounds, lambda: sum(1 for _ in amqtt_db.read(url)))  # noqa: B023
            one, found = best(options.rounds, lambda: sum(1 for _ in amqtt_db.read(url, ONE)))  # noqa: B023
            newest, _ = best(options.rounds, lambda: len(list(amqtt_db.read(url, ONE, limit=10, newest=True))))  # noqa: B023
            ratio = ""
            if name in TABLES:
                floor, _ = best(options.rounds, lambda: bare(Path(directory) / "mqtt.db", TABLES[name]))  # noqa: B023
                ratio = f"{whole / floor:.1f}"
        micros = (whole / count * 1e6, count / whole, one / found * 1e6, newest * 1e3)
        print(f"{name:<22} {micros[0]:5.1f} µs {micros[1]:10,.0f} {micros[2]:7.1f} µs {micros[3]:7.1f} ms {ratio:>6}")


if __name__ == "__main__":
    main()
