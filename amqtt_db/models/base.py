"""The interface of a model, and the types that an author fills in.

A model is a frozen attrs class; its fields are its options in the YAML.  It is pure: it never sees a database.  It
says which tables there are, what to write for a record, and how to read the record back.  Envelopes, keys, the time
index and names of columns are added by :mod:`amqtt_db.models.binding`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import attrs

from amqtt_db.record import Kind, Pair, Record, Shape

Cell = str | Pair
"""Names a column of a table: a fixed one by its name, a property's by its (path, kind)."""

Row = Mapping[Any, Any]
"""The cells of a row.  Cells that are absent or None are NULL."""

TableName = str | None
"""A table's name within its model; None for the table that each topic has to itself."""


def _names(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(names)


@attrs.frozen
class Lookup:
    """A table that gives short ids to long keys: ``columns`` name the parts of a key, all text."""

    name: str
    columns: tuple[str, ...] = attrs.field(converter=_names)


def _lookup(lookup: str | Lookup | None) -> Lookup | None:
    return Lookup(lookup, (lookup,)) if isinstance(lookup, str) else lookup


@attrs.frozen
class Column:
    """A fixed column: its name, the kind of its values, and whether it may be NULL.

    A column with a ``lookup`` holds ids and needs no kind.  The model writes and reads texts (tuples of texts for a
    lookup of several columns).  ``lookup="device"`` is short for ``Lookup("device", ["device"])``.
    """

    name: str
    kind: Kind = "text"
    nullable: bool = True
    lookup: Lookup | None = attrs.field(default=None, converter=_lookup)

    def __attrs_post_init__(self) -> None:
        if self.lookup is not None:
            object.__setattr__(self, "kind", "int64")


def _columns(columns: Iterable[Column]) -> tuple[Column, ...]:
    return tuple(columns)


def _pairs(pairs: Iterable[Pair]) -> tuple[Pair, ...]:
    return tuple(pairs)


def _indexes(indexes: Iterable[Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(map(tuple, indexes))


@attrs.frozen
class Table:
    """A table of a model.  Its name is its identity; with the name None each topic has a table, named after it.

    The first table of a model is the record's own, with one row for each record: the envelope (``id``, ``part``,
    ``time``, ``topic``, ``session``, ``qos``, ``retain``), its key and the indexes by time are added to ``columns``.
    Every other table is a detail table: ``id`` and ``part`` are added, and begin its key; ``key`` names what follows.
    A ``key`` that names ``id`` itself is taken as it is.  A column with the name of one of the envelope is the
    envelope's, and is filled without the model's doing.

    ``properties`` are (path, kind) pairs that want a column each; those that get none, for want of room, go as JSON
    into the fixed column ``overflow``.

    In a table that ``replaces``, a row replaces an older one with the same ``key``; ``id``, ``part`` and ``time`` of
    the newest record are added.  Records are never read back from it.
    """

    name: TableName
    columns: tuple[Column, ...] = attrs.field(default=(), converter=_columns)
    properties: tuple[Pair, ...] = attrs.field(default=(), converter=_pairs, kw_only=True)
    key: tuple[str, ...] = attrs.field(default=(), converter=_names, kw_only=True)
    indexes: tuple[tuple[str, ...], ...] = attrs.field(default=(), converter=_indexes, kw_only=True)
    overflow: str | None = attrs.field(default=None, kw_only=True)
    replaces: bool = attrs.field(default=False, kw_only=True)


@attrs.frozen(cache_hash=True)
class Destination:
    """A destination: ``key`` is a topic for a model with tables per topic, otherwise made from the route's filter.

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
class OwnColumns:
    """A layout: each property is a column of the record's table, and what has none is in the table's ``overflow``."""


@attrs.frozen
class ValueRows:
    """A layout: each property is a row of a detail table.

    ``path`` names the fixed column that says which: its lookup's last part is the property's path.  ``columns`` names
    the fixed column that holds values of a kind; one of kind ``tagged`` may hold those of several kinds.  Where the
    column ``exact`` is filled, it alone has the value, and another one at most a number near it.
    """

    path: str
    columns: Mapping[Kind, str]
    exact: str | None = None


@attrs.frozen
class Documents:
    """A layout: all properties are in one fixed column of the record's table.

    ``data`` names it: JSON objects as they were nested, with values that JSON has no type for as text.  ``kinds`` names
    the column that says of which kind these are, by path; ``levels`` the one with the topic's named levels.
    """

    data: str
    kinds: str
    levels: str


Layout = OwnColumns | ValueRows | Documents
"""The place of property values in a model's tables, for SQL."""


ENVELOPE: Final = (
    Column("id", "int64", nullable=False),
    Column("part", "int64", nullable=False),
    Column("time", "timestamp", nullable=False),
    Column("topic", "text", nullable=False),
    Column("session", "int64"),
    Column("qos", "int64", nullable=False),
    Column("retain", "bool", nullable=False),
)
"""The columns that the record's own table of every model has."""


class Model(ABC):
    """One way to write records into tables and to read them back."""

    @abstractmethod
    def tables(self, shape: Shape) -> Iterable[Table]:
        """Yield the tables that records of a shape need, the record's own first.

        Only ``properties`` may depend on the shape.
        """

    @abstractmethod
    def write(self, record: Record) -> Iterator[tuple[TableName, Row]]:
        """Yield the rows of a record: a table's name, and the values by column.  The envelope is added."""

    @abstractmethod
    def read(self, envelope: Record, rows: Mapping[TableName, Sequence[Row]]) -> Record:
        """Return the record that was written.

        ``envelope`` is the record without properties: ``envelope.with_values(…)`` and ``envelope.with_json(…)`` add
        them.  ``rows`` has the record's rows by table, in the order of the table's key.
        """

    def layout(self) -> Layout | None:
        """Return where SQL finds the properties; None means that the route has no view."""
        return None

    def extra_columns(self) -> Iterable[Column]:
        """Return columns that the record's own table has beside those of :meth:`tables`."""
        return ()

    def extra_values(self, record: Record) -> Mapping[str, Any]:
        """Return what to write into the extra columns.  They are not read back."""
        return {}

    def extra_indexes(self) -> Iterable[Sequence[str]]:
        """Return the columns of each further index of the record's own table."""
        return ()
