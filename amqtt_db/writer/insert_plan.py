"""Records of a known shape → encoded rows: compiled once per place and shape, then used for every batch."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain, count
from operator import itemgetter
from typing import Any, Final

import attrs

from amqtt_db.database.engines.base import Engine
from amqtt_db.database.lookup import Lookups
from amqtt_db.database.schema import Schema, Wanted, columns_to_fill
from amqtt_db.errors import StructureError
from amqtt_db.models.base import Cell, Destination, Lookup, RowMaker, Table
from amqtt_db.record import Kind, Pair, Record, RecordSlice, Shape, kind_of
from amqtt_db.routing.route import Route

MAX_GROUPS: Final = 100_000  # more places are forgotten and met again
MAX_NAME: Final = 65_535  # bytes of a property's path: as long as MQTT lets a topic be
MAX_PLANS: Final = 1024  # per place; more are forgotten and compiled again


@attrs.frozen(cache_hash=True)
class InsertTarget:
    """Columns of a table that rows are inserted into, and the kinds and lookups of their values.

    ``optional`` are the indexes of fixed columns that may be left out where they are NULL throughout.  ``order`` names
    the column whose order rows are inserted in, None: that of arrival.
    """

    table: str
    columns: tuple[str, ...]
    kinds: tuple[Kind, ...]
    lookups: tuple[Lookup | None, ...]
    optional: tuple[int, ...] = ()
    order: str | None = None

    def without(self, indexes: tuple[int, ...]) -> InsertTarget:
        """The target without some columns."""
        return _without(self, indexes) if indexes else self

    def in_order(self, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """Rows in the order of the key: a page of the table is then filled at once, not again and again."""
        return rows if self.order is None else sorted(rows, key=itemgetter(self.columns.index(self.order)))


@lru_cache(16_384)  # no fewer than tables that one batch may fill
def _without(target: InsertTarget, indexes: tuple[int, ...]) -> InsertTarget:
    kept = [index for index in range(len(target.columns)) if index not in indexes]
    columns = tuple(target.columns[index] for index in kept)
    kinds = tuple(target.kinds[index] for index in kept)
    return InsertTarget(
        target.table, columns, kinds, tuple(target.lookups[index] for index in kept), order=target.order
    )


@attrs.frozen
class InsertPlan:
    """How records of one shape become rows: a maker, and per table key where its rows go.

    ``alike`` is a number that plans share if they make the same row of a record, each for a table of its own; None if a
    plan shares it with no other.
    """

    make: RowMaker
    targets: Mapping[str, InsertTarget]
    alike: int | None


@attrs.define(eq=False)
class _Group:
    """The plans compiled for a place.

    ``union`` are all pairs met so far: shapes that differ in what is missing share one statement where that is not
    wasteful.  ``most`` limits the columns of shapes whose rows were found to be too big.
    """

    route: Route
    plans: dict[Shape, InsertPlan] = attrs.field(factory=dict)
    union: dict[Pair, None] = attrs.field(factory=dict)
    most: dict[Shape, int] = attrs.field(factory=dict)


RecordGroup = tuple[Destination, Shape]
"""What records share that need the same columns."""


class InsertPlanner:
    """Compiles plans against what the schema knows."""

    def __init__(self, engine: Engine, schema: Schema, lookups: Lookups, routes: Iterable[Route]) -> None:
        self._engine = engine
        self._lookups = lookups
        self._schema = schema
        self._routes = {route.filter.text: route for route in reversed(list(routes))}
        self._groups: dict[Destination, _Group] = {}
        self._alike: dict[Hashable, int] = {}
        self._numbers = count()

    def wanted(self, destination: Destination, shape: Shape) -> list[Wanted]:
        """The tables that records of ``shape`` need."""
        route = self._routes[destination.route]
        limit = min(route.max_columns or self._engine.max_columns, self._engine.most_columns)
        try:
            tables = route.model.tables(destination, shape)
        except Exception as error:  # a model's own code may raise anything
            raise StructureError(f"{type(error).__name__}: {error}") from error
        return [Wanted(table, destination.route, limit, route.hypertable) for table in tables]

    def missing(self, buckets: Iterable[RecordGroup]) -> list[Wanted]:
        """The tables that are not, or not wholly, there yet; a shape with a plan needs no look."""
        unplanned = [bucket for bucket in buckets if bucket[1] not in self._group(bucket[0]).plans]
        for _, shape in unplanned:
            _require_names(shape)
        wishes = [wish for bucket in unplanned for wish in self.wanted(*bucket)]
        return [wish for wish in wishes if not self._schema.is_ready(wish)]

    def rows(self, filled: Sequence[tuple[RecordGroup, Sequence[Record]]]) -> list[tuple[InsertTarget, Sequence[Any]]]:
        """The encoded rows of a bucket's records, or of several buckets' parts of the same block.

        Raises Unfit where a value does not fit its kind's column.
        """
        alike: dict[int, list[tuple[InsertPlan, RecordSlice]]] = {}
        rows: list[tuple[InsertTarget, Sequence[Any]]] = []
        for (destination, shape), records in filled:
            plan = self._group(destination).plans.get(shape) or self._compile(destination, shape)
            if isinstance(records, RecordSlice) and plan.alike is not None:
                alike.setdefault(plan.alike, []).append((plan, records))
                continue
            made = plan.make(records)
            rows += [self._filled(target, made[key]) for key, target in plan.targets.items() if made[key]]
        return [*rows, *(share for some in alike.values() for share in self._shared_out(some))]

    def _filled(self, target: InsertTarget, rows: Sequence[tuple[Any, ...]]) -> tuple[InsertTarget, Sequence[Any]]:
        empty, encoded = self._encoded(target, rows)
        return target.without(empty), encoded

    def _shared_out(
        self, some: Sequence[tuple[InsertPlan, RecordSlice]]
    ) -> Iterator[tuple[InsertTarget, Sequence[Any]]]:
        """Rows that are made together, then given to the tables of their places."""
        (pattern, first), indexes = some[0], sorted(chain.from_iterable(part.indexes for _, part in some))
        ((key, like),) = pattern.targets.items()
        empty, encoded = self._encoded(like, pattern.make(first.whole.at(indexes))[key])
        row_at = dict(zip(indexes, encoded, strict=True)).__getitem__
        for plan, part in some:
            (target,) = plan.targets.values()
            yield target.without(empty), list(map(row_at, part.indexes))

    def _encoded(self, target: InsertTarget, rows: Sequence[tuple[Any, ...]]) -> tuple[tuple[int, ...], Sequence[Any]]:
        """The indexes of columns that may be left out, and the rows without these, encoded."""
        columns: list[Sequence[Any]] = list(zip(*rows, strict=True))
        empty = tuple(index for index in target.optional if columns[index].count(None) == len(rows))
        target = target.without(empty)
        columns = [column for index, column in enumerate(columns) if index not in empty]
        for index, lookup in enumerate(target.lookups):
            if lookup is not None:
                columns[index] = self._lookups.ids(lookup, columns[index])
        return empty, self._engine.encode(target.kinds, columns)

    def _group(self, destination: Destination) -> _Group:
        group = self._groups.get(destination)
        if group is None:
            if len(self._groups) >= MAX_GROUPS:
                self._groups.clear()
            group = self._groups[destination] = _Group(self._routes[destination.route])
        return group

    def refit(self, record: Record) -> Record:
        """The record with every value under a kind whose column returns it identically."""
        pairs: list[Pair] = []
        for (path, kind), value in zip(record.shape.properties, record.values, strict=True):
            pairs.append((path, kind if value is None else fitting(self._engine, kind, value)))
        return attrs.evolve(record, shape=Shape(tuple(pairs)))

    def narrow(self, buckets: Iterable[RecordGroup]) -> bool:
        """Let rows of some buckets fill half as many columns from now on; False where there is nothing to halve."""
        narrowed = False
        for destination, shape in buckets:
            group = self._group(destination)
            most = group.most.get(shape, len(shape.properties))
            if most and any(table.overflow for table in group.route.model.tables(destination, shape)):
                group.most[shape] = most // 2
                group.plans.pop(shape, None)
                narrowed = True
        return narrowed

    def widen(self, buckets: Iterable[RecordGroup]) -> None:
        """Take back what :meth:`narrow` did: it has not helped."""
        for destination, shape in buckets:
            if self._group(destination).most.pop(shape, None) is not None:
                self._group(destination).plans.pop(shape, None)

    def _compile(self, destination: Destination, shape: Shape) -> InsertPlan:
        group = self._group(destination)
        most = group.most.get(shape)
        filled = _filled(group, shape) if most is None else shape
        cells: dict[str, tuple[Cell, ...]] = {}
        targets: dict[str, InsertTarget] = {}
        for table in group.route.model.tables(destination, filled):
            known = self._schema.get(table.key)
            if known is None:
                raise StructureError(f"table {table.name} is not there")
            columns = columns_to_fill(known, table, filled, most)
            cells[table.key] = tuple(columns)
            targets[table.key] = _target(known.name, table, columns)
        maker = group.route.model.maker(destination, shape, cells)
        plan = InsertPlan(maker, targets, self._alike_number(destination, shape, cells, targets))
        if len(group.plans) >= MAX_PLANS:
            group.plans.clear()
        group.plans[shape] = plan
        return plan

    def _alike_number(
        self,
        destination: Destination,
        shape: Shape,
        cells: Mapping[str, tuple[Cell, ...]],
        targets: Mapping[str, InsertTarget],
    ) -> int | None:
        if not self._routes[destination.route].model.is_uniform or len(targets) > 1:
            return None
        if len(self._alike) >= MAX_PLANS:
            self._alike.clear()
        unnamed = tuple(attrs.evolve(target, table="") for target in targets.values())
        return self._alike.setdefault((destination.route, shape, *cells.values(), unnamed), next(self._numbers))


def _require_names(shape: Shape) -> None:
    """What is looked up or remembered of a property must fit into a statement of every database."""
    longest = max((len(path.encode()) for path, _ in shape.properties), default=0)
    if longest > MAX_NAME:
        raise StructureError(f"the name of a property has {longest} bytes; at most {MAX_NAME} can be stored")


def _filled(group: _Group, shape: Shape) -> Shape:
    """The shape whose columns are filled: all met so far, unless that is mostly NULL."""
    group.union.update(dict.fromkeys(shape.properties))
    return Shape(tuple(group.union)) if len(group.union) <= 2 * len(shape.properties) + 8 else shape


def _target(name: str, table: Table, columns: Mapping[Cell, str]) -> InsertTarget:
    fixed = {column.name: column for column in table.columns}
    kinds = tuple(fixed[cell].kind if isinstance(cell, str) else cell[1] for cell in columns)
    lookups = tuple(fixed[cell].lookup if isinstance(cell, str) else None for cell in columns)
    optional = tuple(index for index, cell in enumerate(columns) if isinstance(cell, str) and fixed[cell].nullable)
    first = fixed[table.primary_key[0]]
    return InsertTarget(
        name, tuple(columns.values()), kinds, lookups, optional, columns[first.name] if first.lookup else None
    )


def fitting(engine: Engine, kind: Kind, value: Any) -> Kind:
    """The kind whose column returns a value (not None) identically: ``kind`` if it does."""
    for wish in (kind, kind_of(value)):
        if wish is not None and engine.holds(wish, value) and _is_of_kind(wish, value):
            return wish
    return "tagged"


def _is_of_kind(kind: Kind, value: Any) -> bool:
    """An integer that no double holds is not a number, whatever its type says."""
    return kind != "number" or not isinstance(value, int) or kind_of(value) == "number"
