"""A month of many series: time and bytes for its plots, with and without rollups.

usage: python benchmarks/month.py [--series 100] [--days 30] [--engines sqlite,postgresql] [--json FILE]

Each series has a number every ten seconds.  The writer stores the first record of each; the database itself makes the
others, because that is faster.  Then the writer sums all of them up, over 5 minutes and over days.  Prints milliseconds
(best of five) for plots of one series and of twelve, before and after that; MB of the records, and of the sums; and
microseconds of the writer's CPU time to sum up a record.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import sqlalchemy as sa
from common import Storing, at_hand, show_and_save, timed
from plots import best
from rollups import BINS, MIDNIGHT, PAUSE, ROUTES, STEPS, batches_of_series
from size import SIZES

from amqtt_db.database.snapshot import open_snapshot
from amqtt_db.reader.plot_bins import Bins
from amqtt_db.reader.plot_data import read_plot
from amqtt_db.testing.databases import Database
from amqtt_db.testing.starting import connected

ON_A_PAGE: Final = 12
DAY: Final = 86_400_000_000
WIDTHS: Final = (-12, 12, 9, 17, 19, 21, 10, 9)

_SECONDS: Final = PAUSE // 1_000_000
_VALUES: Final = {
    "sqlite": {
        "id": "c.id + n.value * {series}",
        "time": f"datetime(c.time, (n.value * {_SECONDS}) || ' seconds') || '.000000'",
        "temp": "20 + n.value * 7919 % 10007 / 1000.0",
    },
    "postgresql": {
        "id": "c.id + n.value * {series}",
        "time": f"c.time + n.value * interval '{_SECONDS} seconds'",
        "temp": "20 + n.value * 7919 % 10007 / 1000.0",
    },
}
_NUMBERS: Final = {
    "sqlite": "(WITH RECURSIVE n(value) AS (SELECT {first} UNION ALL SELECT value + 1 FROM n WHERE value < {last}) "
    "SELECT value FROM n)",
    "postgresql": "(SELECT generate_series({first}::bigint, {last}) AS value)",
}


def fill(url: str, engine: str, series: int, days: int) -> None:
    """Make the records that follow the first ones, by the database itself, day by day as they would arrive."""
    with connected(url) as connection:
        names = [column["name"] for column in sa.inspect(connection).get_columns("climate")]
        values = [_VALUES[engine].get(name, f"c.{name}").format(series=series) for name in names]
        for day in range(days):
            first, last = max(1, day * DAY // PAUSE), (day + 1) * DAY // PAUSE - 1
            numbers = _NUMBERS[engine].format(first=first, last=last)
            source = f"{numbers} n CROSS JOIN (SELECT * FROM climate ORDER BY id LIMIT {series}) c"
            select = f"SELECT {', '.join(values)} FROM {source} ORDER BY n.value"
            connection.execute(sa.text(f"INSERT INTO climate ({', '.join(names)}) {select}"))
            connection.commit()


def weigh(url: str, engine: str) -> float:
    """Return the MB of a database, when what it puts off is done."""
    ask, *settle = SIZES[engine]
    with connected(url) as connection:
        for statement in settle:
            connection.exec_driver_sql(statement)
        return float(connection.execute(sa.text(ask)).scalar_one()) / 1e6


def plot(url: str, count: int, bins: Bins) -> None:
    """Read the plots of some series, with a connection of their own, as the page does."""
    with open_snapshot(url) as snapshot:
        for number in range(count):
            assert read_plot(snapshot, f"site/{number}", bins).series


def time_plots(url: str, days: int, series: int) -> Mapping[str, float]:
    """Return how long plots take."""
    end = MIDNIGHT + days * DAY - 1
    month, day = (Bins.between(start, end, BINS) for start in (MIDNIGHT, end + 1 - DAY))
    return {
        "plot of all, ms": best(5, partial(plot, url, 1, month)),
        "plot of a day, ms": best(5, partial(plot, url, 1, day)),
        "12 plots of all, ms": best(5, partial(plot, url, min(ON_A_PAGE, series), month)),
    }


def measure(database: Database, series: int, days: int) -> Sequence[Mapping[str, Any]]:
    """Store, make, plot, sum up, plot again; return a row without rollups and one with them."""
    records = series * days * DAY // PAUSE
    with database.fresh() as url:
        with Storing(url, {**ROUTES["wide"], "rollup": STEPS}) as storing:
            storing.register("a", 1)
            storing.store(next(batches_of_series(series, 1, batch=series)))
            fill(url, database.name, series, days)
            before = weigh(url, database.name)
            without = time_plots(url, days, series)
            summed = timed(storing.writer.retention.finish)
        after = weigh(url, database.name)
        with_rollups = time_plots(url, days, series)
    shared = {"engine": database.name, "records": records}
    return (
        {**shared, "rollups": "no", **without, "MB": before, "sum, µs": None},
        {**shared, "rollups": "yes", **with_rollups, "MB": after - before, "sum, µs": summed.to_micros(records).cpu},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="A month of many series, with and without rollups.")
    parser.add_argument("--series", type=int, default=100)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--engines", default="sqlite,postgresql")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    logging.disable()
    found = (measure(database, options.series, options.days) for database in at_hand(options.engines))
    show_and_save((row for rows in found for row in rows), WIDTHS, options.json)


if __name__ == "__main__":
    main()
