"""TimescaleDB 2: hypertables, compression and retention policies.

It uses the functions' older names, which all versions from 2.0 on accept.  See https://docs.tigerdata.com/api/latest/.
"""

# ruff: noqa: S608 - every name and every literal is quoted

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any, Final

import psycopg
import sqlalchemy as sa

from amqtt_db.database.engines.hypertables import HypertableLayout, Hypertables
from amqtt_db.database.engines.views import quote_literal
from amqtt_db.entity.duration import format_duration
from amqtt_db.errors import Rejected
from amqtt_db.routing.route import Ordering

_EXTENSION_SCHEMA: Final = (
    "SELECT nspname FROM pg_extension JOIN pg_namespace n ON n.oid = extnamespace WHERE extname = 'timescaledb'"
)
_HYPERTABLES: Final = (
    "SELECT hypertable_name FROM timescaledb_information.hypertables WHERE hypertable_schema = current_schema()"
)
_RETENTION: Final = (
    "SELECT hypertable_name, CAST(config->>'drop_after' AS interval) FROM timescaledb_information.jobs "
    "WHERE proc_name = 'policy_retention' AND hypertable_schema = current_schema()"
)
_HERE: Final = "to_regclass(format('%I.%I', hypertable_schema, hypertable_name)) = {}"
_MISSING: Final = (
    "the database has no TimescaleDB: run CREATE EXTENSION timescaledb; in it as a superuser (the server needs "
    "shared_preload_libraries = 'timescaledb'), or leave `hypertable` out"
)
_EVERY: Final = "INTERVAL '1 hour'"
"""The interval at which the server looks for chunks to delete."""

_REFUSALS: Final[Mapping[str, tuple[str, str]]] = {
    "0A000": ("frozen chunk", "the hypertable's chunk for the message's time is frozen; unfreeze it"),
    "53400": (
        "decompression limit",
        "too much of the hypertable's chunk for the message's time must be decompressed to store it; raise "
        "timescaledb.max_tuples_decompressed_per_dml_transaction",
    ),
}
"""SQLSTATE → words in the server's message when a chunk refuses a row, and the reason shown to users."""


def refusal(error: psycopg.Error) -> Rejected | None:
    """Return why a chunk refuses a row, or None if the error means something else."""
    said, reason = _REFUSALS.get(error.sqlstate or "", ("", ""))
    return Rejected(f"{reason}, then replay") if said and said in str(error) else None


class Timescale(Hypertables):
    """PostgreSQL with the extension."""

    def missing(self, connection: sa.Connection) -> str | None:
        """Return a reason if the extension has not been created in the database."""
        return _MISSING if _schema(connection) is None else None

    def make(self, connection: sa.Connection, table: str, layout: HypertableLayout) -> list[str]:
        """Use statements without parameters, because they are shown to users."""
        done = []
        if table not in self.retention_policies(connection):
            done.append(_create(connection, table, layout))
            _run(connection, done[0])
        for statement in _policy_statements(connection, table, layout):
            _run(connection, statement)
            done.append(statement)
        return done

    def retention_policies(self, connection: sa.Connection) -> Mapping[str, timedelta | None]:
        """Read the jobs of the extension."""
        if _schema(connection) is None:
            return {}
        found: dict[str, timedelta | None] = dict.fromkeys(_run(connection, _HYPERTABLES).scalars())
        return {**found, **{row[0]: row[1] for row in _all_rows(connection, _RETENTION)}}

    def set_retention(self, connection: sa.Connection, table: str, keep: timedelta | None) -> None:
        """Replace the server's job."""
        schema, name = _quoted_schema(connection), _regclass(connection, table)
        _run(connection, f"SELECT {schema}.remove_retention_policy({name}, if_exists => true)")
        if keep is not None:
            after = f"drop_after => {_interval(keep)}, schedule_interval => {_EVERY}"
            _run(connection, f"SELECT {schema}.add_retention_policy({name}, {after})")

    def permit_deletes(self, connection: sa.Connection) -> None:
        """Set the limit to zero, which means none; without the extension the setting has no effect."""
        _run(connection, "SET LOCAL timescaledb.max_tuples_decompressed_per_dml_transaction = 0")


def _create(connection: sa.Connection, table: str, layout: HypertableLayout) -> str:
    options = f"chunk_time_interval => {_interval(layout.length)}, create_default_indexes => false"
    return f"SELECT {_quoted_schema(connection)}.create_hypertable({_regclass(connection, table)}, 'time', {options})"


def _policy_statements(connection: sa.Connection, table: str, layout: HypertableLayout) -> Iterator[str]:
    schema, name = _quoted_schema(connection), _regclass(connection, table)
    if _length(connection, name) != layout.length:
        yield f"SELECT {schema}.set_chunk_time_interval({name}, {_interval(layout.length)})"
    if layout.compress_after is not None and _layout(connection, name) != (layout.segment_by, layout.order_by):
        yield _set_layout(connection, table, layout)
    after = _compressed_after(connection, name)
    if after == layout.compress_after:
        return
    if after is not None:
        yield f"SELECT {schema}.remove_compression_policy({name})"
    if layout.compress_after is not None:
        yield f"SELECT {schema}.add_compression_policy({name}, compress_after => {_interval(layout.compress_after)})"


def _set_layout(connection: sa.Connection, table: str, layout: HypertableLayout) -> str:
    quote = connection.dialect.identifier_preparer.quote_identifier
    segment = ", ".join(map(quote, layout.segment_by))
    order = ", ".join(f"{quote(one.column)} {'DESC' if one.descending else 'ASC'}" for one in layout.order_by)
    options = (
        f"timescaledb.compress, timescaledb.compress_segmentby = {quote_literal(segment)}, "
        f"timescaledb.compress_orderby = {quote_literal(order)}"
    )
    return f"ALTER TABLE {quote(table)} SET ({options})"


def _length(connection: sa.Connection, name: str) -> Any:
    where = f"{_HERE.format(name)} AND dimension_number = 1"
    return _run(connection, f"SELECT time_interval FROM timescaledb_information.dimensions WHERE {where}").scalar()


def _layout(connection: sa.Connection, name: str) -> tuple[tuple[str, ...], tuple[Ordering, ...]]:
    """Return how new chunks are compressed: the segments, and the order within them."""
    columns = "attname, segmentby_column_index, orderby_column_index, orderby_asc"
    source = "timescaledb_information.compression_settings"
    rows = _all_rows(connection, f"SELECT {columns} FROM {source} WHERE {_HERE.format(name)}")
    segments = sorted((row[1], row[0]) for row in rows if row[1] is not None)
    orders = sorted((row[2], row[0], not row[3]) for row in rows if row[2] is not None)
    return tuple(row[1] for row in segments), tuple(Ordering(row[1], descending=row[2]) for row in orders)


def _compressed_after(connection: sa.Connection, name: str) -> Any:
    where = f"{_HERE.format(name)} AND proc_name = 'policy_compression'"
    after = "CAST(config->>'compress_after' AS interval)"
    return _run(connection, f"SELECT {after} FROM timescaledb_information.jobs WHERE {where}").scalar()


def _schema(connection: sa.Connection) -> str | None:
    return connection.exec_driver_sql(_EXTENSION_SCHEMA).scalar_one_or_none()


def _quoted_schema(connection: sa.Connection) -> str:
    return connection.dialect.identifier_preparer.quote_identifier(_schema(connection) or "public")


def _all_rows(connection: sa.Connection, query: str) -> list[Any]:
    return list(_run(connection, query))


def _run(connection: sa.Connection, statement: str) -> sa.CursorResult[Any]:
    return connection.execution_options(no_parameters=True).exec_driver_sql(statement)


def _regclass(connection: sa.Connection, table: str) -> str:
    return f"{quote_literal(connection.dialect.identifier_preparer.quote_identifier(table))}::regclass"


def _interval(length: timedelta) -> str:
    return f"INTERVAL {quote_literal(format_duration(length))}"
