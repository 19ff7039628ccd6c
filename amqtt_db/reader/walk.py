"""A walk along a path in order: pages of rows, each found where the last one ended.

No cursor stays open between pages, so a thousand walks may share one connection of any driver.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from operator import itemgetter
from typing import Any

import attrs
import sqlalchemy as sa

from amqtt_db.database.engines.base import Engine
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.errors import DatabaseError
from amqtt_db.models.base import Cell
from amqtt_db.reader.columns import StoredTable
from amqtt_db.reader.keys import LookupCache
from amqtt_db.reader.page_text import page_text
from amqtt_db.reader.path import MakeRecords, PageRows, RecordPath
from amqtt_db.reader.selection import Order, Selection
from amqtt_db.reader.statement import (
    Bounds,
    DriverText,
    details_statement,
    fetch_rows,
    joined_statement,
    page_statement,
)
from amqtt_db.record import Kind, Record


def walk(
    snapshot: Snapshot,
    keys: LookupCache,
    path: RecordPath,
    wanted: Selection,
    size: int,
    skip: Callable[[DatabaseError], None] | None = None,
) -> Iterator[Record]:
    """Yield the records on a path, fetched ``size`` at a time.

    ``skip`` is called with the error of each record that cannot be read; without it, the error is raised.
    """
    return chain.from_iterable(_walk_pages(snapshot, keys, path, wanted, size, skip))


def _walk_pages(
    snapshot: Snapshot,
    keys: LookupCache,
    path: RecordPath,
    wanted: Selection,
    size: int,
    skip: Callable[[DatabaseError], None] | None,
) -> Iterator[Iterable[Record]]:
    pager = _Pager.of(snapshot, path, wanted)
    make, key = path.maker(snapshot, keys), itemgetter(*map(path.cells.index, wanted.order.fields))
    last = None
    while True:
        rows = pager.fetch(last, size)
        if rows:
            details = pager.details(last, size)
            try:
                yield make(rows, details)
            except DatabaseError:
                if skip is None:
                    raise
                yield from (_readable(make, *one, skip) for one in _one_by_one(path, rows, details))
            last = key(rows[-1])
        if len(rows) < size:
            return


def _readable(
    make: MakeRecords, rows: PageRows, details: Sequence[PageRows], skip: Callable[[DatabaseError], None]
) -> Sequence[Record]:
    try:
        return make(rows, details)
    except DatabaseError as error:
        skip(error)
        return ()


def _one_by_one(
    path: RecordPath, rows: PageRows, details: Sequence[PageRows]
) -> Iterator[tuple[PageRows, Sequence[PageRows]]]:
    """Yield the rows of each record of a page, and its rows in each separately read table."""
    identities = [_identity_of(tuple(table.names)) for table in path.apart]
    for name, found in groupby(rows, _identity_of(path.cells)):
        yield (
            list(found),
            [
                [row for row in some if identity(row) == name]
                for some, identity in zip(details, identities, strict=True)
            ],
        )


def _identity_of(cells: Sequence[Cell]) -> itemgetter[Any]:
    return itemgetter(cells.index("id"), cells.index("part"))


def bounds_of(snapshot: Snapshot, path: RecordPath, wanted: Selection) -> tuple[Bounds, Mapping[str, Any]]:
    """Return the conditions of the statements for a path, and their parameters."""
    bounds = Bounds(path.topic is not None, wanted.low is not None, wanted.high is not None)
    kind: Kind = "timestamp" if wanted.order.fields[0] == "time" else "int64"
    given = {"low": wanted.low, "high": wanted.high}
    parameters = {name: snapshot.engine.bind(kind, value) for name, value in given.items() if value is not None}
    return bounds, {**parameters, "topic": path.topic}


@attrs.frozen(eq=False)
class _Pager:
    """Fetches pages with two statements, one for the first and one for all others, built on demand, and of details."""

    engine: Engine
    connection: sa.Connection
    path: RecordPath
    order: Order
    bounds: Bounds
    parameters: Mapping[str, Any]

    @classmethod
    def of(cls, snapshot: Snapshot, path: RecordPath, wanted: Selection) -> _Pager:
        """Return a pager for the rows of a path."""
        bounds, parameters = bounds_of(snapshot, path, wanted)
        return cls(snapshot.engine, snapshot.connection, path, wanted.order, bounds, parameters)

    def fetch(self, last: tuple[Any, ...] | None, size: int) -> PageRows:
        """Return the ``size`` rows after the position ``last``, or the first ones; fewer at the end."""
        select = self._statement(following=last is not None)
        return fetch_rows(self.engine, self.connection, select, self._given(last, size))

    def details(self, last: tuple[Any, ...] | None, size: int) -> Sequence[PageRows]:
        """Return the rows of each separately read table, for the page that ``fetch`` finds."""
        given = self._given(last, size)
        selects = [self._statement(table, following=last is not None) for table in self.path.apart]
        return [fetch_rows(self.engine, self.connection, select, given) for select in selects]

    def _statement(self, details: StoredTable | None = None, *, following: bool) -> sa.Select[Any] | DriverText:
        """Return the statement for a page, or for those rows of a detail table that belong to it."""
        built, what = self.path.statements, (details, self.order, self.bounds, following)
        if what not in built:
            built[what] = self._build(details, following=following)
        return built[what]

    def _build(self, details: StoredTable | None, *, following: bool) -> sa.Select[Any] | DriverText:
        main, query = self.path.main, self.path.source.query
        if details is None and self.path.joined is None:
            return page_text(self.connection.dialect, main, self.order, self.bounds, following=following)
        page = page_statement(main.target, self.order, self.bounds, following=following)
        if details is not None:
            return details_statement(page, query, details)
        return joined_statement(page, query, main, self.path.details[0], self.order)

    def _given(self, last: tuple[Any, ...] | None, size: int) -> Mapping[str, Any]:
        after = () if last is None else zip(self.order.fields, last, strict=True)
        return {**self.parameters, "size": size, **{f"after_{name}": value for name, value in after}}
