"""SQL for plots: the extremes of each property in many bins, each a short range of an index.

The bins of a statement are joined by UNION ALL, which every database runs one after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db import tagged
from amqtt_db.database.engines.base import Engine, batched
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.models.base import ValueRows
from amqtt_db.reader.columns import StoredTable
from amqtt_db.reader.keys import LookupCache
from amqtt_db.reader.path import RecordPath
from amqtt_db.reader.plot_bins import NUMERIC, PLOTTED, Bins
from amqtt_db.reader.statement import fetch_rows
from amqtt_db.record import Kind, Pair, restored

DEPTH: Final = 200
"""The most rows of a bin that are read."""

_BINS_AT_ONCE: Final = 24  # a longer statement takes longer to write than it saves
_MOST_COLUMNS: Final = 100
_MOST_SERIES: Final = 60
_NOT_TYPED: Final = sa.types.NullType()


@attrs.frozen
class BinRow:
    """The extremes of a property in a bin; ``is_cut`` if the bin may have more rows than were read."""

    bin: int
    path: str
    kind: Kind
    low: Any
    high: Any
    is_cut: bool


@attrs.frozen(eq=False)
class _Slices:
    """Statements about the rows of a table in a bin: those with ``where``, in order of time, up to the depth."""

    table: StoredTable
    where: Sequence[sa.ColumnElement[bool]]
    columns: Sequence[sa.ColumnElement[Any]]

    def slice(self, index: int) -> sa.Subquery:
        """Return the rows of a statement's bin ``index``."""
        time = self.table.target.c.time
        low, high = (sa.bindparam(f"{name}_{index}", type_=_NOT_TYPED) for name in ("low", "high"))
        found = sa.select(*self.columns).where(*self.where, time >= low, time < high)
        return found.order_by(time).limit(sa.literal_column(str(DEPTH))).subquery(f"bin_{index}")


def read_columns(snapshot: Snapshot, path: RecordPath, bins: Bins) -> Iterator[BinRow]:
    """Yield the extremes of properties that are columns of the record's table."""
    pairs = [pair for pair in path.main.names if isinstance(pair, tuple) and _is_plotted(pair)][:_MOST_COLUMNS]
    columns = [path.main.target.c[path.main.names[pair]] for pair in pairs]
    slices = _Slices(path.main, _of_topic(path), [path.main.target.c.time, *columns])

    def extremes(index: int) -> sa.Select[Any]:
        rows = slices.slice(index)
        values = [
            _comparable(snapshot.engine, pair[1], rows.c[column.name])
            for pair, column in zip(pairs, columns, strict=True)
        ]
        both = [extreme(value) for value in values for extreme in (sa.func.min, sa.func.max)]
        return sa.select(_bin_number(index), sa.func.count(), *both)

    for number, count, *found in _fetch_bins(snapshot, bins, extremes):
        for (name, kind), low, high in zip(pairs, found[::2], found[1::2], strict=True):
            yield BinRow(number, name, kind, *_shown(kind, low, high), is_cut=count >= DEPTH)


def read_value_rows(
    snapshot: Snapshot, keys: LookupCache, path: RecordPath, layout: ValueRows, bins: Bins
) -> Iterator[BinRow]:
    """Yield the extremes of properties that are rows of a detail table, found by the records that they belong to."""
    (values,), on = path.details, path.source.query.on
    slices = _Slices(path.main, _of_topic(path), [path.main.target.c[name] for name in on])
    key, kinds = values.target.c[layout.path], _kinds_of(layout)

    def count(index: int) -> sa.Select[Any]:
        return sa.select(_bin_number(index), sa.func.count()).select_from(slices.slice(index))

    def extremes(index: int) -> sa.Select[Any]:
        rows = slices.slice(index)
        same = sa.and_(*(rows.c[name] == values.target.c[name] for name in on))
        joined = sa.select(_bin_number(index), key, *_extremes_of(snapshot.engine, values, kinds))
        return joined.select_from(rows.join(values.target, same)).group_by(key)

    counts = dict(map(tuple, _fetch_bins(snapshot, bins, count)))
    yield from _by_kind(snapshot, keys, values, layout, _fetch_bins(snapshot, bins, extremes), counts)


def read_points(
    snapshot: Snapshot, keys: LookupCache, path: RecordPath, layout: ValueRows, topic: str, bins: Bins
) -> Iterator[BinRow]:
    """Yield the extremes of properties that are rows of a detail table, found by its own key of series and time."""
    (values,), kinds = path.details, _kinds_of(layout)
    key, columns = values.target.c[layout.path], [values.target.c[name] for name in kinds.values()]
    for series in _series_of(snapshot, values, layout, topic):
        slices = _Slices(values, [key == series], [key, *columns])

        def extremes(index: int, slices: _Slices = slices) -> sa.Select[Any]:
            rows = slices.slice(index)
            both = _extremes_of(snapshot.engine, values, kinds, rows)
            return sa.select(_bin_number(index), sa.func.min(rows.c[layout.path]), *both, sa.func.count())

        found = [row for row in _fetch_bins(snapshot, bins, extremes) if row[-1]]
        counts = {row[0]: row[-1] for row in found}
        yield from _by_kind(snapshot, keys, values, layout, (row[:-1] for row in found), counts)


def _series_of(snapshot: Snapshot, values: StoredTable, layout: ValueRows, topic: str) -> Sequence[int]:
    """Return the ids of a topic's series."""
    lookup = values.lookup(layout.path)
    assert lookup is not None  # noqa: S101 - a layout of rows has one
    table = sa.table(lookup.name, *map(sa.column, ("id", *lookup.columns)))
    query = sa.select(table.c.id).where(table.c[lookup.columns[0]] == topic).order_by(table.c.id).limit(_MOST_SERIES)
    return list(snapshot.connection.scalars(query))


def _by_kind(
    snapshot: Snapshot,
    keys: LookupCache,
    values: StoredTable,
    layout: ValueRows,
    rows: Iterator[Sequence[Any]],
    counts: Mapping[int, int],
) -> Iterator[BinRow]:
    """Yield a row for each kind of a property in a bin, from rows with a bin, a path's id and extremes by kind."""
    lookup, kinds, found = values.lookup(layout.path), _kinds_of(layout), list(rows)
    assert lookup is not None  # noqa: S101 - a layout of rows has one
    names = keys.get_keys(lookup, {row[1] for row in found})
    for number, id_, *extremes in found:
        path = names[id_] if isinstance(names[id_], str) else names[id_][-1]
        for kind, low, high in zip(kinds, extremes[::2], extremes[1::2], strict=True):
            if low is None or path.startswith("{"):
                continue
            (_, shown), (first, last) = _untagged(layout, kind, path, low, high)
            if shown in PLOTTED and first is not None:
                yield BinRow(number, path, shown, first, last, is_cut=counts.get(number, 0) >= DEPTH)


def _untagged(layout: ValueRows, kind: Kind, path: str, low: Any, high: Any) -> tuple[Pair, tuple[Any, Any]]:
    """Return the kind that values have, and the values; a column for several kinds holds them tagged."""
    if kind != "tagged":
        return (path, kind), _shown(kind, low, high)
    (pair, first), (other, last) = (restored(path, tagged.loads(text)) for text in (low, high))
    return pair, (first, last) if pair == other and pair[1] not in NUMERIC else (None, None)


def _kinds_of(layout: ValueRows) -> Mapping[Kind, str]:
    """Return the columns to look into, by what they hold; a column for several kinds is ``tagged``."""
    names = list(layout.columns.values())
    shared: dict[str, Kind] = {name: "tagged" for name in names if names.count(name) > 1}
    own: dict[Kind, str] = {
        kind: name for kind, name in layout.columns.items() if kind in PLOTTED and name not in shared
    }
    return {**own, **{kind: name for name, kind in shared.items()}}


def _extremes_of(
    engine: Engine, values: StoredTable, kinds: Mapping[Kind, str], rows: sa.Subquery | None = None
) -> list[sa.ColumnElement[Any]]:
    columns = values.target.c if rows is None else rows.c
    own = [_comparable(engine, kind, columns[name]) for kind, name in kinds.items()]
    return [extreme(value) for value in own for extreme in (sa.func.min, sa.func.max)]


def _fetch_bins(snapshot: Snapshot, bins: Bins, make: Callable[[int], sa.Select[Any]]) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of all bins, each with the number of its bin; ``make`` makes the statement's part for a bin."""
    statements: dict[int, sa.CompoundSelect[Any]] = {}
    for start, bounds in zip(range(0, bins.count, _BINS_AT_ONCE), batched(bins.bounds, _BINS_AT_ONCE), strict=True):
        size = len(bounds)
        if size not in statements:
            statements[size] = sa.union_all(*map(make, range(size)))
        given = {
            f"{name}_{index}": time
            for index, pair in enumerate(bounds)
            for name, time in zip(("low", "high"), pair, strict=True)
        }
        parameters = {name: snapshot.engine.bind("timestamp", time) for name, time in given.items()}
        for index, *values in fetch_rows(snapshot.engine, snapshot.connection, statements[size], parameters):
            yield start + index, *values


def _of_topic(path: RecordPath) -> list[sa.ColumnElement[bool]]:
    """Return the condition for the rows of the path's topics."""
    column = path.main.target.c.topic
    if path.topic is not None:
        return [column == path.topic]
    return [] if path.topics is None else [column.in_(sorted(path.topics))]


def _is_plotted(pair: Pair) -> bool:
    return pair[1] in PLOTTED and not pair[0].startswith("{")


def _bin_number(index: int) -> sa.ColumnElement[Any]:
    return sa.literal_column(str(index)).label("bin")


def _comparable(engine: Engine, kind: Kind, column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return a column whose values the database can compare."""
    if kind == "bool":
        return sa.cast(column, sa.Integer())
    if kind not in {"bigint", "decimal"}:
        return column
    number = sa.cast(column, engine.types["number"])
    is_exact = isinstance(engine.types[kind], sa.Numeric)  # then a number beyond all doubles cannot be cast
    return (
        sa.case((column.between(sa.literal_column("-1e308"), sa.literal_column("1e308")), number))
        if is_exact
        else number
    )


def _shown(kind: Kind, low: Any, high: Any) -> tuple[Any, Any]:
    """Return the extremes as a plot shows them."""
    if low is None:
        return None, None
    convert: Callable[[Any], Any] = float if kind in NUMERIC else bool if kind == "bool" else str
    return convert(low), convert(high)
