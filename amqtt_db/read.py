"""tables → Records: the way back, the same from every model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from operator import attrgetter
from typing import Any, Final

import attrs
import cattrs
import orjson
import sqlalchemy as sa

from amqtt_db import registry
from amqtt_db.catalog import PhysicalTable
from amqtt_db.house import House
from amqtt_db.lookup import read_keys
from amqtt_db.models import BUILTIN
from amqtt_db.models.base import Cell, Model, Place, Query, Row, Table
from amqtt_db.shape import Record, Shape
from amqtt_db.topics import TopicFilter

BATCH: Final = 1000  # rows fetched at a time

by_id = attrgetter("id", "part")
"""The order in which messages arrived."""

_converter: Final = cattrs.Converter()


@attrs.frozen
class _Stay:
    """Tables to read once: a model's query, and the topics whose records in them are wanted."""

    model: Model
    place: Place
    topics: set[str] = attrs.field(factory=set, eq=False)

    @property
    def query(self) -> Query:
        """The query that finds the records, and perhaps others."""
        return self.model.query(self.place)


def read(house: House, topic: str = "#") -> Iterator[Record]:
    """The records of all topics that a filter covers; those that lie in the same tables in the order of their ids."""
    for stay in _stays(house, TopicFilter.parse(topic)):
        records = stay.model.records(stay.place, _rows(house, stay))
        yield from (record for record in records if record.topic in stay.topics)


def _stays(house: House, wanted: TopicFilter) -> list[_Stay]:
    placement = house.catalog.placement
    stays: dict[Query, _Stay] = {}
    for row in house.connection.execute(sa.select(placement).order_by(placement.c.sequence, placement.c.hash)):
        if wanted.match(row.topic) is not None:
            model, place = model_of(row.model), Place(row.key, row.route)
            stays.setdefault(model.query(place), _Stay(model, place)).topics.add(row.topic)
    return list(stays.values())


def _rows(house: House, stay: _Stay) -> Iterator[Row]:
    tables = {table.key: table for table in stay.model.tables(stay.place, Shape(()))}
    known = house.catalog.physical_tables(house.connection, tables)
    if stay.query.table not in known:
        return
    main = _Source.of(house, known[stay.query.table], tables[stay.query.table])
    sources, origin = [main], main.target
    if stay.query.values is not None:
        values = _Source.of(house, known[stay.query.values], tables[stay.query.values])
        sources.append(values)
        same = sa.and_(*(main.target.c[name] == values.target.c[name] for name in stay.query.on))
        origin = main.target.outerjoin(values.target, same)  # type: ignore[assignment]
    columns = [column for source in sources for column in source.target.c]
    order = [main.target.c[name] for name in ("id", "part")]
    statement = sa.select(*columns).select_from(origin).order_by(*order)
    cells = [cell for source in reversed(sources) for cell in source.cells]
    decoders = [decoder for source in reversed(sources) for decoder in source.decoders]
    width = len(main.cells)
    for row in house.connection.execution_options(yield_per=BATCH).execute(statement):
        ordered = (*row[width:], *row[:width])  # the main table's cells win
        yield {
            cell: None if value is None else decode(value)
            for cell, decode, value in zip(cells, decoders, ordered, strict=True)
        }


@attrs.frozen
class _Source:
    """A table to read from: its columns' cells, and how their values are decoded."""

    target: sa.TableClause
    cells: tuple[Cell, ...]
    decoders: tuple[Callable[[Any], Any], ...]

    @classmethod
    def of(cls, house: House, known: PhysicalTable, table: Table) -> _Source:
        """All columns of a table that the project knows of."""
        columns: dict[Cell, str] = {column.name: column.name for column in table.columns}
        columns.update(known.columns.items())
        target = sa.table(known.name, *(sa.column(name) for name in columns.values()))
        fixed = {column.name: column for column in table.columns}
        decoders = []
        for cell in columns:
            lookup = fixed[cell].lookup if isinstance(cell, str) else None
            kind = fixed[cell].kind if isinstance(cell, str) else cell[1]
            if lookup is not None:
                decoders.append(read_keys(house.engine, house.connection, lookup).__getitem__)
            else:
                decoders.append(house.engine.decoders.get(kind, _same))
        return cls(target, tuple(columns), tuple(decoders))


def model_of(spec: str) -> Model:
    """The model that a placement names.  Raises ValueError if its class cannot be loaded."""
    ((name, options),) = orjson.loads(spec).items()
    model: Model = _converter.structure(options, registry.load(name, BUILTIN, "amqtt_db.models"))
    return model


def _same(value: Any) -> Any:
    return value
