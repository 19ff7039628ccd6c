"""``narrow``: a row per point of a series, for numeric time series of millions of points."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from math import isfinite
from operator import itemgetter
from typing import Any, Final

import attrs

from amqtt_db.models.base import (
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
from amqtt_db.models.eav import VALUE_KINDS, message_row, message_table
from amqtt_db.record import Kind, Pair, Record, RecordBatch, Shape
from amqtt_db.tagged import tag

SERIES: Final = Lookup("mqtt_series", ("topic", "property"))

_EXACT: Final[frozenset[Kind]] = frozenset({"int64", "bigint", "decimal"})
_COLUMNS: Final[Mapping[Kind, str]] = {kind: "value" if kind == "number" else "text" for kind in VALUE_KINDS}


@attrs.frozen
class Narrow(Model):
    """``mqtt_point`` lies in the order of series and time, numbers in ``value``, everything else tagged in ``text``.

    Integers and decimals of a kind of their own are in both: exactly in ``text``, as the nearest double in ``value``.

    ``prefix`` replaces ``mqtt`` in the names of the tables, for routes that shall have tables of their own.
    ``timed`` puts the time into the key of messages too, as tables in chunks by time need it.
    """

    prefix: str = "mqtt"
    timed: bool = False

    def tables(self, destination: Destination, shape: Shape) -> tuple[Table, ...]:
        """The envelope once for each record, and the points."""
        points = (
            Column("series", "int64", lookup=SERIES),
            Column("time", "timestamp"),
            Column("id", "int64"),
            Column("part", "int64"),
            Column("value", "number", nullable=True),
            Column("text", "tagged", nullable=True),
        )
        return (
            message_table(f"{self.prefix}_message", timed=self.timed),
            Table(
                key=self._points,
                name=f"{self.prefix}_point",
                columns=points,
                primary_key=("series", "time", "id", "part"),
                indexes=(record_key(timed=self.timed),),
                exact=True,
            ),
        )

    def rows(self, destination: Destination, record: Record) -> Iterator[tuple[str, Row]]:
        """The envelope, and a point per property that is present."""
        yield self._messages, message_row(record)
        for path, (kind, value) in record.properties().items():
            row: dict[Cell, Any] = {
                "series": (record.topic, path),
                "time": record.time_us,
                "id": record.id,
                "part": record.part,
            }
            number, text = _cells(kind, value)
            yield self._points, {**row, "value": number, "text": text}

    def query(self, destination: Destination) -> Query:
        """Messages with their points."""
        return Query(self._messages, self._points, record_key(timed=self.timed))

    def records(self, destination: Destination, rows: Iterable[Row]) -> Iterator[Record]:
        """A record for each message."""
        for _, group in groupby(rows, key=itemgetter("id", "part")):
            found = list(group)
            values = dict(_point(row) for row in found if row["series"] is not None)
            yield record_of(found[0], values)

    def reader(self, destination: Destination, cells: Sequence[Cell]) -> RecordReader:
        """Point by point; a subclass with records of its own gets the plain reader."""
        if type(self).records is not Narrow.records:
            return super().reader(destination, cells)
        indexes = [cells.index(name) for name in ("series", "value", "text")]

        def read(columns: Sequence[Sequence[Any]]) -> Sequence[Record]:
            points = [
                (None, None)
                if series is None
                else ((series[1], "number"), number)
                if text is None
                else restored(series[1], text)
                for series, number, text in zip(*(columns[index] for index in indexes), strict=True)
            ]
            pairs, values = zip(*points, strict=True)
            return of_value_rows(cells, columns, pairs, values)

        return read

    def layout(self) -> Layout | None:
        """Numbers apart, everything else tagged; a subclass with rows of its own has to say itself."""
        return ValueRows("series", _COLUMNS, exact="text") if type(self).rows is Narrow.rows else None

    def maker(self, destination: Destination, shape: Shape, cells: Mapping[str, Sequence[Cell]]) -> RowMaker:
        """Two list comprehensions; a subclass with rows of its own gets the plain maker."""
        if type(self).rows is not Narrow.rows:
            return super().maker(destination, shape, cells)

        def make(records: Sequence[Record]) -> Mapping[str, list[tuple[Any, ...]]]:
            block = RecordBatch.of(shape, records)
            return {
                self._messages: list(zip(*block.envelope, strict=True)),
                self._points: [
                    ((topic, path), time, id_, part, value, None)
                    if kind == "number"
                    else ((topic, path), time, id_, part, *_cells(kind, value))
                    for id_, part, time, topic, values in zip(*block.envelope[:4], block.values, strict=True)
                    for (path, kind), value in zip(shape.properties, values, strict=True)
                    if value is not None
                ],
            }

        return make

    @property
    def _messages(self) -> str:
        return table_key(f"{self.prefix}_message", timed=self.timed)

    @property
    def _points(self) -> str:
        return table_key(f"{self.prefix}_point", timed=self.timed)


def _cells(kind: Kind, value: Any) -> tuple[float | None, Any]:
    """What ``value`` and ``text`` hold of a value."""
    if kind == "number":
        return value, None
    return _nearest(value) if kind in _EXACT else None, tag(kind, value)


def _nearest(number: Any) -> float | None:
    """The double nearest to an integer or a decimal; None where that is none which every database holds."""
    try:
        nearest = float(number) + 0.0  # which makes −0.0 a zero
    except (OverflowError, ValueError):  # too large; a signalling NaN
        return None
    return nearest if isfinite(nearest) else None


def _point(row: Row) -> tuple[Pair, Any]:
    path = row["series"][1]
    return ((path, "number"), row["value"]) if row["text"] is None else restored(path, row["text"])
