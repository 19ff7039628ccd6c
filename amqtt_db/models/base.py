"""How records lie in tables: the interface that every relational model fills.

A model is a frozen attrs class; its fields are its options in the YAML.  It is pure: it never sees a database, a
connection or the name of a column that was chosen for a property.  It speaks of *cells* instead: a fixed column is
named by its name, a property's column by its (path, kind) pair.  What cells are called in the database is remembered
by the catalogue.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, Final, Literal

import attrs

from amqtt_db.record import Kind, Pair, Record, Shape, natural, picker, records_of
from amqtt_db.tagged import TaggedValue, tag

Cell = str | Pair
"""Names a column of a table: a fixed one by name, a property's by (path, kind)."""

KEY: Final = ("id", "part")
"""What identifies a record."""

Row = Mapping[Cell, Any]
RowMaker = Callable[[Sequence[Record]], Mapping[str, list[tuple[Any, ...]]]]
"""Records of one shape → per table key the tuples to insert, in the order of the cells that the maker was made for."""

RecordReader = Callable[[Sequence[Sequence[Any]]], Sequence[Record]]
"""Rows, column by column in the order of the cells that the reader was made for → the records that they mean."""


@attrs.frozen
class Lookup:
    """A table that gives short ids to long keys: ``columns`` name the parts of a key, all text."""

    name: str
    columns: tuple[str, ...]


@attrs.frozen
class Column:
    """A fixed column: its name, its kind, whether it may be NULL.

    With a ``lookup`` the model fills in keys (a text, or a tuple of texts for a lookup of several columns); the writer
    stores their ids, and readers put the keys back.
    """

    name: str
    kind: Kind
    nullable: bool = False
    lookup: Lookup | None = None


@attrs.frozen
class Table:
    """A table that a model wants to exist.

    ``key`` identifies it for ever; ``name`` is the wish for its name in the database, taken literally where ``exact``.
    ``columns`` are the fixed ones, ``properties`` the (path, kind) pairs that want a column; a pair that gets none, for
    want of room, goes as JSON into the fixed column ``overflow``.
    """

    key: str
    name: str
    columns: tuple[Column, ...]
    properties: tuple[Pair, ...] = ()
    primary_key: tuple[str, ...] = KEY
    indexes: tuple[tuple[str, ...], ...] = ()
    overflow: str | None = None
    exact: bool = False


@attrs.frozen(cache_hash=True)
class Destination:
    """Where records go: ``key`` is a topic for a model with tables per topic, otherwise made from the route's filter.

    ``route`` is the route's topic filter.  ``declared`` holds the paths that its entity declares (None without one),
    ``unknown`` its policy for other properties.
    """

    key: str
    route: str = "#"
    declared: frozenset[str] | None = None
    unknown: Literal["add", "extra", "ignore", "reject"] = "add"

    def gives_column(self, path: str) -> bool:
        """Return True if a property may have a column, and False if ``unknown: extra`` leaves it without one."""
        is_known = self.declared is None or path in self.declared or path.startswith("{")
        return self.unknown != "extra" or is_known


@attrs.frozen
class Query:
    """The rows that hold records: those of ``table`` (its key), one or more for each (id, part).

    With ``values`` (another key) the rows of that table join in by the columns ``on``; a record without any comes as
    one row whose cells of that table are None.
    """

    table: str
    values: str | None = None
    on: tuple[str, ...] = KEY


@attrs.frozen
class OwnColumns:
    """A layout: each property is a column of the query's table, and what has none is in the table's ``overflow``."""


@attrs.frozen
class ValueRows:
    """A layout: each property is a row of the query's ``values``.

    ``path`` names the fixed column that says which: its lookup's last part is the property's path.  ``columns`` names
    the fixed column that holds values of a kind; one of kind ``tagged`` may hold those of several kinds.  Where the
    column ``exact`` is filled, it alone has the value, and another one at most a number near it.
    """

    path: str
    columns: Mapping[Kind, str]
    exact: str | None = None


@attrs.frozen
class Documents:
    """A layout: all properties are in one fixed column of the query's table.

    ``data`` names it: JSON objects as they were nested, with values that JSON has no type for as text.  ``kinds`` names
    the column that says of which kind these are, by path; ``levels`` the one with the topic's named levels.
    """

    data: str
    kinds: str
    levels: str


Layout = OwnColumns | ValueRows | Documents
"""Where the query's rows have the values of properties: what SQL must know that does not pass through the model."""


ENVELOPE: Final = (
    Column("id", "int64"),
    Column("part", "int64"),
    Column("time", "timestamp"),
    Column("topic", "text"),
    Column("session", "int64", nullable=True),
    Column("qos", "int64"),
    Column("retain", "bool"),
)
"""What every model keeps of a message beside its properties."""


def record_key(*, timed: bool) -> tuple[str, ...]:
    """The columns that identify a record in each table of a model; ``timed`` adds the time of the row's chunk."""
    return (*KEY, "time") if timed else KEY


def table_key(name: str, *, timed: bool) -> str:
    """What a table of a given name is registered under; with ``time`` in its keys it is another table."""
    return f"$timed/{name}" if timed else f"$table/{name}"


class Model(ABC):
    """One way to lay records into tables and to find them again."""

    per_topic: bool = False
    """Whether each topic has tables of its own."""

    @property
    def is_uniform(self) -> bool:
        """Whether a maker makes one row of each record, in their order, that depends on the cells but not the place.

        Records of many places are then laid together.
        """
        return False

    @abstractmethod
    def tables(self, destination: Destination, shape: Shape) -> tuple[Table, ...]:
        """The tables, with all columns, that records of ``shape`` need; the same keys for every shape."""

    @abstractmethod
    def rows(self, destination: Destination, record: Record) -> Iterator[tuple[str, Row]]:
        """The rows of a record: (table key, cells).  Cells that are absent or None become NULL."""

    @abstractmethod
    def query(self, destination: Destination) -> Query:
        """The query that finds the place's records again, and perhaps others that lie in the same tables."""

    @abstractmethod
    def records(self, destination: Destination, rows: Iterable[Row]) -> Iterator[Record]:
        """The records that the query's rows mean: the inverse of :meth:`rows`.

        Rows of the same (id, part) come one after the other.
        """

    def layout(self) -> Layout | None:
        """Where SQL finds the properties, so that there can be views of the records; None: there are none."""
        return None

    def maker(self, destination: Destination, shape: Shape, cells: Mapping[str, Sequence[Cell]]) -> RowMaker:
        """A function that makes the rows of many records of ``shape`` at once.

        ``cells`` gives, per table key, the cells to fill.  Override it for speed; it must agree with :meth:`rows`.
        """
        overflows = {table.key: table.overflow for table in self.tables(destination, shape)}

        def make(records: Sequence[Record]) -> Mapping[str, list[tuple[Any, ...]]]:
            made: dict[str, list[tuple[Any, ...]]] = {key: [] for key in cells}
            for record in records:
                for key, row in self.rows(destination, record):
                    made[key].append(lay(row, cells[key], overflows[key]))
            return made

        return make

    def reader(self, destination: Destination, cells: Sequence[Cell]) -> RecordReader:
        """A function that makes the records of many rows of the query at once, given their columns.

        ``cells`` names the columns.  All rows of a record are given together.  Override it for speed; it must agree
        with :meth:`records`.
        """

        def read(columns: Sequence[Sequence[Any]]) -> Sequence[Record]:
            return list(
                self.records(destination, (dict(zip(cells, row, strict=True)) for row in zip(*columns, strict=True)))
            )

        return read


def lay(row: Row, cells: Sequence[Cell], overflow: str | None) -> tuple[Any, ...]:
    """A row as a tuple in the order of ``cells``; properties that have no cell go into the cell ``overflow``."""
    homeless = [cell for cell in row if isinstance(cell, tuple) and cell not in cells]
    if overflow is None or not homeless:
        return tuple(map(row.get, cells))
    rest = {path: tag(kind, row[path, kind]) for path, kind in homeless if row[path, kind] is not None}
    return tuple(rest or None if cell == overflow else row.get(cell) for cell in cells)


def restored(path: str, value: Any) -> tuple[Pair, Any]:
    """A property from a column of tagged JSON: its pair and its value."""
    if isinstance(value, TaggedValue):
        return (path, value.kind), value.value
    kind, value = natural(value)
    return (path, kind), value


def record_of(row: Row, values: Mapping[Pair, Any]) -> Record:
    """The record that a row with the envelope's cells and some properties mean; these get the order of their paths."""
    shape, pick = in_order(tuple(values))
    return Record(
        row["id"],
        row["part"],
        row["time"],
        row["topic"],
        row["session"],
        row["qos"],
        row["retain"],
        pick(tuple(values.values())),
        shape,
    )


def of_value_rows(
    cells: Sequence[Cell], columns: Sequence[Sequence[Any]], pairs: Sequence[Pair | None], values: Sequence[Any]
) -> Sequence[Record]:
    """The records of rows of which each has one property, given by ``pairs`` and ``values``, or none (None).

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


@lru_cache(4096)
def in_order(pairs: tuple[Pair, ...]) -> tuple[Shape, Callable[[Sequence[Any]], tuple[Any, ...]]]:
    """The shape that has ``pairs`` in the order of their paths, and what brings their values into the same order."""
    order = sorted(range(len(pairs)), key=pairs.__getitem__)
    return Shape(tuple(pairs[index] for index in order)), picker(order)


def exact_tables(model: Model) -> list[Table]:
    """The tables of a model whose names are meant literally."""
    return [table for table in model.tables(Destination(""), Shape(())) if table.exact]
