"""How a topic is stored: its route, its models, and the definitions of their tables as the database has them."""

from __future__ import annotations

import attrs
import sqlalchemy as sa
from sqlalchemy.schema import CreateIndex, CreateTable

from amqtt_db.database.snapshot import Snapshot
from amqtt_db.models.spec import to_spec
from amqtt_db.reader.keys import LookupCache
from amqtt_db.reader.path import plan_paths
from amqtt_db.reader.selection import Selection
from amqtt_db.reader.sources import Source, find_sources
from amqtt_db.routing.topics import TopicFilter


@attrs.frozen
class StoredIn:
    """Where records of a topic are: the filter of the route that put them there, its model, and the tables' DDL.

    New records go there if it ``is_current``.
    """

    route: str
    model: str
    is_current: bool
    ddl: tuple[str, ...]


def describe_storage(snapshot: Snapshot, topic: str) -> list[StoredIn]:
    """Return where the records of a topic are, where new ones go first.  Raises DatabaseError."""
    found = find_sources(snapshot, Selection(TopicFilter.exactly(topic)))
    paths = {path.source: path for path in plan_paths(snapshot, LookupCache(snapshot), found, scan=True)}
    described = [
        _describe_source(snapshot, source, paths[source].tables if source in paths else (), topic) for source in found
    ]
    return sorted(described, key=lambda one: not one.is_current)


def _describe_source(snapshot: Snapshot, source: Source, tables: tuple[str, ...], topic: str) -> StoredIn:
    bound = source.model
    ddl = tuple(_read_ddl(snapshot.connection, table) for table in tables)
    return StoredIn(bound.destination.route, to_spec(bound.model, timed=bound.timed), topic in source.current, ddl)


def _read_ddl(connection: sa.Connection, name: str) -> str:
    """Return the statements that would make a table and its indexes, as the database describes it."""
    table = sa.Table(name, sa.MetaData(), autoload_with=connection, resolve_fks=False)
    indexes = sorted(table.indexes, key=lambda index: str(index.name))
    statements: list[sa.schema.ExecutableDDLElement] = [CreateTable(table), *map(CreateIndex, indexes)]
    texts = (str(statement.compile(dialect=connection.dialect)).strip() for statement in statements)
    return ";\n".join(text.replace("\t", "  ").replace(" \n", "\n") for text in texts) + ";"
