"""Rewrite stored records in place, as their routes type them now.

Each transaction replaces the rows of a batch and reads them back before it commits, so the work may be stopped and
started again at any time: records that are typed already are read and left alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Any

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import CURRENT, Assignment, key_hash
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.models.latest import LATEST_NAMES
from amqtt_db.record import Kind, Record
from amqtt_db.routing.records import TopicHandler
from amqtt_db.routing.retype import retype, typing_of
from amqtt_db.routing.topics import TopicFilter
from amqtt_db.writer.insert_target import merge_rows
from amqtt_db.writer.replacement import Replacer
from amqtt_db.writer.workshop import RewriteError, Workshop, records_in

_envelope_of = attrgetter("id", "part", "time_us", "topic", "session", "qos", "retain")


@attrs.frozen
class Retyping:
    """A topic, and how its route types the records in its current assignment."""

    assignment: Assignment
    handler: TopicHandler

    @property
    def topic(self) -> str:
        """The topic whose records are typed again."""
        return self.assignment.topic


@attrs.frozen
class RetypeProgress:
    """How many records have been read and rewritten so far, and how many values were converted or do not fit."""

    read: int = 0
    rewritten: int = 0
    converted: int = 0
    left: int = 0


class Retyper:
    """Types stored records again, with the tools of a workshop."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop
        self._replacer = Replacer(shop)

    def due(self, topic: str) -> list[Retyping]:
        """Return the topics, among those that a filter covers, whose records may be typed by other declarations."""
        wanted, table = TopicFilter.parse(topic), self._shop.catalog.assignment
        with self._shop.database.begin() as connection:
            self._shop.engine.lock_schema(connection)
            stored = connection.scalars(sa.select(table.c.topic).where(table.c.state == CURRENT))
            current = self._shop.assign(connection, sorted(name for name in stored if wanted.match(name) is not None))
            noted = self._shop.catalog.typings(connection, current)
        found = [Retyping(assignment, self._shop.handler(name)) for name, assignment in current.items()]
        texts = [typing_of(one.handler.builder) for one in found]
        return [one for one, text in zip(found, texts, strict=True) if text and noted.get(one.topic) != key_hash(text)]

    def retype(self, retyping: Retyping) -> Iterator[RetypeProgress]:
        """Rewrite the records that the route types differently now; note it if every value has its declared kind."""
        done, last = RetypeProgress(), 0
        while batch := self._shop.next_batch(retyping.assignment, last):
            retyped = [retype(record, retyping.handler) for record in batch]
            changed = [index for index, after in enumerate(retyped) if after.is_changed]
            if changed:
                self._replace(retyping, batch, [after.record for after in retyped], changed)
            last = batch[-1].id
            done = RetypeProgress(
                done.read + len(batch),
                done.rewritten + len(changed),
                done.converted + sum(after.converted for after in retyped),
                done.left + sum(after.left for after in retyped),
            )
            yield done
        if retyping.handler.builder.times and retyping.handler.builder.route.latest is not None:
            self._fill_latest(retyping)
        if not done.left:
            with self._shop.database.begin() as connection:
                typing = {retyping.topic: typing_of(retyping.handler.builder)}
                self._shop.catalog.note_typings(connection, typing)

    def _replace(
        self, retyping: Retyping, old: Sequence[Record], new: Sequence[Record], changed: Sequence[int]
    ) -> None:
        """Replace the ``changed`` ones of some records in one transaction, which reads back all of them."""

        def confirm(connection: sa.Connection) -> None:
            snapshot = Snapshot(self._shop.engine, self._shop.catalog, connection)
            found = records_in(snapshot, retyping.assignment, new[0].id - 1, new[-1].id)
            stored = {(record.id, record.part): record for record in found}  # perhaps with some that have just come
            if not all(equal_records(record, stored.get((record.id, record.part))) for record in new):
                raise RewriteError(
                    f"topic {retyping.topic}: messages {new[0].id} to {new[-1].id} do not read back as they were "
                    "rewritten; they stay as they were"
                )

        retyped = [new[index] for index in changed]
        rows = self._shop.plan_rows(retyped)
        tables = self._shop.tables(retyping.assignment).values()
        self._replacer.replace(tables, [old[index] for index in changed], rows, confirm, retyped)

    def _fill_latest(self, retyping: Retyping) -> None:
        """Let the newest values be those of the records that are newest by their new times."""
        last = 0
        while batch := self._shop.next_batch(retyping.assignment, last):
            rows = self._shop.plan_rows(batch)
            with self._shop.database.begin() as connection:
                self._shop.engine.insert(connection, merge_rows(row for row in rows if row[0].table in LATEST_NAMES))
            last = batch[-1].id


def equal_records(old: Record, new: Record | None) -> bool:
    """Return True if two records are equal; an old one without values is not compared."""
    if new is None or _envelope_of(old) != _envelope_of(new):
        return False
    left, right = old.properties(), new.properties()
    return not left or {path: _exact(*pair) for path, pair in left.items()} == {
        path: _exact(*pair) for path, pair in right.items()
    }


def _exact(kind: Kind, value: Any) -> tuple[Kind, Any]:
    """Return a value in a form that differs for −0.0 and 0.0, and is equal for NaN and NaN."""
    return kind, repr(sort_keys(value)) if kind in {"number", "json"} else value


def sort_keys(value: Any) -> Any:
    """Return a value with the keys of its objects in order: PostgreSQL keeps them in an order of its own."""
    if isinstance(value, dict):
        return {key: sort_keys(value[key]) for key in sorted(value)}
    return list(map(sort_keys, value)) if isinstance(value, list) else value
