"""The cost of growth: topics, properties, fields that are sometimes integers, a backlog of a million messages.

usage: python benchmarks/growth.py [--messages 50000] [--backlog 1000000] [--engines sqlite] [--json FILE]

Prints for each model microseconds per message, or per property and message: CPU time of the writer, and elapsed time,
which includes the server's share.

- topics: the same messages over 1, 100 and 10,000 known topics; and the cost of a topic's first message, including its
  table if it has its own;
- properties: 1, 10, 100 and 1,000 numbers in each message, with the same total number of values;
- random: 30 numbers that are `21` or `21.5` at random, compared with the same 30 as `21.5`;
- backlog: a writer in a separate process drains a journal; the rate of each tenth, and peak memory.
"""

from __future__ import annotations

import argparse
import logging
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import orjson
from common import BATCH, Message, Spent, Storing, at_hand, batches, climate, median, save, show, timed

from amqtt_db.journal import JournalReader
from amqtt_db.testing.databases import Database
from amqtt_db.writer.process import relax_collector

MODELS: dict[str, Any] = {
    "wide, one table": {"wide": {"table": "climate"}},
    "document": "document",
    "narrow": "narrow",
    "eav": "eav",
    "wide, table per topic": "wide",
}
WIDTHS = (-12, -12, -23, 9, 11, 9, 9, 11, 9)
TOPICS = (1, 100, 10_000)
PROPERTIES = (1, 10, 100, 1000)


def route_to(model: Any) -> dict[str, Any]:
    """Return the route of all topics."""
    return {"topic": "#", "model": model, "max_tables": 100_000, "max_columns": 1000}


def stored(database: Database, model: Any, messages: Sequence[Message], size: int = BATCH) -> list[Spent]:
    """Return microseconds per message, batch by batch."""
    with database.fresh() as url, Storing(url, route_to(model)) as storing:
        storing.register("a", 1)
        return [timed(lambda: storing.store(batch)).to_micros(len(batch)) for batch in batches(messages, size)]  # noqa: B023


def over_topics(database: Database, model: Any, count: int, topics: int) -> tuple[Spent, float]:
    """Return microseconds per message once all topics are known, and for the first messages of ``topics`` topics."""
    first = climate(max(BATCH, topics), topics)
    with database.fresh() as url, Storing(url, route_to(model)) as storing:
        storing.register("a", 1)
        met = sum((spent for _, spent in as_in_the_loop(storing, first)), Spent())
        found = as_in_the_loop(storing, [*first, *climate(count, topics)])
        return median([spent.to_micros(size) for size, spent in found]), met.cpu / topics * 1e6


def as_in_the_loop(storing: Storing, messages: Sequence[Message]) -> list[tuple[int, Spent]]:
    """Store the messages that are not stored yet, in batches as the loop takes them; return their sizes and costs."""
    return [(len(batch), timed(lambda: storing.store(batch))) for batch in storing.next_batches(messages)]  # noqa: B023


def of_topics(database: Database, name: str, count: int, most: int) -> Iterator[dict[str, Any]]:
    """Return a row for each number of topics."""
    base = None
    for topics in (topics for topics in TOPICS if topics <= most):
        each, first = over_topics(database, MODELS[name], count, topics)
        base = base or each
        new = None if topics == 1 else first - each.cpu
        yield row(database, "topics", name, topics, each, base, new=new)


def of_properties(database: Database, name: str, values: int, most: int) -> Iterator[dict[str, Any]]:
    """Return a row for each number of properties: µs per property."""
    base = None
    for properties in (properties for properties in PROPERTIES if properties <= most):
        count = max(10, values // properties)
        numbers = ({f"p{key}": number + key / 8 for key in range(properties)} for number in range(count))
        messages = [(b"machine", orjson.dumps(one)) for one in numbers]
        spent = median(stored(database, MODELS[name], messages, -(-count // 10))[1:])
        found = Spent(spent.wall / properties, spent.cpu / properties)
        base = base or found
        yield row(database, "properties", name, properties, found, base)


def of_random(database: Database, name: str, count: int) -> Iterator[dict[str, Any]]:
    """Compare thirty stable fields with thirty that are sometimes integers."""
    rng = random.Random(1)
    base = None
    choices: dict[str, Callable[[], float]] = {"stable": lambda: 21.5, "random": lambda: rng.choice((21, 21.5))}
    for kind, value in choices.items():
        messages = [(b"m", orjson.dumps({f"p{key}": value() for key in range(30)})) for _ in range(count)]
        found = median(stored(database, MODELS[name], messages, -(-count // 10))[1:])
        base = base or found
        yield row(database, "30 numbers", name, kind, found, base)


def row(
    database: Database, what: str, name: str, size: object, spent: Spent, base: Spent, new: float | None = None
) -> dict[str, Any]:
    """Return a row of the table; ``new`` is microseconds per new topic."""
    return {
        "engine": database.name, "growth": what, "model": name, "size": size,
        "µs": spent.cpu, "ratio": spent.cpu / base.cpu, "new": new,
        "by clock": spent.wall, "its ratio": spent.wall / base.wall,
    }  # fmt: skip


def of_backlog(database: Database, name: str, count: int) -> Iterator[dict[str, Any]]:
    """Drain a backlog in a separate process: the slowest and fastest tenth, and its memory."""
    from writer import fill  # noqa: PLC0415 - with its loaders

    with tempfile.TemporaryDirectory() as directory, database.fresh() as url:
        journal = Path(directory) / "journal"
        fill(journal, climate(count))
        order = orjson.dumps({"url": url, "journal": str(journal), "model": MODELS[name]}).decode()
        done = subprocess.run([sys.executable, __file__, "--drain", order], check=True, capture_output=True)
    printed = orjson.loads(done.stdout)
    rates, memory = printed["rates"], printed["memory"]
    yield {
        "engine": database.name,
        "growth": "backlog",
        "model": name,
        "size": f"{count:,}",
        "µs": None,
        "ratio": None,
        "new": None,
        "by clock": 1e6 / statistics.median(rates),
        "its ratio": max(rates) / min(rates),
        "rates": [round(rate) for rate in rates],
        "MB": [round(one) for one in memory],
    }


def most_memory() -> float:
    """Return peak memory in MB; ``getrusage`` would include the parent, whose memory a fork shares."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def drain(order: dict[str, Any]) -> None:
    """Drain a journal; print messages per second and peak memory (MB) after each tenth."""
    relax_collector()
    reader = JournalReader(order["journal"])
    (generation,) = reader.generations()
    rates, memory = [], []
    tenth = max(1, reader.pending(generation.token, 0) // 10)
    with Storing(order["url"], {"topic": "#", "model": order["model"], "max_tables": 100}) as storing:
        storing.register(generation.token, generation.first)
        started, marked = perf_counter(), storing.position
        while batch := reader.read(generation.token, storing.position, max_messages=storing.size):
            storing.store(batch)
            if storing.position - marked >= tenth:
                rates.append((storing.position - marked) / (perf_counter() - started))
                memory.append(most_memory())
                started, marked = perf_counter(), storing.position
    reader.close()
    print(orjson.dumps({"rates": rates, "memory": memory}).decode())


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything and print a table."""
    parser = argparse.ArgumentParser(description="What growth costs.")
    parser.add_argument("--messages", type=int, default=50_000)
    parser.add_argument("--topics", type=int, default=10_000, help="at most")
    parser.add_argument("--properties", type=int, default=1000, help="at most")
    parser.add_argument("--backlog", type=int, default=1_000_000)
    parser.add_argument("--engines", default="sqlite")
    parser.add_argument("--models", default="", help="beginnings of models' names, separated by semicolons")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--drain", type=orjson.loads, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    logging.disable()
    if options.drain:
        drain(options.drain)
        return
    relax_collector()
    rows: list[dict[str, Any]] = []
    for database in at_hand(options.engines):
        for name in (name for name in MODELS if name.startswith(tuple(options.models.split(";")))):
            parts = (
                of_topics(database, name, options.messages, options.topics),
                of_properties(database, name, options.messages, options.properties),
                of_random(database, name, max(10, options.messages // 5)),
                of_backlog(database, name, options.backlog) if options.backlog else (),
            )
            for found in (found for part in parts for found in part):
                rows.append(found)
                show(found, WIDTHS, head=len(rows) == 1)
    save(options.json, rows)


if __name__ == "__main__":
    main()
