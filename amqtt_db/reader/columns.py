"""The columns of a stored table: which cells they hold, and how to decode a page of their values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import PhysicalTable
from amqtt_db.database.engines.base import Engine, ValueDecoder
from amqtt_db.errors import DatabaseError
from amqtt_db.models.base import Cell, Lookup
from amqtt_db.models.binding import BoundTable
from amqtt_db.reader.keys import LookupCache

ColumnValues = Sequence[Any]
Decode = Callable[[ColumnValues], ColumnValues]


@attrs.frozen(eq=False)
class StoredTable:
    """A model's table as it is in the database, with all columns that the project knows."""

    table: BoundTable
    target: sa.TableClause
    names: dict[Cell, str]

    @classmethod
    def of(cls, table: BoundTable, known: PhysicalTable) -> StoredTable:
        """Return a table with its fixed columns first, then those of properties."""
        names: dict[Cell, str] = {column.name: column.name for column in table.columns}
        names.update(known.columns.items())
        return cls(table, sa.table(known.name, *map(sa.column, names.values())), names)

    def has_index(self, name: str) -> bool:
        """Return True if an index begins with a fixed column."""
        return any(index[0] == name for index in (self.table.primary_key, *self.table.indexes))

    def lookup(self, name: str) -> Lookup | None:
        """Return the lookup of a fixed column, or None."""
        return next((column.lookup for column in self.table.columns if column.name == name), None)

    def decoder(self, cell: Cell, engine: Engine, keys: LookupCache, *, repeats: bool) -> Decode | None:
        """Return a function that decodes a page of a cell's values, or None if they need no decoding.

        ``repeats`` is true if the same values are expected again and again.
        """
        column = next((column for column in self.table.columns if column.name == cell), None)
        if column is not None and column.lookup is not None:
            return _decode_keys(column.lookup, keys)
        decode = engine.decoders.get(column.kind if column is not None else cell[1])  # type: ignore[call-overload]
        if decode is None:
            return None
        return self._guarded(_decode_different(decode) if repeats else _decode_each(decode), self.names[cell])

    def _guarded(self, decode: Decode, name: str) -> Decode:
        """Make an error about a value that its kind does not allow name the column."""

        def decode_page(values: ColumnValues) -> ColumnValues:
            try:
                return decode(values)
            except Exception as error:  # of a type that neither driver nor decoder expects
                raise DatabaseError(
                    f"column {name} of table {self.target.name} holds a value that cannot be read: "
                    f"{type(error).__name__}; correct it or delete its row"
                ) from error

        return decode_page


def _decode_keys(lookup: Lookup, keys: LookupCache) -> Decode:
    def decode(values: ColumnValues) -> ColumnValues:
        return list(map(keys.get_keys(lookup, set(values) - {None}).get, values))

    return decode


def _decode_different(decode: ValueDecoder) -> Decode:
    def decode_once(values: ColumnValues) -> ColumnValues:
        decoded = {value: None if value is None else decode(value) for value in set(values)}
        return list(map(decoded.__getitem__, values))

    return decode_once


def _decode_each(decode: ValueDecoder) -> Decode:
    def decode_all(values: ColumnValues) -> ColumnValues:
        absent = values.count(None)
        if not absent:
            return list(map(decode, values))
        return values if absent == len(values) else [None if value is None else decode(value) for value in values]

    return decode_all
