"""A model bound to a destination: keys, envelope, names and indexes of its tables.

Everything outside this package calls a model through :class:`BoundModel`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from operator import is_
from typing import Any, Final

import attrs

from amqtt_db.models.base import (
    ENVELOPE,
    Cell,
    Column,
    Destination,
    Layout,
    Lookup,
    Model,
    OwnColumns,
    Table,
    TableName,
)
from amqtt_db.models.calls import calling, layout_of, required_record, tables_of
from amqtt_db.models.fast import BatchMaker, BatchReader, FastModel
from amqtt_db.models.object_json import Columns
from amqtt_db.models.plain_rows import group_by_record, lay_out, name_cells
from amqtt_db.record import ENVELOPE_NAMES, Kind, Pair, Record, RecordBatch, Shape

KEY: Final = ("id", "part")
"""The columns that identify a record."""

RowMaker = Callable[[Sequence[Record]], Mapping[str, Sequence[tuple[Any, ...]]]]
"""Records of one shape → the tuples to insert by table key, in the order of the cells given to the maker."""

RecordReader = Callable[[Mapping[str, Columns]], Sequence[Record]]
"""Rows by table key, column by column in the order of the cells given to the reader → their records."""

_NOTHING: Final = Shape(())
_OF_ENVELOPE: Final[Mapping[str, Column]] = {column.name: column for column in ENVELOPE}
_KEY_KINDS: Final[frozenset[Kind]] = frozenset({"bool", "date", "int64", "timestamp", "uuid"})


@attrs.frozen(cache_hash=True)
class BoundTable:
    """A table as the database gets it.

    ``key`` identifies it permanently; ``name`` is the preferred name, used verbatim if ``exact``.  ``columns`` are the
    fixed ones, ``properties`` the (path, kind) pairs that need a column; a pair for which there is no room goes as JSON
    into the fixed column ``overflow``.  Rows of a table that ``replaces`` replace older ones with the same primary key.
    """

    key: str
    name: str
    columns: tuple[Column, ...]
    properties: tuple[Pair, ...] = ()
    primary_key: tuple[str, ...] = KEY
    indexes: tuple[tuple[str, ...], ...] = ()
    overflow: str | None = None
    exact: bool = False
    replaces: bool = False


@attrs.frozen
class Query:
    """The rows that hold records: those of ``table`` (its key), one for each (id, part).

    The rows of the tables ``details`` (their keys) belong to them by the columns ``on``.
    """

    table: str
    details: tuple[str, ...] = ()
    on: tuple[str, ...] = KEY


@attrs.frozen
class BoundModel:
    """A model, where its records go, and whether its tables have the time in their keys, as hypertables need."""

    model: Model
    destination: Destination
    timed: bool = False

    @property
    def name(self) -> str:
        """The name of the model's class."""
        return type(self.model).__name__

    @cached_property
    def is_per_topic(self) -> bool:
        """True if each topic has its own table."""
        return not self.tables()[0].exact

    @cached_property
    def is_uniform(self) -> bool:
        """True if each record makes one row, in order, that depends on the cells but not on the destination.

        If so, the rows of many destinations are made together.
        """
        return len(self.tables()) == 1 and self._makes_fast

    def tables(self, shape: Shape = _NOTHING) -> tuple[BoundTable, ...]:
        """Return the tables, with all columns, that records of ``shape`` need: the record's own first."""
        return tuple(self.named_tables(shape).values())

    def named_tables(self, shape: Shape = _NOTHING) -> dict[TableName, BoundTable]:
        """Return the same tables by their names within the model."""
        return self._named_tables(shape) if shape.properties else self._plain_tables

    @cached_property
    def _plain_tables(self) -> dict[TableName, BoundTable]:
        """The tables without columns for properties."""
        return self._named_tables(_NOTHING)

    def _named_tables(self, shape: Shape) -> dict[TableName, BoundTable]:
        with calling(self.model, "tables"):
            constant = self._constant  # its tables have been checked, which takes longer than making them
            if constant and _are_same(tuple(self.model.tables(shape)), constant[0]):
                return constant[1]
            return self._bind(tables_of(self.model, shape))

    @cached_property
    def _constant(self) -> tuple[Sequence[Table], dict[TableName, BoundTable]] | None:
        """The tables of a model that makes them once, for all shapes, and what they are when bound; None for others."""
        tables, again = (tuple(tables_of(self.model, _NOTHING)) for _ in range(2))
        return (tables, self._bind(tables)) if _are_same(tables, again) else None

    def _bind(self, tables: Sequence[Table]) -> dict[TableName, BoundTable]:
        first, *others = tables
        return {first.name: self._main(first), **{table.name: self._other(table) for table in others}}

    @cached_property
    def query(self) -> Query:
        """The query that finds the records again, and perhaps others in the same tables."""
        first, *others = self.tables()
        return Query(first.key, tuple(table.key for table in others if not table.replaces), self._record_key)

    @cached_property
    def joins(self) -> bool:
        """True if records are read by joining the first table with the only detail table."""
        return len(self.query.details) == 1 and _is_in_effect(self.model, "reader")

    @property
    def layout(self) -> Layout | None:
        """Where SQL finds the properties; None if a subclass stores them differently."""
        with calling(self.model, "layout"):
            layout = layout_of(self.model)
        return layout if isinstance(layout, OwnColumns) or _is_in_effect(self.model, "layout") else None

    @cached_property
    def layout_read(self) -> Layout | None:
        """Where the values are that reading returns, as they are; None if a model from elsewhere may change them."""
        reader = getattr(type(self.model), "reader", None)
        is_ours = getattr(reader, "__module__", "").startswith(f"{__package__}.")
        return self.layout if is_ours and _is_in_effect(self.model, "reader") else None

    def maker(self, shape: Shape, cells: Mapping[str, Sequence[Cell]]) -> RowMaker:
        """Return a function that makes the rows of many records of ``shape``; ``cells`` says which, by table key."""
        with calling(self.model, "maker"):
            fast = self._fast_maker(shape, cells)
            make, method = (self.plain_maker(shape, cells), "write") if fast is None else (fast, "maker")

        def make_rows(records: Sequence[Record]) -> Mapping[str, Sequence[tuple[Any, ...]]]:
            with calling(self.model, method):
                return make(records)

        return make_rows

    @cached_property
    def _makes_fast(self) -> bool:
        return _is_in_effect(self.model, "maker")

    @cached_property
    def _keys(self) -> Mapping[TableName, str]:
        """The tables' keys by their names within the model, which no shape changes."""
        return {name: table.key for name, table in self.named_tables().items()}

    def _fast_maker(self, shape: Shape, cells: Mapping[str, Sequence[Cell]]) -> RowMaker | None:
        if not isinstance(self.model, FastModel) or not self._makes_fast:
            return None
        keys = self._keys
        main, extra = next(iter(keys.values())), {column.name for column in self.model.extra_columns()}
        own = {name: [cell for cell in cells[key] if key != main or cell not in extra] for name, key in keys.items()}
        make = self.model.maker(shape, own)
        return None if make is None else _with_extra(self.model, shape, _by_key(make, keys), main, cells[main], extra)

    def plain_maker(self, shape: Shape, cells: Mapping[str, Sequence[Cell]]) -> RowMaker:
        """Return a function that makes rows by the model's ``write``."""
        model, tables = self.model, self.named_tables(shape)
        has_extra = bool(tuple(model.extra_columns()))

        def make(records: Sequence[Record]) -> Mapping[str, list[tuple[Any, ...]]]:
            made: dict[str, list[tuple[Any, ...]]] = {key: [] for key in cells}
            for record in records:
                added = {**record.envelope(), **(model.extra_values(record) if has_extra else {})}
                for name, row in model.write(record):
                    table = tables[name]
                    made[table.key].append(lay_out({**added, **row}, cells[table.key], table.overflow))
            return made

        return make

    def reader(self, cells: Mapping[str, Sequence[Cell]]) -> RecordReader:
        """Return a function that turns rows into records; ``cells`` names their columns, by table key.

        If the model joins, the rows are those of the first table joined with the detail table's.
        """
        query = self.query
        fast = None
        if isinstance(self.model, FastModel) and _is_in_effect(self.model, "reader"):
            fast = self.model.reader(cells[query.table])
        if fast is None or (query.details and not self.joins):
            return self.plain_reader(cells)
        read: BatchReader = fast
        return lambda columns: read(columns[query.table])

    def plain_reader(self, cells: Mapping[str, Sequence[Cell]]) -> RecordReader:
        """Return a function that makes records with the model's ``read``, from rows that are not joined."""
        model = self.model
        names = {table.key: name for name, table in self.named_tables().items()}
        main, *details = (key for key in names if key in cells)

        def read(columns: Mapping[str, Columns]) -> Sequence[Record]:
            grouped = {names[key]: group_by_record(cells[key], columns[key]) for key in details}
            records = []
            for row in name_cells(cells[main], columns[main]):
                id_, part, time, topic, session, qos, retain = map(row.__getitem__, ENVELOPE_NAMES)
                envelope = Record(id_, part, time, topic, session, qos, retain, (), _NOTHING)
                rows = {name: found.get((id_, part), ()) for name, found in grouped.items()}
                records.append(required_record(model, model.read(envelope, {names[main]: [row], **rows})))
            return records

        return read

    @property
    def _record_key(self) -> tuple[str, ...]:
        return (*KEY, "time") if self.timed else KEY

    def _main(self, table: Table) -> BoundTable:
        names = (*ENVELOPE_NAMES, *(column.name for column in table.columns))
        by_time = (("time",),) if table.name is None else (("topic", "time"), ("time",))
        return self._bound(table, names, self._record_key, (*by_time, *table.indexes))

    def _other(self, table: Table) -> BoundTable:
        return self._replacing(table) if table.replaces else self._detail(table)

    def _detail(self, table: Table) -> BoundTable:
        key, indexes = table.key if "id" in table.key else (*KEY, *table.key), table.indexes
        if self.timed and "time" not in key:
            at = key.index("part") + 1
            key = (*key[:at], "time", *key[at:])
        if self.timed:  # chunks are found by time
            indexes = tuple((*index[:-1], "time") if index[-1] == "id" else index for index in indexes)
        if key[:2] != KEY:
            indexes = (*indexes, self._record_key)
        return self._bound(table, (*key, *(column.name for column in table.columns)), key, indexes)

    def _replacing(self, table: Table) -> BoundTable:
        if table.name is None or not table.key or table.properties:
            raise ValueError(f"table {table.name} replaces rows: it needs a name and a key, and cannot have properties")
        names = (*table.key, *KEY, "time", *(column.name for column in table.columns))
        bound = self._bound(table, names, table.key, table.indexes)
        return attrs.evolve(bound, key=table_key(table.name, timed=False), replaces=True)

    def _bound(
        self, table: Table, names: Iterable[str], key: tuple[str, ...], indexes: Iterable[tuple[str, ...]] = ()
    ) -> BoundTable:
        own = {column.name: column for column in table.columns}
        columns = [_column(name, own, in_key=name in key) for name in dict.fromkeys(names)]
        if any(column.name in key and column.kind not in _KEY_KINDS for column in columns):
            raise ValueError(f"table {table.name}: its key must be columns with a lookup or integers, dates or UUIDs")
        name = self.destination.key if table.name is None else table.name
        return BoundTable(
            key=self._key(table.name),
            name=name,
            columns=tuple(columns),
            properties=tuple(
                pair for pair in table.properties if not table.overflow or self.destination.gives_column(pair[0])
            ),
            primary_key=key,
            indexes=tuple(indexes),
            overflow=table.overflow,
            exact=table.name is not None,
        )

    def _key(self, name: TableName) -> str:
        if name is None and not self.timed:
            return self.destination.key  # no client's topic begins with $
        return table_key(self.destination.key if name is None else name, timed=self.timed)


def _are_same(some: Sequence[Table], others: Sequence[Table]) -> bool:
    return len(some) == len(others) and all(map(is_, some, others))


def bind(model: Model, destination: Destination, *, timed: bool) -> BoundModel:
    """Return a model with the tables that it has at a destination."""
    return BoundModel(model, destination, timed)


def table_key(name: str, *, timed: bool) -> str:
    """Return the key under which a named table is registered; with the time in its key it is another table."""
    return f"$timed/{name}" if timed else f"$table/{name}"


def lookup_key(lookup: Lookup) -> str:
    """Return the key under which a lookup's table is registered."""
    return f"$lookup/{lookup.name}({','.join(lookup.columns)})"


def lookup_of_key(key: str) -> Lookup | None:
    """Return the lookup whose table is registered under a key; None if another table is."""
    name, separator, columns = key.removeprefix("$lookup/").removesuffix(")").partition("(")
    return Lookup(name, columns.split(",")) if separator and key.startswith("$lookup/") else None


def lookups_of(bound: BoundModel) -> list[Lookup]:
    """Return the lookups that the columns of a model's tables use, each once."""
    found = (column.lookup for table in bound.tables() for column in table.columns if column.lookup is not None)
    return list(dict.fromkeys(found))


def exact_tables(bound: BoundModel) -> list[BoundTable]:
    """Return the tables whose names are used verbatim."""
    return [table for table in bound.tables() if table.exact]


def _column(name: str, own: Mapping[str, Column], *, in_key: bool) -> Column:
    """Return a column by name: an envelope column, perhaps with the model's lookup, or the model's own."""
    if name not in _OF_ENVELOPE:
        return attrs.evolve(own[name], nullable=False) if in_key else own[name]
    return attrs.evolve(_OF_ENVELOPE[name], lookup=own[name].lookup) if name in own else _OF_ENVELOPE[name]


_RELIED_ON: Final[Mapping[str, Sequence[str]]] = {
    "maker": ("write", "tables"),
    "reader": ("read", "tables"),
    "layout": ("write",),
}
"""Methods, and those that they must agree with."""


def _is_in_effect(model: Model, method: str) -> bool:
    """Return False if the method does not exist, or a subclass has overridden what its parent's method relies on."""
    line = type(model).__mro__
    definers = {name: next((cls for cls in line if name in vars(cls)), None) for name in (method, *_RELIED_ON[method])}
    definer = definers[method]
    if definer in {None, Model, FastModel}:
        return False
    return all(line.index(definer) <= line.index(definers[name]) for name in _RELIED_ON[method])


def _by_key(
    make: BatchMaker, keys: Mapping[TableName, str]
) -> Callable[[RecordBatch], dict[str, Sequence[tuple[Any, ...]]]]:
    return lambda batch: {keys[name]: rows for name, rows in make(batch).items()}


def _with_extra(
    model: Model,
    shape: Shape,
    make: Callable[[RecordBatch], dict[str, Sequence[tuple[Any, ...]]]],
    main: str,
    cells: Sequence[Cell],
    extra: Iterable[str],
) -> RowMaker:
    """Return a maker that also fills the extra columns, which are adjacent in ``cells``."""
    names = [cell for cell in cells if isinstance(cell, str) and cell in set(extra)]
    at = cells.index(names[0]) if names else 0

    def make_with_extra(records: Sequence[Record]) -> Mapping[str, Sequence[tuple[Any, ...]]]:
        batch = RecordBatch.of(shape, records)
        made = make(batch)
        if names:
            filled = [tuple(map(values.get, names)) for values in map(model.extra_values, batch)]
            made[main] = [(*row[:at], *more, *row[at:]) for row, more in zip(made[main], filled, strict=True)]
        return made

    return make_with_extra
