"""``wide``: a column per property; one table per topic, or one for all topics of a route."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import repeat
from typing import Annotated, Any, Final

import attrs

from amqtt_db.models.base import Cell, Column, Layout, OwnColumns, Row, Table, TableName
from amqtt_db.models.fast import BatchMaker, BatchReader, ColumnRows, FastModel
from amqtt_db.record import (
    ENVELOPE_NAMES,
    Pair,
    Record,
    RecordBatch,
    Shape,
    in_order,
    picker,
    records_of,
    restored,
    tag,
)

EXTRA: Final = "extra"


@attrs.frozen
class Wide(FastModel):
    """The simplest SQL: ``SELECT time, temp FROM climate``.

    Each topic has its own table, named after it, unless ``table`` names one for all topics of the route.
    """

    table: Annotated[str | None, "One table for all topics of the route."] = None

    def tables(self, shape: Shape) -> Iterable[Table]:
        """Yield one table: a column per property, and ``extra`` for properties without a column."""
        yield Table(self.table, [Column(EXTRA, "json")], properties=shape.properties, overflow=EXTRA)

    def write(self, record: Record) -> Iterator[tuple[TableName, Row]]:
        """Yield one row with a cell per property."""
        yield self.table, dict(zip(record.shape.properties, record.values, strict=True))

    def read(self, envelope: Record, rows: Mapping[TableName, Sequence[Row]]) -> Record:
        """Return the record of a row; NULL cells are absent properties."""
        (row,) = rows[self.table]
        return envelope.with_values(dict(_properties(row)))

    def layout(self) -> Layout | None:
        """Say that each property is a column, also for a subclass, whatever it stores in them."""
        return OwnColumns()

    # the rest makes it fast

    def maker(self, shape: Shape, cells: Mapping[TableName, Sequence[Cell]]) -> BatchMaker | None:
        """Return a function that puts the columns in order."""
        fill = _filler(shape, cells[self.table][len(ENVELOPE_NAMES) :])
        return lambda batch: {self.table: ColumnRows([*batch.envelope, *fill(batch)])}

    def reader(self, cells: Sequence[Cell]) -> BatchReader | None:
        """Return a reader of whole pages; only rows with tagged values or ``extra`` are read one by one."""
        envelope = [cells.index(name) for name in ENVELOPE_NAMES]
        own = [(cell, index) for index, cell in enumerate(cells) if isinstance(cell, tuple) and not _is_tagged(cell)]
        odd = [index for index, cell in enumerate(cells) if cell == EXTRA or _is_tagged(cell)]

        def read(columns: Sequence[Sequence[Any]]) -> Sequence[Record]:
            shapes, values = _by_presence([(pair, columns[index]) for pair, index in own])
            records = records_of(*(columns[index] for index in envelope), values, shapes)
            for number in _filled([columns[index] for index in odd]):
                row = {cell: column[number] for cell, column in zip(cells, columns, strict=True)}
                records[number] = records[number].with_values(dict(_properties(row)))
            return records

        return read


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
    """Return the rows in which some column has a value."""
    found = (
        number
        for column in columns
        if column.count(None) < len(column)
        for number, value in enumerate(column)
        if value is not None
    )
    return sorted(set(found))


def _by_presence(columns: Sequence[tuple[Pair, Sequence[Any]]]) -> tuple[Iterable[Shape], Iterable[tuple[Any, ...]]]:
    """Return, row by row, the shape of the present properties, and their values."""
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


def _filler(shape: Shape, cells: Sequence[Cell]) -> Callable[[RecordBatch], list[Sequence[Any]]]:
    """Return a function from a batch to the columns of ``cells``, in order."""
    destinations = {pair: index for index, pair in enumerate(shape.properties)}
    indexes = [destinations.get(cell) if isinstance(cell, tuple) else None for cell in cells]
    extra = cells.index(EXTRA) if EXTRA in cells else None
    homeless = [(pair, index) for pair, index in destinations.items() if pair not in set(cells)]

    def fill(block: RecordBatch) -> list[Sequence[Any]]:
        nothing = (None,) * len(block)
        columns: list[Sequence[Any]] = [nothing if index is None else block.columns[index] for index in indexes]
        if extra is not None:
            columns[extra] = [_rest(homeless, values) for values in block.values]
        return columns

    return fill


def _rest(homeless: list[tuple[Pair, int]], values: tuple[Any, ...]) -> dict[str, Any] | None:
    rest = {path: tag(kind, values[index]) for (path, kind), index in homeless if values[index] is not None}
    return rest or None
