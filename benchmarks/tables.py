"""Many tables and many names: what thousands of topics with a table each cost, and thousands of new properties.

usage: python benchmarks/tables.py [--topics 10000] [--names 20000] [--engines sqlite,postgresql] [--json FILE]

Prints seconds of CPU time of this process, of PostgreSQL's processes, and elapsed:

- appear: the first message of each topic, each creates a table;
- known: twenty messages to each of these topics, and their ratio to as many messages into one table, in turns;
- views: those of all topics;
- topics, status, export: as the commands do it;
- remodel: everything into one table;
- names: messages with a new property each into ``eav`` and ``narrow``, 5,000 at a time, and a neighbour in each batch.
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import attrs
import orjson
import sqlalchemy as sa
from common import Storing, at_hand, batches, climate, show_and_save

from amqtt_db.config import load_section
from amqtt_db.reader import read
from amqtt_db.reader.export import json_lines
from amqtt_db.reader.status import read_status
from amqtt_db.reader.topics import list_topics
from amqtt_db.testing.databases import Database
from amqtt_db.writer.process import relax_collector
from amqtt_db.writer.remodel import Remodel

OWN = {"topic": "#", "model": "wide", "max_tables": 1_000_000}
ONE = {"topic": "#", "model": {"wide": {"table": "climate"}}}
WIDTHS = (-12, -10, 9, 9, 9, 9, 9, 9)
ROUNDS = 20


@attrs.frozen
class Cost:
    """Seconds: CPU time of this process, of the server's processes, and elapsed."""

    cpu: float
    server: float
    wall: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.cpu + other.cpu, self.server + other.server, self.wall + other.wall)


class Meter:
    """Measures calls on one database."""

    def __init__(self, url: str) -> None:
        self._server = _postmaster(url)

    def spent(self, work: Callable[[], object]) -> Cost:
        """Return what a call costs."""
        server, cpu, wall = _cpu_below(self._server), process_time(), perf_counter()
        work()
        wall, cpu = perf_counter() - wall, process_time() - cpu
        return Cost(cpu, _cpu_below(self._server) - server, wall)


def _postmaster(url: str) -> int | None:
    """Return the process that PostgreSQL's others belong to."""
    if not url.startswith("postgresql"):
        return None
    with sa.create_engine(sa.make_url(url).set(drivername="postgresql+psycopg")).connect() as connection:
        pid = connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one()
        return int(_status(pid)[1])


def _status(pid: object) -> list[str]:
    """Return the fields of a process behind its name: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _cpu_below(parent: int | None) -> float:
    """Return the CPU seconds of a process and its children, those that have ended included."""
    if parent is None:
        return 0.0
    ticks = sum(map(int, _status(parent)[11:15]))
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = _status(pid)
        except OSError:  # it has just ended
            continue
        ticks += sum(map(int, fields[11:13])) if int(fields[1]) == parent else 0
    return ticks / os.sysconf("SC_CLK_TCK")


def row(database: Database, what: str, cost: Cost, base: Cost | None = None) -> dict[str, Any]:
    """Return a row of the table; ``base`` is what the ratios refer to."""
    ratios: dict[str, float | None] = {"CPU ×": None, "clock ×": None}
    if base is not None:
        ratios = {"CPU ×": cost.cpu / base.cpu, "clock ×": cost.wall / base.wall}
    return {
        "engine": database.name, "what": what, "CPU": cost.cpu, "server": cost.server, "elapsed": cost.wall, **ratios,
        "per s": None,
    }  # fmt: skip


def of_tables(database: Database, topics: int) -> Iterator[dict[str, Any]]:
    """Return the rows of many topics with a table each."""
    messages = climate((ROUNDS + 1) * topics, topics)
    first = messages[:topics]
    with database.fresh() as url, database.fresh() as other, Storing(url, OWN) as many, Storing(other, ONE) as one:
        meter = Meter(url)
        many.register("a", 1)
        one.register("a", 1)
        yield row(database, "appear", meter.spent(lambda: many.store_all(many.next_batches(first))))
        one.store_all(one.next_batches(first))
        yield row(database, "views", meter.spent(lambda: many.writer.finish_views(lambda: False)))
        costs, base = Cost(0, 0, 0), Cost(0, 0, 0)
        for batch in many.next_batches(messages):
            costs += meter.spent(lambda: many.store(batch))  # noqa: B023
            for part in one.next_batches(messages[: batch.end - 1]):
                base += meter.spent(lambda: one.store(part))  # noqa: B023
        yield row(database, "known", costs, base)
        yield row(database, "one table", base)
        yield from of_reading(database, url, meter, topics)
        yield row(database, "remodel", meter.spent(lambda: remodel(url)))


def of_reading(database: Database, url: str, meter: Meter, topics: int) -> Iterator[dict[str, Any]]:
    """Return the rows of what reads all tables."""
    settings = load_section({"database": url, "routes": [OWN]})
    yield row(database, "topics", meter.spent(lambda: list_topics(url)))
    yield row(database, "status", meter.spent(lambda: read_status(settings)))
    yield row(database, "export", meter.spent(lambda: list(json_lines(read(url)))))


def remodel(url: str) -> None:
    """Move all records into one table."""
    work = Remodel(url, load_section({"routes": [ONE]}).routes)
    try:
        for _ in work.move(*work.moves()):
            pass
        work.retypings()
    finally:
        work.close()


def of_names(database: Database, model: str, names: int) -> Iterator[dict[str, Any]]:
    """Return the row of new properties."""
    messages = [(b"neighbour" if not number % 100 else b"new", _payload(number)) for number in range(names)]
    with database.fresh() as url, Storing(url, {"topic": "#", "model": model}) as storing:
        storing.register("a", 1)
        cost = Meter(url).spent(lambda: storing.store_all(batches(messages)))
        yield {**row(database, model, cost), "per s": names / cost.wall}


def _payload(number: int) -> bytes:
    return orjson.dumps({"temp": 20.5} if not number % 100 else {f"name {number}": number / 4})


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything and print a table."""
    parser = argparse.ArgumentParser(description="What many tables and many names cost.")
    parser.add_argument("--topics", type=int, default=10_000)
    parser.add_argument("--names", type=int, default=20_000)
    parser.add_argument("--engines", default="sqlite,postgresql")
    parser.add_argument("--parts", default="tables,names")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    logging.disable()
    relax_collector()
    show_and_save(measured(options), WIDTHS, options.json)


def measured(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Return all rows."""
    for database in at_hand(options.engines):
        if "tables" in options.parts:
            yield from of_tables(database, options.topics)
        for model in ("eav", "narrow") if "names" in options.parts else ():
            yield from of_names(database, model, options.names)


if __name__ == "__main__":
    main()
