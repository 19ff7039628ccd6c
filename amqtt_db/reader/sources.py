"""Find where records are: the assignments of topics, grouped by the tables that they share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import CURRENT, MOVED, PhysicalTable, key_hash
from amqtt_db.database.snapshot import Snapshot, require_tables
from amqtt_db.errors import DatabaseError, Rejected
from amqtt_db.models.base import Model
from amqtt_db.models.binding import BoundModel, BoundTable, Query
from amqtt_db.models.spec import bound_model
from amqtt_db.reader.selection import Selection

_MAX_KEYS: Final = 500  # keys per statement


@attrs.frozen(eq=False)
class Source:
    """A model's tables, and the wanted topics in them.

    ``current`` are the topics that are still written here.  ``complete`` is true if the table holds no other topics, of
    this or another model.
    """

    model: BoundModel
    topics: frozenset[str]
    current: frozenset[str]
    complete: bool

    @property
    def query(self) -> Query:
        """The query that finds the records, and perhaps others as well."""
        return self.model.query

    def tables(self) -> dict[str, BoundTable]:
        """The model's tables by key, without columns for properties."""
        return {table.key: table for table in self.model.tables()}


@attrs.define(eq=False)
class _Found:
    model: BoundModel
    topics: set[str] = attrs.field(factory=set)
    current: set[str] = attrs.field(factory=set)

    def add(self, row: Any) -> None:
        """Add a topic's assignment."""
        self.topics.add(row.topic)
        if row.state == CURRENT:
            self.current.add(row.topic)


def find_sources(snapshot: Snapshot, wanted: Selection) -> list[Source]:
    """Return where the wanted topics' records are.

    Raises DatabaseError if nothing has ever been stored, or if the model of a wanted topic cannot be loaded.
    """
    require_tables(snapshot)
    found: dict[tuple[Model, Query], _Found] = {}
    settled: dict[str, set[str]] = {}
    is_complete = wanted.exact is None
    for row in _read_assignments(snapshot, wanted.exact):
        is_wanted = row.state != MOVED and wanted.topic.match(row.topic) is not None
        try:
            bound, query = _bind_model(row)
        except DatabaseError:
            if is_wanted:
                raise
            is_complete = False  # any table may hold records of others
            continue
        settled.setdefault(query.table, set()).add(row.topic)  # moved records may still be there
        if is_wanted:
            found.setdefault((bound.model, query), _Found(bound)).add(row)
    return [
        Source(
            source.model,
            frozenset(source.topics),
            frozenset(source.current),
            complete=is_complete and source.topics == settled[query.table],
        )
        for (_, query), source in found.items()
    ]


def _bind_model(row: Any) -> tuple[BoundModel, Query]:
    try:
        bound = bound_model(row.model, row.key, row.route)
        return bound, bound.query
    except (ValueError, Rejected) as error:
        raise DatabaseError(
            f"the records of {row.topic!r} are stored in a model that cannot be loaded: {error}"
        ) from error


def _read_assignments(snapshot: Snapshot, topic: str | None) -> Iterable[Any]:
    table = snapshot.catalog.assignment
    columns = (table.c.topic, table.c.key, table.c.route, table.c.model, table.c.state)
    query = sa.select(*columns).order_by(table.c.sequence, table.c.hash)
    return snapshot.connection.execute(query if topic is None else query.where(table.c.hash == key_hash(topic)))


def find_tables(snapshot: Snapshot, wanted: Iterable[Source]) -> dict[str, PhysicalTable]:
    """Return the existing tables of sources, by key."""
    keys = {key for source in wanted for key in (source.query.table, *source.query.details)}
    return snapshot.catalog.physical_tables(snapshot.connection, keys if len(keys) <= _MAX_KEYS else None)
