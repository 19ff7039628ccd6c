"""Forget topics without stored records: their assignments, newest values, and own tables and views.

From the first statement on, no writer commits a record of such a topic before it has assigned the topic again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import sqlalchemy as sa

from amqtt_db.database.catalog import Assignment, Catalog, key_hash
from amqtt_db.database.engines.base import Engine
from amqtt_db.database.rollup_tables import RollupTables, has_rollups
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.models.binding import BoundTable, table_key
from amqtt_db.writer.erase import erase_newest
from amqtt_db.writer.view_refresh import ViewKeeper
from amqtt_db.writer.workshop import bound, records_in

NamedTables = Mapping[str, tuple[BoundTable, str]]
"""Tables by key, each with its name in the database."""


def forget_topics(engine: Engine, catalog: Catalog, views: ViewKeeper, topics: Iterable[str]) -> list[str]:
    """Forget those topics without stored records, in one short transaction; return them.

    Raises Busy, or what the driver raises, if somebody else holds a lock.
    """
    with views.short_transaction() as connection:
        catalog.raise_routing_versions(connection)
        return [topic for topic in topics if _forget_topic(engine, catalog, views, connection, topic)]


def _forget_topic(engine: Engine, catalog: Catalog, views: ViewKeeper, connection: sa.Connection, topic: str) -> bool:
    """Forget a topic unless something is stored of it."""
    table, own = catalog.assignment, key_hash(topic)
    rows = connection.execute(sa.select(table).where(table.c.hash == own)).all()
    assignments = [Assignment(row.topic, row.key, row.route, row.model) for row in rows]
    if _holds_anything(Snapshot(engine, catalog, connection), topic, assignments):
        return False
    erase_newest(connection, engine, topic)
    RollupTables(catalog, connection).forget(topic)
    tables = _existing_tables(catalog, connection, assignments)
    for listed in (table, catalog.typing):
        connection.execute(listed.delete().where(listed.c.hash == own))
    for key in dict.fromkeys(assignment.key for assignment in assignments):
        if not catalog.is_destination(connection, key):
            _drop_own(catalog, views, connection, key, tables)
    return True


def _holds_anything(snapshot: Snapshot, topic: str, assignments: Sequence[Assignment]) -> bool:
    raw = snapshot.catalog.raw
    query = sa.select(raw.c.id).where(raw.c.hash == key_hash(topic)).limit(1)
    if snapshot.connection.execute(query).first() is not None:
        return True
    if has_rollups(snapshot.connection, snapshot.catalog, topic):
        return True
    return any(next(records_in(snapshot, assignment), None) for assignment in assignments)


def _existing_tables(catalog: Catalog, connection: sa.Connection, assignments: Sequence[Assignment]) -> NamedTables:
    tables = {table.key: table for one in assignments for table in bound(one).tables() if not table.replaces}
    known = catalog.physical_tables(connection, tables)
    return {key: (tables[key], found.name) for key, found in known.items()}


def _drop_own(
    catalog: Catalog, views: ViewKeeper, connection: sa.Connection, destination: str, tables: NamedTables
) -> None:
    """Drop the view and the tables that a destination has to itself."""
    quote = connection.dialect.identifier_preparer.quote
    for key in {destination, table_key(destination, timed=True)} & tables.keys():
        for view in views.registered(connection, [destination]):
            views.unregister(connection, view)
        name = tables[key][1]
        connection.execution_options(no_parameters=True).exec_driver_sql(f"DROP TABLE {quote(name)}")
        catalog.forget_table(connection, key, name)
