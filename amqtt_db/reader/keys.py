"""From short ids back to their keys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import sqlalchemy as sa

from amqtt_db.database.catalog import key_hash
from amqtt_db.database.engines.base import batched
from amqtt_db.database.lookup import Key
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.models.base import Lookup

_CAPACITY: Final = 200_000  # keys; if there are more, all are dropped and looked up again


class LookupCache:
    """The keys in lookup tables, read when they are first needed."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._known: dict[Lookup, dict[int, Key]] = {}

    def get_keys(self, lookup: Lookup, ids: Iterable[int]) -> Mapping[int, Key]:
        """Return the keys of ``ids``, and perhaps others."""
        known = self._known.setdefault(lookup, {})
        if len(known) > _CAPACITY:
            known.clear()
        table = self._table(lookup)
        names = [table.c[name] for name in lookup.columns]
        for chunk in batched(set(ids).difference(known)):
            rows = self._snapshot.connection.execute(sa.select(table.c.id, *names).where(table.c.id.in_(chunk)))
            known.update((row[0], row[1] if len(names) == 1 else tuple(row[1:])) for row in rows)
        return known

    def find_ids(self, lookup: Lookup, texts: Iterable[str]) -> Mapping[str, int]:
        """Return the ids of those texts that have one, in a lookup with one column."""
        table, by_hash = self._table(lookup), {key_hash(text): text for text in texts}
        queries = (sa.select(table.c.hash, table.c.id).where(table.c.hash.in_(chunk)) for chunk in batched(by_hash))
        return {by_hash[row[0]]: row[1] for query in queries for row in self._snapshot.connection.execute(query)}

    def _table(self, lookup: Lookup) -> sa.TableClause:
        """Return a lookup's table; statements on it are compiled once, because it has no identity of its own."""
        text = self._snapshot.engine.types["text"]
        return sa.table(
            lookup.name, *map(sa.column, ("id", "hash")), *(sa.column(name, text) for name in lookup.columns)
        )
