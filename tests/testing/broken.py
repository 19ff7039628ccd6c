"""Models that look right and are not: one for each law."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import attrs

from amqtt_db.models.base import Cell, Destination, Model, Query, RecordReader, Row, RowMaker, Table
from amqtt_db.models.document import Document
from amqtt_db.models.eav import Eav
from amqtt_db.models.wide import Wide
from amqtt_db.record import Record, Shape


@attrs.frozen
class LosesNaN(Document):
    """Takes NaN for nothing."""

    def rows(self, destination: Destination, record: Record) -> Iterator[tuple[str, Row]]:
        """Without NaN."""
        values = tuple(None if isinstance(v, float) and math.isnan(v) else v for v in record.values)
        return Document.rows(self, destination, attrs.evolve(record, values=values))


@attrs.frozen
class DropsAProperty(Eav):
    """Forgets the last property."""

    def records(self, destination: Destination, rows: Iterable[Row]) -> Iterator[Record]:
        """Without the last property."""
        for record in Eav.records(self, destination, rows):
            yield attrs.evolve(record, values=record.values[:-1], shape=Shape(record.shape.properties[:-1]))


@attrs.frozen
class NamesAnUndeclaredColumn(Wide):
    """Fills a column that no table has."""

    def rows(self, destination: Destination, record: Record) -> Iterator[tuple[str, Row]]:
        """With a color."""
        for key, row in Wide.rows(self, destination, record):
            yield key, {**row, "color": "red"}


@attrs.frozen
class NamesAnUndeclaredTable(Document):
    """Has rows for a table that there is not."""

    def rows(self, destination: Destination, record: Record) -> Iterator[tuple[str, Row]]:
        """With a row for nobody."""
        yield from Document.rows(self, destination, record)
        if record.qos == 2:
            yield "nowhere", {}


@attrs.frozen
class FastMakerDisagrees(Eav):
    """Its maker for batches forgets that a message was retained."""

    def maker(self, destination: Destination, shape: Shape, cells: Mapping[str, Sequence[Cell]]) -> RowMaker:
        """With ``retain`` False."""
        make = Eav.maker(self, destination, shape, cells)
        return lambda records: make([attrs.evolve(record, retain=False) for record in records])


@attrs.frozen
class FastReaderDisagrees(Document):
    """Its reader for many rows takes everything for retained."""

    def reader(self, destination: Destination, cells: Sequence[Cell]) -> RecordReader:
        """With ``retain`` True."""
        read = Document.reader(self, destination, cells)
        return lambda columns: [attrs.evolve(record, retain=True) for record in read(columns)]


@attrs.frozen
class Shrinks(Wide):
    """Takes columns away once there are more than two."""

    def tables(self, destination: Destination, shape: Shape) -> tuple[Table, ...]:
        """With no column for properties of large shapes."""
        (table,) = Wide.tables(self, destination, shape)
        return (attrs.evolve(table, properties=table.properties if len(table.properties) <= 2 else ()),)


@attrs.frozen
class MovesOldData(Document):
    """Begins a new table whenever a record has more properties than any before, and reads only the newest."""

    seen: ClassVar[set[int]] = set()

    def tables(self, destination: Destination, shape: Shape) -> tuple[Table, ...]:
        """Another table for each largest number of properties met so far."""
        self.seen.add(len(shape.properties))
        (table,) = Document.tables(self, destination, shape)
        return (attrs.evolve(table, key=self._now, name=self._now.partition("/")[2]),)

    def rows(self, destination: Destination, record: Record) -> Iterator[tuple[str, Row]]:
        """In the newest table."""
        for _, row in Document.rows(self, destination, record):
            yield self._now, row

    def query(self, destination: Destination) -> Query:
        """Of the newest table."""
        return Query(self._now)

    @property
    def _now(self) -> str:
        return f"$table/documents_{max(self.seen, default=0)}"


@attrs.frozen
class OrderMatters(Wide):
    """Only the first kind of a property that it meets after a start gets a column."""

    first: ClassVar[dict[str, str]] = {}

    def tables(self, destination: Destination, shape: Shape) -> tuple[Table, ...]:
        """Columns for the kinds that came first; a writer that starts asks for the place ``""``."""
        if destination.key == "":
            self.first.clear()
        (table,) = Wide.tables(self, destination, shape)
        pairs = tuple(pair for pair in table.properties if self.first.setdefault(*pair) == pair[1])
        return (attrs.evolve(table, properties=pairs),)


@attrs.frozen
class NotIdempotent(Document):
    """Believes that what it has laid into rows is stored, and lays it no second time."""

    laid: ClassVar[set[tuple[Any, ...]]] = set()

    def rows(self, destination: Destination, record: Record) -> Iterator[tuple[str, Row]]:
        """Nothing for a record seen before."""
        key = (record.id, record.part, record.time_us, record.topic, repr(record.values))
        if key not in self.laid:
            self.laid.add(key)
            yield from Document.rows(self, destination, record)


@attrs.frozen
class OneJournal(Document):
    """Takes all journals for one, so that two writers disturb each other."""

    def rows(self, destination: Destination, record: Record) -> Iterator[tuple[str, Row]]:
        """With an id as in the first journal."""
        return Document.rows(self, destination, attrs.evolve(record, id=2**40 + record.id % 2**40))


@attrs.frozen
class Squats(Document):
    """Has a table of its own under the name of another model's."""

    def tables(self, destination: Destination, shape: Shape) -> tuple[Table, ...]:
        """``mqtt_document`` under another key."""
        (table,) = Document.tables(self, destination, shape)
        return (attrs.evolve(table, key="mine"),)

    def rows(self, destination: Destination, record: Record) -> Iterator[tuple[str, Row]]:
        """In the table with the other key."""
        for _, row in Document.rows(self, destination, record):
            yield "mine", row

    def query(self, destination: Destination) -> Query:
        """Of the table with the other key."""
        return Query("mine")


def local() -> Model:
    """A model that no reader can import."""

    @attrs.frozen
    class Local(Document):
        """Nobody finds it."""

    return Local()
