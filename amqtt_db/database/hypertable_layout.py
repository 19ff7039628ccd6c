"""From a route's hypertable options to the layout of one of its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from amqtt_db.database.catalog import PhysicalTable
from amqtt_db.database.engines.hypertables import HypertableLayout
from amqtt_db.models.binding import BoundTable
from amqtt_db.routing.route import Hypertable, Ordering


def hypertable_layout(table: BoundTable, known: PhysicalTable, wish: Hypertable) -> HypertableLayout:
    """Return how a table is split into chunks and compressed.

    Columns that the route names but the table lacks are left out.  By default, rows are segmented by the column that
    comes before the time in an index of the model, and ordered by time, newest first, then by the rest of the key: so
    the server can tell without decompressing that a late message is not a duplicate.
    """
    columns = _nameable_columns(table, known)
    segments = tuple(columns[name] for name in wish.segment_by if name in columns) or tuple(_default_segment(table))
    named = [Ordering(columns[one.column], one.descending) for one in wish.order_by if one.column in columns]
    rest = [Ordering(name) for name in table.primary_key if name != "time"]
    order = [one for one in named or [Ordering("time", descending=True), *rest] if one.column not in segments]
    return HypertableLayout(wish.chunk, wish.compress_after, segments, tuple(order))


def _nameable_columns(table: BoundTable, known: PhysicalTable) -> Mapping[str, str]:
    """Return the columns that a route may name, by fixed name or path; a property means its plain column."""
    longest_first = sorted(known.columns.items(), key=lambda item: len(item[1]), reverse=True)
    own = {path: name for (path, kind), name in longest_first if kind != "tagged"}
    return {**own, **{column.name: column.name for column in table.columns}}


def _default_segment(table: BoundTable) -> Iterator[str]:
    """Yield the column that comes before the time in an index, if there is one."""
    for index in (table.primary_key, *table.indexes):
        if index[1:2] == ("time",):
            yield index[0]
            return
