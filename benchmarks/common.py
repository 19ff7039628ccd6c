"""Shared by the benchmarks: messages, routes, databases on every available engine, tables of figures."""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import attrs
import orjson

from amqtt_db.config import load_section
from amqtt_db.database.engines import engine_for
from amqtt_db.message import PUBLISH, Batch, flags
from amqtt_db.testing.databases import DATABASES, Database
from amqtt_db.testing.starting import Missing
from amqtt_db.writer.batch_size import USUAL_BATCH, StoredBatch
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.steady_clock import SteadyClock
from amqtt_db.writer.writer import Writer

ENGINES = "sqlite,postgresql,mysql"

ENTITY = {
    "seq": "int",
    "temp": "float",
    "rh": "float",
    "press": "float",
    "ok": "bool",
    "unit": "str",
    "time": {"type": "datetime", "format": "epoch_s"},
}
TOPIC = "site/{site}/climate"
ROUTES: dict[str, dict[str, Any]] = {
    "wide, declared": {"topic": TOPIC, "model": {"wide": {"table": "climate"}}, "entity": ENTITY, "time": "time"},
    "wide": {"topic": TOPIC, "model": {"wide": {"table": "climate"}}},
    "wide, table per topic": {"topic": "#"},
    "document": {"topic": TOPIC, "model": "document"},
    "narrow": {"topic": TOPIC, "model": "narrow"},
    "eav": {"topic": TOPIC, "model": "eav"},
}
BATCH = 5000
ARRIVAL = 1_700_000_000_000_000

Message = tuple[bytes, bytes]
"""(topic, payload)."""


def climate(count: int, topics: int = 20) -> list[Message]:
    """Return messages of seven fields (an int, three floats, a bool, a text, an epoch time), over some topics."""
    rng = random.Random(7)
    return [
        (f"site/{number % topics}/climate".encode(), orjson.dumps(seven_values(rng, number))) for number in range(count)
    ]


def seven_values(rng: random.Random, number: int) -> dict[str, Any]:
    """Return the values of a message."""
    return {
        "seq": number,
        "temp": round(rng.gauss(21, 3), 3),
        "rh": round(rng.uniform(20, 80), 2),
        "press": round(rng.gauss(1013, 8), 2),
        "ok": rng.random() < 0.9,
        "unit": rng.choice(["hall", "lab", "roof"]),
        "time": 1_700_000_000 + number,
    }


def batch_from(messages: Sequence[Message], start: int, size: int) -> Batch:
    """Return some messages from an index on as a batch, as a journal's reader does."""
    some = messages[start : start + size]
    topics, payloads = zip(*some, strict=True)
    positions = range(start + 1, start + 1 + len(some))
    times = [ARRIVAL + position for position in positions]
    entries = bytes([flags(PUBLISH, 1)]) * len(some)
    return Batch("a", positions, times, entries, [0] * len(some), topics, payloads, positions.stop)


def batches(messages: Sequence[Message], size: int = BATCH) -> list[Batch]:
    """Return the messages in batches of the same size."""
    return [batch_from(messages, start, size) for start in range(0, len(messages), size)]


def at_hand(names: str) -> list[Database]:
    """Return the available ones of the comma-separated databases; print why others are missing."""
    found = []
    for database in (one for one in DATABASES if one.name in names.split(",")):
        try:
            database.prepare()
            found.append(database)
        except Missing as missing:
            print(f"{database.name}: {missing}")
    return found


class Storing:
    """A writer on an empty database that stores batches; a context manager."""

    def __init__(self, url: str, route: Mapping[str, Any], clock: SteadyClock | None = None) -> None:
        """``clock`` tells the time by which `keep` goes."""
        self.engine = engine_for(url)
        self._directory = tempfile.TemporaryDirectory(prefix="amqtt_db_")
        self._guard = CrashGuard(Path(self._directory.name) / "attempt")
        self.writer = Writer(self.engine, load_section({"routes": [dict(route)]}).routes, self._guard, clock)
        self.writer.prepare()
        self.number, self.position = 0, 1
        self.size = USUAL_BATCH

    def __enter__(self) -> Storing:
        return self

    def __exit__(self, *error: object) -> None:
        self.writer.close()
        self._guard.close()
        self._directory.cleanup()

    def register(self, generation: str, first: int) -> None:
        """Register a journal's generation."""
        self.number, self.position = self.writer.register(generation, first)

    def store(self, batch: Batch) -> None:
        """Store the next batch, and find out how large the one after it may be."""
        started = perf_counter()
        tables = self.writer.store(self.number, None, self.position, batch)
        self.size = StoredBatch(len(batch), tables, perf_counter() - started).next_size()
        self.position = batch.end

    def next_batches(self, messages: Sequence[Message]) -> Iterator[Batch]:
        """Yield those of the messages that are not stored yet, in batches as large as the writer's loop takes."""
        while self.position <= len(messages):
            yield batch_from(messages, self.position - 1, self.size)

    def store_all(self, batches: Iterable[Batch]) -> None:
        """Store the next batches."""
        for batch in batches:
            self.store(batch)


@attrs.frozen
class Spent:
    """Elapsed seconds, and CPU seconds of this process."""

    wall: float = 0.0
    cpu: float = 0.0

    def __add__(self, other: Spent) -> Spent:
        return Spent(self.wall + other.wall, self.cpu + other.cpu)

    def to_micros(self, count: int) -> Spent:
        """Return microseconds per item."""
        return Spent(self.wall / count * 1e6, self.cpu / count * 1e6)


def timed(work: Callable[[], object]) -> Spent:
    """Measure a call."""
    wall, cpu = perf_counter(), process_time()
    work()
    return Spent(perf_counter() - wall, process_time() - cpu)


def median(rounds: Sequence[Spent]) -> Spent:
    """Return the median of each."""
    return Spent(statistics.median(one.wall for one in rounds), statistics.median(one.cpu for one in rounds))


def show(row: Mapping[str, Any], widths: Sequence[int], *, head: bool) -> None:
    """Print a row of a table, with the heading before the first; negative widths align left."""
    for cells in [row.keys(), row.values()] if head else [row.values()]:
        texts = zip(map(_cell, cells), widths, strict=False)  # further cells appear in the JSON only
        print("".join(text.ljust(-width) if width < 0 else text.rjust(width) for text, width in texts), flush=True)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"
    return "" if value is None else str(value)


def show_and_save(rows: Iterable[Mapping[str, Any]], widths: Sequence[int], path: Path | None) -> None:
    """Print each row of a table as soon as it is there, and write all of them as JSON."""
    found: list[Mapping[str, Any]] = []
    for row in rows:
        show(row, widths, head=not found)
        found.append(row)
    save(path, found)


Measure = Callable[[Database, str, int, int], Mapping[str, Any]]
"""Measures a route, given by name, on a database: with so many messages, in so many rounds."""


def measure_routes(
    description: str, measure: Measure, names: Iterable[str], widths: Sequence[int], arguments: Sequence[str] | None
) -> None:
    """Measure each route on each engine, as the command line says, and print a row for each."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", default=ENGINES)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    logging.disable()
    rows = (
        measure(database, name, options.messages, options.rounds)
        for database in at_hand(options.engines)
        for name in names
    )
    show_and_save(rows, widths, options.json)


def save(path: Path | None, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as JSON."""
    if path is not None:
        path.write_text(json.dumps(list(rows), indent=2))
