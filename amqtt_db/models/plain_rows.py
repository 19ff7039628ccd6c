"""Rows as models see them, with a value for each cell, and as the database does: tuples and columns."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from amqtt_db.models.base import Cell, Row
from amqtt_db.models.object_json import Columns
from amqtt_db.record import tag


def lay_out(row: Row, cells: Sequence[Cell], overflow: str | None) -> tuple[Any, ...]:
    """Return a row as a tuple in the order of ``cells``; properties without a cell go into the cell ``overflow``."""
    homeless = [cell for cell in row if isinstance(cell, tuple) and cell not in cells]
    if overflow is None or not homeless:
        return tuple(map(row.get, cells))
    rest = {path: tag(kind, row[path, kind]) for path, kind in homeless if row[path, kind] is not None}
    return tuple(rest or None if cell == overflow else row.get(cell) for cell in cells)


def name_cells(cells: Sequence[Cell], columns: Columns) -> Iterator[dict[Cell, Any]]:
    """Yield the rows of some columns."""
    return (dict(zip(cells, row, strict=True)) for row in zip(*columns, strict=True))


def group_by_record(cells: Sequence[Cell], columns: Columns) -> Mapping[tuple[int, int], Sequence[Row]]:
    """Return the rows of some columns by the id and part of their record."""
    found: dict[tuple[int, int], list[Row]] = defaultdict(list)
    for row in name_cells(cells, columns):
        found[row["id"], row["part"]].append(row)
    return found
