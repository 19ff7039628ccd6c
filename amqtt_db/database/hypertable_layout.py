"""How a table lies in chunks: from what a route says of its hypertables to the columns of one of its tables."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from amqtt_db.database.catalog import PhysicalTable
from amqtt_db.database.engines.hypertables import Chunks
from amqtt_db.models.binding import BoundTable
from amqtt_db.routing.route import Hypertable, Ordering


def chunks_of(table: BoundTable, known: PhysicalTable, wish: Hypertable) -> Chunks:
    """The chunks of a table.

    What the route names and the table does not have, or not yet, is left out.  Where nothing is left, rows that an
    index of the model keeps together by time are a segment, and lie in it by time, the newest first, and then by the
    rest of the key: so the server sees without unpacking anything that a late message is no duplicate.
    """
    columns = _columns(table, known)
    segments = tuple(columns[name] for name in wish.segment_by if name in columns) or tuple(_segment(table))
    named = [Ordering(columns[one.column], one.descending) for one in wish.order_by if one.column in columns]
    rest = [Ordering(name) for name in table.primary_key if name != "time"]
    order = [one for one in named or [Ordering("time", descending=True), *rest] if one.column not in segments]
    return Chunks(wish.chunk, wish.compress_after, segments, tuple(order))


def _columns(table: BoundTable, known: PhysicalTable) -> Mapping[str, str]:
    """The columns that a route may name, by fixed name or path; of a property's the one that has its plain name."""
    longest_first = sorted(known.columns.items(), key=lambda item: len(item[1]), reverse=True)
    own = {path: name for (path, kind), name in longest_first if kind != "tagged"}
    return {**own, **{column.name: column.name for column in table.columns}}


def _segment(table: BoundTable) -> Iterator[str]:
    """The column by whose values an index keeps rows together in the order of their times."""
    for index in (table.primary_key, *table.indexes):
        if index[1:2] == ("time",):
            yield index[0]
            return
