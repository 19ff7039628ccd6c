"""``eav``: a row per value, for many rarely-set properties and ever-new names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import itemgetter
from typing import Any, Final

import attrs

from amqtt_db.models.base import (
    ENVELOPE,
    Cell,
    Column,
    Destination,
    Layout,
    Lookup,
    Model,
    Query,
    RecordReader,
    Row,
    RowMaker,
    Table,
    ValueRows,
    of_value_rows,
    record_key,
    record_of,
    restored,
    table_key,
)
from amqtt_db.record import KINDS, Kind, Pair, Record, RecordBatch, Shape

TOPICS: Final = Lookup("mqtt_topic", ("topic",))
PROPERTIES: Final = Lookup("mqtt_property", ("property",))

VALUE_KINDS: Final[tuple[Kind, ...]] = tuple(kind for kind in KINDS if kind != "timestamp")
VALUE_COLUMNS: Final[Mapping[Kind, str]] = {kind: f"{kind}_value" for kind in VALUE_KINDS}
"""The column of ``mqtt_value`` for each kind; a suffix, for some kinds are words of SQL."""

_KIND_OF_COLUMN: Final[Mapping[str, Kind]] = {column: kind for kind, column in VALUE_COLUMNS.items()}


def message_table(name: str, *, timed: bool) -> Table:
    """The envelope, once for each record, with the topic as an id; ``timed`` puts the time into its key."""
    columns = tuple(
        Column("topic", "int64", lookup=TOPICS) if column.name == "topic" else column for column in ENVELOPE
    )
    return Table(
        key=table_key(name, timed=timed),
        name=name,
        columns=columns,
        primary_key=record_key(timed=timed),
        indexes=(("topic", "time"), ("time",)),
        exact=True,
    )


def message_row(record: Record) -> Row:
    """A record's row in :func:`message_table`."""
    return record.envelope()  # type: ignore[return-value]


@attrs.frozen
class Eav(Model):
    """Entity, attribute, value: ``mqtt_message`` for the envelope, ``mqtt_value`` for each property that is set.

    ``prefix`` replaces ``mqtt`` in the names of the two tables, for routes that shall have tables of their own.
    ``timed`` puts the time into rows and keys of both, as tables in chunks by time need it.
    """

    prefix: str = "mqtt"
    timed: bool = False

    def tables(self, destination: Destination, shape: Shape) -> tuple[Table, ...]:
        """Always the same two: no property ever needs DDL."""
        key = record_key(timed=self.timed)
        values = (
            *(column for column in ENVELOPE if column.name in key),
            Column("property", "int64", lookup=PROPERTIES),
            *(Column(name, kind, nullable=True) for kind, name in VALUE_COLUMNS.items()),
        )
        return (
            message_table(f"{self.prefix}_message", timed=self.timed),
            Table(
                key=self._values,
                name=f"{self.prefix}_value",
                columns=values,
                primary_key=(*key, "property"),
                indexes=(("property", "time" if self.timed else "id"),),
                exact=True,
            ),
        )

    def rows(self, destination: Destination, record: Record) -> Iterator[tuple[str, Row]]:
        """The envelope, and a row per property that is present."""
        yield self._messages, message_row(record)
        key: dict[Cell, Any] = {name: record.envelope()[name] for name in record_key(timed=self.timed)}
        for path, (kind, value) in record.properties().items():
            yield self._values, {**key, "property": path, VALUE_COLUMNS[kind]: value}

    def query(self, destination: Destination) -> Query:
        """Messages with their values."""
        return Query(self._messages, self._values, record_key(timed=self.timed))

    def records(self, destination: Destination, rows: Iterable[Row]) -> Iterator[Record]:
        """A record for each message."""
        for _, group in groupby(rows, key=itemgetter("id", "part")):
            found = list(group)
            values = dict(_value(row) for row in found if row["property"] is not None)
            yield record_of(found[0], values)

    def reader(self, destination: Destination, cells: Sequence[Cell]) -> RecordReader:
        """Kind by kind; a subclass with records of its own gets the plain reader."""
        if type(self).records is not Eav.records:
            return super().reader(destination, cells)
        at, kinds = cells.index("property"), [(cells.index(name), kind) for kind, name in VALUE_COLUMNS.items()]

        def read(columns: Sequence[Sequence[Any]]) -> Sequence[Record]:
            paths = columns[at]
            pairs: list[Pair | None] = [None] * len(paths)
            values: list[Any] = [None] * len(paths)
            for index, kind in kinds:
                if columns[index].count(None) == len(paths):
                    continue
                for row, value in enumerate(columns[index]):
                    if value is not None:
                        path = paths[row]
                        pairs[row], values[row] = restored(path, value) if kind == "tagged" else ((path, kind), value)
            return of_value_rows(cells, columns, pairs, values)

        return read

    def layout(self) -> Layout | None:
        """A column per kind; a subclass with rows of its own has to say itself."""
        return ValueRows("property", VALUE_COLUMNS) if type(self).rows is Eav.rows else None

    def maker(self, destination: Destination, shape: Shape, cells: Mapping[str, Sequence[Cell]]) -> RowMaker:
        """Two list comprehensions; a subclass with rows of its own gets the plain maker."""
        if type(self).rows is not Eav.rows:
            return super().maker(destination, shape, cells)
        slots = [(path, *_padding(kind)) for path, kind in shape.properties]

        def make(records: Sequence[Record]) -> Mapping[str, list[tuple[Any, ...]]]:
            block = RecordBatch.of(shape, records)
            keys = zip(*block.envelope[: len(record_key(timed=self.timed))], strict=True)
            return {
                self._messages: list(zip(*block.envelope, strict=True)),
                self._values: [
                    (*key, path, *before, value, *after)
                    for key, values in zip(keys, block.values, strict=True)
                    for (path, before, after), value in zip(slots, values, strict=True)
                    if value is not None
                ],
            }

        return make

    @property
    def _messages(self) -> str:
        return table_key(f"{self.prefix}_message", timed=self.timed)

    @property
    def _values(self) -> str:
        return table_key(f"{self.prefix}_value", timed=self.timed)


def _padding(kind: Kind) -> tuple[tuple[None, ...], tuple[None, ...]]:
    """The NULLs before and after the column of a kind."""
    index = VALUE_KINDS.index(kind)
    return (None,) * index, (None,) * (len(VALUE_KINDS) - index - 1)


def _value(row: Row) -> tuple[Pair, Any]:
    for column, kind in _KIND_OF_COLUMN.items():
        value = row[column]
        if value is not None:
            return restored(row["property"], value) if kind == "tagged" else ((row["property"], kind), value)
    raise ValueError(f"message {row['id']} has a property without a value")
