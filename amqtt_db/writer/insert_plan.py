"""Typed records → encoded rows per table, or what does not fit: the second of a batch's three values.

What becomes of records of a known shape is compiled once per destination and shape, then used for every batch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count, islice
from typing import Any, Final, TypeVar

import attrs

from amqtt_db.database.engines.base import Engine, Unfit
from amqtt_db.database.lookup import Lookups
from amqtt_db.database.schema import Schema, Wanted, columns_to_fill
from amqtt_db.errors import StructureError
from amqtt_db.models.base import Cell, Destination
from amqtt_db.models.binding import BoundModel, BoundTable, RowMaker
from amqtt_db.record import Kind, Pair, Record, RecordBatch, RecordSlice, Shape
from amqtt_db.routing.route import Route
from amqtt_db.writer.decoded import RecordGroup, RecordGroups
from amqtt_db.writer.insert_target import InsertTarget, TargetRows, encode_rows, fitting_kind, target_of
from amqtt_db.writer.latest_rows import LatestPlanner

MAX_DESTINATIONS: Final = 100_000  # if there are more, all are forgotten and learnt again
MAX_NAME: Final = 65_535  # bytes of a property's path: as long as MQTT lets a topic be
MAX_PLANS: Final = 8192  # per destination; if there are more, the oldest quarter is compiled again
MAX_ALL_PLANS: Final = 50_000  # of all destinations together
MAX_UNION: Final = 10_000  # pairs; no table has so many columns
SMALL_GROUP: Final = 8  # records: the rows of groups with fewer are encoded together, by target

Filled = tuple[RecordGroup, Sequence[Record]]
"""A group and its records."""

_Some = TypeVar("_Some")


@attrs.frozen
class InsertPlan:
    """The plan that turns records of one shape into rows: a maker, and an insert target per table key.

    ``sharing`` is a number shared by plans that make the same row from a record, each for its own table; None if rows
    are not made together with those of other plans.
    """

    make: RowMaker
    targets: Mapping[str, InsertTarget]
    sharing: int | None


@attrs.frozen
class _Fill:
    """The cells that records of a shape fill, and the insert targets, both by table key."""

    cells: Mapping[str, tuple[Cell, ...]]
    targets: Mapping[str, InsertTarget]


@attrs.frozen
class _Made:
    """A small group's records, and their rows by target, not yet encoded."""

    records: Sequence[Record]
    rows: Sequence[TargetRows]


@attrs.define(eq=False)
class _Plans:
    """The plans compiled for a destination.

    ``fills`` says what is filled in tables that are the same for every shape.  ``union`` holds all pairs seen so far:
    shapes that differ only in missing properties share one statement unless that is wasteful.  ``limits`` limits the
    columns of shapes whose rows were too big.
    """

    model: BoundModel
    by_shape: dict[Shape, InsertPlan] = attrs.field(factory=dict)
    fills: dict[tuple[BoundTable, ...], _Fill] = attrs.field(factory=dict)
    union: dict[Pair, None] = attrs.field(factory=dict)
    limits: dict[Shape, int] = attrs.field(factory=dict)


class InsertPlanner:
    """Compiles plans for the tables that the schema knows; ``lookups`` has the ids that rows need."""

    def __init__(self, engine: Engine, schema: Schema, lookups: Lookups, routes: Iterable[Route]) -> None:
        self._engine = engine
        self.lookups = lookups
        self._schema = schema
        self._routes = {route.filter.text: route for route in reversed(list(routes))}
        self._plans: dict[Destination, _Plans] = {}
        self._latest = LatestPlanner(engine, lookups, self._routes)
        self._sharing: dict[Hashable, int] = {}
        self._numbers = count()
        self._compiled = 0

    def wanted(self, destination: Destination, shape: Shape) -> list[Wanted]:
        """Return the tables that records of ``shape`` need."""
        return self._wishes(destination.route, self._plans_for(destination).model.tables(shape))

    def _wishes(self, filter_: str, tables: tuple[BoundTable, ...]) -> list[Wanted]:
        route = self._routes[filter_]
        limit = min(route.max_columns or self._engine.max_columns, self._engine.most_columns)
        main, *others = tables
        further = (*others, *route.latest_tables)
        return [
            Wanted(main, filter_, limit, route.hypertable, route.indexes),
            *(Wanted(one, filter_, limit, None if one.replaces else route.hypertable) for one in further),
        ]

    def missing(self, groups: Iterable[RecordGroup]) -> list[Wanted]:
        """Return the tables that do not, or not completely, exist yet; a shape with a plan needs no check."""
        needed: dict[tuple[str, tuple[BoundTable, ...]], None] = {}  # many shapes may need the same tables
        for destination, shape in groups:
            plans = self._plans_for(destination)
            if shape not in plans.by_shape:
                _require_names(shape)
                needed[destination.route, plans.model.tables(shape)] = None
        wishes = chain.from_iterable(self._wishes(*one) for one in needed)
        return [wish for wish in wishes if not self._schema.is_ready(wish)]

    def rows(self, filled: Sequence[Filled]) -> list[TargetRows]:
        """Return the encoded rows of a group's records, or of several groups whose records are slices of one batch.

        Raises Unfit if a value does not fit its kind's column.
        """
        shared: dict[int, list[tuple[InsertPlan, RecordSlice]]] = {}
        rows: list[TargetRows] = []
        for group, records in filled:
            plan = self._plan_of(group)
            if isinstance(records, RecordSlice) and plan.sharing is not None:
                shared.setdefault(plan.sharing, []).append((plan, records))
                continue
            rows += [self._encode_without_empty(target, made) for target, made in _make_target_rows(plan, records)]
        shares = (share for some in shared.values() for share in self._share_out(some))
        return [*rows, *shares, *self._latest.rows(filled)]

    def make(self, group: RecordGroup, records: Sequence[Record]) -> _Made:
        """Make the rows of a small group."""
        return _Made(records, _make_target_rows(self._plan_of(group), records))

    def encode(self, made: Sequence[tuple[RecordGroup, _Made]]) -> list[TargetRows]:
        """Return the encoded rows of small groups: for one record, encoding takes as long as for a hundred.

        Raises Unfit if a value does not fit its kind's column.
        """
        together: dict[InsertTarget, list[tuple[Any, ...]]] = {}
        for target, rows in chain.from_iterable(one.rows for _, one in made):
            together.setdefault(target, []).extend(rows)
        encoded = [self._encode_without_empty(target, rows) for target, rows in together.items()]
        return [*encoded, *chain.from_iterable(self._latest.rows([(group, one.records)]) for group, one in made)]

    def _plan_of(self, group: RecordGroup) -> InsertPlan:
        destination, shape = group
        return self._plans_for(destination).by_shape.get(shape) or self._compile(destination, shape)

    def fit(self, record: Record) -> Record:
        """Return the record with every value under a kind whose column returns it exactly."""
        pairs: list[Pair] = []
        for (path, kind), value in zip(record.shape.properties, record.values, strict=True):
            pairs.append((path, kind if value is None else fitting_kind(self._engine, kind, value)))
        return attrs.evolve(record, shape=Shape(tuple(pairs)))

    def odd_records(self, batch: RecordBatch) -> Sequence[int]:
        """Return the indexes of records with a value that its kind's column would not return exactly, ascending."""
        odd: set[int] = set()
        for (_, kind), column in zip(batch.shape.properties, batch.columns, strict=True):
            try:
                self._engine.encode([kind], [column])
            except Unfit:
                odd.update(index for index, value in enumerate(column) if self._is_odd(kind, value))
        return sorted(odd)

    def _is_odd(self, kind: Kind, value: Any) -> bool:
        return value is not None and fitting_kind(self._engine, kind, value) != kind

    def limit_columns(self, groups: Iterable[RecordGroup]) -> bool:
        """Make rows of some groups fill half as many columns from now on; return False if that is impossible."""
        is_less = False
        for destination, shape in groups:
            plans = self._plans_for(destination)
            limit = plans.limits.get(shape, len(shape.properties))
            if limit and any(table.overflow for table in plans.model.tables(shape)):
                plans.limits[shape] = limit // 2
                plans.by_shape.pop(shape, None)
                is_less = True
        return is_less

    def unlimit_columns(self, groups: Iterable[RecordGroup]) -> None:
        """Undo :meth:`limit_columns`, because it did not help."""
        for destination, shape in groups:
            if self._plans_for(destination).limits.pop(shape, None) is not None:
                self._plans_for(destination).by_shape.pop(shape, None)

    def _encode_without_empty(self, target: InsertTarget, rows: Sequence[tuple[Any, ...]]) -> TargetRows:
        empty, encoded = encode_rows(self._engine, self.lookups, target, rows)
        return target.without(empty), encoded

    def _share_out(self, some: Sequence[tuple[InsertPlan, RecordSlice]]) -> Iterator[TargetRows]:
        """Make rows together, then distribute them to the tables of their destinations."""
        (pattern, first), indexes = some[0], sorted(chain.from_iterable(part.indexes for _, part in some))
        ((key, like),) = pattern.targets.items()
        made = pattern.make(first.whole.at(indexes))[key]
        empty, encoded = encode_rows(self._engine, self.lookups, like, made)
        row_at = dict(zip(indexes, encoded, strict=True)).__getitem__
        for plan, part in some:
            (target,) = plan.targets.values()
            yield target.without(empty), list(map(row_at, part.indexes))

    def _plans_for(self, destination: Destination) -> _Plans:
        plans = self._plans.get(destination)
        if plans is None:
            if len(self._plans) >= MAX_DESTINATIONS:
                self._plans.clear()
            plans = self._plans[destination] = _Plans(self._routes[destination.route].bound(destination))
        return plans

    def _compile(self, destination: Destination, shape: Shape) -> InsertPlan:
        plans = self._plans_for(destination)
        fill = self._fill(plans, shape)
        make = plans.model.maker(shape, fill.cells)
        plan = InsertPlan(make, fill.targets, self._sharing_number(plans.model, shape, fill))
        self._make_room(plans)
        plans.by_shape[shape] = plan
        return plan

    def _fill(self, plans: _Plans, shape: Shape) -> _Fill:
        """Return what records of a shape fill; in tables that no shape changes, that is found out once."""
        limit = plans.limits.get(shape)
        filled = _filled_shape(plans, shape) if limit is None else shape
        tables = plans.model.tables(filled)
        if any(table.properties or table.overflow for table in tables):
            return self._find_fill(tables, filled, limit)
        if tables not in plans.fills:
            plans.fills = {tables: self._find_fill(tables, filled, limit)}
        return plans.fills[tables]

    def _find_fill(self, tables: tuple[BoundTable, ...], shape: Shape, limit: int | None) -> _Fill:
        cells: dict[str, tuple[Cell, ...]] = {}
        targets: dict[str, InsertTarget] = {}
        for table in tables:
            known = self._schema.get(table.key)
            if known is None:
                raise StructureError(f"table {table.name} does not exist")
            columns = columns_to_fill(known, table, shape, limit)
            cells[table.key] = tuple(columns)
            targets[table.key] = target_of(known.name, table, tuple(columns.items()))
        return _Fill(cells, targets)

    def _make_room(self, plans: _Plans) -> None:
        """Forget plans, of one destination or of all, if there are too many; they are compiled again when needed."""
        if len(plans.by_shape) >= MAX_PLANS:
            for shape in list(islice(plans.by_shape, MAX_PLANS // 4)):  # the oldest: a batch may need all others
                del plans.by_shape[shape]
                plans.limits.pop(shape, None)
        if self._compiled >= MAX_ALL_PLANS:
            self._compiled = 0
            for some in self._plans.values():
                some.by_shape.clear()
        self._compiled += 1

    def _sharing_number(self, model: BoundModel, shape: Shape, fill: _Fill) -> int | None:
        if len(fill.targets) > 1 or not model.is_uniform:
            return None
        if len(self._sharing) >= MAX_PLANS:
            self._sharing.clear()
        unnamed = tuple(attrs.evolve(target, table="") for target in fill.targets.values())
        like = (model.destination.route, shape, *fill.cells.values(), unnamed)
        return self._sharing.setdefault(like, next(self._numbers))


def _make_target_rows(plan: InsertPlan, records: Sequence[Record]) -> Sequence[TargetRows]:
    made = plan.make(records)
    return [(target, made[key]) for key, target in plan.targets.items() if made[key]]


def _require_names(shape: Shape) -> None:
    """Raise StructureError if a property's name is too long for a statement on every database."""
    longest = max((len(path.encode()) for path, _ in shape.properties), default=0)
    if longest > MAX_NAME:
        raise StructureError(f"the name of a property has {longest} bytes; at most {MAX_NAME} can be stored")


def _filled_shape(plans: _Plans, shape: Shape) -> Shape:
    """Return the shape whose columns are filled: all pairs seen so far, unless most would be NULL."""
    if len(plans.union) > MAX_UNION:
        plans.union.clear()
    plans.union.update(dict.fromkeys(shape.properties))
    return Shape(tuple(plans.union)) if len(plans.union) <= 2 * len(shape.properties) + 8 else shape


@attrs.frozen
class Misfits:
    """The groups of records that hold a value that its kind's column would not return exactly."""

    groups: Sequence[RecordGroup]


def plan_rows(groups: RecordGroups, planner: InsertPlanner) -> Sequence[TargetRows] | Misfits:
    """Return the rows of all records by target; the schema must have room for them."""
    together: dict[int, list[Filled]] = {}
    small: list[tuple[RecordGroup, _Made]] = []
    for group, records in groups.items():
        if isinstance(records, RecordSlice):
            together.setdefault(id(records.whole), []).append((group, records))
        elif len(records) >= SMALL_GROUP:
            together[id(records)] = [(group, records)]
        else:
            small.append((group, planner.make(group, records)))
    return planner.lookups.with_ids(lambda: _encode_groups(list(together.values()), small, planner))


def _encode_groups(
    together: Iterable[Sequence[Filled]], small: Sequence[tuple[RecordGroup, _Made]], planner: InsertPlanner
) -> Sequence[TargetRows] | Misfits:
    rows, misfits = _rows_or_misfits(small, planner.encode)
    for some in together:
        more_rows, more_misfits = _rows_or_misfits(some, planner.rows)
        rows += more_rows
        misfits += more_misfits
    return Misfits(misfits) if misfits else rows


def fit(groups: RecordGroups, misfits: Misfits, planner: InsertPlanner) -> RecordGroups:
    """Return the groups with every record of the misfits in a shape whose columns return its values exactly."""
    fitted = {group: records for group, records in groups.items() if group not in misfits.groups}
    for destination, shape in misfits.groups:
        found: dict[RecordGroup, list[Record]] = {}
        batch = RecordBatch.of(shape, groups[destination, shape])
        odd = planner.odd_records(batch)
        for record in map(planner.fit, batch.at(odd)):
            found.setdefault((destination, record.shape), []).append(record)
        rest = sorted(set(range(len(batch))).difference(odd))
        if rest:
            fitted[destination, shape] = batch.at(rest)
        for group, records in found.items():
            fitted[group] = [*fitted.get(group, ()), *records]
    return fitted


def _rows_or_misfits(
    some: Sequence[tuple[RecordGroup, _Some]],
    encode: Callable[[Sequence[tuple[RecordGroup, _Some]]], list[TargetRows]],
) -> tuple[list[TargetRows], list[RecordGroup]]:
    """Return the rows of groups, halving those with a value that does not fit, and the groups that hold such values."""
    try:
        return encode(some), []
    except Unfit:
        if len(some) == 1:
            return [], [some[0][0]]
    middle = len(some) // 2
    rows, misfits = _rows_or_misfits(some[:middle], encode)
    more_rows, more_misfits = _rows_or_misfits(some[middle:], encode)
    return [*rows, *more_rows], [*misfits, *more_misfits]
