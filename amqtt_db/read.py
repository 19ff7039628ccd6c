"""tables → Records: the way back, the same from every model."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

import attrs
import cattrs
import orjson
import sqlalchemy as sa

from amqtt_db import registry
from amqtt_db.catalog import PhysicalTable
from amqtt_db.house import House
from amqtt_db.models import BUILTIN
from amqtt_db.models.base import Cell, Model, Place, Row, Table
from amqtt_db.shape import Record, Shape
from amqtt_db.topics import TopicFilter


@attrs.frozen
class _Stay:
    """Topics whose records lie in the same place."""

    key: str
    route: str
    model: str


def read(house: House, topic: str = "#") -> Iterator[Record]:
    """The records of all topics that a filter covers, in the order of their ids within each place."""
    wanted = TopicFilter.parse(topic)
    placement = house.catalog.placement
    stays: dict[_Stay, None] = {}
    for row in house.connection.execute(sa.select(placement).order_by(placement.c.first_id, placement.c.hash)):
        if wanted.match(row.topic) is not None:
            stays[_Stay(row.key, row.route, row.model)] = None
    for stay in stays:
        records = _stay_records(house, stay)
        yield from (record for record in records if wanted.match(record.topic) is not None)


def _stay_records(house: House, stay: _Stay) -> Iterator[Record]:
    model, place = _model(stay.model), Place(stay.key, stay.route)
    tables = {table.key: table for table in model.tables(place, Shape(()))}
    key = model.query(place).table
    known = house.catalog.physical_tables(house.connection, [key]).get(key)
    return iter(()) if known is None else model.records(place, _rows(house, known, tables[key]))


def _rows(house: House, known: PhysicalTable, table: Table) -> Iterator[Row]:
    cells: dict[Cell, str] = {column.name: column.name for column in table.columns}
    cells.update(known.columns.items())
    kinds = {column.name: column.kind for column in table.columns}
    decoders = [(cell, kinds[cell] if isinstance(cell, str) else cell[1]) for cell in cells]
    target = sa.table(known.name, *(sa.column(name) for name in cells.values()))
    query = sa.select(target).order_by(*(target.c[name] for name in table.primary_key))
    for row in house.connection.execution_options(yield_per=1000).execute(query):
        values = zip(decoders, row, strict=True)
        yield {cell: house.engine.decode(kind, value) for (cell, kind), value in values}


def _model(spec: str) -> Model:
    """The model that a placement names."""
    ((name, options),) = orjson.loads(spec).items()
    model: Model = cattrs.structure(options, registry.load(name, BUILTIN, "amqtt_db.models"))
    return model


by_id = attrgetter("id", "part")
"""The order in which messages arrived."""
