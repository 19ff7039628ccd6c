"""A database under test: journals as plain lists, writers that store them, and reading the result."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import COUNTS, key_hash
from amqtt_db.database.dead_letters import letters
from amqtt_db.database.engines import engine_for
from amqtt_db.database.snapshot import open_snapshot
from amqtt_db.message import PUBLISH, Batch, flags
from amqtt_db.models.base import Model
from amqtt_db.reader import read
from amqtt_db.reader.latest import latest
from amqtt_db.record import Record
from amqtt_db.routing.route import Hypertable, Route
from amqtt_db.testing.answer import Told, expected, require, require_same, told
from amqtt_db.testing.databases import Database
from amqtt_db.testing.history import History, Sent, Setting
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.transaction import CheckpointMoved
from amqtt_db.writer.writer import Writer


class PowerCut(BaseException):
    """Raised by :meth:`Feed.crash` where the process would have died."""


class Feed:
    """A journal in memory and its writer; the first ``stored`` messages must be in the database."""

    def __init__(self, url: str, routes: tuple[Route, ...], directory: Path, token: str) -> None:
        self.sent: list[Sent] = []
        self.stored = 0
        self.number = 0
        self._url = url
        self._routes = routes
        self._token = token
        self._note = directory / f"{token}.attempt"
        self._writers = ExitStack()
        self.start()

    def start(self, end: int | None = None) -> None:
        """Start a writer; an earlier one that was not stopped is left as if it had been killed.

        It must find everything up to ``stored`` in the database, or up to ``end`` if that was being stored.
        """
        guard = CrashGuard(self._note)
        self._writers.callback(guard.close)
        self._writer = Writer(engine_for(self._url), self._routes, guard)
        self._writers.callback(self._writer.close)
        self._writer.prepare()
        self.number, checkpoint = self._writer.register(self._token, 1)
        require(checkpoint - 1 in {self.stored, end}, f"the checkpoint is {checkpoint}, not {self.stored + 1}")
        self.stored = checkpoint - 1

    def close(self) -> None:
        """Stop the writer and clean up earlier ones."""
        self._writers.close()

    def store(self, *sent: Sent) -> None:
        """Append messages to the journal, then store all waiting messages in one batch."""
        self.sent.extend(sent)
        self.flush(len(self.sent))

    def flush(self, count: int) -> None:
        """Store up to ``count`` waiting messages in one batch."""
        end = min(len(self.sent), self.stored + count)
        if end > self.stored:
            self._writer.store(self.number, None, self.stored + 1, self._batch(self.stored, end))
            self.stored = end

    def crash(self, count: int, commits: int) -> None:
        """Flush, but die instead of making commit number ``commits`` (from 0); then a new writer starts.

        The batch may be committed before that, because a writer commits more than batches.
        """
        end = min(len(self.sent), self.stored + count)
        try:
            with power_cut(self._url, commits):
                self.flush(count)
        except PowerCut:
            pass
        self.start(end)

    def replay(self, first: int) -> None:
        """Offer the stored messages from index ``first`` on again, like a writer that has lost its state."""
        if first < self.stored:
            try:
                self._writer.store(self.number, None, first + 1, self._batch(first, self.stored))
            except CheckpointMoved:
                return
            raise AssertionError("a stored range was stored again")

    def expected(self, setting: Setting) -> Iterator[Told]:
        """Return the records of this journal that must be in the database."""
        for index, sent in enumerate(self.sent[: self.stored]):
            yield from expected(sent, self.number, index + 1, setting)

    def _batch(self, start: int, end: int) -> Batch:
        sent = self.sent[start:end]
        return Batch(
            self._token,
            range(start + 1, end + 1),
            [one.time for one in sent],
            [flags(PUBLISH, one.qos, one.retain) for one in sent],
            [one.session for one in sent],
            [one.topic.encode() for one in sent],
            [one.payload() for one in sent],
            end + 1,
        )


class Bench:
    """An empty database and the routes under test.  Use it as a context manager; ``url`` names the database."""

    def __init__(self, database: Database, *routes: Route) -> None:
        self._database = database
        self._routes = tuple(map(_in_chunks, routes)) if database.hypertables else routes
        self._feeds: dict[str, Feed] = {}
        self._stack = ExitStack()

    @classmethod
    def of(cls, database: Database, model: Model, setting: Setting, *, timed: bool = False) -> Bench:
        """Return a bench with one route."""
        return cls(database, setting.route(model, timed=timed))

    def __enter__(self) -> Bench:
        with ExitStack() as stack:
            self.url = stack.enter_context(self._database.fresh())
            self._directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amqtt_db")))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: object) -> None:
        self._stack.close()

    def feed(self, journal: str = "a") -> Feed:
        """Return a journal by its name, with its own writer."""
        if journal not in self._feeds:
            self._feeds[journal] = Feed(self.url, self._routes, self._directory, journal)
            self._stack.callback(self._feeds[journal].close)
        return self._feeds[journal]

    def store(self, history: History) -> None:
        """Store a history, batch by batch."""
        for batch in history.batches:
            self.feed().store(*batch)

    def read(self, topic: str = "#") -> list[Told]:
        """Return all stored records for a topic filter, as plain data."""
        return list(map(told, self.records(topic)))

    def records(self, topic: str = "#") -> list[Record]:
        """Return all stored records for a topic filter."""
        return list(read(self.url, topic))

    def check(self, setting: Setting) -> None:
        """Raise AssertionError unless exactly the stored messages of all journals read back."""
        wanted = [one for feed in self._feeds.values() for one in feed.expected(setting)]
        require_same(wanted, self.read(), self.reasons())

    def reasons(self) -> list[str]:
        """Return the reasons of dead letters."""
        return sorted({f"a dead letter says: {letter.reason}" for letter in letters(self.url)})

    def counts(self, filter_: str) -> Mapping[str, int]:
        """Return the counters of a topic filter, of all journals together."""
        with open_snapshot(self.url) as snapshot:
            counter = snapshot.catalog.counter
            sums = [sa.func.sum(counter.c[name]).label(name) for name in COUNTS]
            row = snapshot.connection.execute(sa.select(*sums).where(counter.c.hash == key_hash(filter_))).mappings()
            return {name: int(count or 0) for name, count in row.one().items()}

    def newest(self, topic: str) -> list[tuple[str, str, str]]:
        """Return device (without its topic's first level), path and value of all newest values, if any are kept."""
        if not any(route.latest_tables for route in self._routes) or not self.records(topic):
            return []
        states = latest(self.url, topic)
        return sorted(
            (state.device.removeprefix(topic[:2]), path, repr((kind, value)))
            for state in states
            for path, (kind, value) in state.properties.items()
        )

    def tables(self) -> Mapping[str, list[dict[str, Any]]]:
        """Return the raw rows of every table whose rows are never replaced."""
        replacing = {table.key for route in self._routes for table in route.bound().tables() if table.replaces}
        with open_snapshot(self.url) as snapshot:
            known = snapshot.catalog.physical_tables(snapshot.connection)
            names = [table.name for key, table in known.items() if key not in replacing]
            return {name: list(_every_row(snapshot.connection, name)) for name in names}

    def pairs(self) -> Mapping[str, set[tuple[str, str]]]:
        """Return the (path, kind) pairs with a column, by table key."""
        with open_snapshot(self.url) as snapshot:
            tables = snapshot.catalog.physical_tables(snapshot.connection)
            return {key: set(table.columns) for key, table in tables.items()}


def _in_chunks(route: Route) -> Route:
    """Return a route whose tables are hypertables, if they have the time in their keys."""
    return attrs.evolve(route, hypertable=Hypertable()) if route.timed else route


def _every_row(connection: sa.Connection, name: str) -> Iterable[dict[str, Any]]:
    quoted = connection.dialect.identifier_preparer.quote(name)
    return (dict(row) for row in connection.exec_driver_sql(f"SELECT * FROM {quoted}").mappings())  # noqa: S608


@contextmanager
def power_cut(url: str, commits: int) -> Iterator[None]:
    """Allow ``commits`` commits on a database; the next one raises PowerCut."""
    left = commits

    def die(connection: sa.Connection) -> None:
        nonlocal left
        if connection.engine.url.database == sa.make_url(url).database:
            if left == 0:
                raise PowerCut
            left -= 1

    sa.event.listen(sa.Engine, "commit", die)
    try:
        yield
    finally:
        sa.event.remove(sa.Engine, "commit", die)
