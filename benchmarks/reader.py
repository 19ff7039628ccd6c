"""Tables → records, compared with reading the bare rows by the driver, in one run.

usage: python benchmarks/reader.py [--messages 100000] [--rounds 3] [--engines sqlite,postgresql,mysql] [--json FILE]

Prints per model microseconds per record for all topics and for one of twenty, and milliseconds for the ten newest
records of one topic (best of the rounds).  If a record is one row, the ratio compares with the bare rows: the same
columns of the same table in the same order, fetched by the driver in pages of 2,000 rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from common import ROUTES, Storing, batches, climate, measure_routes

import amqtt_db
from amqtt_db.database.engines import engine_for
from amqtt_db.testing.databases import Database

TABLES = {"wide, declared": "climate", "wide": "climate", "document": "mqtt_document"}
ONE = "site/3/climate"
WIDTHS = (-12, -23, 9, 12, 11, 14, 9, 7)


def best(rounds: int, work: Callable[[], int]) -> tuple[float, int]:
    """Return the fewest seconds that some work takes, and its result."""
    times = []
    for _ in range(rounds):
        start = perf_counter()
        count = work()
        times.append(perf_counter() - start)
    return min(times), count


def bare(url: str, table: str) -> int:
    """Fetch the bare rows of a table in order of time."""
    database, count = engine_for(url).open(write=False), 0
    with database.connect() as connection:
        cursor = connection.connection.cursor()
        cursor.execute(f"SELECT * FROM {table} ORDER BY time, id, part")
        while rows := cursor.fetchmany(2000):
            count += len(rows)
        cursor.close()
    database.dispose()
    return count


def measure(database: Database, name: str, messages: int, rounds: int) -> dict[str, Any]:
    """Measure one route on one engine."""
    with database.fresh() as url:
        with Storing(url, ROUTES[name]) as storing:
            storing.register("a", 1)
            for batch in batches(climate(messages)):
                storing.store(batch)
        whole, count = best(rounds, lambda: sum(1 for _ in amqtt_db.read(url)))
        one, found = best(rounds, lambda: sum(1 for _ in amqtt_db.read(url, ONE)))
        newest, _ = best(rounds, lambda: len(list(amqtt_db.read(url, ONE, limit=10, newest=True))))
        floor = best(rounds, lambda: bare(url, TABLES[name]))[0] if name in TABLES else None
    return {
        "engine": database.name,
        "route": name,
        "all µs": whole / count * 1e6,
        "records/s": count / whole,
        "one topic": one / found * 1e6,
        "newest 10, ms": newest * 1e3,
        "bare µs": None if floor is None else floor / count * 1e6,
        "ratio": None if floor is None else whole / floor,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    measure_routes("Tables → records, beside the bare rows.", measure, ROUTES, WIDTHS, arguments)


if __name__ == "__main__":
    main()
