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
from amqtt_db.reader.selection import Order, Selection
from amqtt_db.reader.statement import Bounds, details_statement, joined_statement, page_statement
from amqtt_db.record import Kind, Record


def walk(snapshot: Snapshot, keys: Keys, path: Path, wanted: Selection, size: int) -> Iterator[Record]:
    """Yield the records on a path, ``size`` at a time."""
    return chain.from_iterable(_pages(snapshot, keys, path, wanted, size))


def _pages(snapshot: Snapshot, keys: Keys, path: Path, wanted: Selection, size: int) -> Iterator[Sequence[Record]]:
    pager = _Pager.of(snapshot, path, wanted)
    make, key = path.maker(snapshot, keys), itemgetter(*map(path.cells.index, wanted.order.fields))
    last = None
    while True:
        rows = pager.fetch(last, size)
        if rows:
            yield make(rows, pager.details(last, size))
            last = key(rows[-1])
        if len(rows) < size:
            return


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
        with self.connection.execute(self._statement(following=last is not None), self._given(last, size)) as result:
            return result.cursor.fetchall()  # the columns have no types, so SQLAlchemy would only wrap each row

    def details(self, last: tuple[Any, ...] | None, size: int) -> Sequence[Rows]:
        """Return the rows of each table that is read apart, for the page that ``fetch`` finds."""
        found = []
        for table in self.path.apart:
            select = details_statement(self._page(following=last is not None), self.path.source.query, table)
            with self.connection.execute(select, self._given(last, size)) as result:
                found.append(result.cursor.fetchall())
        return found

    def _statement(self, *, following: bool) -> sa.Select[Any]:
        if following not in self._statements:
            page, joined = self._page(following=following), self.path.joined
            if joined is not None:
                page = joined_statement(page, self.path.source.query, self.path.main, joined, self.order)
            self._statements[following] = page
        return self._statements[following]

    def _page(self, *, following: bool) -> sa.Select[Any]:
        return page_statement(self.path.main, self.order, self.bounds, following=following)

    def _given(self, last: tuple[Any, ...] | None, size: int) -> Mapping[str, Any]:
        after = () if last is None else zip(self.order.fields, last, strict=True)
        return {**self.parameters, "size": size, **{f"after_{name}": value for name, value in after}}
