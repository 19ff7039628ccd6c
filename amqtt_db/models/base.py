"""The interface of a model, and the types that an author fills in.

A model is a frozen attrs class; its fields are its options in the YAML.  It is pure: it never sees a database.  It
says which tables there are, what to write for a record, and how to read the record back.
:mod:`amqtt_db.models.binding` adds envelopes, keys, the time index and column names.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal

import attrs

from amqtt_db.record import Kind, Pair, Record, Shape

Cell = str | Pair
"""Identifies a column of a table: a fixed one by its name, a property's by its (path, kind)."""

Row = Mapping[Any, Any]
"""The cells of a row.  Cells that are absent or None are NULL."""

TableName = str | None
"""A table's name within its model; None for a table per topic."""


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

    A column with a ``lookup`` holds ids and needs no kind.  The model writes and reads text (tuples of texts for a
    lookup with several columns).  ``lookup="device"`` is short for ``Lookup("device", ["device"])``.
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
    """A table of a model, identified by its name; with the name None, each topic has a table named after it.

    The first table of a model is the record's own, with one row for each record: the envelope (``id``, ``part``,
    ``time``, ``topic``, ``session``, ``qos``, ``retain``), its key and the indexes by time are added to ``columns``.
    Every other table is a detail table: ``id`` and ``part`` are added and begin its key; ``key`` names the rest.  A
    ``key`` that contains ``id`` is used unchanged.  A column with the name of an envelope column is filled
    automatically.

    ``properties`` are the (path, kind) pairs that need a column each; those without room for one go as JSON into
    the fixed column ``overflow``.

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
class OwnColumns:
    """A layout: each property is a column of the record's table; those without one are in the table's ``overflow``."""


@attrs.frozen
class ValueRows:
    """A layout: each property is a row of a detail table.

    ``path`` names the fixed column that identifies the property: the last part of its lookup is the property's path.
    ``columns`` names the fixed column for values of each kind; one of kind ``tagged`` may hold several kinds.  If the
    column ``exact`` is filled, it holds the value, and another column at most a number close to it.
    """

    path: str
    columns: Mapping[Kind, str]
    exact: str | None = None


@attrs.frozen
class Documents:
    """A layout: all properties are in one fixed column of the record's table.

    ``data`` names it: JSON objects nested as published, with text for values that JSON has no type for.  ``kinds``
    names the column with the kinds of these values, by path; ``levels`` the one with the topic's named levels.
    """

    data: str
    kinds: str
    levels: str


Layout = OwnColumns | ValueRows | Documents
"""Where SQL finds property values in a model's tables."""


ENVELOPE: Final = (
    Column("id", "int64", nullable=False),
    Column("part", "int64", nullable=False),
    Column("time", "timestamp", nullable=False),
    Column("topic", "text", nullable=False),
    Column("session", "int64"),
    Column("qos", "int64", nullable=False),
    Column("retain", "bool", nullable=False),
)
"""The columns that every model's own table has."""


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
        """Return where SQL finds the properties; None means no view."""
        return None

    def extra_columns(self) -> Iterable[Column]:
        """Return columns that the record's own table has in addition to those from :meth:`tables`."""
        return ()

    def extra_values(self, record: Record) -> Mapping[str, Any]:
        """Return the values for the extra columns.  They are not read back."""
        return {}

    def extra_indexes(self) -> Iterable[Sequence[str]]:
        """Return the columns of each further index of the record's own table."""
        return ()
