"""MariaDB 10.6 and newer, MySQL 8 and newer, through PyMySQL.

DDL commits the open transaction, so the schema lock is a named one that the connection holds.  DOUBLE has no NaN,
infinities or −0.0; DECIMAL would change its values, so decimals are text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from math import isinf
from typing import Any, ClassVar, Final
from uuid import UUID

import pymysql
import sqlalchemy as sa
from pymysql.constants import CLIENT
from sqlalchemy.dialects import mysql

from amqtt_db import tagged
from amqtt_db.database.engines import mysql_rows
from amqtt_db.database.engines.base import (
    ColumnEncoder,
    Engine,
    QueryResult,
    RowBatch,
    Unfit,
    ValueDecoder,
    driver_error,
    ping_after_rest,
    prepare_each,
)
from amqtt_db.database.engines.encoding import (
    datetime_texts,
    each,
    is_aware,
    is_plain_double,
    is_unicode,
    plain_numbers,
    present,
    time_text,
    timestamp_texts,
)
from amqtt_db.database.engines.mysql_session import prepare_reader, prepare_writer
from amqtt_db.errors import Busy, DatabaseError
from amqtt_db.record import Kind, to_micros

# A lock's name has 64 characters at most, and belongs to the whole server; MD5 is gone from MySQL 9.6.
_DATABASE: Final = "LEFT(SHA2(DATABASE(), 256), 32)"
_LOCK: Final = f"CONCAT('amqtt_db.', {_DATABASE})"
_MAINTENANCE: Final = f"CONCAT('amqtt_db.maintenance.', {_DATABASE})"
_LOCK_SECONDS: Final = 30
_LEAST_PACKET: Final = 2**20  # bytes of a packet with room for the longest topic, property name and client id
_KEY_LENGTH: Final = 191  # characters of a text in an index

_TABLE_OPTIONS: Final[Mapping[str, Any]] = {
    "mysql_engine": "InnoDB",
    "mysql_charset": "utf8mb4",
    "mysql_collate": "utf8mb4_bin",
    "mysql_row_format": "DYNAMIC",
}

_VALUE_ERRORS: Final = frozenset(
    {
        1048,  # a column cannot be NULL
        1117, 1118,  # too many columns, a row is too big
        1264, 1265, 1292, 1366, 1367, 1406, 1411, 1690,  # out of range, incorrect, too long
        1300, 1301,  # malformed text, a result beyond the packet
        1526,  # no partition for a value
        1644,  # raised by a user's trigger
        3140, 3819, 4025,  # malformed JSON; CHECK constraints of MySQL and MariaDB
    }
)  # fmt: skip
_TOO_BIG: Final = frozenset({1117, 1118, 1206, 1969})  # columns, a row, locks, a statement that took too long
_COLLISIONS: Final = frozenset({1020, 1205, 1213})
_GRANT: Final = (
    "The user of the URL needs "
    "GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, INDEX, DROP, CREATE VIEW, SHOW VIEW ON the database"
)
_LOGIN: Final = (
    "The user or the password of the URL is wrong for this host; a user for exactly this host, even an anonymous one "
    "such as ''@'localhost', takes precedence over one for any host, such as 'user'@'%'"
)
_ADVICE: Final[Mapping[int | None, str]] = {
    1044: _GRANT, 1142: _GRANT, 1143: _GRANT,  # a database, a table, a column
    1045: _LOGIN, 1698: _LOGIN,  # with a password, without one
}  # fmt: skip
"""Advice by the server's error number, for missing privileges."""


def _numbers(column: Sequence[Any]) -> Sequence[Any]:
    values = present(plain_numbers(column))
    if values and (isinf(max(values)) or isinf(min(values))):
        raise Unfit
    return column


def _is_double(value: float) -> bool:
    return is_plain_double(value) and not isinf(value)


def _texts(column: Sequence[Any]) -> Sequence[Any]:
    if not is_unicode("".join(present(column))):
        raise Unfit
    return column


def _read_timestamp(value: datetime) -> int:
    return to_micros(value.replace(tzinfo=timezone.utc))


def _read_time(value: timedelta) -> time:
    return (datetime.min + value).time()


_HOLDS: Final[Mapping[Kind, Callable[[Any], bool]]] = {
    "number": _is_double,
    "text": is_unicode,
    "datetime": is_aware,
    "time": lambda moment: moment.tzinfo is None,
    "int64": lambda number: -(2**63) <= number < 2**63,
}

_LONG_TEXT: Final = mysql.LONGTEXT(charset="utf8mb4", collation="utf8mb4_bin")


class MySQL(Engine):
    """MariaDB and MySQL; ``mysql://`` and ``mariadb://`` both mean PyMySQL."""

    name_limit: ClassVar[int] = 64
    max_columns: ClassVar[int] = 180
    most_columns: ClassVar[int] = 1000  # InnoDB's own limit is 1,017
    transactional_ddl: ClassVar[bool] = False
    table_options: ClassVar[Mapping[str, Any]] = _TABLE_OPTIONS
    system_table_options: ClassVar[Mapping[str, Any]] = _TABLE_OPTIONS
    types: ClassVar[Mapping[Kind, sa.types.TypeEngine[Any]]] = {
        "bool": sa.BOOLEAN(),
        "number": mysql.DOUBLE(),
        "int64": sa.BIGINT(),
        "bigint": _LONG_TEXT,
        "text": _LONG_TEXT,
        "bytes": mysql.LONGBLOB(),
        "datetime": mysql.DATETIME(fsp=6),
        "timestamp": mysql.DATETIME(fsp=6),
        "date": sa.DATE(),
        "time": mysql.TIME(fsp=6),
        "decimal": _LONG_TEXT,
        "uuid": sa.CHAR(36),
        "json": _LONG_TEXT,
        "tagged": _LONG_TEXT,
    }
    encoders: ClassVar[Mapping[Kind, ColumnEncoder]] = {
        "number": _numbers,
        "bigint": each(str),
        "text": _texts,
        "datetime": datetime_texts,
        "timestamp": timestamp_texts,
        "date": each(date.isoformat),
        "time": each(time_text),
        "decimal": each(str),
        "uuid": each(str),
        "json": tagged.dumps_all,
        "tagged": tagged.dumps_all,
    }
    decoders: ClassVar[Mapping[Kind, ValueDecoder]] = {
        "bool": bool,
        "bigint": int,
        "datetime": lambda value: value.replace(tzinfo=timezone.utc),
        "timestamp": _read_timestamp,
        "time": _read_time,
        "decimal": Decimal,
        "uuid": UUID,
        "json": tagged.loads,
        "tagged": tagged.loads,
    }

    def open(self, *, write: bool) -> sa.Engine:
        """Use UTC, strict mode and READ COMMITTED; for reading, read-only transactions."""
        url = sa.make_url(self.url).set(drivername="mysql+pymysql")
        connect = {name: value for name, value in (("connect_timeout", 10),) if name not in url.query}
        flags = int(str(url.query.get("client_flag", 0))) | (CLIENT.MULTI_STATEMENTS if write else 0)
        settings = {"charset": "utf8mb4", "client_flag": str(flags)}  # SQLAlchemy adds to a flag of the URL
        engine = sa.create_engine(url.update_query_dict(settings), hide_parameters=True, connect_args=connect)
        prepare_each(engine, prepare_writer if write else prepare_reader)
        ping_after_rest(engine)
        sa.event.listen(engine, "checkin", _unlock)
        sa.event.listen(engine, "handle_error", _explain)
        return engine

    def lock_schema(self, connection: sa.Connection) -> None:
        """Take a named lock until the connection returns to its pool.  Raises Busy if that takes too long."""
        lock_schema(connection, _LOCK_SECONDS)

    @contextmanager
    def maintenance(self, database: sa.Engine) -> Iterator[bool]:
        """Take a named lock in a separate session."""
        with database.connect() as connection:
            is_mine = connection.exec_driver_sql(f"SELECT GET_LOCK({_MAINTENANCE}, 0)").scalar_one() == 1
            connection.commit()
            try:
                yield is_mine
            finally:
                with suppress(sa.exc.DBAPIError):  # a lost session has lost the lock anyway
                    connection.exec_driver_sql(f"DO RELEASE_LOCK({_MAINTENANCE})")

    def insert(self, connection: sa.Connection, row_batches: Sequence[RowBatch]) -> None:
        """INSERT rows in as few statements and packets as the server allows."""
        driver: pymysql.Connection[Any] = connection.connection.driver_connection  # type: ignore[assignment]
        try:
            mysql_rows.insert(driver, row_batches, _packet_size(connection))
        except pymysql.err.MySQLError as error:
            raise _explained(error) or sa.exc.DBAPIError("INSERT", None, error, hide_parameters=True) from error

    def index_options(self, columns: Sequence[tuple[str, Kind]]) -> Mapping[str, Any]:
        """Give indexes on text the length that they need."""
        lengths = {name: _KEY_LENGTH for name, kind in columns if self.types[kind] is _LONG_TEXT}
        return {"mysql_length": lengths} if lengths else {}

    def nameable(self, text: str) -> str:
        """Replace characters beyond U+FFFF."""
        return "".join(character if character <= "\uffff" else "_" for character in text)

    def holds(self, kind: Kind, value: Any) -> bool:
        """Check the kinds that the module's docstring names."""
        return kind not in _HOLDS or _HOLDS[kind](value)

    def is_value_fault(self, error: BaseException) -> bool:
        """Blame values that are out of range or malformed, constraints, and a user's trigger."""
        origin = driver_error(error)
        if isinstance(origin, (pymysql.err.DataError, pymysql.err.IntegrityError, UnicodeError, OverflowError)):
            return True
        return _number(origin) in _VALUE_ERRORS

    def is_collision(self, error: BaseException) -> bool:
        """Look for deadlocks, lock timeouts, and rows that have changed since they were read."""
        return _number(driver_error(error)) in _COLLISIONS

    def is_size_fault(self, error: BaseException) -> bool:
        """Look for too many locks, a row larger than a page, too many columns, and a statement timeout."""
        return _number(driver_error(error)) in _TOO_BIG

    def segment_size(self, connection: sa.Connection) -> int:
        """Return a quarter of a packet: escapes may double it, and the letter's other fields need room."""
        return min(super().segment_size(connection), _packet_size(connection) // 4)

    def run_query(self, connection: sa.Connection, statement: str, seconds: float) -> QueryResult:
        """Limit the time: in seconds on MariaDB, in milliseconds on MySQL.  The driver sends only one statement."""
        if connection.dialect.is_mariadb:  # type: ignore[attr-defined]
            connection.exec_driver_sql(f"SET SESSION max_statement_time = {seconds:f}")
        else:
            connection.exec_driver_sql(f"SET SESSION max_execution_time = {max(1, round(seconds * 1000))}")
        return super().run_query(connection, statement, seconds)

    def weaknesses(self, connection: sa.Connection) -> Iterable[str]:
        """Check the settings that may make the server lose committed data, or accept too little."""
        for name, strong in (("innodb_flush_log_at_trx_commit", {1, 3}), ("innodb_doublewrite", {1, "ON"})):
            value = connection.exec_driver_sql(f"SELECT @@GLOBAL.{name}").scalar_one()
            if value not in strong:
                yield (
                    f"the server runs with {name} = {value}: it may lose committed messages in a crash; set {name} = 1"
                )
        if _packet_size(connection) < _LEAST_PACKET:
            yield (
                f"the server runs with max_allowed_packet = {_packet_size(connection)}: the longest topics and names "
                f"do not fit into it; set max_allowed_packet = {_LEAST_PACKET} or more"
            )


def lock_schema(connection: sa.Connection, seconds: int) -> None:
    """Take the schema lock, once, for it counts how often it is taken.  Raises Busy if that takes too many seconds."""
    if connection.info.get("amqtt_db_locked"):
        return
    if connection.exec_driver_sql(f"SELECT GET_LOCK({_LOCK}, {seconds})").scalar_one() != 1:
        raise Busy(f"another writer has been changing the schema for {seconds} seconds; this one keeps waiting")
    connection.info["amqtt_db_locked"] = True


def _packet_size(connection: sa.Connection) -> int:
    return int(connection.info["amqtt_db_packet"])


def _unlock(connection: pymysql.Connection[Any] | None, record: Any) -> None:
    """Release the schema lock; a lost connection has lost it anyway."""
    if record.info.pop("amqtt_db_locked", False) and connection is not None:
        with suppress(pymysql.err.Error), connection.cursor() as cursor:
            cursor.execute(f"DO RELEASE_LOCK({_LOCK})")


def _number(error: BaseException) -> int | None:
    return error.args[0] if isinstance(error, pymysql.err.MySQLError) and error.args else None


def _explain(context: sa.engine.ExceptionContext) -> None:
    error = _explained(context.original_exception)
    if error is not None:
        raise error from context.original_exception


def _explained(error: BaseException) -> DatabaseError | None:
    """Return an error that says what to do about a missing privilege; None for any other error."""
    advice = _ADVICE.get(_number(error))
    return None if advice is None else DatabaseError(f"the server answers: {error.args[-1]}. {advice}")
