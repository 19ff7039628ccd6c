"""Views that are due, noted in the database: what one process had no time for, the next one does.

A note is part of the transaction with the records that a view is to show, and is deleted with its refresh.  While
views are refreshed at once, there are none.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from typing import Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog, key_hash
from amqtt_db.models.base import Destination
from amqtt_db.record import Pair

NO_JOURNAL: Final = 0
"""What stands for the journal in the notes of a process that has none, such as `remodel`."""


@attrs.frozen
class DueView:
    """The view of a destination, by its key and its route's topic filter, and the properties that it is to show."""

    key: str
    route: str
    pairs: tuple[Pair, ...]

    @classmethod
    def of(cls, destination: Destination, pairs: Iterable[Pair]) -> DueView:
        """Return what is due at a destination."""
        return cls(destination.key, destination.route, tuple(pairs))

    def text(self) -> str:
        """Return a note in ASCII, which every database can hold."""
        return json.dumps([self.key, self.route, self.pairs])


class DueViews:
    """The notes that this process has left or found, in the caller's transactions."""

    def __init__(self, catalog: Catalog) -> None:
        self._table = catalog.view_due
        self._noted: dict[str, int] = {}
        self._journals: set[int] = set()

    def find(self, connection: sa.Connection, journals: Collection[int] = ()) -> Iterator[DueView]:
        """Yield what other processes have left, those that worked on some journals or all."""
        query = sa.select(self._table.c.journal, self._table.c.note)
        here = query.where(self._table.c.journal.in_(journals)) if journals else query
        for journal, text in connection.execute(here).all():
            key, route, pairs = json.loads(text)
            self._journals.add(journal)
            self._noted.setdefault(key, 0)
            yield DueView(key, route, tuple((path, kind) for path, kind in pairs))

    def is_noted(self, key: str, count: int) -> bool:
        """Return True if a view is noted with as many properties."""
        return self._noted.get(key, -1) >= count

    def leave(self, connection: sa.Connection, journal: int, views: Iterable[DueView]) -> None:
        """Note some views, in place of what was noted of them before."""
        rows = [{"journal": journal, "hash": key_hash(view.key), "note": view.text()} for view in views]
        if rows:
            hashes = [row["hash"] for row in rows]
            own = (self._table.c.journal == journal) & self._table.c.hash.in_(hashes)
            connection.execute(self._table.delete().where(own))
            connection.execute(self._table.insert(), rows)
            self._journals.add(journal)

    def note_committed(self, views: Iterable[DueView]) -> None:
        """Learn that these are noted."""
        self._noted.update((view.key, len(view.pairs)) for view in views)

    def remove(self, connection: sa.Connection, keys: Iterable[str]) -> None:
        """Delete the notes of some views."""
        hashes = [key_hash(key) for key in keys if key in self._noted]
        if hashes:
            here = self._table.c.hash.in_(hashes) & self._table.c.journal.in_(self._journals)
            connection.execute(self._table.delete().where(here))

    def note_removed(self, keys: Iterable[str]) -> None:
        """Learn that the notes of these are gone."""
        for key in keys:
            self._noted.pop(key, None)
