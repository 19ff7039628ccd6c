"""Known tables and columns, and the DDL for missing ones.

DDL is additive: it creates tables and adds columns, and never drops or changes anything.  It runs in its own
transaction, before the data's, with the schema locked and the catalogue read again: another writer may have been
faster.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby
from operator import attrgetter

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog, PhysicalTable
from amqtt_db.database.engines.base import Engine
from amqtt_db.database.engines.hypertables import Hypertables
from amqtt_db.database.hypertable_layout import hypertable_layout
from amqtt_db.database.indexes import make_indexes
from amqtt_db.database.lookup import is_registered, lookup_table
from amqtt_db.database.naming import column_name, fold, table_name, unique
from amqtt_db.database.table_ddl import TableDDL, compile_ddl
from amqtt_db.errors import DatabaseError
from amqtt_db.models.base import Cell
from amqtt_db.models.binding import BoundTable, lookup_key, table_key
from amqtt_db.record import Pair, Shape
from amqtt_db.routing.route import Hypertable


@attrs.frozen
class Wanted:
    """A table that records will need: for which route, and with how many property columns at most.

    ``hypertable`` says how the table is split into chunks, or is None.  ``indexes`` are those that the route asks for:
    names of fixed columns, and paths of properties.
    """

    table: BoundTable
    route: str
    max_columns: int
    hypertable: Hypertable | None = None
    indexes: tuple[tuple[str, ...], ...] = ()


class Schema:
    """The tables that this process knows, by key; :meth:`ensure` creates what is missing.

    ``reserved`` are names that routes request with ``table:``; no topic gets them.
    """

    def __init__(self, engine: Engine, catalog: Catalog, reserved: Iterable[str] = ()) -> None:
        self._engine = engine
        self._reserved = {fold(name) for name in reserved}
        self._catalog = catalog
        self._ddl = TableDDL(engine)
        self._tables: dict[str, PhysicalTable] = {}
        self._room: dict[str, int] = {}
        self._in_step: set[str] = set()
        self._lacking: set[str] = set()

    def load(self, connection: sa.Connection) -> None:
        """Read all tables from the catalogue."""
        self._tables = self._catalog.physical_tables(connection)

    def mark_incomplete(self, keys: Iterable[str]) -> None:
        """Mark tables as incomplete, so that missing fixed columns are added."""
        self._lacking |= set(keys)

    def get(self, key: str) -> PhysicalTable | None:
        """Return the table registered under ``key``, or None."""
        return self._tables.get(key)

    def is_ready(self, wanted: Wanted) -> bool:
        """Return True if the table has every column that it may have, and the route's hypertable settings."""
        key = wanted.table.key
        known = None if key in self._lacking else self._tables.get(key)
        is_in_step = key in self._in_step or not (wanted.hypertable or wanted.indexes)
        return known is not None and is_in_step and not _missing_pairs(known, self._limited(wanted))

    def require_hypertables(self, connection: sa.Connection, wish: Hypertable) -> Hypertables:
        """Return the engine's hypertables.  Raises DatabaseError if the database cannot have any."""
        made = self._engine.hypertables
        reason = "the database has no hypertables; leave it out" if made is None else made.missing(connection)
        if made is None or reason is not None:
            raise DatabaseError(f"{wish.path}: {reason}")
        return made

    def ensure(self, connection: sa.Connection, wanted: Iterable[Wanted]) -> list[str]:
        """Create what is missing, in the connection's transaction; return the DDL.

        Call :meth:`learn` once the transaction has been committed.
        """
        self._engine.lock_schema(connection)
        by_key = {key: list(group) for key, group in groupby(sorted(wanted, key=_key), key=_key)}
        known = self._catalog.physical_tables(connection, by_key)
        inspector = sa.inspect(connection)
        present = {*inspector.get_table_names(), *inspector.get_view_names()}
        taken = self._reserved | set(map(fold, present)) | self._catalog.table_folds(connection)
        wishes = [self._limited(_merge_wishes(group)) for group in by_key.values()]
        taken |= {fold(column.lookup.name) for wish in wishes for column in wish.table.columns if column.lookup}
        # without transactions, a death must leave at most one name without a table
        steps = [wishes] if self._engine.transactional_ddl else [[wish] for wish in wishes]
        return [ddl for step in steps for ddl in self._make_together(connection, step, known, taken, present)]

    def _make_together(
        self,
        connection: sa.Connection,
        wishes: Sequence[Wanted],
        known: Mapping[str, PhysicalTable],
        taken: set[str],
        present: set[str],
    ) -> list[str]:
        """Register what is missing in as few statements as possible, then create it; return the DDL."""
        inspector, missing = sa.inspect(connection), [wish for wish in wishes if wish.table.key not in known]
        found = {**known, **self._register_missing(connection, missing, taken)}
        tables = [found[wish.table.key] for wish in wishes]
        actual = {table.name: _column_folds(inspector, table.name) for table in tables if table.name in present}
        new = {
            table.name: _new_columns(table, wish, actual.get(table.name, set()), self._engine)
            for wish, table in zip(wishes, tables, strict=True)
        }
        self._catalog.add_columns(connection, new)
        grown = [attrs.evolve(table, columns={**table.columns, **new[table.name]}) for table in tables]
        ddl: list[str] = []
        for wish, table in zip(wishes, grown, strict=True):
            ddl += self._lookup_statements(connection, wish.table, present)
            ddl += self._statements(connection, table, wish.table, actual.get(table.name))
        self._engine.run_ddl(connection, ddl)
        for wish, table in zip(wishes, grown, strict=True):
            ddl += self._complete(connection, wish, table)
        return ddl

    def _complete(self, connection: sa.Connection, wish: Wanted, table: PhysicalTable) -> list[str]:
        """Create what the route of an existing table asks for; return the DDL."""
        ddl: list[str] = []
        if wish.indexes:
            ddl += make_indexes(self._engine, connection, wish.table, table, wish.indexes)
        if wish.hypertable is not None:
            ddl += self._make_hypertable(connection, table, wish.table, wish.hypertable)
        return ddl

    def reduce_columns(self, connection: sa.Connection, wanted: Wanted) -> bool:
        """Request fewer columns for a table from now on; return False if it cannot have fewer.

        Unregister columns that the database has rejected.
        """
        self._engine.lock_schema(connection)
        known = self._catalog.physical_tables(connection, [wanted.table.key]).get(wanted.table.key)
        inspector = sa.inspect(connection)
        is_there = known is not None and inspector.has_table(known.name)
        actual = _column_folds(inspector, known.name) if known is not None and is_there else set()
        columns = [] if known is None else list(known.columns.values())
        lost = [column for column in columns if fold(column) not in actual]
        if known is not None:
            self._catalog.forget_columns(connection, known.name, lost)
        before, kept = self._limited(wanted).max_columns, len(columns) - len(lost)
        self._room[wanted.table.key] = max(kept, before // 2)
        return self._room[wanted.table.key] < before

    def _limited(self, wanted: Wanted) -> Wanted:
        room = self._room.get(wanted.table.key, wanted.max_columns)
        return attrs.evolve(wanted, max_columns=room) if room < wanted.max_columns else wanted

    def learn(self, connection: sa.Connection, keys: Iterable[str]) -> None:
        """Read up-to-date tables from the catalogue."""
        tables = self._catalog.physical_tables(connection, list(keys))
        self._tables.update(tables)
        self._in_step.update(tables)
        self._lacking -= tables.keys()

    def _register_missing(
        self, connection: sa.Connection, wishes: Iterable[Wanted], taken: set[str]
    ) -> dict[str, PhysicalTable]:
        """Register tables: those with exact names first, one by one, then the others in one statement."""
        found: dict[str, PhysicalTable] = {}
        gathered: list[tuple[PhysicalTable, str]] = []
        for wish in sorted(wishes, key=lambda wish: not wish.table.exact):
            table = found[wish.table.key] = self._name_table(connection, wish, taken)
            if wish.table.exact:
                self._catalog.add_tables(connection, [(table, wish.route)])
            else:
                gathered.append((table, wish.route))
        self._catalog.add_tables(connection, gathered)
        return found

    def _name_table(self, connection: sa.Connection, wanted: Wanted, taken: set[str]) -> PhysicalTable:
        name, limit = wanted.table.name, self._engine.name_limit
        if not wanted.table.exact:
            name = table_name(self._engine.nameable(name), is_taken=lambda wish: fold(wish) in taken, limit=limit)
        elif len(name.encode()) > limit:
            raise DatabaseError(
                f"table {name}, which route {wanted.route} names: the database allows names of at most {limit} bytes; "
                "choose a shorter one"
            )
        elif fold(name) in self._catalog.table_folds(connection):
            if not self._is_from_before(connection, wanted.table):
                raise DatabaseError(
                    f"table {name}, which route {wanted.route} names, already holds the records of another topic or "
                    "route; choose another name"
                )
            name = unique(name, wanted.table.key, lambda wish: fold(wish) in taken | {fold(name)}, limit)
        taken.add(fold(name))
        return PhysicalTable(wanted.table.key, name, {})

    def _is_from_before(self, connection: sa.Connection, wish: BoundTable) -> bool:
        """Return True if the name belongs to the same model's table with, or without, the time in its keys."""
        keys = [table_key(wish.name, timed=timed) for timed in (False, True)]
        there = self._catalog.physical_tables(connection, keys).values()
        return wish.key in keys and any(table.name == wish.name for table in there)

    def _make_hypertable(
        self, connection: sa.Connection, known: PhysicalTable, table: BoundTable, wish: Hypertable
    ) -> list[str]:
        hypertables = self.require_hypertables(connection, wish)
        return hypertables.make(connection, known.name, hypertable_layout(table, known, wish))

    def _lookup_statements(self, connection: sa.Connection, table: BoundTable, present: set[str]) -> list[str]:
        """Register the lookup tables that a table's columns need; return what creates those that are not there."""
        lookups = sorted({column.lookup for column in table.columns if column.lookup}, key=attrgetter("name"))
        for lookup in lookups:
            if not is_registered(self._catalog, connection, lookup):
                self._catalog.add_tables(connection, [(PhysicalTable(lookup_key(lookup), lookup.name, {}), "")])
        targets = [
            lookup_table(self._engine, lookup, sa.MetaData()) for lookup in lookups if lookup.name not in present
        ]
        present.update(target.name for target in targets)
        return [compile_ddl(connection.dialect, sa.schema.CreateTable(target)) for target in targets]

    def _statements(
        self, connection: sa.Connection, known: PhysicalTable, table: BoundTable, present: set[str] | None
    ) -> list[str]:
        """Return what creates the table, or adds the columns that it lacks, if it has those ``present``, folded."""
        if present is None:
            return self._ddl.create(connection.dialect, known, table)
        _require_envelope(known.name, table, present)
        target = self._ddl.describe(known, table)
        missing = [column for column in target.columns if fold(column.name) not in present]
        statements: list[sa.schema.ExecutableDDLElement] = []
        statements += _add_columns(connection.dialect, target, missing, together=self._engine.adds_many)
        if not self._engine.transactional_ddl:
            statements += _missing_indexes(connection, target)
        return [compile_ddl(connection.dialect, statement) for statement in statements]


def _column_folds(inspector: sa.Inspector, table: str) -> set[str]:
    return {fold(column["name"]) for column in inspector.get_columns(table)}


def _key(wanted: Wanted) -> str:
    return wanted.table.key


def _merge_wishes(group: list[Wanted]) -> Wanted:
    """Return several wishes for one table as one."""
    pairs = dict.fromkeys(pair for wanted in group for pair in wanted.table.properties)
    indexes = dict.fromkeys(index for wanted in group for index in wanted.indexes)
    table = attrs.evolve(group[0].table, properties=tuple(pairs))
    return attrs.evolve(group[0], table=table, indexes=tuple(indexes))


def _missing_pairs(known: PhysicalTable, wanted: Wanted) -> list[Pair]:
    """Return the pairs that get a new column; there may not be room for all."""
    missing = [pair for pair in wanted.table.properties if pair not in known.columns]
    if wanted.table.overflow is None:
        return missing
    return missing[: max(0, wanted.max_columns - len(known.columns))]


def _new_columns(known: PhysicalTable, wanted: Wanted, actual: set[str], engine: Engine) -> dict[Pair, str]:
    """Return names for the pairs that get a column now; the first kind of a property gets its plain name.

    ``actual`` are the folded names of all columns that the table has, including those added by hand.
    """
    fixed = {fold(column.name) for column in wanted.table.columns}
    taken = fixed | {fold(name) for name in known.columns.values()} | actual
    with_plain = {path for path, kind in known.columns if kind != "tagged"}
    new: dict[Pair, str] = {}
    for path, kind in _missing_pairs(known, wanted):
        plain = kind != "tagged" and path not in with_plain
        wish = engine.nameable(path)
        new[path, kind] = column_name(wish, kind, plain=plain, taken=taken, limit=engine.name_limit)
        taken.add(fold(new[path, kind]))
        if plain:
            with_plain.add(path)
    return new


def _require_envelope(name: str, table: BoundTable, present: set[str]) -> None:
    missing = [column for column in table.primary_key if fold(column) not in present]
    if missing:
        raise DatabaseError(
            f"table {name} exists and was not created by amqtt_db: it has no column {', '.join(missing)}; "
            "choose another `table:` for the route or rename the table"
        )


def _add_columns(
    dialect: sa.Dialect, table: sa.Table, columns: list[sa.Column[object]], *, together: bool
) -> Iterator[sa.DDL]:
    """Yield ALTER TABLE … ADD COLUMN; the columns are nullable, because there may be rows."""
    quote = dialect.identifier_preparer.quote
    compiler = dialect.type_compiler_instance
    additions = [f"ADD COLUMN {quote(column.name)} {compiler.process(column.type)}" for column in columns]
    if together and additions:
        additions = [", ".join(additions)]
    for addition in additions:
        yield sa.DDL(f"ALTER TABLE {quote(table.name)} {addition}".replace("%", "%%"))  # type: ignore[no-untyped-call]


def _missing_indexes(connection: sa.Connection, table: sa.Table) -> Iterator[sa.schema.CreateIndex]:
    """Return the indexes that are missing because a writer was killed after CREATE TABLE."""
    present = {index["name"] for index in sa.inspect(connection).get_indexes(table.name)}
    return (sa.schema.CreateIndex(index) for index in table.indexes if index.name not in present)


def columns_to_fill(known: PhysicalTable, table: BoundTable, shape: Shape, most: int | None = None) -> dict[Cell, str]:
    """Return the cells that records of a shape fill, with their columns' names, fixed ones first.

    They include the overflow column only if some pair of the shape has no column; at most ``most`` pairs have one.
    """
    stored = [pair for pair in table.properties if pair in known.columns]
    pairs = {pair: known.columns[pair] for pair in (stored if table.overflow is None else stored[:most])}
    needs_overflow = any(pair not in pairs for pair in shape.properties)
    columns: dict[Cell, str] = {
        column.name: column.name for column in table.columns if needs_overflow or column.name != table.overflow
    }
    columns.update(pairs.items())
    return columns
