"""``wide``: a column per property; one table per topic, or one for all topics of a route."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Any, Final

import attrs

from amqtt_db.models.base import (
    ENVELOPE,
    Cell,
    Column,
    Destination,
    Layout,
    Model,
    OwnColumns,
    Query,
    RecordReader,
    Row,
    RowMaker,
    Table,
    in_order,
    record_key,
    record_of,
    restored,
    table_key,
)
from amqtt_db.record import Pair, Record, RecordBatch, Shape, picker, records_of
from amqtt_db.tagged import tag

EXTRA: Final = "extra"

_ENVELOPE_NAMES: Final = tuple(column.name for column in ENVELOPE)


@attrs.frozen
class Wide(Model):
    """The friendliest SQL: ``SELECT time, temp FROM climate``.

    ``table`` names one table for all topics of the route; without it each topic has a table of its own, named after it.
    ``timed`` puts the time into the key, as a table in chunks by time needs it.
    """

    table: str | None = None
    timed: bool = False

    @property
    def per_topic(self) -> bool:  # type: ignore[override]
        """Whether each topic has a table of its own."""
        return self.table is None

    @property
    def is_uniform(self) -> bool:
        """Not in a subclass with rows of its own."""
        return type(self).rows is Wide.rows and type(self).maker is Wide.maker

    def tables(self, destination: Destination, shape: Shape) -> tuple[Table, ...]:
        """One table: the envelope, a column per property, and ``extra`` for properties without a column."""
        return (
            Table(
                key=self._key(destination),
                name=self.table or destination.key,
                exact=self.table is not None,
                columns=(*ENVELOPE, Column(EXTRA, "json", nullable=True)),
                properties=tuple(pair for pair in shape.properties if destination.gives_column(pair[0])),
                primary_key=record_key(timed=self.timed),
                indexes=(("time",),) if self.per_topic else (("topic", "time"), ("time",)),
                overflow=EXTRA,
            ),
        )

    def rows(self, destination: Destination, record: Record) -> Iterator[tuple[str, Row]]:
        """One row: the envelope and a cell per property."""
        row: dict[Cell, Any] = dict(zip(_ENVELOPE_NAMES, record.envelope().values(), strict=True))
        row.update(zip(record.shape.properties, record.values, strict=True))
        yield self._key(destination), row

    def query(self, destination: Destination) -> Query:
        """All rows of the place's table."""
        return Query(self._key(destination))

    def records(self, destination: Destination, rows: Iterable[Row]) -> Iterator[Record]:
        """A record per row; NULL cells are absent properties."""
        for row in rows:
            yield record_of(row, dict(_properties(row)))

    def layout(self) -> Layout | None:
        """Columns as they are; also for a subclass, whatever it puts into them."""
        return OwnColumns()

    def maker(self, destination: Destination, shape: Shape, cells: Mapping[str, Sequence[Cell]]) -> RowMaker:
        """Columns put side by side; a subclass with rows of its own gets the plain maker."""
        if type(self).rows is not Wide.rows:
            return super().maker(destination, shape, cells)
        ((key, order),) = cells.items()
        fill = _filler(shape, order[len(_ENVELOPE_NAMES) :])

        def make(records: Sequence[Record]) -> Mapping[str, list[tuple[Any, ...]]]:
            block = RecordBatch.of(shape, records)
            return {key: list(zip(*block.envelope, *fill(block), strict=True))}

        return make

    def reader(self, destination: Destination, cells: Sequence[Cell]) -> RecordReader:
        """A whole page at once; only rows with tagged values or ``extra`` are looked at one by one."""
        if type(self).records is not Wide.records:
            return super().reader(destination, cells)
        envelope = [cells.index(name) for name in _ENVELOPE_NAMES]
        own = [(cell, index) for index, cell in enumerate(cells) if isinstance(cell, tuple) and not _is_tagged(cell)]
        odd = [index for index, cell in enumerate(cells) if cell == EXTRA or _is_tagged(cell)]

        def read(columns: Sequence[Sequence[Any]]) -> Sequence[Record]:
            shapes, values = _by_presence([(pair, columns[index]) for pair, index in own])
            records = records_of(*(columns[index] for index in envelope), values, shapes)
            for number in _filled([columns[index] for index in odd]):
                row = {cell: column[number] for cell, column in zip(cells, columns, strict=True)}
                records[number] = record_of(row, dict(_properties(row)))
            return records

        return read

    def _key(self, destination: Destination) -> str:
        if self.table or self.timed:
            return table_key(self.table or destination.key, timed=self.timed)
        return destination.key  # no topic of a client begins with $


def _properties(row: Row) -> Iterator[tuple[Pair, Any]]:
    for cell, value in row.items():
        if isinstance(cell, tuple) and value is not None:
            path, kind = cell
            yield restored(path, value) if kind == "tagged" else (cell, value)
    for path, value in (row[EXTRA] or {}).items():
        yield restored(path, value)


def _is_tagged(cell: Cell) -> bool:
    return isinstance(cell, tuple) and cell[1] == "tagged"


def _filled(columns: Sequence[Sequence[Any]]) -> list[int]:
    """The rows in which some column has a value."""
    found = (
        number
        for column in columns
        if column.count(None) < len(column)
        for number, value in enumerate(column)
        if value is not None
    )
    return sorted(set(found))


def _by_presence(columns: Sequence[tuple[Pair, Sequence[Any]]]) -> tuple[Iterable[Shape], Iterable[tuple[Any, ...]]]:
    """Row by row the shape of what is present, and its values."""
    absent = [column.count(None) for _, column in columns]
    some = [(pair, column) for (pair, column), count in zip(columns, absent, strict=True) if count < len(column)]
    pairs, present = tuple(pair for pair, _ in some), [column for _, column in some]
    gaps = [column for column in present if None in column]
    if not gaps:
        shape, pick = in_order(pairs)
        return repeat(shape), zip(*pick(present), strict=True) if present else repeat(())
    patterns = zip(*([value is None for value in column] for column in present), strict=True)
    kept = [_present(pairs, pattern) for pattern in patterns]
    rows = zip(*present, strict=True)
    return (shape for shape, _ in kept), (pick(row) for (_, pick), row in zip(kept, rows, strict=True))


@lru_cache(4096)
def _present(
    pairs: tuple[Pair, ...], absent: tuple[bool, ...]
) -> tuple[Shape, Callable[[Sequence[Any]], tuple[Any, ...]]]:
    indexes = [index for index, is_absent in enumerate(absent) if not is_absent]
    indexes.sort(key=pairs.__getitem__)
    return in_order(tuple(pairs[index] for index in indexes))[0], picker(indexes)


def _filler(shape: Shape, cells: Sequence[Cell]) -> Callable[[RecordBatch], list[Iterable[Any]]]:
    """From a block to the columns of ``cells``, in their order."""
    destinations = {pair: index for index, pair in enumerate(shape.properties)}
    indexes = [destinations.get(cell) if isinstance(cell, tuple) else None for cell in cells]
    extra = cells.index(EXTRA) if EXTRA in cells else None
    homeless = [(pair, index) for pair, index in destinations.items() if pair not in set(cells)]

    def fill(block: RecordBatch) -> list[Iterable[Any]]:
        nothing = (None,) * len(block)
        columns: list[Iterable[Any]] = [nothing if index is None else block.columns[index] for index in indexes]
        if extra is not None:
            columns[extra] = [_rest(homeless, values) for values in block.values]
        return columns

    return fill


def _rest(homeless: list[tuple[Pair, int]], values: tuple[Any, ...]) -> dict[str, Any] | None:
    rest = {path: tag(kind, values[index]) for (path, kind), index in homeless if values[index] is not None}
    return rest or None
