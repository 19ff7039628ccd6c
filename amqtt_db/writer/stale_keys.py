"""Forget the keys of lookup tables that no row refers to any more: topics, properties, series, devices, and users' own.

From the first statement on, no writer commits a row with an id that it learnt before: the routing versions are raised,
so it starts afresh.  The newest key of each table stays, so that no id is ever given twice.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog
from amqtt_db.models.base import Lookup
from amqtt_db.models.binding import BoundTable, lookup_of_key
from amqtt_db.models.latest import LATEST_RECORDS, LATEST_VALUES

KEYS_AT_ONCE: Final = 10_000  # ids looked at, and deleted, in one transaction
MOST_REFERRING: Final = 200
"""Tables that may refer to a lookup; if there are more, its keys stay, because a server has room for few locks."""


@attrs.frozen
class Reference:
    """A column of ids: ``is_indexed`` if an index begins with it."""

    table: str
    column: str
    is_indexed: bool

    def misses(self, keys: sa.TableClause, first: int, last: int) -> sa.ColumnElement[bool]:
        """Return the condition that no row refers to a key, whose id is in a range: one scan, or a look at an index."""
        column = sa.table(self.table, sa.column(self.column)).c[self.column]
        if self.is_indexed:
            return ~sa.exists().where(column == keys.c.id)
        return keys.c.id.not_in(sa.select(column).where(column.between(first, last)))


def forget_stale_keys(
    catalog: Catalog,
    database: sa.Engine,
    short_transaction: Callable[[], AbstractContextManager[sa.Connection]],
    tables: Iterable[BoundTable],
) -> Iterator[int]:
    """Forget the keys that no row refers to; yield how many each step has forgotten.

    ``tables`` are those of all models that ever stored anything.  If there is any other table with rows, nothing is
    forgotten, because it might refer to any key.  Raises what the driver raises, or Busy if somebody holds a lock.
    """
    with database.begin() as connection:
        found = find_references(catalog, connection, tables)
    for lookup, references in found.items():
        keys, last = sa.table(lookup.name, sa.column("id", sa.BigInteger)), 0
        while page := _next_page(database, keys, last):
            first, last = page
            is_missed = (one.misses(keys, first, last) for one in references)
            is_stale = sa.and_(keys.c.id.between(first, last), *is_missed)
            yield _forget(catalog, database, short_transaction, keys, is_stale)


def find_references(
    catalog: Catalog, connection: sa.Connection, tables: Iterable[BoundTable]
) -> Mapping[Lookup, Sequence[Reference]]:
    """Return the columns that refer to each registered lookup, of those with few enough; empty if that is unknown."""
    known = {table.key: table for table in (*tables, LATEST_RECORDS, LATEST_VALUES)}
    found: dict[Lookup, list[Reference]] = {}
    others: list[tuple[str, str]] = []
    for key, name in connection.execute(sa.select(catalog.table.c.key, catalog.table.c.name)):
        lookup = lookup_of_key(key)
        if lookup is None:
            others.append((key, name))
        else:
            found[lookup] = []
    for key, name in others:
        if key in known:
            _add(found, known[key], name)
        elif connection.execute(sa.select(sa.literal(1)).select_from(sa.table(name)).limit(1)).first() is not None:
            return {}
    return {lookup: some for lookup, some in found.items() if len(some) <= MOST_REFERRING}


def _add(found: Mapping[Lookup, list[Reference]], table: BoundTable, name: str) -> None:
    """Add the references in a table."""
    starts = {index[0] for index in (table.primary_key, *table.indexes)}
    for column in table.columns:
        if column.lookup is not None and column.lookup in found:
            found[column.lookup].append(Reference(name, column.name, column.name in starts))


def _next_page(database: sa.Engine, keys: sa.TableClause, after: int) -> tuple[int, int] | None:
    """Return the first and the last id of the next keys, but for the newest of all; None if there are no more."""
    some = sa.select(keys.c.id).where(keys.c.id > after).order_by(keys.c.id).limit(KEYS_AT_ONCE).subquery()
    with database.begin() as connection:
        first, last = connection.execute(sa.select(sa.func.min(some.c.id), sa.func.max(some.c.id))).one()
        newest = connection.scalar(sa.select(sa.func.max(keys.c.id)))
    if first is None or first == newest:
        return None
    return int(first), int(last) - (last == newest)


def _forget(
    catalog: Catalog,
    database: sa.Engine,
    short_transaction: Callable[[], AbstractContextManager[sa.Connection]],
    keys: sa.TableClause,
    is_stale: sa.ColumnElement[Any],
) -> int:
    with database.begin() as connection:
        if connection.execute(sa.select(keys.c.id).where(is_stale).limit(1)).first() is None:
            return 0
    with short_transaction() as connection:
        catalog.raise_routing_versions(connection)
        return connection.execute(keys.delete().where(is_stale)).rowcount
