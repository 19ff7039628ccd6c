"""Show what a sample message would become: its route, its records, and the DDL that it would cause."""

from __future__ import annotations

from collections.abc import Sequence

import attrs
import sqlalchemy as sa

from amqtt_db.config import Settings
from amqtt_db.database.catalog import Catalog
from amqtt_db.database.engines import engine_for
from amqtt_db.database.lookup import Lookups
from amqtt_db.database.schema import Schema
from amqtt_db.database.snapshot import answer
from amqtt_db.database.store_version import require_version
from amqtt_db.errors import DatabaseError, Rejected
from amqtt_db.message import PUBLISH, Batch, flags
from amqtt_db.record import Record
from amqtt_db.routing.route import Route
from amqtt_db.writer.decoded import RecordGroups, Rejection
from amqtt_db.writer.decoding import decode_batch
from amqtt_db.writer.existing_tables import named_tables, names_of
from amqtt_db.writer.insert_plan import InsertPlanner
from amqtt_db.writer.topic_router import IgnoredTopic, TopicRouter


@attrs.frozen
class Preview:
    """``route`` is None if no route covers the topic; ``reason`` says why the sample would become a dead letter.

    ``is_empty`` is true for an empty payload, which makes no record.
    """

    route: Route | None
    records: tuple[Record, ...] = ()
    ddl: tuple[str, ...] = ()
    reason: str | None = None
    is_empty: bool = False

    @property
    def is_stored(self) -> bool:
        """True if the message would be stored, not ignored or made a dead letter."""
        return self.refusal is None and not self.is_empty

    @property
    def refusal(self) -> str | None:
        """Why a dead letter with this content would stay one; None if it would not."""
        if self.route is None or not self.route.stores:
            return IgnoredTopic("" if self.route is None else self.route.filter.text).reason
        return self.reason


def preview(settings: Settings, topic: str, payload: bytes) -> Preview:
    """Send a sample through everything but the database, which is read but never changed."""
    router = TopicRouter(settings.routes)
    new = router.unassigned({topic.encode()})
    if not new:
        return Preview(next((route for route in settings.routes if route.filter.match(topic) is not None), None))
    route = settings.routes[new[topic]]
    router.learn(new, router.assign(new, {}, {}))
    decoded = decode_batch(1, _batch((topic, payload)), router)
    if decoded.rejected:
        return Preview(route, reason=decoded.rejected[0].reason)
    if any(counts["empty"] for counts in decoded.counts.values()):
        return Preview(route, is_empty=True)
    records = tuple(record for group in decoded.groups.values() for record in group)
    try:
        return Preview(route, records, tuple(_ddl(settings, decoded.groups)))
    except Rejected as reason:
        return Preview(route, records, reason=str(reason))


def find_rejected(settings: Settings, samples: Sequence[tuple[str, bytes]]) -> Sequence[Rejection]:
    """Return which of many samples, topics with payloads, would become dead letters, and why."""
    router = TopicRouter(settings.routes)
    new = router.unassigned({topic.encode() for topic, _ in samples})
    router.learn(new, router.assign(new, {}, {}))
    return decode_batch(1, _batch(*samples), router).rejected


def _batch(*samples: tuple[str, bytes]) -> Batch:
    """Return samples as they would come out of a journal."""
    count = len(samples)
    topics, payloads = [topic.encode() for topic, _ in samples], [payload for _, payload in samples]
    return Batch(
        "", [*range(1, count + 1)], [0] * count, [flags(PUBLISH)] * count, [0] * count, topics, payloads, count + 1
    )


def _ddl(settings: Settings, groups: RecordGroups) -> list[str]:
    """Return the DDL, found by running it in a transaction that is rolled back; a missing file is not created."""
    engine = engine_for(settings.database)
    database = engine.rehearse()
    catalog = Catalog(engine)
    schema = Schema(engine, catalog, names_of(named_tables(settings.routes)))
    planner = InsertPlanner(engine, schema, Lookups(engine, database), settings.routes)
    try:
        with database.connect() as connection, connection.begin() as rehearsal:
            require_version(connection)
            catalog.create(connection)
            schema.load(connection)
            ddl = schema.ensure(connection, planner.missing(groups))
            rehearsal.rollback()
            return ddl
    except sa.exc.DBAPIError as error:
        raise DatabaseError(answer(error)) from error
    finally:
        database.dispose()
