"""Journal → committed rows, beside what the libraries underneath can do at all, in one run.

usage: python benchmarks/writer.py [--messages 100000] [--rounds 3] [--json FILE]

Prints microseconds per message (medians over the rounds) and the ratio to the floor: decoding, structuring and the
driver's own bulk load of the same rows.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, time_ns
from typing import Any

import orjson

from amqtt_db.config import load
from amqtt_db.engines import engine_for
from amqtt_db.entity import Entity
from amqtt_db.journal import Journal, JournalReader
from amqtt_db.message import PUBLISH, flags
from amqtt_db.worker import calm_collector
from amqtt_db.writer.attempt import Attempt
from amqtt_db.writer.writer import Writer

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


def payload(rng: random.Random, number: int) -> bytes:
    """Seven fields: an int, three floats, a bool, a text and an epoch time."""
    fields = {
        "seq": number,
        "temp": round(rng.gauss(21, 3), 3),
        "rh": round(rng.uniform(20, 80), 2),
        "press": round(rng.gauss(1013, 8), 2),
        "ok": rng.random() < 0.9,
        "unit": rng.choice(["hall", "lab", "roof"]),
        "time": 1_700_000_000 + number,
    }
    return orjson.dumps(fields)


def fill(path: Path, payloads: list[bytes]) -> None:
    """A journal with the messages, over 20 topics."""
    journal = Journal.open(path, max_size=2**40, sync="never")
    for number, data in enumerate(payloads):
        journal.append(flags(PUBLISH, 1), time_ns() // 1000, 0, f"site/{number % 20}/climate".encode(), data)
        if number % 500 == 499:
            journal.commit()
    journal.commit()
    journal.close()


def drain(directory: Path, journal: Path, route: dict[str, Any], url: str | None = None) -> float:
    """Seconds from the journal to committed rows; ``url`` names another database than an SQLite file."""
    attempt = Attempt(directory / "attempt")
    routes = load({"routes": [route]}).routes
    writer = Writer(engine_for(url or f"sqlite:///{directory / 'mqtt.db'}"), routes, attempt)
    writer.prepare()
    reader = JournalReader(journal)
    (opening,) = reader.openings()
    number, position = writer.register(opening.token, opening.first)
    started = perf_counter()
    while batch := reader.read(opening.token, position, max_messages=BATCH):
        writer.store(number, None, position, batch)
        position = batch.end
    seconds = perf_counter() - started
    reader.close()
    writer.close()
    attempt.close()
    return seconds


def reload(database: Path) -> float:
    """Seconds that the driver alone takes to load the same rows into the same tables, committing as the writer does."""
    source = sqlite3.connect(database)
    tables = [name for (name,) in source.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
    loads = [(name, source.execute(f'SELECT * FROM "{name}"').fetchall()) for name in tables if _holds_rows(name)]
    statements = [
        sql for (sql,) in source.execute("SELECT sql FROM sqlite_master WHERE sql IS NOT NULL ORDER BY type DESC")
    ]
    source.close()
    target = sqlite3.connect(database.with_name("floor.db"), isolation_level=None)
    target.execute("PRAGMA journal_mode = WAL")
    target.execute("PRAGMA synchronous = FULL")
    for statement in statements:
        target.execute(statement)
    started = perf_counter()
    steps = max(len(rows) for _, rows in loads) // BATCH + 1
    for step in range(steps):
        target.execute("BEGIN IMMEDIATE")
        for name, rows in loads:
            share = -(-len(rows) // steps)
            part = rows[step * share : (step + 1) * share]
            if part:
                target.executemany(f'INSERT INTO "{name}" VALUES ({", ".join("?" * len(part[0]))})', part)
        target.execute("COMMIT")
    seconds = perf_counter() - started
    target.close()
    return seconds


def _holds_rows(table: str) -> bool:
    return not table.startswith("mqtt_") or table in {"mqtt_document", "mqtt_message", "mqtt_point", "mqtt_value"}


def timed(work: Callable[[], object]) -> float:
    """Seconds that a call takes."""
    started = perf_counter()
    work()
    return perf_counter() - started


def measure(payloads: list[bytes], route: dict[str, Any]) -> dict[str, float]:
    """One round of one route: microseconds per message, ours and the floor's parts."""
    count = len(payloads)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        fill(directory / "journal", payloads)
        figures = {"ours": drain(directory, directory / "journal", route)}
        figures["rows"] = reload(directory / "mqtt.db")
    decoded: list[Any] = []
    figures["decode"] = timed(lambda: decoded.extend(map(orjson.loads, payloads)))
    if "entity" in route:
        structure = Entity.inline(ENTITY).structure
        figures["structure"] = timed(lambda: [structure(data) for data in decoded])
    return {name: seconds / count * 1e6 for name, seconds in figures.items()}


def main() -> None:
    """Run all routes, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rng = random.Random(7)
    payloads = [payload(rng, number) for number in range(arguments.messages)]
    calm_collector()
    results: dict[str, dict[str, float]] = {}
    print(f"{'SQLite, µs per message':28}{'ours':>8}{'floor':>8}{'ratio':>8}{'messages/s':>12}")
    for name, route in ROUTES.items():
        rounds = [measure(payloads, route) for _ in range(arguments.rounds)]
        figures = {key: statistics.median(figure[key] for figure in rounds) for key in rounds[0]}
        figures["floor"] = sum(value for key, value in figures.items() if key != "ours")
        figures["ratio"] = figures["ours"] / figures["floor"]
        results[name] = figures
        rate = 1e6 / figures["ours"]
        print(f"{name:28}{figures['ours']:8.2f}{figures['floor']:8.2f}{figures['ratio']:8.2f}{rate:12,.0f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
