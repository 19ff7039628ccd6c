"""Tables → Arrow: to_arrow() beside ADBC reading the same table, and beside a record at a time, in one run.

usage: python benchmarks/arrow.py [--messages 100000] [--rounds 3] [--engines sqlite,postgresql,mysql] [--json FILE]

Prints per model microseconds of CPU per record (medians of rounds in which all take turns), and millions of values per
second, the envelope's included.  For ADBC: pip install adbc-driver-sqlite adbc-driver-postgresql.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

import sqlalchemy as sa
from common import ROUTES, Spent, Storing, batches, climate, measure_routes, median, timed

import amqtt_db
from amqtt_db.reader.arrow import table_of
from amqtt_db.reader.arrow_columns import columns_of_records
from amqtt_db.testing.databases import Database

NAMES = ("wide, declared", "wide", "wide, table per topic", "narrow", "eav", "document")
IN_ONE_TABLE = ("wide, declared", "wide")
QUERY = "SELECT * FROM climate ORDER BY time, id, part"
WIDTHS = (-12, -23, 11, 15, 15, 9, 15)


def read_by_adbc(url: str) -> Callable[[], object] | None:
    """Return a function that reads the table by ADBC, None if there is no driver for the database."""
    given = sa.make_url(url)
    try:
        driver: Any = import_module(f"adbc_driver_{given.get_backend_name()}.dbapi")
    except ImportError:
        return None
    where = f"file:{given.database}" if given.get_backend_name() == "sqlite" else url

    def read() -> object:
        with driver.connect(where) as connection, connection.cursor() as cursor:
            cursor.execute(QUERY)
            return cursor.fetch_arrow_table()

    return read


def measure(database: Database, name: str, messages: int, rounds: int) -> dict[str, Any]:
    """Measure one route on one engine."""
    with database.fresh() as url:
        with Storing(url, ROUTES[name]) as storing:
            storing.register("a", 1)
            for batch in batches(climate(messages)):
                storing.store(batch)
        table = amqtt_db.read(url).to_arrow()
        values = sum(len(column) - column.null_count for column in table.columns)
        works: dict[str, Callable[[], object] | None] = {
            "to_arrow": lambda: amqtt_db.read(url).to_arrow(),
            "by record": lambda: table_of([columns_of_records(list(amqtt_db.read(url)))]),
            "adbc": read_by_adbc(url) if name in IN_ONE_TABLE else None,
        }
        spent = _take_turns(works, rounds)
    per_record = {work: one.to_micros(messages).cpu for work, one in spent.items()}
    adbc = per_record.get("adbc")
    return {
        "engine": database.name,
        "route": name,
        "to_arrow µs": per_record["to_arrow"],
        "M values/s": values / messages / per_record["to_arrow"],
        "by record, ratio": per_record["by record"] / per_record["to_arrow"],
        "ADBC µs": adbc,
        "ratio to ADBC": None if adbc is None else per_record["to_arrow"] / adbc,
    }


def _take_turns(works: Mapping[str, Callable[[], object] | None], rounds: int) -> dict[str, Spent]:
    """Return the median of what each takes."""
    found: dict[str, list[Spent]] = {name: [] for name, work in works.items() if work is not None}
    for _ in range(rounds):
        for name, work in works.items():
            if work is not None:
                found[name].append(timed(work))
    return {name: median(some) for name, some in found.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    measure_routes("Tables → Arrow, beside ADBC and a record at a time.", measure, NAMES, WIDTHS, arguments)


if __name__ == "__main__":
    main()
