"""Models that look right and are not: one for each law."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import attrs
import sqlalchemy as sa

from amqtt_db.models import Column, Document, Eav, Lookup, Model, Table, Wide
from amqtt_db.models.base import Cell, Row, TableName
from amqtt_db.models.fast import BatchMaker, BatchReader
from amqtt_db.record import Record, Shape

Rows = Iterator[tuple[TableName, Row]]


@attrs.frozen
class LosesNaN(Document):
    """Takes NaN for nothing."""

    def write(self, record: Record) -> Rows:
        """Without NaN."""
        values = tuple(None if isinstance(v, float) and math.isnan(v) else v for v in record.values)
        return Document.write(self, attrs.evolve(record, values=values))


@attrs.frozen
class DropsAProperty(Eav):
    """Forgets the last property."""

    def read(self, envelope: Record, rows: Mapping[TableName, Sequence[Row]]) -> Record:
        """Without the last property."""
        record = Eav.read(self, envelope, rows)
        return attrs.evolve(record, values=record.values[:-1], shape=Shape(record.shape.properties[:-1]))


@attrs.frozen
class NamesAnUndeclaredColumn(Wide):
    """Fills a column that no table has."""

    def write(self, record: Record) -> Rows:
        """With a color."""
        for name, row in Wide.write(self, record):
            yield name, {**row, "color": "red"}


@attrs.frozen
class NamesAnUndeclaredTable(Document):
    """Has rows for a table that there is not."""

    def write(self, record: Record) -> Rows:
        """Write a row for an undeclared table."""
        yield from Document.write(self, record)
        if record.qos == 2:
            yield "nowhere", {}


@attrs.frozen
class FastMakerDisagrees(Eav):
    """Its maker for batches forgets that a message was retained."""

    def maker(self, shape: Shape, cells: Mapping[TableName, Sequence[Cell]]) -> BatchMaker | None:
        """With ``retain`` False."""
        make = Eav.maker(self, shape, cells)
        assert make is not None
        return lambda batch: make(attrs.evolve(batch, retains=[False] * len(batch)))


@attrs.frozen
class FastReaderDisagrees(Eav):
    """Its reader for many rows takes everything for retained."""

    def reader(self, cells: Sequence[Cell]) -> BatchReader | None:
        """With ``retain`` True."""
        read = Eav.reader(self, cells)
        assert read is not None
        return lambda columns: [attrs.evolve(record, retain=True) for record in read(columns)]


@attrs.frozen
class Shrinks(Wide):
    """Takes columns away once there are more than two."""

    def tables(self, shape: Shape) -> Iterable[Table]:
        """With no column for properties of large shapes."""
        (table,) = Wide.tables(self, shape)
        yield attrs.evolve(table, properties=table.properties if len(table.properties) <= 2 else ())


@attrs.frozen
class MovesOldData(Document):
    """Begins a new table whenever a record has more properties than any before, and reads only the newest."""

    seen: ClassVar[set[int]] = set()

    def tables(self, shape: Shape) -> Iterable[Table]:
        """Another table for each largest number of properties met so far."""
        self.seen.add(len(shape.properties))
        (table,) = Document.tables(self, shape)
        yield attrs.evolve(table, name=self._now)

    def write(self, record: Record) -> Rows:
        """In the newest table."""
        for _, row in Document.write(self, record):
            yield self._now, row

    def read(self, envelope: Record, rows: Mapping[TableName, Sequence[Row]]) -> Record:
        """From whichever table it was."""
        (found,) = rows.values()
        return Document.read(self, envelope, {f"{self.prefix}_document": found})

    @property
    def _now(self) -> str:
        return f"documents_{max(self.seen, default=0)}"


@attrs.frozen
class OrderMatters(Wide):
    """Only the first kind of a property that it meets after a writer's first connection gets a column."""

    first: ClassVar[dict[str, str]] = {}

    def tables(self, shape: Shape) -> Iterable[Table]:
        """Columns for the kinds that came first."""
        (table,) = Wide.tables(self, shape)
        pairs = tuple(pair for pair in table.properties if self.first.setdefault(*pair) == pair[1])
        yield attrs.evolve(table, properties=pairs)


@sa.event.listens_for(sa.pool.Pool, "first_connect")
def _forget(*_: object) -> None:
    OrderMatters.first.clear()


@attrs.frozen
class NotIdempotent(Document):
    """Believes that what it has laid into rows is stored, and lays it no second time."""

    laid: ClassVar[set[tuple[Any, ...]]] = set()

    def write(self, record: Record) -> Rows:
        """Nothing for a record seen before."""
        key = (record.id, record.part, record.time_us, record.topic, repr(record.values))
        if key not in self.laid:
            self.laid.add(key)
            yield from Document.write(self, record)


@attrs.frozen
class OneJournal(Document):
    """Takes all journals for one, so that two writers disturb each other."""

    def write(self, record: Record) -> Rows:
        """With an id as in the first journal."""
        for name, row in Document.write(self, record):
            yield name, {**row, "id": 2**40 + record.id % 2**40}


@attrs.frozen
class Squats(Document):
    """Names its table as another model does, and has other columns in it."""

    def tables(self, shape: Shape) -> Iterable[Table]:
        """``mqtt_document`` with a column that has to be filled."""
        (table,) = Document.tables(self, shape)
        yield attrs.evolve(table, columns=[*table.columns, Column("owner", nullable=False)])

    def write(self, record: Record) -> Rows:
        """With an owner."""
        for name, row in Document.write(self, record):
            yield name, {**row, "owner": "me"}


@attrs.frozen
class CountsReplacements(Document):
    """Writes into a replacing table how often it has been called."""

    calls: ClassVar[list[int]] = [0]

    def tables(self, shape: Shape) -> Iterable[Table]:
        """With a table of the newest."""
        yield from Document.tables(self, shape)
        columns = [Column("topic", lookup="sender"), Column("calls", "int64")]
        yield Table("newest", columns, key=["topic"], replaces=True)

    def write(self, record: Record) -> Rows:
        """With a number that a replay changes."""
        yield from Document.write(self, record)
        self.calls[0] += 1
        yield "newest", {"calls": self.calls[0]}


@attrs.frozen
class ConfusesLookups(Wide):
    """Has two lookups of one name."""

    def extra_columns(self) -> Iterable[Column]:
        """Over one text, and over two."""
        yield Column("device", lookup="device")
        yield Column("part_of_device", lookup=Lookup("device", ["device", "part"]))


def local() -> Model:
    """A model that no reader can import."""

    @attrs.frozen
    class Local(Document):
        """Nobody finds it."""

    return Local()
