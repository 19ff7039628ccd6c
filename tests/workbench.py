"""A writer on a real database, fed by hand: the basis for testing everything after the journal."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.config import load_section
from amqtt_db.config.operation import KEEP_ALL, SystemKeep
from amqtt_db.database.catalog import COUNTS
from amqtt_db.database.dead_letters import DeadLetter, letter, letters
from amqtt_db.database.engines import engine_for
from amqtt_db.message import PUBLISH, Batch, flags
from amqtt_db.reader import read
from amqtt_db.reader.selection import BY_ID
from amqtt_db.record import Record, unflatten
from amqtt_db.routing.route import Route
from amqtt_db.testing.starting import connected
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.steady_clock import SteadyClock
from amqtt_db.writer.writer import Writer
from tests.database.engines.servers import Site

ARRIVAL = 1_700_000_000_000_000
"""When the first message arrives, in microseconds since 1970; each later one arrives a second after the previous."""


OPEN: Final[list[Workbench]] = []
"""The workbenches that are open: what a test leaves open is closed at its end."""


@attrs.frozen
class Sent:
    """A message to feed: anything but bytes is sent as JSON; ``properties`` are those of MQTT 5."""

    topic: str
    payload: Any
    qos: int = 0
    retain: bool = False
    properties: dict[str, Any] = attrs.field(factory=dict)

    def raw(self) -> bytes:
        """The payload's bytes."""
        return self.payload if isinstance(self.payload, bytes) else json.dumps(self.payload).encode()


def routes(*entries: dict[str, Any], url: str | None = None) -> tuple[Route, ...]:
    """Return routes as from the YAML, for a database; without any, every topic as ``wide``."""
    return load_section({"database": url, "routes": list(entries) or None}).routes


class Workbench:
    """A database and a writer for it, as if one journal fed them.

    ``where`` is a site, or a directory for an SQLite file.
    """

    def __init__(
        self, where: Path | Site, *entries: dict[str, Any], token: str = "a", keep: SystemKeep = KEEP_ALL
    ) -> None:
        directory = where.path if isinstance(where, Site) else where
        self.path = directory / "mqtt.db"
        self.url = where.url if isinstance(where, Site) else f"sqlite:///{self.path}"
        self.token = token
        self._keep = keep
        self._note = directory / f"{token}.attempt"
        self._routes = routes(*entries, url=self.url)
        self.position = 1
        self.now = ARRIVAL / 1_000_000
        """What the writer believes the time is, in seconds since 1970."""
        self._is_open = False
        if isinstance(where, Site):
            where.stack.callback(self.close)
        self.open()

    def open(self) -> None:
        """Start the writer, as after a restart."""
        self.guard = CrashGuard(self._note)
        self.writer = Writer(
            engine_for(self.url),
            self._routes,
            self.guard,
            SteadyClock(lambda: self.now, lambda: self.now),
            keep=self._keep,
        )
        self._is_open = True
        OPEN.append(self)
        self.writer.prepare()
        self.number, self.checkpoint = self.writer.register(self.token, 1)

    def close(self) -> None:
        """Stop the writer, if it is not yet."""
        if self._is_open:
            self._is_open = False
            OPEN.remove(self)
            self.writer.close()
            self.guard.close()

    def restart(self, *entries: dict[str, Any]) -> None:
        """Stop and start, perhaps with other routes."""
        self.close()
        self._routes = routes(*entries, url=self.url) if entries else self._routes
        self.open()

    def batch(self, *messages: Sent) -> Batch:
        """The next entries of the journal."""
        count, first = len(messages), self.position
        self.position += count
        return Batch(
            self.token,
            range(first, first + count),
            [ARRIVAL + 1_000_000 * (first + index - 1) for index in range(count)],
            [flags(PUBLISH, message.qos, message.retain) for message in messages],
            [0] * count,
            [message.topic.encode() for message in messages],
            [message.raw() for message in messages],
            first + count,
            [json.dumps(message.properties).encode() if message.properties else b"" for message in messages],
        )

    def store(self, batch: Batch) -> None:
        """Store a batch at the checkpoint."""
        self.writer.store(self.number, None, batch.positions[0], batch)
        self.checkpoint = batch.end

    def send(self, *messages: Sent | tuple[str, Any]) -> None:
        """Store messages in one batch."""
        self.store(self.batch(*(message if isinstance(message, Sent) else Sent(*message) for message in messages)))

    def records(self, topic: str = "#") -> list[Record]:
        """Everything stored for a topic filter, in order of arrival."""
        return sorted(read(self.url, topic), key=BY_ID.key)

    def data(self, topic: str = "#") -> list[dict[str, Any]]:
        """The same as nested objects, without the envelope."""
        return [
            unflatten((path, value) for path, (_, value) in record.properties().items())
            for record in self.records(topic)
        ]

    def dead(self) -> list[DeadLetter]:
        """The dead letters in order of arrival, with their payloads."""
        found = (letter(self.url, one.id) for one in reversed(letters(self.url)))
        return [one for one in found if one is not None]

    def counts(self) -> dict[str, dict[str, int]]:
        """The counters by topic filter, zeros left out."""
        rows = self.sql(f"SELECT c.filter, {', '.join(f'c.{name}' for name in COUNTS)} FROM mqtt_counter c")
        return {row[0]: {name: count for name, count in zip(COUNTS, row[1:], strict=True) if count} for row in rows}

    def sql(self, query: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run SQL as a user who opens the database would, and commit."""
        if self.url.startswith("sqlite"):
            return self._sqlite(query, parameters)
        database = engine_for(self.url).open(write=True)
        try:
            with database.begin() as connection:
                result = connection.execution_options(no_parameters=True).exec_driver_sql(query)
                return [tuple(row) for row in result] if result.returns_rows else []
        finally:
            database.dispose()

    def analyze(self) -> None:
        """Make the server update its statistics, as it does some time after rows were inserted."""
        with connected(self.url) as connection:
            for name in sa.inspect(connection).get_table_names():
                table = "TABLE " if connection.dialect.name == "mysql" else ""
                connection.exec_driver_sql(f"ANALYZE {table}{name}")

    def _sqlite(self, query: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(self.path)
        try:
            with connection:
                return connection.execute(query, parameters).fetchall()
        finally:
            connection.close()

    def columns(self, table: str) -> list[str]:
        """The names of a table's columns."""
        database = engine_for(self.url).open(write=True)
        try:
            return [column["name"] for column in sa.inspect(database).get_columns(table)]
        finally:
            database.dispose()
