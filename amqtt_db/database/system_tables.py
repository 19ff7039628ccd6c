"""The project's own tables, one function each, with the engine's column types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import sqlalchemy as sa

from amqtt_db.database.engines.base import Engine
from amqtt_db.record import Kind

COUNTS: Final = ("stored", "dead", "ignored", "empty", "unchanged", "records", "dropped", "nulled", "time_missing")
"""The counters of a topic filter.

Messages stored, dead, ignored, empty, unchanged; records made; properties dropped; values nulled; records that got
their arrival time although the route names a property for the time.
"""

_HASH_LENGTH: Final = 32  # hexadecimal digits
_NAME_LENGTH: Final = 128  # characters: more than the limit in bytes on any engine's names


class Builder:
    """Creates tables for one engine, all in one ``metadata``."""

    def __init__(self, engine: Engine) -> None:
        self.metadata = sa.MetaData()
        self.engine = engine

    def table(self, name: str, *columns: sa.Column[object]) -> sa.Table:
        """Return a system table."""
        return sa.Table(name, self.metadata, *columns, **self.engine.system_table_options)

    def column(self, name: str, kind: Kind, *, nullable: bool = False) -> sa.Column[object]:
        """Return a column whose values pass through the engine's encoder and decoder."""
        return sa.Column(name, _Encoded(self.engine, kind), nullable=nullable)

    def id(self) -> sa.Column[object]:
        """Return a primary key for a message's id."""
        return sa.Column("id", self.engine.types["int64"], primary_key=True, autoincrement=False)


def meta(build: Builder) -> sa.Table:
    """Return the table of facts about the whole database: the version of the system tables."""
    return build.table(
        "mqtt_meta",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("value", sa.String(255), nullable=False),
    )


def journal(build: Builder) -> sa.Table:
    """Return the table of journal generations, with their checkpoints."""
    return build.table(
        "mqtt_journal",
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("token", sa.String(64), nullable=False, unique=True),
        build.column("position", "int64"),
        sa.Column("routing_version", sa.Integer, nullable=False),
    )


def counter(build: Builder) -> sa.Table:
    """Return the table of counters per topic filter."""
    return build.table(
        "mqtt_counter",
        sa.Column("journal", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.String(_HASH_LENGTH), primary_key=True),
        build.column("filter", "text"),
        *(build.column(name, "int64") for name in COUNTS),
    )


def session(build: Builder) -> sa.Table:
    """Return the table of client connections."""
    return build.table(
        "mqtt_session",
        build.id(),
        sa.Column("journal", sa.Integer, nullable=False),
        build.column("client_id", "text", nullable=True),
        build.column("username", "text", nullable=True),
        build.column("address", "text", nullable=True),
        sa.Column("port", sa.Integer),
        sa.Column("keep_alive", sa.Integer),
        sa.Column("clean_session", build.engine.types["bool"]),
        build.column("connected", "timestamp"),
        build.column("disconnected", "timestamp", nullable=True),
    )


def dead_letter(build: Builder) -> sa.Table:
    """Return the table of messages that could not be stored."""
    return build.table(
        "mqtt_dead_letter",
        build.id(),
        build.column("time", "timestamp"),
        build.column("filter", "text"),
        build.column("step", "text"),
        build.column("reason", "text"),
        build.column("topic", "bytes"),
        build.column("client", "bytes", nullable=True),
        sa.Column("session", build.engine.types["int64"]),
        sa.Column("qos", sa.Integer, nullable=False),
        sa.Column("retain", build.engine.types["bool"], nullable=False),
        build.column("properties", "bytes", nullable=True),
        build.column("payload", "bytes"),
    )


def dead_segment(build: Builder) -> sa.Table:
    """Return the table of segments of payloads that are too long for one row."""
    return build.table(
        "mqtt_dead_segment",
        build.id(),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        build.column("bytes", "bytes"),
    )


def raw(build: Builder) -> sa.Table:
    """Return the table of payloads as they came, in segments; the first one of each has the message's envelope."""
    made = build.table(
        "mqtt_raw",
        build.id(),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.String(_HASH_LENGTH), nullable=False),
        build.column("time", "timestamp"),
        sa.Column("session", build.engine.types["int64"]),
        sa.Column("qos", sa.Integer, nullable=False),
        sa.Column("retain", build.engine.types["bool"], nullable=False),
        build.column("properties", "bytes", nullable=True),
        build.column("payload", "bytes"),
    )
    sa.Index("ix_mqtt_raw_hash_time", made.c.hash, made.c.time)
    return made


def table(build: Builder) -> sa.Table:
    """Return the table that lists the tables of records."""
    return build.table(
        "mqtt_table",
        sa.Column("hash", sa.String(_HASH_LENGTH), primary_key=True),
        sa.Column("name", sa.String(_NAME_LENGTH), nullable=False, unique=True),
        build.column("key", "text"),
        build.column("route", "text"),
    )


def column(build: Builder) -> sa.Table:
    """Return the table that says what the columns of tables and views mean."""
    return build.table(
        "mqtt_catalog",
        sa.Column("table_name", sa.String(_NAME_LENGTH), primary_key=True),
        sa.Column("column_name", sa.String(_NAME_LENGTH), primary_key=True),
        build.column("property", "text"),
        sa.Column("kind", sa.String(16), nullable=False),
    )


def view(build: Builder) -> sa.Table:
    """Return the table that lists the views."""
    return build.table(
        "mqtt_view",
        sa.Column("hash", sa.String(_HASH_LENGTH), primary_key=True),
        sa.Column("name", sa.String(_NAME_LENGTH), nullable=False, unique=True),
        build.column("key", "text"),
        build.column("columns", "text"),
        sa.Column("definition", sa.String(_HASH_LENGTH), nullable=False),
    )


def view_due(build: Builder) -> sa.Table:
    """Return the table of what views are still to show, noted by the writer of each journal, and by `remodel`."""
    return build.table(
        "mqtt_view_due",
        sa.Column("journal", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("hash", sa.String(_HASH_LENGTH), primary_key=True),
        build.column("note", "text"),
    )


def assignment(build: Builder) -> sa.Table:
    """Return the table that says where each topic's records are, and where they were before."""
    return build.table(
        "mqtt_assignment",
        sa.Column("hash", sa.String(_HASH_LENGTH), primary_key=True),
        sa.Column("sequence", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("moved", build.engine.types["int64"]),
        build.column("topic", "text"),
        build.column("key", "text"),
        build.column("route", "text"),
        build.column("model", "text"),
    )


def typing(build: Builder) -> sa.Table:
    """Return the table that says by which declarations the records of each topic are typed throughout."""
    return build.table(
        "mqtt_typing",
        sa.Column("hash", sa.String(_HASH_LENGTH), primary_key=True),
        sa.Column("typing", sa.String(_HASH_LENGTH), nullable=False),
    )


def decoder_memory(build: Builder) -> sa.Table:
    """Return the table of what decoders remember; ``version`` grows with each change."""
    return build.table(
        "mqtt_decoder_memory",
        sa.Column("hash", sa.String(_HASH_LENGTH), primary_key=True),
        build.column("name", "text"),
        build.column("text", "text"),
        build.column("version", "int64"),
    )


def rollup_note(build: Builder) -> sa.Table:
    """Return the table of notes on changed records: a row for each transaction and route, with topics and times.

    If the records are new, ``first`` and ``last`` are the least and the greatest of their ids; if others may be stored
    between them, the JSON also has the ranges of their ids, under a name that no topic has.
    """
    return build.table(
        "mqtt_rollup_note",
        sa.Column("id", build.engine.serial, primary_key=True),
        sa.Column("route", sa.String(_HASH_LENGTH), nullable=False),
        build.column("first", "int64", nullable=True),
        build.column("last", "int64", nullable=True),
        build.column("spans", "text"),
    )


def rollup_due(build: Builder) -> sa.Table:
    """Return the table of what has to be summed up again: spans of topics' intervals, times in microseconds."""
    return build.table(
        "mqtt_rollup_due",
        sa.Column("hash", sa.String(_HASH_LENGTH), primary_key=True),
        sa.Column("every", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("low", build.engine.types["int64"], primary_key=True, autoincrement=False),
        build.column("high", "int64"),
        build.column("after", "int64"),
        build.column("topic", "text"),
        build.column("route", "text"),
    )


def rollup_expired(build: Builder) -> sa.Table:
    """Return the table of topics that are summed up, and before which times their records and intervals may be gone.

    ``route`` is the hash of the topic filter of the route by whose steps that is done.
    """
    return build.table(
        "mqtt_rollup_expired",
        sa.Column("hash", sa.String(_HASH_LENGTH), primary_key=True),
        sa.Column("route", sa.String(_HASH_LENGTH), nullable=False),
        build.column("records", "int64"),
        build.column("intervals", "int64"),
    )


def rollup_series(build: Builder) -> sa.Table:
    """Return the table of the properties that are summed up."""
    made = build.table(
        "mqtt_rollup_series",
        sa.Column("id", build.engine.serial, primary_key=True),
        sa.Column("hash", sa.String(_HASH_LENGTH), nullable=False, unique=True),
        sa.Column("topic_hash", sa.String(_HASH_LENGTH), nullable=False),
        build.column("topic", "text"),
        build.column("property", "text"),
        sa.Column("kind", sa.String(16), nullable=False),
        build.column("route", "text"),
    )
    sa.Index("ix_mqtt_rollup_series_topic", made.c.topic_hash)
    return made


def rollup(build: Builder) -> sa.Table:
    """Return the table of what numbers amount to in intervals of ``every`` seconds."""
    return build.table(
        "mqtt_rollup",
        *_rollup_key(build),
        build.column("count", "int64"),
        build.column("total", "number", nullable=True),
        *(build.column(name, "number") for name in ("low", "high", "first", "last")),
        *(build.column(name, "timestamp") for name in ("first_time", "last_time")),
    )


def rollup_state(build: Builder) -> sa.Table:
    """Return the table of how long states held in intervals of ``every`` seconds, lengths in microseconds."""
    return build.table(
        "mqtt_rollup_state",
        *_rollup_key(build),
        sa.Column("hash", sa.String(_HASH_LENGTH), primary_key=True),
        build.column("value", "text"),
        build.column("count", "int64"),
        build.column("length", "int64"),
        build.column("wait", "int64"),
        sa.Column("is_last", sa.Integer, nullable=False),
        *(build.column(name, "timestamp") for name in ("first_time", "last_time")),
    )


def _rollup_key(build: Builder) -> Sequence[sa.Column[object]]:
    return (
        sa.Column("series", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("every", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("start", _Encoded(build.engine, "timestamp"), primary_key=True, autoincrement=False),
    )


class _Encoded(sa.types.TypeDecorator[object]):
    """A kind's column type, with the engine's own encoder and decoder."""

    impl = sa.types.NullType
    cache_ok = True

    def __init__(self, engine: Engine, kind: Kind) -> None:
        super().__init__()
        self.kind = kind
        self._engine = engine

    def load_dialect_impl(self, dialect: sa.Dialect) -> sa.types.TypeEngine[object]:
        return self._engine.types[self.kind]

    def bind_processor(self, dialect: sa.Dialect) -> Callable[[object], object]:
        return lambda value: None if value is None else self._engine.bind(self.kind, value)

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Callable[[object], object] | None:
        return partial(self._engine.decode, self.kind)
