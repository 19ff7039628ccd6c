"""The plots of the page: how long they take for a topic with many records, beside one scan of its table, in one run.

usage: python benchmarks/plots.py [--records 1000000] [--rounds 3] [--engines sqlite,postgresql,mysql]
       [--routes 'wide;narrow'] [--json FILE]

Stores records of one topic, one a second, and prints milliseconds (best of the rounds) for a plot of all its time, of a
day and of an hour, and for the lowest and the highest value of the whole table by SQL.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import sqlalchemy as sa
from common import ENGINES, Storing, at_hand, show_and_save

from amqtt_db.database.engines import engine_for
from amqtt_db.database.snapshot import open_snapshot
from amqtt_db.message import PUBLISH, Batch, flags
from amqtt_db.reader.plot_bins import Bins
from amqtt_db.reader.plot_data import read_plot
from amqtt_db.testing.databases import Database

TOPIC = "site/roof/climate"
START = 1_700_000_000_000_000
BATCH = 5000
BINS = 480
ROUTES: dict[str, dict[str, Any]] = {
    "wide": {"topic": "site/#", "model": {"wide": {"table": "climate"}}},
    "narrow": {"topic": "site/#", "model": "narrow"},
    "eav": {"topic": "site/#", "model": "eav"},
    "document": {"topic": "site/#", "model": "document"},
}
VALUES = {"wide": ("climate", "temp"), "narrow": ("mqtt_point", "value"), "eav": ("mqtt_value", "number_value")}
WIDTHS = (-12, -12, 12, 9, 9, 9, 9)


def batches_of_a_sensor(records: int) -> Iterator[Batch]:
    """Yield the records of one sensor, one a second, in batches."""
    for first in range(1, records + 1, BATCH):
        positions = range(first, min(first + BATCH, records + 1))
        payloads = [b'{"temp":%.3f}' % (20 + 5 * math.sin(position / 9000)) for position in positions]
        count = len(positions)
        times = [START + position * 1_000_000 for position in positions]
        entries = bytes([flags(PUBLISH, 1)]) * count
        yield Batch("a", positions, times, entries, [0] * count, [TOPIC.encode()] * count, payloads, positions.stop)


def best(rounds: int, work: Callable[[], object]) -> float:
    """Return the fewest milliseconds that some work takes."""
    times = []
    for _ in range(rounds):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return min(times) * 1e3


def plot(url: str, start: int, end: int) -> None:
    """Read the plot of a time, with a connection of its own, as the page does."""
    with open_snapshot(url) as snapshot:
        found = read_plot(snapshot, TOPIC, Bins.between(start, end, BINS))
    assert found.series


def scan(url: str, table: str, column: str) -> None:
    """Find the extremes of a whole table."""
    database = engine_for(url).open(write=False)
    with database.connect() as connection:
        values = sa.table(table, sa.column(column)).c[column]
        connection.execute(sa.select(sa.func.min(values), sa.func.max(values), sa.func.count(values))).all()
    database.dispose()


def measure(database: Database, name: str, records: int, rounds: int) -> dict[str, Any]:
    """Measure one route on one engine."""
    with database.fresh() as url:
        with Storing(url, ROUTES[name]) as storing:
            storing.register("a", 1)
            for batch in batches_of_a_sensor(records):
                storing.store(batch)
        end = START + records * 1_000_000
        spans = {"all": records, "a day": 86_400, "an hour": 3600}
        times = {
            f"{span}, ms": best(rounds, partial(plot, url, end - seconds * 1_000_000, end))
            for span, seconds in spans.items()
        }
        whole = best(rounds, lambda: scan(url, *VALUES[name])) if name in VALUES else None
    return {"engine": database.name, "route": name, "records": records, **times, "scan, ms": whole}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="The plots of the page, beside a scan of the table.")
    parser.add_argument("--records", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--engines", default=ENGINES)
    parser.add_argument("--routes", default="wide;narrow")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    logging.disable()
    rows = (
        measure(database, name, options.records, options.rounds)
        for database in at_hand(options.engines)
        for name in options.routes.split(";")
    )
    show_and_save(rows, WIDTHS, options.json)


if __name__ == "__main__":
    main()
