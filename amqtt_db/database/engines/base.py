"""The interface of an engine: what the rest of the project needs from a database."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing
from decimal import Decimal
from functools import lru_cache
from typing import Any, ClassVar, Final, TypeVar

import attrs
import sqlalchemy as sa

from amqtt_db.database.engines.hypertables import Hypertables
from amqtt_db.errors import Busy, DatabaseError
from amqtt_db.models.binding import BoundTable
from amqtt_db.record import Kind

REST_SECONDS: Final = 30.0  # after which a connection is checked before use

Item = TypeVar("Item")

ColumnEncoder = Callable[[Sequence[Any]], Sequence[Any]]
"""A column's values in the driver's form, None as None.  Raises Unfit if one would not come back exactly."""

ValueDecoder = Callable[[Any], Any]
"""One value as the driver returns it (never None) → the value that was encoded."""


class Unfit(ValueError):  # noqa: N818 - it reads as what is the case
    """A value would not come back exactly from a column of its kind."""


@attrs.frozen
class QueryResult:
    """The rows that a query returns, as the driver gives them, and the names of their columns."""

    columns: tuple[str, ...]
    rows: Sequence[Sequence[Any]]


@attrs.frozen
class RowBatch:
    """Encoded rows for columns of a table, and the columns' kinds.

    Where ``replaces`` names the columns of the table's key, each row takes the place of an older one with the same key
    (see :data:`AGE`); a row that is not newer changes nothing.  No two rows then have the same key.
    """

    table: str
    columns: tuple[str, ...]
    kinds: tuple[Kind, ...]
    rows: Sequence[Sequence[Any]]
    replaces: tuple[str, ...] = ()


AGE: Final = ("time", "id", "part")
"""The columns that say which of two rows with the same key is newer."""


def on_conflict(quote: Callable[[str], str], row_batch: RowBatch) -> str:
    """Return the clause that makes rows replace older ones on PostgreSQL and SQLite; empty if they do not."""
    if not row_batch.replaces:
        return ""
    table = quote(row_batch.table)
    key, age = ", ".join(map(quote, row_batch.replaces)), list(map(quote, AGE))
    new, old = ", ".join(f"excluded.{name}" for name in age), ", ".join(f"{table}.{name}" for name in age)
    others = [quote(name) for name in row_batch.columns if name not in row_batch.replaces]
    changes = ", ".join(f"{name} = excluded.{name}" for name in others)
    return f" ON CONFLICT ({key}) DO UPDATE SET {changes} WHERE ({new}) > ({old})"


def foreign_column(table: str, column: str) -> DatabaseError:
    """Return the error for a column that was added by hand, is NOT NULL and has no default."""
    return DatabaseError(
        f"column {column} of table {table} was added by hand, and is NOT NULL without a default: no row can be "
        "stored; give it a default or allow NULL"
    )


def driver_error(error: BaseException) -> BaseException:
    """Return the driver's own error if SQLAlchemy has wrapped it, otherwise the error itself."""
    return error.orig or error if isinstance(error, sa.exc.DBAPIError) else error


def first_line(error: BaseException) -> str:
    """Return an error's class and the first line of its text."""
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"


def batched(values: Iterable[Item], size: int = 500) -> Iterator[Sequence[Item]]:
    """Yield parts of values, each small enough for the parameters of one statement."""
    listed = list(values)
    return (listed[start : start + size] for start in range(0, len(listed), size))


def prepare_each(database: sa.Engine, prepare: Callable[[Any, Any], None]) -> None:
    """Prepare each new connection of the driver: ``prepare`` gets it, and its pool's record of it.

    One that cannot be prepared is closed, which not every release of SQLAlchemy does for its event ``connect``.
    """

    def connect(dialect: sa.Dialect, record: Any, arguments: Sequence[Any], options: Mapping[str, Any]) -> Any:
        connection = dialect.connect(*arguments, **options)
        try:
            prepare(connection, record)
        except BaseException:
            connection.close()
            raise
        return connection

    sa.event.listen(database, "do_connect", connect)


def ping_after_rest(database: sa.Engine) -> None:
    """Check an idle connection before it is used, because servers and firewalls close idle ones.

    One that does not answer is replaced.
    """

    def rest(_: Any, record: Any) -> None:
        record.info["resting since"] = time.monotonic()

    def wake(connection: Any, record: Any, _: Any) -> None:
        since = record.info.get("resting since")
        if since is not None and time.monotonic() - since > REST_SECONDS:
            try:
                database.dialect.do_ping(connection)
            except database.dialect.loaded_dbapi.Error as error:
                raise sa.exc.DisconnectionError("closed while it was idle") from error

    sa.event.listen(database, "checkin", rest)
    sa.event.listen(database, "checkout", wake)


def fetch_all(cursor: Any) -> QueryResult:
    """Return what a driver's cursor has after a query.  Raises DatabaseError if the statement returns no rows."""
    if cursor.description is None:
        raise DatabaseError("the statement returns no rows; only queries are allowed, such as SELECT")
    return QueryResult(tuple(column[0] for column in cursor.description), cursor.fetchall())


def is_collision(engine: Engine, error: BaseException) -> bool:
    """Return True for a lock conflict: retrying at once may succeed.  Look at the error's cause too."""
    cause = error.__cause__
    here = isinstance(error, Busy) or engine.is_collision(error)
    return here or (cause is not None and is_collision(engine, cause))


@lru_cache(64)
def _in_drivers_words(statement: sa.Update, dialect: sa.Dialect) -> tuple[str, tuple[str, ...] | None]:
    """Return the text of a statement, and the names of its parameters in order; None where they keep their names."""
    compiled = statement.compile(dialect=dialect)
    return str(compiled), None if compiled.positiontup is None else tuple(compiled.positiontup)


class Engine(ABC):
    """One database system: types, limits, bulk load, locks, and what its errors mean.

    Class attributes are the facts: ``name_limit`` bytes an identifier may have, ``max_columns`` property columns that
    a full row can hold by default, ``most_columns`` those that a table can have at all, ``types`` the column type of
    each kind, ``encoders`` and ``decoders`` per kind (a kind without one needs none).  ``table_options`` are the
    dialect's for tables of records, ``system_table_options`` for the system tables.  ``serial`` is the type of ids that
    the database counts itself, ``hypertables`` makes tables in chunks by time, None if the database has none.
    ``alike`` maps Python types of existing columns, as SQLAlchemy reports them, to types that they hold as well.
    ``transactional_ddl`` is true if a rollback undoes DDL, ``adds_many`` if one ALTER TABLE may add several columns.
    """

    name_limit: ClassVar[int]
    max_columns: ClassVar[int]
    most_columns: ClassVar[int]
    types: ClassVar[Mapping[Kind, sa.types.TypeEngine[Any]]]
    encoders: ClassVar[Mapping[Kind, ColumnEncoder]]
    decoders: ClassVar[Mapping[Kind, ValueDecoder]]
    table_options: ClassVar[Mapping[str, Any]] = {}
    system_table_options: ClassVar[Mapping[str, Any]] = {}
    serial: ClassVar[sa.types.TypeEngine[Any]] = sa.BigInteger()
    hypertables: ClassVar[Hypertables | None] = None
    alike: ClassVar[Mapping[type, type]] = {bool: int, Decimal: float}  # so MariaDB tells BOOLEAN and DOUBLE
    transactional_ddl: ClassVar[bool] = True
    adds_many: ClassVar[bool] = True

    def __init__(self, url: str) -> None:
        self.url = url

    @abstractmethod
    def open(self, *, write: bool) -> sa.Engine:
        """Return connections to the database; for writing, with the durability that the project promises."""

    def rehearse(self) -> sa.Engine:
        """Return connections for DDL that will be rolled back, without creating a database."""
        return self.open(write=True)

    def options_of(self, table: BoundTable) -> Mapping[str, Any]:
        """Return the dialect's options for a table of records."""
        return self.table_options

    @abstractmethod
    def lock_schema(self, connection: sa.Connection) -> None:
        """Keep other writers from running DDL until the transaction ends."""

    @abstractmethod
    def maintenance(self, database: sa.Engine) -> AbstractContextManager[bool]:
        """Keep others from moving and deleting records, over any number of transactions; yield False if another does.

        The lock ends with the process, however that ends.
        """

    @abstractmethod
    def insert(self, connection: sa.Connection, row_batches: Sequence[RowBatch]) -> None:
        """Append rows in bulk, within the connection's transaction; lock tables in the order of the batches."""

    def update(self, connection: sa.Connection, statement: sa.Update, values: Mapping[str, Any]) -> int:
        """Execute an UPDATE, in the connection's transaction; return how many rows it finds.

        ``values`` are those of its parameters, which all have names.  SQLAlchemy alone would take longer for that than
        the database.
        """
        text, names = _in_drivers_words(statement, connection.dialect)
        parameters = values if names is None else [values[name] for name in names]
        try:
            with closing(connection.connection.cursor()) as cursor:
                self._execute_often(cursor, text, parameters)
                return int(cursor.rowcount)
        except connection.dialect.loaded_dbapi.Error as error:
            raise sa.exc.DBAPIError("UPDATE", None, error, hide_parameters=True) from error

    def _execute_often(self, cursor: Any, text: str, parameters: Any) -> None:
        """Execute a statement with a driver's cursor that will be executed for every batch."""
        cursor.execute(text, parameters)

    def run_ddl(self, connection: sa.Connection, statements: Sequence[str]) -> None:
        """Execute DDL in order, in the connection's transaction."""
        for statement in statements:
            connection.exec_driver_sql(statement)

    @abstractmethod
    def holds(self, kind: Kind, value: Any) -> bool:
        """Return True if a column of ``kind`` returns ``value`` (not None) exactly."""

    def identity(self) -> object:
        """Return a value that changes when the database is replaced, or None if that is always noticed."""
        return None

    @abstractmethod
    def is_value_fault(self, error: BaseException) -> bool:
        """Return True if a value causes the error, which will recur; False if the database does."""

    def is_collision(self, error: BaseException) -> bool:
        """Return True if another transaction was in the way, and a retry may succeed at once."""
        return False

    def tolerate_values(self, connection: sa.Connection, error: BaseException) -> bool:
        """Return values that Python has no type for as text from now on; return True if that avoids an error."""
        return False

    def release_locks(self, connection: sa.Connection) -> None:  # noqa: B027 - only some databases have so few
        """Do what a reader must do after each statement so that it may read any number of tables in a transaction."""

    def expect_rows(self, connection: sa.Connection) -> None:  # noqa: B027 - only some databases plan otherwise
        """Prepare a reader's transaction for queries whose rows are all wanted, not only a sum of them."""

    def reason(self, error: BaseException) -> str | None:
        """Return the reason for a value fault to show to users, without values; None to show only the error's class."""
        return None

    def is_size_fault(self, error: BaseException) -> bool:
        """Return True if a smaller batch, or a row with fewer columns, may succeed."""
        return False

    def segment_size(self, connection: sa.Connection) -> int:
        """Return how many bytes of a dead letter's payload one statement carries."""
        return 2**24

    def run_query(self, connection: sa.Connection, statement: str, seconds: float) -> QueryResult:
        """Run one SQL statement that only reads, in the connection's transaction, for some seconds at most.

        Raises DatabaseError, or the driver's own error, for any other statement.
        """
        cursor = connection.connection.cursor()
        cursor.execute(statement)
        return fetch_all(cursor)

    @abstractmethod
    def weaknesses(self, connection: sa.Connection) -> Iterable[str]:
        """Yield sentences about settings of the server that weaken the delivery promise."""

    def encode(self, kinds: Sequence[Kind], columns: Iterable[Sequence[Any]]) -> Sequence[tuple[Any, ...]]:
        """Return columns as rows for the driver.  Raises Unfit if a value does not fit the column of its kind."""
        encoded = [
            self.encoders[kind](column) if kind in self.encoders else column
            for kind, column in zip(kinds, columns, strict=True)
        ]
        return list(zip(*encoded, strict=True))

    def bind(self, kind: Kind, value: Any) -> Any:
        """Return a value (not None) as a parameter of an SQL statement."""
        return self.encoders[kind]([value])[0] if kind in self.encoders else value

    def index_columns(self, table: BoundTable, index: Sequence[str]) -> Sequence[str]:
        """Return the columns that a table's index needs, so that rows are also found in the order of the key."""
        return index

    def index_options(self, columns: Sequence[tuple[str, Kind]]) -> Mapping[str, Any]:
        """Return dialect options for an index on columns, given by name and kind."""
        return {}

    def nameable(self, text: str) -> str:
        """Return text without characters that a name cannot contain."""
        return text

    def decode(self, kind: Kind, value: Any) -> Any:
        """Return a value in its form before :meth:`encode`."""
        if value is None or kind not in self.decoders:
            return value
        return self.decoders[kind](value)
