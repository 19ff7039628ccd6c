"""PostgreSQL 14 and newer, through psycopg 3.

A commit waits for the server's disk (``synchronous_commit=on``).  Text cannot hold U+0000, and NUMERIC cannot hold
exponents, NaN or −0; such values are stored tagged.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, ClassVar, Final

import psycopg
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql

from amqtt_db import tagged
from amqtt_db.database.engines import postgresql_rows
from amqtt_db.database.engines.base import (
    ColumnEncoder,
    Engine,
    QueryResult,
    RowBatch,
    Unfit,
    ValueDecoder,
    driver_error,
    fetch_all,
    foreign_column,
    ping_after_rest,
    prepare_each,
)
from amqtt_db.database.engines.encoding import each, is_aware, is_unicode, naive_time, present, timestamps, utc
from amqtt_db.database.engines.hypertables import Hypertables
from amqtt_db.database.engines.postgresql_session import (
    PARAMETERS,
    begin,
    begin_reading,
    load_any_time,
    prepare_reader,
    prepare_writer,
    release_locks,
    stop_workers,
)
from amqtt_db.database.engines.timescale import Timescale, refusal
from amqtt_db.errors import DatabaseError
from amqtt_db.record import EPOCH, EXACT, Kind, to_micros

_LOCK: Final = 0x616D7174745F6462  # "amqtt_db"
_LOCK_SCHEMA: Final = sa.text(
    "SELECT set_config('lock_timeout', '30s', true), pg_advisory_xact_lock(:key), "
    "set_config('lock_timeout', '5s', true)"
)
_MAINTENANCE: Final = _LOCK + 1
_TRY_MAINTENANCE: Final = sa.text("SELECT pg_try_advisory_xact_lock(:key)")
_PARENT: Final = sa.text(
    "SELECT parent.relname FROM pg_inherits JOIN pg_class parent ON parent.oid = inhparent "
    "WHERE inhrelid = to_regclass(format('%I.%I', CAST(:schema AS text), CAST(:chunk AS text)))"
)
_OFFSET: Final = to_micros(datetime(2000, 1, 1, tzinfo=timezone.utc))  # binary timestamps count microseconds from here
_MOST_DIGITS: Final = 131_072  # before the point; after it a NUMERIC has at most 16,383


def _require_python_value(value: Any) -> Any:
    """Return a value; raise an error for text, which stands for a value that Python has no type for."""
    if isinstance(value, str):
        raise ValueError
    return value


def _numbers(column: Sequence[Any]) -> Sequence[Any]:
    integers = [value for value in column if type(value) is int] if int in set(map(type, column)) else ()
    if integers and (min(integers) < -EXACT or max(integers) > EXACT):
        raise Unfit
    return column


def _is_double(value: float) -> bool:
    return type(value) is not int or -EXACT <= value <= EXACT


def _texts(column: Sequence[Any]) -> Sequence[Any]:
    if not _is_text("".join(present(column))):
        raise Unfit
    return column


def _is_text(value: str) -> bool:
    return "\x00" not in value and is_unicode(value)


def _shifted_timestamps(column: Sequence[Any]) -> Sequence[Any]:
    return [None if value is None else value - _OFFSET for value in column]


def _is_numeric(value: Decimal) -> bool:
    sign, digits, exponent = value.as_tuple()
    if not isinstance(exponent, int) or (sign and not any(digits)):
        return False
    return -16_383 <= exponent <= 0 and len(digits) <= _MOST_DIGITS


def _decimal(value: Decimal) -> Decimal:
    if not _is_numeric(value):
        raise Unfit
    return value


def _is_bigint(value: int) -> bool:
    return value.bit_length() < 3 * _MOST_DIGITS


def _jsonb(column: Sequence[Any]) -> Sequence[Any]:
    """Prefix the version of the binary format; text, because psycopg writes it much faster than bytes."""
    return [None if text is None else "\x01" + text for text in tagged.dumps_all(column)]


_HOLDS: Final[Mapping[Kind, Callable[[Any], bool]]] = {
    "number": _is_double,
    "text": _is_text,
    "datetime": is_aware,
    "time": lambda moment: moment.tzinfo is None,
    "int64": lambda number: -(2**63) <= number < 2**63,
    "bigint": _is_bigint,
    "decimal": _is_numeric,
}

_BIND: Final[Mapping[Kind, Callable[[Any], Any]]] = {
    "timestamp": lambda moment: EPOCH + timedelta(microseconds=moment),
    "datetime": utc,
    "json": tagged.dumps,
}
"""Kinds whose parameters differ from their fields in a COPY."""


class PostgreSQL(Engine):
    """PostgreSQL; ``postgresql://`` means psycopg, whatever SQLAlchemy's default is."""

    name_limit: ClassVar[int] = 63
    max_columns: ClassVar[int] = 400
    most_columns: ClassVar[int] = 1500  # PostgreSQL's own limit is 1,600, including dropped columns
    hypertables: ClassVar[Hypertables | None] = Timescale()
    types: ClassVar[Mapping[Kind, sa.types.TypeEngine[Any]]] = {
        "bool": sa.BOOLEAN(),
        "number": sa.DOUBLE_PRECISION(),
        "int64": sa.BIGINT(),
        "bigint": sa.NUMERIC(),
        "text": sa.TEXT(),
        "bytes": postgresql.BYTEA(),
        "datetime": sa.TIMESTAMP(timezone=True),
        "timestamp": sa.TIMESTAMP(timezone=True),
        "date": sa.DATE(),
        "time": sa.TIME(),
        "decimal": sa.NUMERIC(),
        "uuid": sa.UUID(),
        "json": postgresql.JSONB(),
        "tagged": sa.TEXT(),
    }
    encoders: ClassVar[Mapping[Kind, ColumnEncoder]] = {
        "number": _numbers,
        "text": _texts,
        "datetime": lambda column: _shifted_timestamps(timestamps(column)),
        "timestamp": _shifted_timestamps,
        "time": each(naive_time),
        "decimal": each(_decimal),
        "json": _jsonb,
        "tagged": tagged.dumps_all,
    }
    decoders: ClassVar[Mapping[Kind, ValueDecoder]] = {
        "bigint": int,
        "date": _require_python_value,
        "time": _require_python_value,
        "datetime": utc,
        "timestamp": to_micros,
        "json": tagged.loads,
        "tagged": tagged.loads,
    }

    def open(self, *, write: bool) -> sa.Engine:
        """Name the connections ``amqtt_db`` and use UTC; for reading, make transactions read-only."""
        url = sa.make_url(self.url).set(drivername="postgresql+psycopg")
        given = {name: value for name, value in PARAMETERS.items() if name not in url.query}
        engine = sa.create_engine(
            url,
            hide_parameters=True,
            isolation_level="READ COMMITTED",
            connect_args={"prepare_threshold": None, **given},
            execution_options={} if write else {"postgresql_readonly": True},
        )
        prepare_each(engine, prepare_writer if write else prepare_reader)
        ping_after_rest(engine)
        sa.event.listen(engine, "begin", begin if write else begin_reading)
        sa.event.listen(engine, "handle_error", _explain)
        return engine

    def lock_schema(self, connection: sa.Connection) -> None:
        """Take an advisory lock; later locks of the transaction wait at most 5 seconds."""
        connection.execute(_LOCK_SCHEMA, {"key": _LOCK})

    @contextmanager
    def maintenance(self, database: sa.Engine) -> Iterator[bool]:
        """Take an advisory lock in a separate transaction."""
        with database.connect() as connection:
            is_mine = connection.scalar(_TRY_MAINTENANCE, {"key": _MAINTENANCE})
            try:
                yield bool(is_mine)
            finally:
                with suppress(sa.exc.DBAPIError):  # a lost session has lost the lock anyway
                    connection.rollback()

    def insert(self, connection: sa.Connection, row_batches: Sequence[RowBatch]) -> None:
        """Use binary ``COPY``, or one INSERT for several tables."""
        driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
        try:
            postgresql_rows.insert(driver, row_batches, connection.info["amqtt_db_ruled"])
        except psycopg.Error as error:
            raise (
                _foreign_column(connection.engine, error, row_batches)
                or refusal(error)
                or _explained(error)
                or sa.exc.DBAPIError("INSERT", None, error, hide_parameters=True)
            ) from error

    def update(self, connection: sa.Connection, statement: sa.Update, values: Mapping[str, Any]) -> int:
        """Explain missing privileges."""
        try:
            return super().update(connection, statement, values)
        except sa.exc.DBAPIError as error:
            explained = _explained(driver_error(error))
            if explained is None:
                raise
            raise explained from error

    def _execute_often(self, cursor: Any, text: str, parameters: Any) -> None:
        """Let the server parse and plan it once, unless there is a pooler in between."""
        cursor.execute(text, parameters, prepare=True)

    def run_ddl(self, connection: sa.Connection, statements: Sequence[str]) -> None:
        """Send all statements at once."""
        if statements:
            connection.exec_driver_sql(";\n".join(statements))

    def bind(self, kind: Kind, value: Any) -> Any:
        """Return a parameter for psycopg."""
        return _BIND[kind](value) if kind in _BIND else super().bind(kind, value)

    def holds(self, kind: Kind, value: Any) -> bool:
        """Check the kinds that the module's docstring names."""
        return kind not in _HOLDS or _HOLDS[kind](value)

    def is_value_fault(self, error: BaseException) -> bool:
        """Blame data exceptions, constraints, limits, a user's trigger, and values that psycopg cannot write."""
        origin = driver_error(error)
        if not isinstance(origin, psycopg.Error):
            return isinstance(origin, (OverflowError, UnicodeError))
        if origin.sqlstate is None:
            return isinstance(origin, psycopg.DataError)
        return origin.sqlstate[:2] in {"22", "23", "54"} or origin.sqlstate == "P0001"

    def is_collision(self, error: BaseException) -> bool:
        """Look for deadlocks, serialization failures and lock timeouts."""
        origin = driver_error(error)
        return isinstance(origin, psycopg.Error) and origin.sqlstate in {"40001", "40P01", "55P03"}

    def tolerate_values(self, connection: sa.Connection, error: BaseException) -> bool:
        """Return infinity, years outside 1 to 9999, and 24:00 as text if the driver has rejected them."""
        is_refused = isinstance(error, psycopg.DataError) and error.sqlstate is None
        if is_refused:
            load_any_time(connection.connection.driver_connection)  # type: ignore[arg-type]
        return is_refused

    def release_locks(self, connection: sa.Connection) -> None:
        """Give them back now and then."""
        release_locks(connection)

    def expect_rows(self, connection: sa.Connection) -> None:
        """Let the server use no parallel workers."""
        stop_workers(connection)

    def reason(self, error: BaseException) -> str | None:
        """Explain index keys above 2,704 compressed bytes: the server says how many bytes, and in which index."""
        origin = driver_error(error)
        if not isinstance(origin, psycopg.errors.ProgramLimitExceeded) or "index" not in str(origin):
            return None
        return (
            f"a value is too long for an index: {origin.diag.message_primary}; a topic of that length is stored by a "
            "route without `table:`, or with another model than wide"
        )

    def is_size_fault(self, error: BaseException) -> bool:
        """Look for too many locks, a row larger than a page, too many columns, and a statement timeout."""
        origin = driver_error(error)
        return isinstance(origin, psycopg.Error) and origin.sqlstate in {"53200", "54000", "54011", "57014"}

    def run_query(self, connection: sa.Connection, statement: str, seconds: float) -> QueryResult:
        """Use the extended protocol, as a pipeline does: it takes no second statement that ends the transaction."""
        driver: psycopg.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
        driver.execute(f"SET LOCAL statement_timeout = {max(1, round(seconds * 1000))}".encode())
        with driver.pipeline() as pipeline, driver.cursor() as cursor:
            cursor.execute(statement.encode())
            pipeline.sync()
            return fetch_all(cursor)

    def weaknesses(self, connection: sa.Connection) -> Iterable[str]:
        """Check the settings that may make the server lose committed data."""
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            value = connection.exec_driver_sql(f"SHOW {setting}").scalar_one()
            if value not in {"on", "remote_apply"}:
                yield (
                    f"the PostgreSQL server runs with {setting} = {value}: it may lose committed messages "
                    f"in a crash; set {setting} = on"
                )


def _explain(context: sa.engine.ExceptionContext) -> None:
    error = _explained(context.original_exception)
    if error is not None:
        raise error from context.original_exception


def _explained(error: BaseException) -> DatabaseError | None:
    """Return an error that says what to do about a missing privilege; None for any other error."""
    if not isinstance(error, psycopg.errors.InsufficientPrivilege):
        return None
    return DatabaseError(
        f"PostgreSQL answers: {str(error).strip().partition(chr(10))[0]}. The user of the URL needs "
        "GRANT USAGE, CREATE ON SCHEMA for the schema, GRANT SELECT, INSERT, UPDATE, DELETE on the tables, "
        "and to own the tables that get new columns (ALTER TABLE … OWNER TO …)"
    )


def _foreign_column(database: sa.Engine, error: psycopg.Error, row_batches: Sequence[RowBatch]) -> DatabaseError | None:
    """Return the error for a NOT NULL column that no row batch fills; None for any other error."""
    if not isinstance(error, psycopg.errors.NotNullViolation):
        return None
    table, column = str(error.diag.table_name), str(error.diag.column_name)
    if table not in {row_batch.table for row_batch in row_batches}:
        table = _parent(database, str(error.diag.schema_name), table, row_batches)
    filled = any(column in row_batch.columns for row_batch in row_batches if row_batch.table == table)
    return None if filled else foreign_column(table, column)


def _parent(database: sa.Engine, schema: str, chunk: str, row_batches: Sequence[RowBatch]) -> str:
    """Return the table of a chunk or a partition; one created in the failed transaction no longer exists."""
    with database.connect() as connection:
        found = connection.scalar(_PARENT, {"schema": schema, "chunk": chunk})
    tables = {row_batch.table for row_batch in row_batches}
    return str(found) if found is not None else tables.pop() if len(tables) == 1 else chunk
