"""Short ids for long keys: topics, properties, series.

A key is found by a 128-bit hash of its bytes, because long text and trailing spaces break unique indexes.  New keys of
a batch are written sorted, in a separate short transaction, so that two writers cannot deadlock.  An id never means
another key, so it may be cached until the routing versions change: some keys may have been forgotten then.  The schema
creates a lookup's table together with the tables that need it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from operator import attrgetter
from typing import Any, Final, TypeVar

import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog, key_hash
from amqtt_db.database.engines.base import Engine, RowBatch, batched, driver_error
from amqtt_db.database.naming import fold
from amqtt_db.errors import DatabaseError, Rejected
from amqtt_db.models.base import Lookup
from amqtt_db.models.binding import lookup_key
from amqtt_db.record import Kind

MAX_KEYS: Final = 1_000_000  # if there are more, all are forgotten and looked up again

Key = Any
"""Text, or a tuple of texts for a lookup with several columns."""

Made = TypeVar("Made")


def lookup_table(engine: Engine, lookup: Lookup, metadata: sa.MetaData) -> sa.Table:
    """Return a lookup's table as SQLAlchemy knows it."""
    return sa.Table(
        lookup.name,
        metadata,
        sa.Column("id", engine.serial, primary_key=True),
        sa.Column("hash", sa.String(32), nullable=False, unique=True),
        *(sa.Column(name, engine.types["text"], nullable=False) for name in lookup.columns),
        extend_existing=True,
        **engine.system_table_options,
    )


def is_registered(catalog: Catalog, connection: sa.Connection, lookup: Lookup) -> bool:
    """Return True if a lookup's table exists.  Raises DatabaseError if another table or lookup has its name."""
    names = {lookup.name, fold(lookup.name)}
    query = sa.select(catalog.table.c.key).where(catalog.table.c.name.in_(names))
    keys = set(connection.scalars(query))
    if keys - {lookup_key(lookup)}:
        raise DatabaseError(
            f"table {lookup.name}, which a model names for a lookup of {' and '.join(lookup.columns)}, already holds "
            "records, or another lookup; choose another name for the lookup"
        )
    return bool(keys)


class Lookups:
    """A cache of ids; unknown keys are looked up, and new ones are inserted."""

    def __init__(
        self,
        engine: Engine,
        database: sa.Engine,
        aside: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """``aside`` is entered around each query."""
        self._engine = engine
        self._aside = aside
        self._database = database
        self._metadata = sa.MetaData()
        self._ids: dict[Lookup, dict[Key, int]] = {}
        self._unknown: dict[Lookup, set[Key]] | None = None

    def forget(self) -> None:
        """Forget all ids, because some keys may have been deleted."""
        self._ids.clear()

    def ids(self, lookup: Lookup, keys: Sequence[Key]) -> list[int]:
        """Return the ids of keys, in their order."""
        known = self._ids.setdefault(lookup, {})
        try:
            return list(map(known.__getitem__, keys))
        except KeyError:
            if len(known) > MAX_KEYS:
                known.clear()
            unknown = set(keys).difference(known)
        if self._unknown is not None:
            self._unknown.setdefault(lookup, set()).update(unknown)
            return [0] * len(keys)
        self._learn({lookup: unknown})
        return list(map(known.__getitem__, keys))

    def with_ids(self, make: Callable[[], Made]) -> Made:
        """Return what ``make`` returns, which asks for ids.

        If any are unknown, they are looked up together, and ``make`` is called again: a lookup for each time that it
        asks would take a transaction each.
        """
        self._unknown = unknown = dict[Lookup, set[Key]]()
        try:
            made = make()
        finally:
            self._unknown = None
        if not unknown:
            return made
        self._learn(unknown)
        return make()

    def _learn(self, unknown: Mapping[Lookup, Iterable[Key]]) -> None:
        """Look up or insert keys.

        Raises DatabaseError, or Rejected or the database's own error for a key that it cannot hold.
        """
        try:
            with self._aside(), self._database.begin() as connection:
                found = {lookup: self._settle(connection, lookup, unknown[lookup]) for lookup in _by_name(unknown)}
        except (DatabaseError, Rejected):  # these say what is wrong
            raise
        except Exception as error:
            is_constraint = isinstance(driver_error(error), self._database.dialect.loaded_dbapi.IntegrityError)
            if self._engine.is_value_fault(error) and not is_constraint:
                raise
            names, reason = " and ".join(one.name for one in _by_name(unknown)), type(driver_error(error)).__name__
            raise DatabaseError(f"cannot look up ids in {names}: {reason}") from error
        for lookup, ids in found.items():
            self._ids.setdefault(lookup, {}).update(ids)

    def _settle(self, connection: sa.Connection, lookup: Lookup, keys: Iterable[Key]) -> dict[Key, int]:
        by_hash = {key_hash("\x00".join(_as_tuple(key))): key for key in keys}
        table = lookup_table(self._engine, lookup, self._metadata)
        found = _known_ids(connection, table, sorted(by_hash))
        if len(found) < len(by_hash):
            self._engine.lock_schema(connection)
            found |= _known_ids(connection, table, sorted(by_hash.keys() - found.keys()))
            new = sorted(by_hash.keys() - found.keys())
            if new:
                self._engine.insert(connection, [_row_batch(lookup, {key: by_hash[key] for key in new})])
                found |= _known_ids(connection, table, new)
        return {by_hash[key]: id_ for key, id_ in found.items()}


def _by_name(lookups: Iterable[Lookup]) -> Sequence[Lookup]:
    return sorted(lookups, key=attrgetter("name"))


def _known_ids(connection: sa.Connection, table: sa.Table, hashes: Sequence[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for some in batched(hashes):
        query = sa.select(table.c.hash, table.c.id).where(table.c.hash.in_(some))
        found.update((row[0], row[1]) for row in connection.execute(query))
    return found


def _as_tuple(key: Key) -> tuple[str, ...]:
    return key if isinstance(key, tuple) else (key,)


def _row_batch(lookup: Lookup, by_hash: Mapping[str, Key]) -> RowBatch:
    columns = ("hash", *lookup.columns)
    kinds: list[Kind] = ["text" for _ in columns]
    return RowBatch(lookup.name, columns, tuple(kinds), [(hash_, *_as_tuple(key)) for hash_, key in by_hash.items()])
