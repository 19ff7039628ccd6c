"""Delete records with all their rows: because they are too old, or because they have moved elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

import sqlalchemy as sa

from amqtt_db.database.catalog import key_hash
from amqtt_db.database.engines.base import Engine, batched
from amqtt_db.database.lookup import lookup_table
from amqtt_db.models.binding import BoundTable
from amqtt_db.models.eav import TOPIC_LOOKUP
from amqtt_db.models.latest import LATEST_DEVICES, LATEST_RECORDS, LATEST_VALUES

RAW: Final = sa.types.NullType()  # parameters are passed to the driver as they are

_AT_ONCE: Final = 300  # records per statement, because parameters are limited

Identity = tuple[int, int, Any]
"""A record's id and part, and its time as the driver has it."""


def erase(
    connection: sa.Connection, engine: Engine, tables: Iterable[tuple[BoundTable, str]], records: Sequence[Identity]
) -> int:
    """Delete the rows of some records from tables, each given with its name, in the connection's transaction.

    Return how many rows were deleted.
    """
    gone = 0
    if engine.hypertables is not None:
        engine.hypertables.permit_deletes(connection)
    for table, name in tables:
        target = sa.table(name, *(sa.column(column, RAW) for column in ("id", "part", "time")))
        for some in batched(records, _AT_ONCE):
            here = _conditions(target.c, some, timed="time" in table.primary_key)
            gone += connection.execute(sa.delete(target).where(*here)).rowcount
    return gone


def erase_newest(connection: sa.Connection, engine: Engine, topic: str) -> None:
    """Delete the newest values that came from a topic as far as they tell, also those whose records have expired."""
    if not sa.inspect(connection).has_table(LATEST_VALUES.name):
        return
    records = sa.table(LATEST_RECORDS.name, *(sa.column(name, RAW) for name in ("device", "id", "part", "topic")))
    values = sa.table(LATEST_VALUES.name, *(sa.column(name, RAW) for name in ("device", "id", "part")))
    devices = lookup_table(engine, LATEST_DEVICES, sa.MetaData())
    named_so = sa.select(devices.c.id).where(devices.c.device == topic)
    is_newest = records.c.topic == topic_cell(engine, LATEST_RECORDS, topic)
    of_record = sa.and_(*(values.c[name] == records.c[name] for name in ("device", "id", "part")))
    from_newest = sa.exists().where(of_record & is_newest)
    connection.execute(sa.delete(values).where(values.c.device.in_(named_so) | from_newest))
    connection.execute(sa.delete(records).where(records.c.device.in_(named_so) | is_newest))


def topics_of_newest(connection: sa.Connection, engine: Engine) -> Sequence[str]:
    """Return the topics of the newest records of devices."""
    if not sa.inspect(connection).has_table(LATEST_RECORDS.name):
        return []
    records = sa.table(LATEST_RECORDS.name, sa.column("topic"))
    topics = lookup_table(engine, TOPIC_LOOKUP, sa.MetaData())
    return connection.scalars(sa.select(topics.c.topic).where(topics.c.id.in_(sa.select(records.c.topic)))).all()


def count_records(
    connection: sa.Connection, engine: Engine, table: BoundTable, name: str, topic: str, before: int | None
) -> int:
    """Return how many records a topic has in their own table, older than a time in microseconds if there is one."""
    target = sa.table(name, *(sa.column(column, RAW) for column in ("time", "topic")))
    query = sa.select(sa.func.count()).select_from(target).where(target.c.topic == topic_cell(engine, table, topic))
    if before is not None:
        query = query.where(target.c.time < sa.literal(engine.bind("timestamp", before), RAW))
    return int(connection.scalar(query) or 0)


def topic_cell(engine: Engine, table: BoundTable, topic: str) -> sa.ColumnElement[Any]:
    """Return what the column ``topic`` of a table of records contains for a topic."""
    column = next(column for column in table.columns if column.name == "topic")
    if column.lookup is None:
        return sa.literal(topic, RAW)
    lookup = lookup_table(engine, column.lookup, sa.MetaData())
    return sa.select(lookup.c.id).where(lookup.c.hash == key_hash(topic)).scalar_subquery()


def _conditions(columns: Any, records: Sequence[Identity], *, timed: bool) -> Iterable[sa.ColumnElement[bool]]:
    """Yield conditions that let the database use its indexes and skip chunks."""
    ids, times = [record[0] for record in records], [record[2] for record in records]
    yield columns.id.between(min(ids), max(ids))
    yield columns.id.in_(sorted(set(ids)))
    yield sa.tuple_(columns.id, columns.part).in_([record[:2] for record in records])
    if timed:
        yield columns.time.between(min(times), max(times))
