"""Where records lie: the placements of topics, gathered by the tables that they share."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.catalog import CURRENT, MOVED, PhysicalTable, key_hash
from amqtt_db.errors import DatabaseError
from amqtt_db.house import House, require_tables
from amqtt_db.models.base import Model, Place, Query, Table
from amqtt_db.models.spec import model_of
from amqtt_db.reader.selection import Selection
from amqtt_db.shape import Shape

_FEW: Final = 500  # keys that one statement may name


@attrs.frozen(eq=False)
class Stay:
    """A model's tables, and the topics that are wanted of them.

    ``current`` are those topics that are still written here; ``complete`` tells that there are no others in the query's
    table, be it of other models.
    """

    model: Model
    place: Place
    topics: frozenset[str]
    current: frozenset[str]
    complete: bool

    @property
    def query(self) -> Query:
        """The query that finds the records, and perhaps others."""
        return self.model.query(self.place)

    def tables(self) -> dict[str, Table]:
        """The model's tables by key, without columns for properties."""
        return {table.key: table for table in self.model.tables(self.place, Shape(()))}


@attrs.define(eq=False)
class _Found:
    place: Place
    topics: set[str] = attrs.field(factory=set)
    current: set[str] = attrs.field(factory=set)

    def add(self, row: Any) -> None:
        """Take in a placement."""
        self.topics.add(row.topic)
        if row.state == CURRENT:
            self.current.add(row.topic)


def stays(house: House, wanted: Selection) -> list[Stay]:
    """Where the wanted topics' records lie.

    Raises DatabaseError where nothing has ever been stored, or where a model cannot be loaded.
    """
    require_tables(house)
    found: dict[tuple[Model, Query], _Found] = {}
    settled: dict[str, set[str]] = {}
    for row in _placements(house, wanted.exact):
        model, place = _model(row), Place(row.key, row.route)
        query = model.query(place)
        settled.setdefault(query.table, set()).add(row.topic)  # what has moved away may still lie there
        if row.state != MOVED and wanted.topic.match(row.topic) is not None:
            found.setdefault((model, query), _Found(place)).add(row)
    is_complete = wanted.exact is None
    return [
        Stay(
            model,
            stay.place,
            frozenset(stay.topics),
            frozenset(stay.current),
            complete=is_complete and stay.topics == settled[query.table],
        )
        for (model, query), stay in found.items()
    ]


def _model(row: Any) -> Model:
    try:
        return model_of(row.model)
    except ValueError as error:
        raise DatabaseError(f"the records of {row.topic!r} lie in a model that cannot be loaded: {error}") from error


def _placements(house: House, topic: str | None) -> Iterable[Any]:
    table = house.catalog.placement
    columns = (table.c.topic, table.c.key, table.c.route, table.c.model, table.c.state)
    query = sa.select(*columns).order_by(table.c.sequence, table.c.hash)
    return house.connection.execute(query if topic is None else query.where(table.c.hash == key_hash(topic)))


def physical_tables(house: House, wanted: Iterable[Stay]) -> dict[str, PhysicalTable]:
    """The tables that there are of those that stays need, by key."""
    keys = {key for stay in wanted for key in (stay.query.table, stay.query.values) if key is not None}
    return house.catalog.physical_tables(house.connection, keys if len(keys) <= _FEW else None)
