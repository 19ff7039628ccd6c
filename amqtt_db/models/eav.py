"""``eav``: a row per value, for many rarely set properties or changing names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Annotated, Any, Final

import attrs

from amqtt_db.models.base import Cell, Column, Layout, Lookup, Row, Table, TableName, ValueRows
from amqtt_db.models.fast import BatchMaker, BatchReader, ColumnRows, FastModel, of_value_rows
from amqtt_db.models.object_json import Columns
from amqtt_db.record import KINDS, Kind, Pair, Record, RecordBatch, Shape, restored

TOPIC_LOOKUP: Final = Lookup("mqtt_topic", ("topic",))
PROPERTIES: Final = Lookup("mqtt_property", ("property",))

Prefix = Annotated[str, "Replaces mqtt in the names of the tables, to give a route its own."]

VALUE_KINDS: Final[tuple[Kind, ...]] = tuple(kind for kind in KINDS if kind != "timestamp")
VALUE_COLUMNS: Final[Mapping[Kind, str]] = {kind: f"{kind}_value" for kind in VALUE_KINDS}
"""The column of ``mqtt_value`` for each kind; with a suffix, because some kinds are SQL words."""


@attrs.frozen
class Eav(FastModel):
    """Entity, attribute, value: ``mqtt_message`` for the envelope, ``mqtt_value`` for each property that is set."""

    prefix: Prefix = "mqtt"

    def tables(self, shape: Shape) -> Iterable[Table]:
        """Return the same two tables for every shape: no property ever needs DDL."""
        return _value_tables(self._messages, self._values)

    def write(self, record: Record) -> Iterator[tuple[TableName, Row]]:
        """Yield a row for the envelope, and one for each property that is present."""
        yield self._messages, {}
        for path, (kind, value) in record.properties().items():
            yield self._values, {"property": path, VALUE_COLUMNS[kind]: value}

    def read(self, envelope: Record, rows: Mapping[TableName, Sequence[Row]]) -> Record:
        """Return the record of a message and its values."""
        return envelope.with_values(dict(map(read_value, rows[self._values])))

    def layout(self) -> Layout | None:
        """Say that there is a column per kind."""
        return ValueRows("property", VALUE_COLUMNS)

    @property
    def _messages(self) -> str:
        return f"{self.prefix}_message"

    @property
    def _values(self) -> str:
        return f"{self.prefix}_value"

    # the rest makes it fast

    def maker(self, shape: Shape, cells: Mapping[TableName, Sequence[Cell]]) -> BatchMaker | None:
        """Return columns of envelopes, and a list comprehension."""
        slots = [(path, *_padding(kind)) for path, kind in shape.properties]
        in_key = list(cells[self._values]).index("property")

        def make(batch: RecordBatch) -> Mapping[TableName, Sequence[tuple[Any, ...]]]:
            keys = zip(*batch.envelope[:in_key], strict=True)
            return {
                self._messages: ColumnRows(batch.envelope),
                self._values: [
                    (*key, path, *before, value, *after)
                    for key, values in zip(keys, batch.values, strict=True)
                    for (path, before, after), value in zip(slots, values, strict=True)
                    if value is not None
                ],
            }

        return make

    def reader(self, cells: Sequence[Cell]) -> BatchReader | None:
        """Return a reader that goes kind by kind."""
        at, kinds = cells.index("property"), [(cells.index(name), kind) for kind, name in VALUE_COLUMNS.items()]

        def read(columns: Columns) -> Sequence[Record]:
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


@lru_cache
def _value_tables(messages: str, values: str) -> tuple[Table, Table]:
    """Return the tables, made once, for ever new names mean ever new shapes."""
    columns = [Column("property", lookup=PROPERTIES), *(Column(name, kind) for kind, name in VALUE_COLUMNS.items())]
    return (
        Table(messages, [Column("topic", lookup=TOPIC_LOOKUP)]),
        Table(values, columns, key=["property"], indexes=[("property", "id")]),
    )


def read_value(row: Row) -> tuple[Pair, Any]:
    """Return the property in a row of values, and its value.  Raises ValueError if it has none."""
    for kind, column in VALUE_COLUMNS.items():
        value = row[column]
        if value is not None:
            return restored(row["property"], value) if kind == "tagged" else ((row["property"], kind), value)
    raise ValueError(f"message {row['id']} has a property without a value")


def _padding(kind: Kind) -> tuple[tuple[None, ...], tuple[None, ...]]:
    """Return the NULLs before and after the column of a kind."""
    index = VALUE_KINDS.index(kind)
    return (None,) * index, (None,) * (len(VALUE_KINDS) - index - 1)
