"""The system tables in the target database: checkpoints, counters, sessions, dead letters, and the catalogue.

``mqtt_journal`` registers each generation of a journal and holds its checkpoint; ``mqtt_counter`` counts messages per
topic filter; ``mqtt_table``, ``mqtt_view``, ``mqtt_catalog`` and ``mqtt_assignment`` remember which tables and views
there are, what their columns mean, and where each topic's records are.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database import system_tables as tables
from amqtt_db.database.column_change import finish_column_change, half_done_change
from amqtt_db.database.engines.base import Engine, batched
from amqtt_db.database.naming import fold
from amqtt_db.database.store_version import upgrade, write_version
from amqtt_db.database.system_tables import COUNTS, Builder
from amqtt_db.record import Pair

__all__ = ["COUNTS", "CURRENT", "MOVED", "PAST", "Assignment", "Catalog", "PhysicalTable", "key_hash"]

CURRENT: Final = "current"
PAST: Final = "past"
MOVED: Final = "moved"
"""States of an assignment: new records go to the current one; past ones hold older records and are read as well.

Records that ``remodel`` has moved are read from the current one, and their old rows may be deleted.
"""


def key_hash(key: str) -> str:
    """Return a 128-bit hash as text: a unique index on it works for keys of any length and with any spaces."""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@attrs.frozen
class PhysicalTable:
    """A table as it is in the database: its name, and the name of each property's column."""

    key: str
    name: str
    columns: Mapping[Pair, str]


@attrs.frozen
class Assignment:
    """A topic's assignment: the ``key`` of its records' destination, and the route and model that put them there."""

    topic: str
    key: str
    route: str
    model: str


class Catalog:
    """The system tables as SQLAlchemy knows them, with the engine's column types."""

    def __init__(self, engine: Engine) -> None:
        build = Builder(engine)
        self.metadata = build.metadata
        self._engine = engine
        self.meta = tables.meta(build)
        self.journal = tables.journal(build)
        self.counter = tables.counter(build)
        self.session = tables.session(build)
        self.dead_letter = tables.dead_letter(build)
        self.dead_segment = tables.dead_segment(build)
        self.raw = tables.raw(build)
        self.table = tables.table(build)
        self.column = tables.column(build)
        self.view = tables.view(build)
        self.view_due = tables.view_due(build)
        self.assignment = tables.assignment(build)
        self.typing = tables.typing(build)
        self.decoder_memory = tables.decoder_memory(build)
        self.rollup_note = tables.rollup_note(build)
        self.rollup_due = tables.rollup_due(build)
        self.rollup_expired = tables.rollup_expired(build)
        self.rollup_series = tables.rollup_series(build)
        self.rollup = tables.rollup(build)
        self.rollup_state = tables.rollup_state(build)

    def create(self, connection: sa.Connection) -> None:
        """Upgrade the system tables, and create those that are missing; call this with the schema locked.

        Raises DatabaseError if they are newer than this program.
        """
        upgrade(connection, self._engine)
        self.metadata.create_all(connection)
        write_version(connection, self.meta)
        finish_column_change(connection, self.meta, self.column)

    def physical_tables(self, connection: sa.Connection, keys: Iterable[str] | None = None) -> dict[str, PhysicalTable]:
        """Return the registered tables by key: all of them, or those with ``keys``."""
        query = sa.select(self.table.c.key, self.table.c.name)
        if keys is not None:
            query = query.where(self.table.c.hash.in_([key_hash(key) for key in keys]))
        tables = {name: PhysicalTable(key, name, {}) for key, name in connection.execute(query)}
        columns = self.columns_of(connection, None if keys is None else tables)
        return {table.key: attrs.evolve(table, columns=columns[name]) for name, table in tables.items()}

    def columns_of(self, connection: sa.Connection, names: Iterable[str] | None) -> Mapping[str, dict[Pair, str]]:
        """Return the columns of tables and views, of those with ``names`` or all, by what they hold."""
        columns: dict[str, dict[Pair, str]] = defaultdict(dict)
        query = sa.select(self.column)
        if names is not None:
            query = query.where(self.column.c.table_name.in_(list(names)))
        changed = None if self._engine.transactional_ddl else half_done_change(connection, self.meta)
        for name, column, path, kind in connection.execute(query):
            there = column if changed is None or changed[:2] != (name, column) else changed[2]
            if there:
                columns[name][path, kind] = there
        return columns

    def tables_per_route(self, connection: sa.Connection) -> dict[str, int]:
        """Return the number of tables of each route, by topic filter."""
        query = sa.select(self.table.c.route, sa.func.count()).group_by(self.table.c.route)
        return {row[0]: row[1] for row in connection.execute(query)}

    def table_folds(self, connection: sa.Connection) -> set[str]:
        """Return the folded names of all registered tables and views."""
        names = sa.union_all(sa.select(self.table.c.name), sa.select(self.view.c.name))
        return set(map(fold, connection.scalars(names)))

    def add_tables(self, connection: sa.Connection, tables: Iterable[tuple[PhysicalTable, str]]) -> None:
        """Register tables that are about to be created, each with its route."""
        rows = [
            {"hash": key_hash(table.key), "name": table.name, "key": table.key, "route": route}
            for table, route in tables
        ]
        if rows:
            connection.execute(self.table.insert(), rows)

    def forget_table(self, connection: sa.Connection, key: str, name: str) -> None:
        """Unregister a table that is dropped, with its columns."""
        connection.execute(self.table.delete().where(self.table.c.hash == key_hash(key)))
        connection.execute(self.column.delete().where(self.column.c.table_name == name))

    def add_columns(self, connection: sa.Connection, new: Mapping[str, Mapping[Pair, str]]) -> None:
        """Register what new columns mean, given by their tables' names."""
        rows = [
            {"table_name": table, "column_name": column, "property": path, "kind": kind}
            for table, columns in new.items()
            for (path, kind), column in columns.items()
        ]
        if rows:
            connection.execute(self.column.insert(), rows)

    def forget_columns(self, connection: sa.Connection, table: str, columns: Iterable[str]) -> None:
        """Unregister columns that a table did not get."""
        here = (self.column.c.table_name == table) & self.column.c.column_name.in_(list(columns))
        connection.execute(self.column.delete().where(here))

    def assignments(self, connection: sa.Connection, topics: Iterable[str]) -> dict[str, Assignment]:
        """Return the current assignments of ``topics``; some may have none."""
        table, found = self.assignment, {}
        for hashes in batched(map(key_hash, topics)):
            query = sa.select(table).where(table.c.hash.in_(hashes) & (table.c.state == CURRENT))
            for row in connection.execute(query):
                found[row.topic] = Assignment(row.topic, row.key, row.route, row.model)
        return found

    def raise_routing_versions(self, connection: sa.Connection) -> None:
        """Let every writer read assignments and columns again before it commits anything more."""
        connection.execute(self.journal.update().values(routing_version=self.journal.c.routing_version + 1))

    def typings(self, connection: sa.Connection, topics: Iterable[str]) -> dict[str, str]:
        """Return, for those ``topics`` whose records are all typed by the same declarations, the hash of these."""
        table, by_hash = self.typing, {key_hash(topic): topic for topic in topics}
        found: dict[str, str] = {}
        for hashes in batched(by_hash):
            query = sa.select(table.c.hash, table.c.typing).where(table.c.hash.in_(hashes))
            found.update((by_hash[row[0]], row[1]) for row in connection.execute(query))
        return found

    def note_typings(self, connection: sa.Connection, typings: Mapping[str, str]) -> None:
        """Note by which declarations the records of topics are typed, given as text."""
        by_hash = {key_hash(topic): key_hash(text) for topic, text in typings.items()}
        for hashes in batched(by_hash):
            connection.execute(self.typing.delete().where(self.typing.c.hash.in_(hashes)))
        if by_hash:
            rows = [{"hash": hash_, "typing": text} for hash_, text in by_hash.items()]
            connection.execute(self.typing.insert(), rows)

    def assignments_after(
        self, connection: sa.Connection, last: str, sequence: int, count: int
    ) -> Sequence[sa.Row[Any]]:
        """Return the next ``count`` assignments in any state, after topic hash ``last`` and ``sequence``."""
        table = self.assignment
        behind = (table.c.hash > last) | ((table.c.hash == last) & (table.c.sequence > sequence))
        query = sa.select(table).where((table.c.hash >= last) & behind).order_by(table.c.hash, table.c.sequence)
        return connection.execute(query.limit(count)).all()

    def is_destination(self, connection: sa.Connection, key: str) -> bool:
        """Return True if a topic is assigned to a destination, or was before."""
        query = sa.select(self.assignment.c.hash).where(self.assignment.c.key == key).limit(1)
        return connection.execute(query).first() is not None

    def models(self, connection: sa.Connection) -> set[str]:
        """Return the models of all assignments, in any state."""
        return set(connection.scalars(sa.select(self.assignment.c.model).distinct()))

    def add_assignments(self, connection: sa.Connection, assignments: Iterable[Assignment]) -> None:
        """Make assignments the current ones of their topics; the previous ones become past.

        What was summed up of these is summed up again, if the new route does that.
        """
        table = self.assignment
        by_hash = {key_hash(new.topic): new for new in assignments}
        last: dict[str, int] = {}
        for hashes in batched(by_hash):
            same = table.c.hash.in_(hashes)
            query = sa.select(table.c.hash, sa.func.max(table.c.sequence)).where(same).group_by(table.c.hash)
            last.update((row[0], row[1]) for row in connection.execute(query))
            past = table.update().where(same & (table.c.state == CURRENT)).values(state=PAST)
            if connection.execute(past).rowcount:
                expired = self.rollup_expired
                connection.execute(expired.update().where(expired.c.hash.in_(hashes)).values(route=""))
                self.raise_routing_versions(connection)
        rows = [
            {"hash": key, "sequence": last.get(key, 0) + 1, "state": CURRENT, **attrs.asdict(new)}
            for key, new in by_hash.items()
        ]
        if rows:
            connection.execute(table.insert(), rows)
