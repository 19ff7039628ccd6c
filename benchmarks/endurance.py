"""Whether memory and the time for a batch grow over many messages, from a journal into a database that stays small.

usage: python benchmarks/endurance.py [--messages 2000000] [--rate 1000] [--keep 300] [--models "wide;narrow"]
                                      [--engines sqlite] [--json FILE]

A clock of its own runs as fast as messages are stored: `--rate` of them come in each of its seconds, records older than
`--keep` of its seconds are deleted once in each of its minutes, and each hour another of the twenty topics is replaced
by a new one.  So 100 million messages are 28 hours.  Journal and writer are in one process.

Prints for each tenth of the messages the CPU time of this process in microseconds per message: to append and read it
(``journal``), to store it (``store``, the median of the batches, and ``slowest``, the 99th percentile) and to delete it
(``delete``); then the memory of the process, the records in the database, and the size of the journal's file.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import sqlalchemy as sa
from common import ARRIVAL, BATCH, ENTITY, Message, Spent, Storing, at_hand, climate, save, show, timed

from amqtt_db.database.engines.base import Engine
from amqtt_db.journal import Journal, JournalReader, Progress
from amqtt_db.message import PUBLISH, Batch, flags
from amqtt_db.testing.databases import Database
from amqtt_db.writer.process import relax_collector
from amqtt_db.writer.steady_clock import SteadyClock
from amqtt_db.writer.transaction import CheckpointMoved

MODELS: dict[str, tuple[Any, str]] = {
    "wide": ({"wide": {"table": "climate"}}, "climate"),
    "document": ("document", "mqtt_document"),
    "narrow": ("narrow", "mqtt_message"),
    "eav": ("eav", "mqtt_message"),
}
"""Models, and the table that has one row for each record."""

ENTITY_WITHOUT_TIME = {**ENTITY, "time": "int"}
TOPICS = 20
GROUP = 500
WIDTHS = (-11, -9, 14, 9, 9, 9, 9, 9, 10, 12)


@attrs.define
class Simulation:
    """Time that passes as messages come; ``rate`` is how many of them in a second."""

    rate: int
    sent: int = 0

    def now(self) -> float:
        """Return seconds since 1970."""
        return ARRIVAL / 1e6 + self.sent / self.rate

    def messages(self, payloads: Sequence[Message]) -> Iterator[tuple[int, bytes, bytes]]:
        """Yield (time in microseconds, topic, payload) of the next messages, whose payloads are always the same."""
        for _, payload in payloads:
            hours = self.sent // (3600 * self.rate)
            place = self.sent % TOPICS
            age = (hours - place + TOPICS - 1) // TOPICS  # how often the topic at this place has been replaced
            yield int(self.now() * 1_000_000), f"site/{place}-{age}/climate".encode(), payload
            self.sent += 1


@attrs.frozen
class Measured:
    """What a batch took."""

    journal: Spent
    store: Spent
    delete: Spent


class Household:
    """A journal, its owner and its writer in one process."""

    def __init__(self, url: str, directory: Path, model: Any, rate: int, keep: int) -> None:
        self.simulation = Simulation(rate)
        clock = SteadyClock(self.simulation.now, self.simulation.now)
        route = {"topic": "site/{site}/climate", "model": model, "entity": ENTITY_WITHOUT_TIME, "keep": f"{keep} s"}
        self.storing = Storing(url, route, clock)
        self.path = directory / "journal"
        self._payloads = climate(BATCH)
        self._journal = Journal.open(self.path, max_size=2**30, sync="never")
        self._reader = JournalReader(self.path)
        (generation,) = self._reader.generations()
        self._token = generation.token
        self.storing.register(generation.token, generation.first)
        self._swept = self.simulation.now()

    def close(self) -> None:
        """Close everything."""
        self.storing.__exit__()
        self._reader.close()
        self._journal.close()

    def batch(self) -> Measured:
        """Let the next messages come, and store them; delete what is old once a minute."""
        journal, store = timed(self._append), Spent()
        while self._reader.pending(self._token, self.storing.position):
            store += timed(self._store)
        return Measured(journal, store, timed(self._sweep))

    def _append(self) -> None:
        for number, (time_us, topic, payload) in enumerate(self.simulation.messages(self._payloads), 1):
            self._journal.append(flags(PUBLISH, 1), time_us, 0, topic, payload)
            if number % GROUP == 0:
                self._journal.commit()
        self._journal.commit()

    def _store(self) -> None:
        batch = self._reader.read(self._token, self.storing.position, max_messages=BATCH)
        if batch is not None:
            self._store_anyway(batch)
            self._journal.trim(Progress(self._token, batch.end))

    def _store_anyway(self, batch: Batch) -> None:
        """Store a batch; once a day keys that nobody uses are forgotten, and the writer has to learn them again."""
        try:
            self.storing.store(batch)
        except CheckpointMoved:
            self.storing.writer.reset()
            self.storing.store(batch)

    def _sweep(self) -> None:
        if self.simulation.now() - self._swept >= 60:
            self._swept = self.simulation.now()
            self.storing.writer.retention.finish()


def memory() -> float:
    """Return the memory of this process in MB."""
    return int(Path("/proc/self/status").read_text().partition("VmRSS:")[2].split()[0]) / 1024


def count_rows(engine: Engine, table: str) -> int:
    """Return how many rows a table has."""
    database = engine.open(write=False)
    with database.connect() as connection:
        count = int(connection.execute(sa.text(f"SELECT count(*) FROM {table}")).scalar_one())
    database.dispose()
    return count


def tenths(database: Database, name: str, count: int, rate: int, keep: int) -> Iterator[dict[str, Any]]:
    """Store messages; yield a row for each tenth of them."""
    model, table = MODELS[name]
    batches = max(1, count // BATCH // 10)
    with tempfile.TemporaryDirectory() as directory, database.fresh() as url:
        household = Household(url, Path(directory), model, rate, keep)
        for tenth in range(1, 11):
            measured = [household.batch() for _ in range(batches)]
            yield {
                "engine": database.name,
                "model": name,
                "messages": f"{tenth * batches * BATCH:,}",
                **micros(measured),
                "MB": memory(),
                "rows": f"{count_rows(household.storing.engine, table):,}",
                "journal kB": household.path.stat().st_size / 1024,
            }
        household.close()


def micros(measured: Sequence[Measured]) -> dict[str, float]:
    """Return microseconds of CPU per message."""
    stores = sorted(one.store.to_micros(BATCH).cpu for one in measured)
    return {
        "journal": statistics.mean(one.journal.to_micros(BATCH).cpu for one in measured),
        "store": statistics.median(stores),
        "slowest": stores[len(stores) * 99 // 100],
        "delete": statistics.mean(one.delete.to_micros(BATCH).cpu for one in measured),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure everything and print a table."""
    parser = argparse.ArgumentParser(description="Whether memory and time grow.")
    parser.add_argument("--messages", type=int, default=2_000_000)
    parser.add_argument("--rate", type=int, default=1000, help="messages in a second of the clock")
    parser.add_argument("--keep", type=int, default=300, help="seconds of the clock")
    parser.add_argument("--models", default="wide", help="names, separated by semicolons")
    parser.add_argument("--engines", default="sqlite")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args(arguments)
    logging.disable()
    relax_collector()
    rows: list[dict[str, Any]] = []
    for database in at_hand(options.engines):
        for name in options.models.split(";"):
            for row in tenths(database, name, options.messages, options.rate, options.keep):
                rows.append(row)
                show(row, WIDTHS, head=len(rows) == 1)
    save(options.json, rows)


if __name__ == "__main__":
    main()
