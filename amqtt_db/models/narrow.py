"""``narrow``: a row per point of a series, for numeric time series of millions of points."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, compress
from math import isfinite
from typing import Any, Final

import attrs

from amqtt_db.models.base import Cell, Column, Layout, Lookup, Row, Table, TableName, ValueRows
from amqtt_db.models.eav import TOPIC_LOOKUP, VALUE_KINDS, Prefix
from amqtt_db.models.fast import BatchMaker, BatchReader, ColumnRows, FastModel, of_value_rows
from amqtt_db.models.object_json import Columns
from amqtt_db.record import Kind, Pair, Record, RecordBatch, Shape, restored, tag

SERIES: Final = Lookup("mqtt_series", ("topic", "property"))

_EXACT_KINDS: Final[frozenset[Kind]] = frozenset({"int64", "bigint", "decimal"})
_COLUMNS: Final[Mapping[Kind, str]] = {kind: "value" if kind == "number" else "text" for kind in VALUE_KINDS}


@attrs.frozen
class Narrow(FastModel):
    """``mqtt_point`` is sorted by series and time, with numbers in ``value`` and everything else tagged in ``text``.

    Integers and decimals that have their own kind are in both: exact in ``text``, and as the nearest double in
    ``value``.
    """

    prefix: Prefix = "mqtt"

    def tables(self, shape: Shape) -> Iterable[Table]:
        """Return the table of the envelope, and that of the points, the same for every shape."""
        return _point_tables(self._messages, self._points)

    def write(self, record: Record) -> Iterator[tuple[TableName, Row]]:
        """Yield a row for the envelope, and a point for each property that is present."""
        yield self._messages, {}
        for path, (kind, value) in record.properties().items():
            number, text = _cells(kind, value)
            yield self._points, {"series": (record.topic, path), "value": number, "text": text}

    def read(self, envelope: Record, rows: Mapping[TableName, Sequence[Row]]) -> Record:
        """Return the record of a message and its points."""
        return envelope.with_values(
            dict(_point(row["series"], row["value"], row["text"]) for row in rows[self._points])
        )

    def layout(self) -> Layout | None:
        """Say that numbers have their own column, and everything else is tagged."""
        return ValueRows("series", _COLUMNS, exact="text")

    @property
    def _messages(self) -> str:
        return f"{self.prefix}_message"

    @property
    def _points(self) -> str:
        return f"{self.prefix}_point"

    # the rest makes it fast

    def maker(self, shape: Shape, cells: Mapping[TableName, Sequence[Cell]]) -> BatchMaker | None:
        """Return all rows column by column."""

        def make(batch: RecordBatch) -> Mapping[TableName, Sequence[tuple[Any, ...]]]:
            return {self._messages: ColumnRows(batch.envelope), self._points: ColumnRows(_point_columns(shape, batch))}

        return make

    def reader(self, cells: Sequence[Cell]) -> BatchReader | None:
        """Return a reader that goes point by point."""
        indexes = [cells.index(name) for name in ("series", "value", "text")]

        def read(columns: Columns) -> Sequence[Record]:
            points = [
                (None, None) if series is None else _point(series, number, text)
                for series, number, text in zip(*(columns[index] for index in indexes), strict=True)
            ]
            pairs, values = zip(*points, strict=True)
            return of_value_rows(cells, columns, pairs, values)

        return read


@lru_cache
def _point_tables(messages: str, points: str) -> tuple[Table, Table]:
    columns = Column("series", lookup=SERIES), Column("value", "number"), Column("text", "tagged")
    return (
        Table(messages, [Column("topic", lookup=TOPIC_LOOKUP)]),
        Table(points, columns, key=["series", "time", "id", "part"]),
    )


def _point_columns(shape: Shape, batch: RecordBatch) -> Sequence[Sequence[Any]]:
    """Return the columns of the points of some records: record by record, each with its properties in order."""
    paths = [path for path, _ in shape.properties]
    cells = [_cell_columns(kind, column) for (_, kind), column in zip(shape.properties, batch.columns, strict=True)]
    columns = (
        [(topic, path) for topic in batch.topics for path in paths],
        *(_alternate([column] * len(paths)) for column in (batch.times, batch.ids, batch.parts)),
        *(_alternate([some[index] for some in cells]) for index in range(2)),
    )
    if not any(None in column for column in batch.columns):
        return columns
    is_there = [value is not None for value in _alternate(batch.columns)]
    return [list(compress(column, is_there)) for column in columns]


def _alternate(columns: Sequence[Sequence[Any]]) -> list[Any]:
    """Return the first values of all columns, then the second ones, and so on."""
    return list(chain.from_iterable(zip(*columns, strict=True)))


def _cell_columns(kind: Kind, column: Sequence[Any]) -> tuple[Sequence[Any], Sequence[Any]]:
    """Return :func:`_cells` of all values of a property; those of None are not used."""
    if kind == "number":
        return column, [None] * len(column)
    texts = [None if value is None else tag(kind, value) for value in column]
    return [None if value is None or kind not in _EXACT_KINDS else _nearest(value) for value in column], texts


def _point(series: tuple[str, str], number: Any, text: Any) -> tuple[Pair, Any]:
    return ((series[1], "number"), number) if text is None else restored(series[1], text)


def _cells(kind: Kind, value: Any) -> tuple[float | None, Any]:
    """Return the contents of ``value`` and ``text`` for a value."""
    if kind == "number":
        return value, None
    return _nearest(value) if kind in _EXACT_KINDS else None, tag(kind, value)


def _nearest(number: Any) -> float | None:
    """Return the double nearest to an integer or a decimal; None if not every database can hold it."""
    try:
        nearest = float(number) + 0.0  # which turns −0.0 into zero
    except (OverflowError, ValueError):  # too large; a signalling NaN
        return None
    return nearest if isfinite(nearest) else None
