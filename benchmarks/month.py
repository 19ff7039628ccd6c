"""A month of many series: time and bytes of its pages, with and without rollups.

usage: python benchmarks/month.py [--topics 100] [--properties 10] [--days 30] [--engines sqlite,postgresql]
       [--json FILE]

Each topic has a record every ten seconds, with some numbers.  The writer stores the first record of each; the database
itself makes the others, because that is faster.  Then the writer sums all of them up, over 5 minutes and over days.
Prints milliseconds (best of three) for whole pages, as the page's process makes them, from the records alone and with
the sums, in turn: of one topic over all its time and over a day, and of twelve topics; kB of the first of these pages;
MB of the records, and of the sums; and microseconds of the writer's CPU time to sum up a record.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

import orjson
import sqlalchemy as sa
from common import Storing, at_hand, show_and_save, timed
from jinja2 import Template
from plots import best
from rollups import MIDNIGHT, PAUSE, ROUTES, STEPS
from size import SIZES

from amqtt_db.config import Settings, load_section
from amqtt_db.message import PUBLISH, Batch, flags
from amqtt_db.testing.databases import Database
from amqtt_db.testing.starting import connected
from amqtt_db.web.pages import view_topic
from amqtt_db.web.pulse import Pulse
from amqtt_db.web.templating import make_templates

DAY: Final = 86_400_000_000
ROUTE: Final = {**ROUTES["wide"], "rollup": STEPS}
PAGES: Final = {
    "all": {"name": "site/0", "range": "all"},
    "a day": {"name": "site/0", "range": "1d"},
    "12 topics": {"name": "site/+", "range": "all"},
}
ROUNDS: Final = 3
WIDTHS: Final = (-12, 12, 13, 9, 12, 12, 15, 9, 9, 9)

_SECONDS: Final = PAUSE // 1_000_000
_VALUE: Final = "20 + n.value * {factor} % 10007 / 1000.0"
_VALUES: Final = {
    "sqlite": {
        "id": "c.id + n.value * {topics}",
        "time": f"datetime(c.time, (n.value * {_SECONDS}) || ' seconds') || '.000000'",
    },
    "postgresql": {
        "id": "c.id + n.value * {topics}",
        "time": f"c.time + n.value * interval '{_SECONDS} seconds'",
    },
}
_NUMBERS: Final = {
    "sqlite": "(WITH RECURSIVE n(value) AS (SELECT {first} UNION ALL SELECT value + 1 FROM n WHERE value < {last}) "
    "SELECT value FROM n)",
    "postgresql": "(SELECT generate_series({first}::bigint, {last}) AS value)",
}


def first_records(topics: int, properties: int) -> Batch:
    """Return the first record of each topic."""
    payload = orjson.dumps({f"v{number}": 20.5 for number in range(properties)})
    names = [b"site/%d" % number for number in range(topics)]
    entries = bytes([flags(PUBLISH, 1)]) * topics
    positions = range(1, topics + 1)
    return Batch("a", positions, [MIDNIGHT] * topics, entries, [0] * topics, names, [payload] * topics, positions.stop)


def fill(url: str, engine: str, topics: int, days: int) -> None:
    """Make the records that follow the first ones, by the database itself, day by day as they would arrive."""
    with connected(url) as connection:
        names = [column["name"] for column in sa.inspect(connection).get_columns("climate")]
        values = [_next_value(engine, name, topics) for name in names]
        for day in range(days):
            first, last = max(1, day * DAY // PAUSE), (day + 1) * DAY // PAUSE - 1
            numbers = _NUMBERS[engine].format(first=first, last=last)
            source = f"{numbers} n CROSS JOIN (SELECT * FROM climate ORDER BY id LIMIT {topics}) c"
            select = f"SELECT {', '.join(values)} FROM {source} ORDER BY n.value"
            connection.execute(sa.text(f"INSERT INTO climate ({', '.join(names)}) {select}"))
            connection.commit()


def _next_value(engine: str, column: str, topics: int) -> str:
    """Return SQL for a column of record ``n`` of a topic whose first one is ``c``."""
    if column[0] == "v" and column[1:].isdigit():
        return _VALUE.format(factor=7919 + int(column[1:]))
    return _VALUES[engine].get(column, f"c.{column}").format(topics=topics)


def weigh(url: str, engine: str) -> float:
    """Return the MB of a database, when what it puts off is done."""
    ask, *settle = SIZES[engine]
    with connected(url) as connection:
        for statement in settle:
            connection.exec_driver_sql(statement)
        return float(connection.execute(sa.text(ask)).scalar_one()) / 1e6


def make_page(template: Template, settings: Settings, query: Mapping[str, str]) -> bytes:
    """Return the page of a topic, or of several."""
    context = view_topic(settings, Pulse(settings.journal.path), query)
    assert any(panel.curves for panel in context["panels"])
    return template.render(page="topic", version="", live="", query=query, **context).encode()


def time_pages(url: str) -> Sequence[Mapping[str, float]]:
    """Return how long pages take, and how long the first of them is: from the records alone, and with the sums."""
    settings, template = load_section({"database": url, "routes": [ROUTE]}), make_templates().get_template("topic.html")
    found: tuple[dict[str, float], ...] = ({}, {})
    for name, query in PAGES.items():
        work = partial(make_page, template, settings, query)
        turns = [(_read_records_only(work), best(1, work)) for _ in range(ROUNDS)]
        for row, times in zip(found, zip(*turns, strict=True), strict=True):
            row[f"{name}, ms"] = min(times)
    size = len(make_page(template, settings, PAGES["all"])) / 1e3
    return [{**row, "kB": size} for row in found]


def _read_records_only(work: Callable[[], object]) -> float:
    """Return the milliseconds of some work that finds no sums."""
    with patch("amqtt_db.reader.rollup_bins.has_rollup_tables", return_value=False):
        return best(1, work)


def measure(database: Database, topics: int, properties: int, days: int) -> Sequence[Mapping[str, Any]]:
    """Store, make, sum up, show; return a row without rollups and one with them."""
    records = topics * days * DAY // PAUSE
    with database.fresh() as url:
        with Storing(url, ROUTE) as storing:
            storing.register("a", 1)
            storing.store(first_records(topics, properties))
            fill(url, database.name, topics, days)
            before = weigh(url, database.name)
            summed = timed(storing.writer.retention.finish)
        after = weigh(url, database.name)
        without, with_rollups = time_pages(url)
    shared = {"engine": database.name, "records": records, "values": records * properties}
    return (
        {**shared, "rollups": "no", **without, "MB": before, "sum, µs": None},
        {**shared, "rollups": "yes", **with_rollups, "MB": after - before, "sum, µs": summed.to_micros(records).cpu},
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="A month of many series, with and without rollups.")
    parser.add_argument("--topics", type=int, default=100)
    parser.add_argument("--properties", type=int, default=10)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--engines", default="sqlite,postgresql")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    logging.disable()
    found = (
        measure(database, options.topics, options.properties, options.days) for database in at_hand(options.engines)
    )
    show_and_save((row for rows in found for row in rows), WIDTHS, options.json)


if __name__ == "__main__":
    main()
