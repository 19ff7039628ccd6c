"""Delete what is stored of some topics, all of it or what is older than a time, in steps.

Each transaction deletes some thousand records with all their rows.  A topic without any record left is forgotten: its
assignments go, and the table and the view that it had to itself.  A writer at work learns that before it stores more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from datetime import datetime
from functools import partial

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import Assignment
from amqtt_db.database.engines.base import batched
from amqtt_db.database.raw_payloads import delete_raw, delete_raw_of
from amqtt_db.database.rollup_tables import RollupTables
from amqtt_db.models.binding import BoundTable
from amqtt_db.record import to_micros
from amqtt_db.routing.topics import TopicFilter
from amqtt_db.writer.erase import count_records, erase_newest, topics_of_newest
from amqtt_db.writer.forgetting import forget_topics
from amqtt_db.writer.replacement import Replacer
from amqtt_db.writer.workshop import RewriteError, Workshop


@attrs.frozen
class Doomed:
    """A topic, and how many of its stored records are to be deleted."""

    topic: str
    records: int


class Deleter:
    """Deletes the records of the topics that a filter covers, those ``before`` a time only, if there is one."""

    def __init__(self, shop: Workshop, topic: str, before: datetime | None = None) -> None:
        self._shop = shop
        self._filter = TopicFilter.parse(topic)
        self._before = None if before is None else to_micros(before)
        self._replacer = Replacer(shop)

    def find(self) -> list[Doomed]:
        """Return the topics that are concerned, in the order of their names."""
        table = self._shop.catalog.assignment
        with self._shop.database.begin() as connection:
            stored = connection.scalars(sa.select(table.c.topic)).all()
            topics = sorted({*stored, *topics_of_newest(connection, self._shop.engine)})
        found = [
            Doomed(topic, count_of_topic(self._shop, topic, self._before))
            for topic in topics
            if self._filter.match(topic) is not None
        ]
        return [one for one in found if one.records or self._before is None]

    def delete(self, topic: str) -> Iterator[int]:
        """Delete the records of one topic; yield how many each step has deleted."""
        with self._shop.maintenance():
            assignments = self._shop.assignments_of(topic)
            found = [self._shop.tables(one) for one in assignments]
            tables = {key: table for one in found for key, table in one.items()}
            main = {name for one in found for _, name in list(one.values())[:1]}
            while True:
                for assignment in assignments:
                    yield from self._delete(assignment, list(tables.values()), main)
                self._delete_payloads(topic)
                if self._before is not None:
                    self._delete_rollups(topic, self._before)
                    return
                if self._shop.attempt(partial(self._forget, topic)):
                    return

    def _delete_payloads(self, topic: str) -> None:
        """Delete the payloads that were kept of a topic's messages."""
        while True:
            with self._shop.database.begin() as connection:
                if not delete_raw(connection, self._shop.catalog, topic, self._before):
                    return

    def _delete_payloads_of(self, ids: Collection[int], main: Collection[str], connection: sa.Connection) -> None:
        """Delete the payloads of messages without any record left, so that their records cannot be stored again."""
        left: set[int] = set()
        for column in [sa.table(name, sa.column("id")).c.id for name in main]:
            for some in batched(ids):
                left.update(connection.scalars(sa.select(column).where(column.in_(some))))
        delete_raw_of(connection, self._shop.catalog, set(ids) - left)

    def _delete_rollups(self, topic: str, before: int) -> None:
        """Delete the intervals that ended before a time, also those whose records have expired."""
        with self._shop.database.begin() as connection:
            RollupTables(self._shop.catalog, connection).erase_ended(topic, before)

    def _delete(
        self, assignment: Assignment, tables: Sequence[tuple[BoundTable, str]], main: Collection[str]
    ) -> Iterator[int]:
        """Delete a topic's records from tables; ``main`` are the names of those with a row per record."""
        while records := self._shop.next_before(assignment, self._before):
            forget = partial(self._delete_payloads_of, {record.id for record in records}, main)
            if not self._replacer.replace(tables, records, confirm=forget):
                raise RewriteError(f"topic {assignment.topic}: the database does not delete its records")
            yield len(records)

    def _forget(self, topic: str) -> bool:
        """Forget a topic without any record left; return False if there is news of it."""
        with self._shop.database.begin() as connection:
            erase_newest(connection, self._shop.engine, topic)
            RollupTables(self._shop.catalog, connection).forget(topic)
        return bool(forget_topics(self._shop.engine, self._shop.catalog, self._shop.views, [topic]))


def count_of_topic(shop: Workshop, topic: str, before: int | None = None) -> int:
    """Return how many records a topic has, older than a time if there is one.

    One that two assignments share counts once.
    """
    main: dict[str, tuple[BoundTable, str]] = {}
    for assignment in shop.in_use(topic):
        main.update(list(shop.tables(assignment).items())[:1])
    with shop.database.begin() as connection:
        return sum(count_records(connection, shop.engine, table, name, topic, before) for table, name in main.values())
