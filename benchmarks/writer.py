"""Journal → committed rows, compared with the fastest that the underlying libraries can do, in one run.

usage: python benchmarks/writer.py [--messages 100000] [--rounds 3] [--batch 5000] [--engines sqlite,postgresql,mysql]
                                   [--routes "wide;document"] [--json FILE]

Prints microseconds per message (medians over interleaved rounds) and their ratio to the floor, both elapsed and as CPU
time of this process, which noise disturbs less.  The floor is the sum of

- ``orjson.loads`` of each payload;
- with an entity: the code that cattrs generates for it, with the project's strict hooks; without one: the keys, types
  and values of each object as tuples, the least that distinguishes objects of different shapes;
- the driver's own bulk load (``executemany`` of sqlite3 and PyMySQL, binary COPY of psycopg) of the same rows that the
  writer inserts, as ready tuples, into the same tables with the same settings, committed batch by batch.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from time import time_ns
from typing import Any

import orjson
import sqlalchemy as sa
from common import (
    BATCH,
    ENGINES,
    ENTITY,
    ROUTES,
    Message,
    Spent,
    Storing,
    at_hand,
    climate,
    median,
    show_and_save,
    timed,
)

from amqtt_db.database.engines.base import Engine, RowBatch
from amqtt_db.entity.inline import inline_plan
from amqtt_db.journal import Journal, JournalReader
from amqtt_db.message import PUBLISH, flags
from amqtt_db.testing.databases import Database
from amqtt_db.writer.process import relax_collector

WIDTHS = (-11, -22, 8, 8, 7, 8, 10, 10, 12, 12)


def fill(path: Path, messages: Sequence[Message]) -> None:
    """Write a journal with the messages."""
    journal = Journal.open(path, max_size=2**40, sync="never")
    for number, (topic, payload) in enumerate(messages):
        journal.append(flags(PUBLISH, 1), time_ns() // 1000, 0, topic, payload)
        if number % 500 == 499:
            journal.commit()
    journal.commit()
    journal.close()


class Drained:
    """A database with the first batch stored, so that tables, plans and imports are ready for the others."""

    def __init__(self, url: str, journal: Path, route: dict[str, Any], size: int) -> None:
        self._reader = JournalReader(journal)
        (generation,) = self._reader.generations()
        self._token, self._size = generation.token, size
        self.storing = Storing(url, route)
        self.storing.register(generation.token, generation.first)
        self._next()

    def rest(self) -> None:
        """Store the other batches."""
        while self._next():
            pass

    def captured(self) -> list[list[RowBatch]]:
        """Store the other batches; return what the writer inserts for each."""
        engine = self.storing.engine
        insert, captured = engine.insert, list[list[RowBatch]]()

        def note(connection: sa.Connection, row_batches: Sequence[RowBatch]) -> None:
            captured[-1].extend(row_batches)
            insert(connection, row_batches)

        engine.insert = note  # type: ignore[method-assign]
        captured.append([])
        while self._next():
            captured.append([])
        return captured[:-1]

    def close(self) -> None:
        """Close the journal and the database."""
        self._reader.close()
        self.storing.__exit__()

    def _next(self) -> bool:
        batch = self._reader.read(self._token, self.storing.position, max_messages=self._size)
        if batch is not None:
            self.storing.store(batch)
        return batch is not None


def load_sqlite(connection: Any, row_batch: RowBatch) -> None:
    """Insert by ``executemany``."""
    names, marks = ", ".join(f'"{name}"' for name in row_batch.columns), ", ".join("?" * len(row_batch.columns))
    connection.executemany(f'INSERT INTO "{row_batch.table}" ({names}) VALUES ({marks})', row_batch.rows)


def load_postgresql(connection: Any, row_batch: RowBatch) -> None:
    """Insert by binary COPY, row by row."""
    from amqtt_db.database.engines.postgresql_rows import copy  # noqa: PLC0415

    copy(connection, row_batch)


def load_mysql(connection: Any, row_batch: RowBatch) -> None:
    """Insert by ``executemany``, which PyMySQL turns into one statement."""
    names, marks = ", ".join(f"`{name}`" for name in row_batch.columns), ", ".join(["%s"] * len(row_batch.columns))
    with connection.cursor() as cursor:
        cursor.executemany(f"INSERT INTO `{row_batch.table}` ({names}) VALUES ({marks})", row_batch.rows)


LOADERS: dict[str, Callable[[Any, RowBatch], None]] = {
    "sqlite": load_sqlite,
    "postgresql": load_postgresql,
    "mysql": load_mysql,
}


def bulk(engine: Engine, row_batches: Sequence[Sequence[RowBatch]]) -> Spent:
    """Measure the driver with the same rows, on a connection with the project's settings."""
    database = engine.open(write=True)
    row_batch = LOADERS[database.dialect.name]

    def all_of_them() -> None:
        for batch in row_batches:
            with database.begin() as connection:
                for one in batch:
                    row_batch(connection.connection.driver_connection, one)

    spent = timed(all_of_them)
    database.dispose()
    return spent


def floor_of_typing(payloads: Sequence[bytes], route: dict[str, Any]) -> dict[str, Spent]:
    """Measure decoding, and structuring or telling shapes apart, batch by batch: more objects would be scanned."""
    read = inline_plan(ENTITY, "entity").read if "entity" in route else None
    name, form = ("typing", _form) if read is None else ("structure", read)
    spent = {"decode": Spent(), name: Spent()}
    for start in range(0, len(payloads), BATCH):
        decoded: list[Any] = []
        spent["decode"] += timed(lambda: decoded.extend(map(orjson.loads, payloads[start : start + BATCH])))  # noqa: B023
        spent[name] += timed(lambda: [form(data) for data in decoded])  # noqa: B023
    return spent


def _form(data: dict[str, Any]) -> tuple[tuple[Any, ...], ...]:
    return tuple(data), tuple(map(type, data.values())), tuple(data.values())


def measure(
    database: Database, route: dict[str, Any], messages: Sequence[Message], rounds: int, size: int
) -> dict[str, Any]:
    """Measure medians of one route on one engine, in batches of ``size`` messages."""
    found: defaultdict[str, list[Spent]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as directory:
        journal = Path(directory) / "journal"
        fill(journal, messages)
        drained = partial(Drained, journal=journal, route=route, size=size)
        row_batches = capture(database, drained)
        payloads = [payload for _, payload in messages[size - 1 :]]  # the first entry of a journal opens its generation
        for _ in range(rounds):
            one = {**one_round(database, drained, row_batches), **floor_of_typing(payloads, route)}
            for part, spent in one.items():
                found[part].append(spent)
    return figures({part: median(spent).to_micros(len(payloads)) for part, spent in found.items()})


def capture(database: Database, drain: Callable[[str], Drained]) -> list[list[RowBatch]]:
    """Return what the writer inserts, batch by batch, without the first batch."""
    with database.fresh() as url:
        drained = drain(url)
        row_batches = drained.captured()
        drained.close()
    return row_batches


def one_round(
    database: Database, drain: Callable[[str], Drained], row_batches: Sequence[Sequence[RowBatch]]
) -> dict[str, Spent]:
    """Measure the writer, then the driver alone."""
    with database.fresh() as url:
        drained = drain(url)
        ours = timed(drained.rest)
        drained.close()
    with database.fresh() as url:
        drained = drain(url)
        drained.close()
        return {"ours": ours, "bulk load": bulk(drained.storing.engine, row_batches)}


def figures(parts: dict[str, Spent]) -> dict[str, Any]:
    """Return the parts as a row of the table."""
    ours = parts.pop("ours")
    floor = sum(parts.values(), Spent())
    return {
        "µs": ours.wall,
        "floor": floor.wall,
        "ratio": ours.wall / floor.wall,
        "cpu µs": ours.cpu,
        "cpu floor": floor.cpu,
        "cpu ratio": ours.cpu / floor.cpu,
        "messages/s": 1e6 / ours.wall,
        "bulk load/s": 1e6 / parts["bulk load"].wall,
        "parts": {name: round(spent.cpu, 2) for name, spent in parts.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all routes on all engines and print a table."""
    parser = argparse.ArgumentParser(description="Journal → committed rows, beside the floor.")
    parser.add_argument("--messages", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch", type=int, default=BATCH, help="messages per transaction")
    parser.add_argument("--engines", default=ENGINES)
    parser.add_argument("--routes", default="", help="beginnings of routes' names, separated by semicolons")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    messages = climate(options.messages)
    wanted = tuple(options.routes.split(";"))
    relax_collector()
    logging.disable()  # warnings about test servers do not matter here
    rows = (
        {
            "engine": database.name,
            "route": name,
            **measure(database, ROUTES[name], messages, options.rounds, options.batch),
        }
        for database in at_hand(options.engines)
        for name in (name for name in ROUTES if name.startswith(wanted))
    )
    show_and_save(rows, WIDTHS, options.json)


if __name__ == "__main__":
    main()
