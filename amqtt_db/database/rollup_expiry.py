"""Until when a topic's records, and its shortest intervals, may have been deleted because of their age."""

from __future__ import annotations

from collections.abc import Iterable

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog, key_hash
from amqtt_db.database.engines.base import batched
from amqtt_db.database.rollup_tables import FIRST_TIME


@attrs.frozen
class Expiry:
    """Times in microseconds: before them records, or the shortest intervals, may be gone.

    ``route`` is the hash of the topic filter of the route by whose steps the topic is summed up.
    """

    route: str = ""
    records: int = FIRST_TIME
    intervals: int = FIRST_TIME

    def first_of(self, every: int, shortest: int) -> int:
        """Return from when on intervals can still be summed up, from records or from the shortest intervals."""
        time = self.records if every == shortest else min(self.records, self.intervals)
        return -(-time // every) * every


def read_expiry(connection: sa.Connection, catalog: Catalog, topics: Iterable[str]) -> dict[str, Expiry]:
    """Return the expiry of each topic, that of a new one with an empty route."""
    by_hash = {key_hash(topic): topic for topic in topics}
    table, found = catalog.rollup_expired, dict.fromkeys(by_hash.values(), Expiry())
    for hashes in batched(by_hash):
        for row in connection.execute(sa.select(table).where(table.c.hash.in_(hashes))):
            found[by_hash[row.hash]] = Expiry(row.route, row.records, row.intervals)
    return found


def write_expiry(connection: sa.Connection, catalog: Catalog, topic: str, expiry: Expiry) -> None:
    """Note the expiry of a topic."""
    table, hash_ = catalog.rollup_expired, key_hash(topic)
    connection.execute(table.delete().where(table.c.hash == hash_))
    connection.execute(table.insert(), {"hash": hash_, **attrs.asdict(expiry)})
