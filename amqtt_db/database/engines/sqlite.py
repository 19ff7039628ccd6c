"""SQLite: the embedded default.

Transactions begin IMMEDIATE, so that a writer waits for its turn instead of failing halfway; ``synchronous=FULL`` makes
a commit durable before the checkpoint is relied on.  REAL columns lose −0.0 and NaN (SQLite stores an integer and
NULL), and text must be valid UTF-8; such values are stored tagged.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timezone
from decimal import Decimal
from functools import cached_property, lru_cache, partial
from pathlib import Path
from time import monotonic, sleep
from typing import Any, ClassVar, Final
from uuid import UUID

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from amqtt_db import tagged
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
    on_conflict,
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
    utc,
)
from amqtt_db.errors import DatabaseError, NoDatabaseYet
from amqtt_db.journal.file import must_read_as_is
from amqtt_db.journal.file_lock import try_lock
from amqtt_db.models.binding import KEY, BoundTable
from amqtt_db.record import EPOCH, MICROSECOND, Kind, to_micros

_BUSY_TIMEOUT: Final = 5.0  # seconds to wait for other writers
_RETRY_PAUSE: Final = 0.01
CACHE: Final = 2000  # KiB of pages in memory, SQLite's default
DDL_CACHE: Final = 65_536  # the same for DDL: SQLite reads the list of all tables again after each statement
_STEPS_PER_LOOK: Final = 100_000  # of SQLite's machine
_READING: Final = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_READING_PRAGMAS: Final = frozenset({"index_info", "index_list", "table_info", "table_list", "table_xinfo"})
_QUOTE: Final = sqlite.dialect().identifier_preparer.quote
_NAIVE_EPOCH: Final = EPOCH.replace(tzinfo=None)


def _texts(column: Sequence[Any]) -> Sequence[Any]:
    if not is_unicode("".join(present(column))):
        raise Unfit
    return column


def _read_datetime(text: str, read: Callable[[str], datetime] = datetime.fromisoformat) -> datetime:
    try:
        moment = read(text + "+00:00")
    except ValueError:
        return _edited(text)
    return moment if moment.tzinfo else _edited(text)  # after a bare date, + would separate a time


def _read_timestamp(text: str, read: Callable[[str], datetime] = datetime.fromisoformat) -> int:
    try:
        return (read(text) - _NAIVE_EPOCH) // MICROSECOND
    except (TypeError, ValueError):
        return to_micros(_edited(text))


def _edited(text: str) -> datetime:
    """Parse a timestamp that was edited by hand; no zone means UTC."""
    moment = datetime.fromisoformat(text.replace("Z", "+00:00"))  # Python 3.10 does not accept Z
    return moment.replace(tzinfo=timezone.utc) if moment.tzinfo is None else utc(moment)


@lru_cache(40_960)  # no fewer than tables that one batch may fill
def _insertion(table: str, columns: tuple[str, ...]) -> str:
    names, marks = ", ".join(map(_QUOTE, columns)), ", ".join("?" * len(columns))
    return f"INSERT INTO {_QUOTE(table)} ({names}) VALUES ({marks})"  # noqa: S608


def _is_blamable(error: BaseException | None) -> bool:
    if isinstance(error, (OverflowError, UnicodeError, sqlite3.DataError, sqlite3.IntegrityError)):
        return True
    if _is_too_much(error):
        return True
    # A value of a type that the driver does not know; its class also stands for a closed connection.
    unknown_type = (sqlite3.ProgrammingError, sqlite3.InterfaceError)
    return isinstance(error, unknown_type) and "binding parameter" in str(error)


def _is_too_much(error: BaseException | None) -> bool:
    """Return True if there are too many columns for this SQLite; a locked database raises the same class."""
    words = ("too many SQL variables", "too many columns")
    return isinstance(error, sqlite3.OperationalError) and any(word in str(error) for word in words)


def _has_row_ids(table: BoundTable) -> bool:
    """Return True for a table with documents."""
    documents = [column for column in table.columns if column.kind == "json" and column.name != table.overflow]
    return bool(documents) and table.primary_key == KEY


class SQLite(Engine):
    """SQLite 3.24 or newer through Python's own driver."""

    name_limit: ClassVar[int] = 63  # SQLite has no limit; PostgreSQL's makes names portable
    max_columns: ClassVar[int] = 1000
    most_columns: ClassVar[int] = 1900  # SQLite's own limit is 2,000, for all columns
    serial: ClassVar[sa.types.TypeEngine[Any]] = sa.Integer()  # SQLite counts no other type
    adds_many: ClassVar[bool] = False
    alike: ClassVar[Mapping[type, type]] = {**Engine.alike, datetime: str, date: str, time: str}  # times are texts
    table_options: ClassVar[Mapping[str, Any]] = {"sqlite_with_rowid": False}
    types: ClassVar[Mapping[Kind, sa.types.TypeEngine[Any]]] = {
        "bool": sa.BOOLEAN(),
        "number": sa.REAL(),
        "int64": sa.BIGINT(),
        "bigint": sa.TEXT(),
        "text": sa.TEXT(),
        "bytes": sa.BLOB(),
        "datetime": sa.DATETIME(),
        "timestamp": sa.DATETIME(),
        "date": sa.DATE(),
        "time": sa.TIME(),
        "decimal": sa.TEXT(),
        "uuid": sa.CHAR(36),
        "json": sa.TEXT(),  # a type named JSON would turn the text of a number into a number
        "tagged": sa.TEXT(),
    }
    encoders: ClassVar[Mapping[Kind, ColumnEncoder]] = {
        "number": plain_numbers,
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
        "number": float,
        "bigint": int,
        "datetime": _read_datetime,
        "timestamp": _read_timestamp,
        "date": date.fromisoformat,
        "time": time.fromisoformat,
        "decimal": Decimal,
        "uuid": UUID,
        "json": tagged.loads,
        "tagged": tagged.loads,
    }

    def options_of(self, table: BoundTable) -> Mapping[str, Any]:
        """Omit row ids, unless a row holds a document: large rows in the key's tree take twice the space."""
        return {} if _has_row_ids(table) else self.table_options

    def index_columns(self, table: BoundTable, index: Sequence[str]) -> Sequence[str]:
        """Return the columns of an index; if rows have ids, those of the key must be added."""
        return (*index, *(name for name in KEY if name not in index)) if _has_row_ids(table) else index

    def open(self, *, write: bool) -> sa.Engine:
        """Use WAL mode; for reading, the file must exist and is never changed."""
        if write:
            self._make_file()
            url = sa.make_url(self.url)
        else:
            url = self._require_file()
        engine = sa.create_engine(url, hide_parameters=True)
        prepare_each(engine, _prepare_writer if write else _prepare_reader)
        sa.event.listen(engine, "begin", partial(_begin, "BEGIN IMMEDIATE" if write else "BEGIN"))
        if "immutable" in url.query:
            version = self._version()
            sa.event.listen(engine, "commit", lambda _: self._require_version(version))
        return engine

    def _version(self) -> tuple[int, int]:
        """Return the file's time and size, which change whenever it does.  Raises NoDatabaseYet if it has gone."""
        try:
            status = os.stat(self._path or "")
        except FileNotFoundError:
            raise self._no_file() from None
        return status.st_mtime_ns, status.st_size

    def _require_version(self, version: tuple[int, int]) -> None:
        """Raise DatabaseError if a file has changed while it was read without locks."""
        if self._version() != version:
            raise DatabaseError(
                f"the database {self._path} was written to while it was being read, and this user may not lock it;"
                " try again"
            )

    def rehearse(self) -> sa.Engine:
        """If the file is missing, do not create it; rehearse in memory."""
        path = self._path
        return self.open(write=True) if path is None or path.exists() else type(self)("sqlite://").open(write=True)

    @cached_property
    def _path(self) -> Path | None:
        """The database's file, or None if it is in memory."""
        name = sa.make_url(self.url).database
        return Path(name).absolute() if name else None

    def _make_file(self) -> None:
        """Create the file with mode 0600; SQLite gives its other files the same mode."""
        path = self._path
        if path is None:
            return
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        except FileExistsError:
            return
        except OSError as error:
            raise DatabaseError(
                f"cannot create the database {path}: {error.strerror}; create its directory or change its permissions"
            ) from error

    def _no_file(self) -> NoDatabaseYet:
        return NoDatabaseYet(f"database {self._path} does not exist yet; storing the first message creates it")

    def _require_file(self) -> sa.URL:
        """Return a URL that never creates the file.  Raises DatabaseError if it is missing or cannot be read."""
        path = self._path
        if path is None or not path.exists():
            raise self._no_file()
        if not os.access(path, os.R_OK):
            raise DatabaseError(f"database {path}: it cannot be read; change its permissions, or be its owner")
        url = sa.make_url(self.url).set(database=path.as_uri())
        as_is = {"mode": "ro", "immutable": "1"} if must_read_as_is(path) else {"mode": "rw"}
        return url.update_query_dict({"uri": "true", **as_is})

    def lock_schema(self, connection: sa.Connection) -> None:
        """Do nothing: BEGIN IMMEDIATE holds the only write lock."""

    @contextmanager
    def maintenance(self, database: sa.Engine) -> Iterator[bool]:
        """Lock a file next to the database; SQLite's own locks end with a transaction."""
        file = try_lock(f"{database.url.database}.maintenance")
        try:
            yield file is not None
        finally:
            if file is not None:
                os.close(file)

    def insert(self, connection: sa.Connection, row_batches: Sequence[RowBatch]) -> None:
        """Call the driver's ``executemany``: for a single row, SQLAlchemy takes as long as SQLite itself."""
        execute = connection.connection.driver_connection.executemany  # type: ignore[union-attr]
        for row_batch in row_batches:
            try:
                statement = _insertion(row_batch.table, row_batch.columns)
                execute(statement + on_conflict(_QUOTE, row_batch), row_batch.rows)
            except sqlite3.Error as error:
                what, _, column = str(error).rpartition(".")
                if what == f"NOT NULL constraint failed: {row_batch.table}" and column not in row_batch.columns:
                    raise foreign_column(row_batch.table, column) from error
                raise sa.exc.DBAPIError("INSERT", None, error, hide_parameters=True) from error

    def run_ddl(self, connection: sa.Connection, statements: Sequence[str]) -> None:
        """Keep the list of tables in memory."""
        connection.exec_driver_sql(f"PRAGMA cache_size = -{DDL_CACHE}")
        super().run_ddl(connection, statements)
        connection.exec_driver_sql(f"PRAGMA cache_size = -{CACHE}")  # after an error, with the next DDL

    def holds(self, kind: Kind, value: Any) -> bool:
        """Check the kinds that the module's docstring names."""
        checks: Mapping[str, Callable[[Any], bool]] = {
            "number": is_plain_double,
            "text": is_unicode,
            "datetime": is_aware,
            "time": lambda moment: moment.tzinfo is None,
            "int64": lambda number: -(2**63) <= number < 2**63,
        }
        return checks.get(kind, lambda _: True)(value)

    def is_value_fault(self, error: BaseException) -> bool:
        """Blame constraint violations, values that are too large, and values that the driver cannot bind."""
        return _is_blamable(driver_error(error))

    def is_collision(self, error: BaseException) -> bool:
        """Look for SQLITE_BUSY: another process has been writing for longer than the busy timeout."""
        origin = driver_error(error)
        return isinstance(origin, sqlite3.OperationalError) and "database is locked" in str(origin)

    def is_size_fault(self, error: BaseException) -> bool:
        """Look for more columns than this SQLite allows in a statement or a table."""
        return _is_too_much(driver_error(error))

    def identity(self) -> object:
        """Identify the file: an open one may be deleted, and still accepts rows that nobody will find."""
        try:
            status = os.stat(self._path or "")
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def run_query(self, connection: sa.Connection, statement: str, seconds: float) -> QueryResult:
        """Allow only what reads, and look at the clock now and then."""
        driver: sqlite3.Connection = connection.connection.driver_connection  # type: ignore[assignment]
        deadline = monotonic() + seconds
        driver.set_authorizer(_allow_reading)
        driver.set_progress_handler(lambda: monotonic() > deadline, _STEPS_PER_LOOK)
        try:
            return fetch_all(driver.execute(statement))
        except sqlite3.Warning as warning:  # so Python 3.10 calls the error of a second statement
            raise sqlite3.ProgrammingError(*warning.args) from warning
        except sqlite3.DatabaseError as error:
            raise _query_refused(error, seconds) or error from error
        finally:
            driver.set_authorizer(_allow_everything)  # Python 3.10 does not take None
            driver.set_progress_handler(None, 0)

    def weaknesses(self, connection: sa.Connection) -> Iterable[str]:
        """Yield nothing: the writer sets what it needs on its own connection."""
        return ()


def _allow_reading(action: int, first: str | None, *_: object) -> int:
    """Say whether a statement may do something: https://www.sqlite.org/c3ref/c_alter_table.html."""
    is_allowed = action in _READING or (action == sqlite3.SQLITE_PRAGMA and first in _READING_PRAGMAS)
    return sqlite3.SQLITE_OK if is_allowed else sqlite3.SQLITE_DENY


def _allow_everything(*_: object) -> int:
    return sqlite3.SQLITE_OK


def _query_refused(error: sqlite3.DatabaseError, seconds: float) -> DatabaseError | None:
    """Return an error that says why a query was stopped; None for any other error."""
    if "not authorized" in str(error):
        return DatabaseError("the statement does more than read; only queries are allowed, such as SELECT")
    return DatabaseError(f"the query was stopped after {seconds:g} s") if str(error) == "interrupted" else None


def _begin(statement: str, connection: sa.Connection) -> None:
    """Begin a transaction by the driver's own call: SQLAlchemy takes several times as long."""
    try:
        connection.connection.driver_connection.execute(statement)  # type: ignore[union-attr]
    except sqlite3.Error as error:
        raise sa.exc.DBAPIError(statement, None, error, hide_parameters=True) from error


def _prepare_writer(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT * 1000:.0f}")
    _switch_to_wal(connection, monotonic() + _BUSY_TIMEOUT)
    connection.execute("PRAGMA synchronous = FULL")


def _switch_to_wal(connection: sqlite3.Connection, deadline: float) -> None:
    """Retry, because the busy timeout does not apply here: if several open a new file, all but one fail at once."""
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            if "database is locked" not in str(error) or monotonic() > deadline:
                raise
            sleep(_RETRY_PAUSE)
        else:
            return


def _prepare_reader(connection: sqlite3.Connection, _: object) -> None:
    connection.isolation_level = None
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_TIMEOUT * 1000:.0f}")
    connection.execute("PRAGMA query_only = ON")
