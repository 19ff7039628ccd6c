"""Give the stored records of a topic another topic, as if they had come under it.

Each transaction takes some thousand records from where they are, and writes them where the new topic's route wants
them; so the work may be stopped and started again, and each record is read once, under one of the two topics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import PAST, Assignment, key_hash
from amqtt_db.database.raw_payloads import move_raw, rename_raw
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.record import PROPERTIES_PATH, Record
from amqtt_db.routing.records import TopicHandler
from amqtt_db.routing.retype import retype
from amqtt_db.writer.deletion import Deleter, count_of_topic
from amqtt_db.writer.replacement import Replacer
from amqtt_db.writer.retyping import equal_records
from amqtt_db.writer.rollup_moving import move_rollups, would_lose_sums
from amqtt_db.writer.taking_in import find_topics_without_route
from amqtt_db.writer.topic_router import can_be_published
from amqtt_db.writer.workshop import RewriteError, Workshop, records_in


class Renamer:
    """Renames topics with the tools of a workshop."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop
        self._replacer = Replacer(shop)

    def count(self, old: str, new: str) -> tuple[int, int]:
        """Return how many records the old topic and the new one have.  Raises what :meth:`rename` raises."""
        self._require_possible(old, new)
        return count_of_topic(self._shop, old), count_of_topic(self._shop, new)

    def loses_sums(self, old: str, new: str) -> bool:
        """Return True if the old topic has sums of deleted records that the new one's route cannot take."""
        return would_lose_sums(self._shop, old, new)

    def rename(self, old: str, new: str) -> Iterator[int]:
        """Move the records of a topic to another one; yield how many each step has moved.

        Raises RewriteError if that is impossible: nothing is stored of the old topic, the new one is none or has no
        route, or `remodel` has to be run before.
        """
        with self._shop.maintenance():
            self._require_possible(old, new)
            with self._shop.database.begin() as connection:
                self._shop.engine.lock_schema(connection)
                assigned = self._shop.assign(connection, [old, new])
            move_rollups(self._shop, old, new, assigned[new].route)
            for assignment in self._shop.in_use(old):
                yield from self._move(assignment, assigned[new])
            self._rename_payloads(old, new)
        for _ in Deleter(self._shop, "#").delete(old):  # what came meanwhile, if somebody publishes it still
            pass

    def _rename_payloads(self, old: str, new: str) -> None:
        """Give the payloads of messages without records the new topic."""
        while True:
            with self._shop.database.begin() as connection:
                if not rename_raw(connection, self._shop.catalog, old, new):
                    return

    def _require_possible(self, old: str, new: str) -> None:
        self._require_unmoved(old)
        if old == new or not can_be_published(new):
            raise RewriteError(f"{new!r} is not another topic: it has no wildcards, and is not empty")
        if any(find_topics_without_route(self._shop.routes, [new])):
            raise RewriteError(f"no route stores topic {new}; add one first")

    def _require_unmoved(self, topic: str) -> None:
        table = self._shop.catalog.assignment
        with self._shop.database.begin() as connection:
            states = set(connection.scalars(sa.select(table.c.state).where(table.c.hash == key_hash(topic))))
        if not states:
            raise RewriteError(f"nothing is stored of topic {topic}; `amqtt-db topics` lists what is")
        if PAST in states:
            raise RewriteError(f"topic {topic} is stored in several models; run `amqtt-db remodel` first")

    def _move(self, assignment: Assignment, target: Assignment) -> Iterator[int]:
        handler = self._shop.handler(target.topic)
        declared = self._declared_levels(assignment.topic)
        tables = list(self._shop.tables(assignment).values())
        while records := self._shop.next_before(assignment, None):
            moved = [retype(_with_topic(record, target.topic, declared), handler).record for record in records]
            rows = self._shop.plan_rows(moved)
            self._replacer.replace(tables, records, rows, partial(self._finish, target, moved), moved)
            yield len(records)

    def _declared_levels(self, topic: str) -> dict[str, object]:
        """Return the levels of a topic that its route stores as declared properties."""
        (handling,) = self._shop.router.handlers([topic.encode()])
        return dict(handling.levels.declared) if isinstance(handling, TopicHandler) else {}

    def _finish(self, target: Assignment, moved: Sequence[Record], connection: sa.Connection) -> None:
        """Give the payloads of records the topic that these have now, and check the records."""
        move_raw(connection, self._shop.catalog, {record.id for record in moved}, target.topic)
        self._confirm(target, moved, connection)

    def _confirm(self, target: Assignment, moved: Sequence[Record], connection: sa.Connection) -> None:
        """Raise RewriteError unless records read back under their new topic."""
        snapshot = Snapshot(self._shop.engine, self._shop.catalog, connection)
        ids = [record.id for record in moved]
        found = {(one.id, one.part): one for one in records_in(snapshot, target, min(ids) - 1, max(ids))}
        if not all(equal_records(record, found.get((record.id, record.part))) for record in moved):
            raise RewriteError(
                f"topic {target.topic}: records do not read back as they were; they stay where they were"
            )


def _with_topic(record: Record, topic: str, declared: dict[str, object]) -> Record:
    """Return a record under another topic, without the levels of the old one."""
    kept = {
        (path, kind): value
        for path, (kind, value) in record.properties().items()
        if (not path.startswith("{") or path == PROPERTIES_PATH) and not (path in declared and declared[path] == value)
    }
    return attrs.evolve(record.with_values(kept), topic=topic)
