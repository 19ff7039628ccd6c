"""Models that work on many records at once, and helpers for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, overload

import attrs

from amqtt_db.models.base import ENVELOPE, Cell, Model, TableName
from amqtt_db.models.object_json import Columns
from amqtt_db.record import Pair, Record, RecordBatch, Shape, in_order, records_of

BatchMaker = Callable[[RecordBatch], Mapping[TableName, Sequence[tuple[Any, ...]]]]
"""Records of one shape → the tuples to insert by table, in the order of the cells given to the maker."""

BatchReader = Callable[[Columns], Sequence[Record]]
"""Rows, column by column in the order of the cells given to the reader → their records."""


@attrs.frozen(eq=False)
class ColumnRows(Sequence[tuple[Any, ...]]):
    """Rows given column by column, as what encodes them wants them; a row is created only on demand.

    All columns have the same length; there is at least one.
    """

    columns: Sequence[Sequence[Any]]

    def __len__(self) -> int:
        return len(self.columns[0])

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return zip(*self.columns, strict=True)

    @overload
    def __getitem__(self, index: int) -> tuple[Any, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[tuple[Any, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[Any, ...] | Sequence[tuple[Any, ...]]:
        return list(self)[index]


class FastModel(Model):
    """A model with a faster way to write, read, or both, with the same results as ``write`` and ``read``."""

    def maker(self, shape: Shape, cells: Mapping[TableName, Sequence[Cell]]) -> BatchMaker | None:
        """Return a function that makes the rows of many records of ``shape``; None if there is none.

        ``cells`` lists the cells to fill by table, including the envelope and keys, but not the extra columns.
        """
        return None

    def reader(self, cells: Sequence[Cell]) -> BatchReader | None:
        """Return a function that turns many rows into records; None if there is none.

        ``cells`` names the columns of the record's table and, if there is exactly one detail table, of its joined rows.
        A record with several detail rows comes as several consecutive rows; one without any comes as one row, with None
        in their columns.
        """
        return None


def of_value_rows(
    cells: Sequence[Cell], columns: Columns, pairs: Sequence[Pair | None], values: Sequence[Any]
) -> Sequence[Record]:
    """Return the records of joined rows that have one property each, given by ``pairs`` and ``values``; None if none.

    ``columns`` are the rows' columns in the order of ``cells``; among them is the envelope.
    """
    envelope = [columns[cells.index(column.name)] for column in ENVELOPE]
    ids, parts = envelope[:2]
    starts = [
        index
        for index, (id_, part) in enumerate(zip(ids, parts, strict=True))
        if not index or id_ != ids[index - 1] or part != parts[index - 1]
    ]
    shapes, found = [], []
    for start, end in zip(starts, [*starts[1:], len(ids)], strict=True):
        shape, pick = in_order(tuple(pair for pair in pairs[start:end] if pair is not None))
        shapes.append(shape)
        found.append(pick(values[start:end]))
    return records_of(*([column[start] for start in starts] for column in envelope), found, shapes)
