"""SQLite: the embedded default.

Transactions begin IMMEDIATE, so that a writer waits for its turn instead of failing halfway; ``synchronous=FULL`` makes
a commit durable before the checkpoint is believed.  REAL columns lose −0.0 and NaN (SQLite stores an integer and NULL),
text must be valid UTF-8; such values are kept tagged.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import lru_cache
from math import copysign, isnan
from pathlib import Path
from typing import Any, ClassVar, Final
from uuid import UUID

import sqlalchemy as sa

from amqtt_db import tagged
from amqtt_db.engines.base import Decoder, Encoder, Engine, Unfit
from amqtt_db.errors import DatabaseError
from amqtt_db.shape import EPOCH, EXACT, Kind, micros

_SECOND: Final = 1_000_000


def _present(column: Sequence[Any]) -> Sequence[Any]:
    return [value for value in column if value is not None] if None in column else column


def _numbers(column: Sequence[Any]) -> Sequence[Any]:
    """Doubles pass; the sum finds NaN, the extremes find integers that no double holds, 0.0 may be −0.0."""
    if not _are_plain(_present(column)) and not all(map(_is_double, _present(column))):
        raise Unfit
    return column


def _are_plain(numbers: Sequence[Any]) -> bool:
    try:
        return not isnan(sum(numbers)) and 0.0 not in numbers and min(numbers) >= -EXACT and max(numbers) <= EXACT
    except (OverflowError, ValueError):  # an integer that no double holds; an empty column
        return False


def _is_double(value: float) -> bool:
    if type(value) is int:
        return -EXACT <= value <= EXACT
    return not isnan(value) and (value != 0.0 or copysign(1.0, value) > 0)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _texts(column: Sequence[Any]) -> Sequence[Any]:
    if not _is_text("".join(_present(column))):
        raise Unfit
    return column


@lru_cache(8192)
def _second(second: int) -> str:
    return (EPOCH + timedelta(seconds=second)).strftime("%Y-%m-%d %H:%M:%S").rjust(19, "0")


def _moment(moment: int) -> str:
    return f"{_second(moment // _SECOND)}.{moment % _SECOND:06d}"


def _moments(column: Sequence[Any]) -> Sequence[Any]:
    return [None if value is None else _moment(value) for value in column]


def _read_moment(text: str) -> int:
    return micros(datetime.fromisoformat(text).replace(tzinfo=timezone.utc))


def _is_aware(value: datetime) -> bool:
    try:
        return value.astimezone(timezone.utc).year > 0 and value.tzinfo is not None
    except OverflowError:
        return False


def _datetime(value: datetime) -> str:
    if value.tzinfo is None:
        raise Unfit
    return value.astimezone(timezone.utc).replace(tzinfo=None).isoformat(" ", "microseconds")


def _time(value: time) -> str:
    if value.tzinfo is not None:
        raise Unfit
    return value.isoformat("microseconds")


def _each(encode: Callable[[Any], Any]) -> Encoder:
    def encode_column(column: Sequence[Any]) -> Sequence[Any]:
        try:
            return [None if value is None else encode(value) for value in column]
        except OverflowError as error:
            raise Unfit from error

    return encode_column


def _is_blamable(error: BaseException | None) -> bool:
    if isinstance(error, (OverflowError, UnicodeError, sqlite3.DataError, sqlite3.IntegrityError)):
        return True
    # A value of a type that the driver does not know; its class also stands for a closed connection.
    unknown_type = (sqlite3.ProgrammingError, sqlite3.InterfaceError)
    return isinstance(error, unknown_type) and "binding parameter" in str(error)


class SQLite(Engine):
    """SQLite 3.24 or newer through Python's own driver."""

    name_limit: ClassVar[int] = 63  # SQLite has no limit; PostgreSQL's makes names portable
    max_columns: ClassVar[int] = 1000
    table_options: ClassVar[Mapping[str, Any]] = {"sqlite_with_rowid": False}
    types: ClassVar[Mapping[Kind, sa.types.TypeEngine[Any]]] = {
        "bool": sa.BOOLEAN(),
        "number": sa.REAL(),
        "int64": sa.BIGINT(),
        "bigint": sa.TEXT(),
        "text": sa.TEXT(),
        "bytes": sa.BLOB(),
        "datetime": sa.DATETIME(),
        "moment": sa.DATETIME(),
        "date": sa.DATE(),
        "time": sa.TIME(),
        "decimal": sa.TEXT(),
        "uuid": sa.CHAR(36),
        "json": sa.JSON(),
        "tagged": sa.TEXT(),
    }
    encoders: ClassVar[Mapping[Kind, Encoder]] = {
        "number": _numbers,
        "bigint": _each(str),
        "text": _texts,
        "datetime": _each(_datetime),
        "moment": _moments,
        "date": _each(date.isoformat),
        "time": _each(_time),
        "decimal": _each(str),
        "uuid": _each(str),
        "json": _each(tagged.dumps),
        "tagged": _each(tagged.dumps),
    }
    decoders: ClassVar[Mapping[Kind, Decoder]] = {
        "bool": bool,
        "number": float,
        "bigint": int,
        "datetime": lambda value: datetime.fromisoformat(value).replace(tzinfo=timezone.utc),
        "moment": _read_moment,
        "date": date.fromisoformat,
        "time": time.fromisoformat,
        "decimal": Decimal,
        "uuid": UUID,
        "json": tagged.loads,
        "tagged": tagged.loads,
    }

    def open(self, *, write: bool) -> sa.Engine:
        """Connections in WAL mode; for reading only, the file must exist and is never changed."""
        if not write:
            self._require_file()
        engine = sa.create_engine(self.url, hide_parameters=True)
        sa.event.listen(engine, "connect", _prepare_writer if write else _prepare_reader)
        begin = "BEGIN IMMEDIATE" if write else "BEGIN"
        sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
        return engine

    def _require_file(self) -> None:
        path = sa.make_url(self.url).database or ""
        if not Path(path).exists():
            raise DatabaseError(f"there is no database {path} yet: it is made when the first message is stored")

    def lock_schema(self, connection: sa.Connection) -> None:
        """Nothing to do: BEGIN IMMEDIATE has the only write lock there is."""

    def insert(
        self, connection: sa.Connection, table: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
    ) -> None:
        """``executemany`` on the driver's own cursor."""
        quote = connection.dialect.identifier_preparer.quote
        names = ", ".join(map(quote, columns))
        marks = ", ".join("?" * len(columns))
        connection.exec_driver_sql(f"INSERT INTO {quote(table)} ({names}) VALUES ({marks})", list(rows))  # noqa: S608

    def holds(self, kind: Kind, value: Any) -> bool:
        """See the module's docstring for what SQLite does not hold."""
        checks: Mapping[str, Callable[[Any], bool]] = {
            "number": _is_double,
            "text": _is_text,
            "datetime": _is_aware,
            "time": lambda moment: moment.tzinfo is None,
            "int64": lambda number: -(2**63) <= number < 2**63,
        }
        return checks.get(kind, lambda _: True)(value)

    def is_value_fault(self, error: BaseException) -> bool:
        """Constraint violations, values too large, and values that the driver cannot bind."""
        return _is_blamable(error.orig if isinstance(error, sa.exc.DBAPIError) else error)

    def weaknesses(self, connection: sa.Connection) -> Iterable[str]:
        """None: the writer sets what it needs on its own connection."""
        return ()


def _prepare_writer(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None
    for pragma in ("busy_timeout = 5000", "journal_mode = WAL", "synchronous = FULL"):
        connection.execute(f"PRAGMA {pragma}")


def _prepare_reader(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None
    connection.execute("PRAGMA busy_timeout = 5000")
    connection.execute("PRAGMA query_only = ON")
