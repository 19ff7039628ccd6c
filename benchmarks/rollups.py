"""Rollups: what they cost and save for series of one number every ten seconds, with and without them.

usage: python benchmarks/rollups.py [--series 100] [--days 3] [--engines sqlite,postgresql,mysql]
       [--routes 'wide;narrow'] [--json FILE]

Stores the records of all series, and sums them up over 5 minutes and over days.  Prints CPU seconds of the writer to
store them, and to sum them up; MB of the whole database; and milliseconds (best of five) for plots of one series: of
all its time, and of a day.
"""

from __future__ import annotations

import argparse
import logging
import math
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from common import BATCH, ENGINES, Storing, at_hand, show_and_save, timed
from plots import best
from size import SIZES

from amqtt_db.database.snapshot import open_snapshot
from amqtt_db.message import PUBLISH, Batch, flags
from amqtt_db.reader.plot_bins import Bins
from amqtt_db.reader.plot_data import read_plot
from amqtt_db.testing.databases import Database
from amqtt_db.testing.starting import connected

MIDNIGHT = 1_700_006_400_000_000
PAUSE = 10_000_000  # microseconds between two records of a series
BINS = 480
STEPS = [{"every": "5 min"}, {"every": "1 day"}]
ROUTES: dict[str, dict[str, Any]] = {
    "wide": {"topic": "site/{sensor}", "model": {"wide": {"table": "climate"}}},
    "narrow": {"topic": "site/{sensor}", "model": "narrow"},
}
WIDTHS = (-12, -8, -9, 11, 12, 12, 8, 16, 18)


def batches_of_series(series: int, days: int) -> Iterator[Batch]:
    """Yield the records of all series in order of time."""
    count = series * days * 86_400_000_000 // PAUSE
    for first in range(1, count + 1, BATCH):
        positions = range(first, min(first + BATCH, count + 1))
        numbers = [(position - 1) % series for position in positions]
        times = [MIDNIGHT + (position - 1) // series * PAUSE for position in positions]
        payloads = [b'{"temp":%.3f}' % (20 + 5 * math.sin(position / 9000)) for position in positions]
        topics = [b"site/%d" % number for number in numbers]
        entries = bytes([flags(PUBLISH, 1)]) * len(positions)
        yield Batch("a", positions, times, entries, [0] * len(positions), topics, payloads, positions.stop)


def plot(url: str, start: int, end: int) -> None:
    """Read the plot of one series, with a connection of its own, as the page does."""
    with open_snapshot(url) as snapshot:
        assert read_plot(snapshot, "site/0", Bins.between(start, end, BINS)).series


def measure(database: Database, name: str, series: int, days: int, *, with_rollups: bool) -> dict[str, Any]:
    """Store, sum up and plot."""
    ask, *settle = SIZES[database.name]
    route = {**ROUTES[name], "rollup": STEPS} if with_rollups else ROUTES[name]
    with database.fresh() as url:
        with Storing(url, route) as storing:
            storing.register("a", 1)
            given = list(batches_of_series(series, days))
            stored = timed(lambda: storing.store_all(given))
            summed = timed(storing.writer.retention.finish)
        with connected(url) as connection:
            for statement in settle:
                connection.exec_driver_sql(statement)
            size = float(connection.execute(sa.text(ask)).scalar_one())
        end = MIDNIGHT + days * 86_400_000_000 - 1
        whole, day = (best(5, partial(plot, url, start, end)) for start in (MIDNIGHT, end - 86_400_000_000))
    return {
        "engine": database.name,
        "route": name,
        "rollups": "yes" if with_rollups else "no",
        "records": series * days * 86_400_000_000 // PAUSE,
        "store, CPU s": stored.cpu,
        "sum, CPU s": summed.cpu if with_rollups else None,
        "MB": size / 1e6,
        "plot of all, ms": whole,
        "plot of a day, ms": day,
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Rollups: what they cost, and what they save.")
    parser.add_argument("--series", type=int, default=100)
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--engines", default=ENGINES)
    parser.add_argument("--routes", default="wide;narrow")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    logging.disable()
    rows = (
        measure(database, name, options.series, options.days, with_rollups=with_rollups)
        for database in at_hand(options.engines)
        for name in options.routes.split(";")
        for with_rollups in (False, True)
    )
    show_and_save(rows, WIDTHS, options.json)


if __name__ == "__main__":
    main()
