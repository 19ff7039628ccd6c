"""A walk along a path in order: pages of rows, each found where the last one ended.

No cursor stays open between pages, so a thousand walks may go side by side over one connection of any driver.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

import attrs
import sqlalchemy as sa

from amqtt_db.database.snapshot import Snapshot
from amqtt_db.reader.keys import Keys
from amqtt_db.reader.path import Path, Rows
from amqtt_db.reader.selection import BY_ID, Order, Selection
from amqtt_db.reader.statement import Bounds, statement
from amqtt_db.record import Kind, Record


def walk(snapshot: Snapshot, keys: Keys, path: Path, wanted: Selection, size: int) -> Iterator[Record]:
    """The records on a path, ``size`` rows at a time; all at once where the main table does not tell their times."""
    if wanted.order.fields[0] != "time" or path.tells_time:
        return chain.from_iterable(_pages(snapshot, keys, path, wanted, size))
    by_id = attrs.evolve(wanted, order=BY_ID, low=None, high=None)
    records = chain.from_iterable(_pages(snapshot, keys, path, by_id, size))
    within = (record for record in records if _is_within(record.time_us, wanted))
    return iter(sorted(within, key=wanted.order.key, reverse=wanted.order.descending))


def _is_within(time: int, wanted: Selection) -> bool:
    return (wanted.low is None or time >= wanted.low) and (wanted.high is None or time < wanted.high)


def _pages(snapshot: Snapshot, keys: Keys, path: Path, wanted: Selection, size: int) -> Iterator[Sequence[Record]]:
    pager = _Pager.of(snapshot, path, wanted)
    make, key = path.maker(snapshot, keys), itemgetter(*map(path.cells.index, wanted.order.fields))
    last = None
    while True:
        rows = pager.fetch(last, size)
        is_end = len(rows) < size
        if not is_end and not path.has_single_rows:
            rows = _without_last_record(rows, key)
        if rows:
            yield make(rows)
            last = key(rows[-1])
        else:
            size *= 2
        if is_end:
            return


def _without_last_record(rows: Rows, key: itemgetter[Any]) -> Rows:
    """The rows of all records but the last, which may go on in the next page."""
    last = key(rows[-1])
    return rows[: next((index for index in range(len(rows), 0, -1) if key(rows[index - 1]) != last), 0)]


@attrs.frozen(eq=False)
class _Pager:
    """The two statements of a walk, for the first page and for all others, made when they are needed."""

    connection: sa.Connection
    path: Path
    order: Order
    bounds: Bounds
    parameters: Mapping[str, Any]
    _statements: dict[bool, sa.Select[Any]] = attrs.field(factory=dict, init=False)

    @classmethod
    def of(cls, snapshot: Snapshot, path: Path, wanted: Selection) -> _Pager:
        """What fetches the rows of a path."""
        bounds = Bounds(path.topic is not None, wanted.low is not None, wanted.high is not None)
        kind: Kind = "timestamp" if wanted.order.fields[0] == "time" else "int64"
        given = {"low": wanted.low, "high": wanted.high}
        parameters = {name: snapshot.engine.bind(kind, value) for name, value in given.items() if value is not None}
        return cls(snapshot.connection, path, wanted.order, bounds, {**parameters, "topic": path.topic})

    def fetch(self, last: tuple[Any, ...] | None, size: int) -> Rows:
        """The ``size`` rows behind the position ``last``, or the first ones; fewer at the end."""
        parameters = {**self.parameters, "size": size}
        if last is not None:
            parameters.update((f"after_{name}", value) for name, value in zip(self.order.fields, last, strict=True))
        with self.connection.execute(self._statement(following=last is not None), parameters) as result:
            return result.cursor.fetchall()  # the columns have no types, so SQLAlchemy would only wrap each row

    def _statement(self, *, following: bool) -> sa.Select[Any]:
        if following not in self._statements:
            path = self.path
            self._statements[following] = statement(
                path.source.query, path.main, path.values, self.order, self.bounds, following=following
            )
        return self._statements[following]
