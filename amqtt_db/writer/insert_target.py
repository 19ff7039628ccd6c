"""Where encoded rows go: a table's columns, and what their values need before they are inserted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any

import attrs

from amqtt_db.database.engines.base import AGE, Engine, RowBatch
from amqtt_db.database.lookup import Lookups
from amqtt_db.models.base import Cell, Lookup
from amqtt_db.models.binding import BoundTable
from amqtt_db.models.fast import ColumnRows
from amqtt_db.record import Kind, kind_of, picker


@attrs.frozen(cache_hash=True)
class InsertTarget:
    """Columns of a table that rows are inserted into, and the kinds and lookups of their values.

    ``optional`` are the indexes of fixed columns that may be left out if all their values are NULL.  ``order`` names
    the column by which rows are sorted before insertion, None: by arrival.  ``replaces`` names the columns of the key
    if rows replace older ones.
    """

    table: str
    columns: tuple[str, ...]
    kinds: tuple[Kind, ...]
    lookups: tuple[Lookup | None, ...]
    optional: tuple[int, ...] = ()
    order: str | None = None
    replaces: tuple[str, ...] = ()

    def without(self, indexes: tuple[int, ...]) -> InsertTarget:
        """Return the target without some columns."""
        return _without(self, indexes) if indexes else self

    def sort(self, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Return rows in the order of the key, so that each page of the table is written once."""
        if self.replaces:
            return self._newest(rows)
        return rows if self.order is None else sorted(rows, key=itemgetter(self.columns.index(self.order)))

    def _newest(self, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Return the newest row of each key, in the order of the keys, so that two writers cannot deadlock."""
        key, age = (picker([self.columns.index(name) for name in names]) for names in (self.replaces, AGE))
        newest: dict[tuple[Any, ...], tuple[Any, ...]] = {}
        for row in rows:
            if age(row) >= age(newest.setdefault(key(row), row)):
                newest[key(row)] = row
        return [newest[one] for one in sorted(newest)]


TargetRows = tuple[InsertTarget, Sequence[Any]]
"""Encoded rows, and where they go."""


@lru_cache(40_960)  # no fewer than tables that one batch may fill
def _without(target: InsertTarget, indexes: tuple[int, ...]) -> InsertTarget:
    kept = [index for index in range(len(target.columns)) if index not in indexes]
    columns = tuple(target.columns[index] for index in kept)
    kinds = tuple(target.kinds[index] for index in kept)
    return InsertTarget(
        target.table, columns, kinds, tuple(target.lookups[index] for index in kept), order=target.order
    )


@lru_cache(1024)  # many shapes fill the same columns
def target_of(name: str, table: BoundTable, columns: tuple[tuple[Cell, str], ...]) -> InsertTarget:
    """Return the target for some cells of a table, each with the name of its column."""
    fixed = {column.name: column for column in table.columns}
    cells, names = zip(*columns, strict=True)
    kinds = tuple(fixed[cell].kind if isinstance(cell, str) else cell[1] for cell in cells)
    lookups = tuple(fixed[cell].lookup if isinstance(cell, str) else None for cell in cells)
    if table.replaces:
        return InsertTarget(name, names, kinds, lookups, replaces=table.primary_key)
    optional = tuple(index for index, cell in enumerate(cells) if isinstance(cell, str) and fixed[cell].nullable)
    first = fixed[table.primary_key[0]]
    return InsertTarget(name, names, kinds, lookups, optional, dict(columns)[first.name] if first.lookup else None)


def merge_rows(rows: Iterable[TargetRows]) -> Sequence[RowBatch]:
    """Return one batch per target, in the order of the tables' names, so that two writers cannot deadlock.

    Rows whose target has an order are sorted.  Do this just before inserting: freeing rows in another order than they
    were created fragments memory, in which the next ones are created and copied ten percent more slowly.
    """
    merged: dict[InsertTarget, list[Any]] = {}
    for target, some in rows:
        if some:
            merged.setdefault(target, []).extend(some)
    targets = sorted(merged, key=lambda target: (target.table, target.columns))
    return [
        RowBatch(target.table, target.columns, target.kinds, target.sort(merged[target]), target.replaces)
        for target in targets
    ]


def encode_rows(
    engine: Engine, lookups: Lookups, target: InsertTarget, rows: Sequence[tuple[Any, ...]]
) -> tuple[tuple[int, ...], Sequence[Any]]:
    """Return the indexes of columns that can be left out, and the rows without these, encoded.

    Raises Unfit if a value does not fit its kind's column.
    """
    columns: list[Sequence[Any]] = list(rows.columns if isinstance(rows, ColumnRows) else zip(*rows, strict=True))
    empty = tuple(index for index in target.optional if columns[index].count(None) == len(rows))
    target = target.without(empty)
    columns = [column for index, column in enumerate(columns) if index not in empty]
    for index, lookup in enumerate(target.lookups):
        if lookup is not None:
            columns[index] = lookups.ids(lookup, columns[index])
    return empty, engine.encode(target.kinds, columns)


def fitting_kind(engine: Engine, kind: Kind, value: Any) -> Kind:
    """Return the kind whose column returns a value (not None) exactly: ``kind`` if possible."""
    for wish in (kind, kind_of(value)):
        if wish is not None and engine.holds(wish, value) and _is_of_kind(wish, value):
            return wish
    return "tagged"


def _is_of_kind(kind: Kind, value: Any) -> bool:
    """Return False for an integer beyond a double: it is not a ``number``, whatever its type says."""
    return kind != "number" or not isinstance(value, int) or kind_of(value) == "number"
