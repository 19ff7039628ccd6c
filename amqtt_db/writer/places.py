"""Where the records of some topics may be: in the tables of all their assignments, current and past."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import CURRENT, MOVED, Assignment
from amqtt_db.models.binding import BoundTable
from amqtt_db.record import Record
from amqtt_db.writer.workshop import Workshop, bound, records_in


@attrs.frozen
class RecordPlace:
    """Topics that are, or were, assigned alike; readers no longer look there if their records have moved on."""

    assignment: Assignment
    has_moved: bool
    topics: frozenset[str]


@attrs.frozen
class FoundRecords:
    """Stored records: ``live`` are those that readers see, each with the topic filter that it was stored under."""

    live: list[tuple[str, Record]] = attrs.field(factory=list)
    stale: list[Record] = attrs.field(factory=list)

    @property
    def everything(self) -> list[Record]:
        """All of them, also those that nobody sees."""
        return [*(record for _, record in self.live), *self.stale]

    def of(self, ids: Collection[int]) -> FoundRecords:
        """Return those of some messages."""
        live = [(route, record) for route, record in self.live if record.id in ids]
        return FoundRecords(live, [record for record in self.stale if record.id in ids])


class Places:
    """The places of some topics, read once."""

    def __init__(self, shop: Workshop, topics: Collection[str]) -> None:
        self._shop = shop
        table = shop.catalog.assignment
        query = sa.select(table).order_by(table.c.state == CURRENT, table.c.sequence)
        with shop.database.begin() as connection:
            rows = [row for row in connection.execute(query) if row.topic in topics]
        found: dict[tuple[str, str, str, str], dict[str, Assignment]] = {}
        for row in rows:
            alike = found.setdefault((row.key, row.route, row.model, row.state), {})
            alike[row.topic] = Assignment(row.topic, row.key, row.route, row.model)
        self.all = [
            RecordPlace(next(iter(some.values())), state == MOVED, frozenset(some))
            for (*_, state), some in found.items()
        ]
        """All places, the current ones last."""

    def find(self, topics: Collection[str], ids: Collection[int]) -> FoundRecords:
        """Return the stored records of some messages of some topics.

        One that two places share, because they have the same table, is under the current one.
        """
        live: dict[tuple[int, int], tuple[str, Record]] = {}
        stale: dict[tuple[int, int, int], Record] = {}
        with self._shop.snapshots.take() as snapshot:
            for place in self._of(topics):
                wanted = frozenset(place.topics.intersection(topics))
                here = attrs.evolve(place.assignment, topic=next(iter(wanted)))
                for record in records_in(snapshot, here, min(ids) - 1, max(ids), wanted):
                    if record.id not in ids:
                        continue
                    if place.has_moved:
                        stale[record.id, record.part, record.time_us] = record
                    else:
                        live[record.id, record.part] = (here.route, record)
        return FoundRecords(list(live.values()), list(stale.values()))

    def tables(self, topics: Collection[str]) -> list[tuple[BoundTable, str]]:
        """Return the existing tables where records of some topics may be, each with its name."""
        models = (bound(place.assignment) for place in self._of(topics))
        tables = {table.key: table for model in models for table in model.tables() if not table.replaces}
        with self._shop.database.begin() as connection:
            known = self._shop.catalog.physical_tables(connection, list(tables))
        return [(table, known[key].name) for key, table in tables.items() if key in known]

    def _of(self, topics: Iterable[str]) -> Iterator[RecordPlace]:
        wanted = frozenset(topics)
        return (place for place in self.all if not wanted.isdisjoint(place.topics))
