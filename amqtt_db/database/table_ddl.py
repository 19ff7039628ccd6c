"""The DDL of a model's tables.

Thousands of topics may have tables that are alike but for their names.  Their statements are compiled once, with other
names in place of theirs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import PhysicalTable
from amqtt_db.database.engines.base import Engine
from amqtt_db.database.naming import unique
from amqtt_db.models.base import Column
from amqtt_db.models.binding import BoundTable
from amqtt_db.record import Pair

_MOST_PATTERNS: Final = 256  # whose statements are remembered
_ANY_TABLE: Final = "any table"  # a name that needs quotes, and stands before those of columns
_ANY_INDEX: Final = "any index"  # the same, before that of the table


@attrs.frozen
class _TableForm:
    """What tables that are alike have in common, and their columns for properties."""

    table: BoundTable
    columns: tuple[tuple[Pair, str], ...]


class TableDDL:
    """Makes the DDL of tables, in the words of a dialect; ``engine`` has the types."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._patterns = lru_cache(_MOST_PATTERNS)(self._compile)

    def create(self, dialect: sa.Dialect, known: PhysicalTable, table: BoundTable) -> list[str]:
        """Return the statements that create a table and its indexes."""
        form = _TableForm(attrs.evolve(table, key="", name=""), tuple(known.columns.items()))
        first, *others = self._patterns(dialect, form)
        quote = dialect.identifier_preparer.quote
        any_table, any_index, name = quote(_ANY_TABLE), quote(_ANY_INDEX), quote(known.name)
        indexes = map(quote, self._index_names(known, table))
        return [
            first.replace(any_table, name, 1),
            *(
                pattern.replace(any_table, name, 1).replace(any_index, index, 1)
                for pattern, index in zip(others, indexes, strict=True)
            ),
        ]

    def describe(self, known: PhysicalTable, table: BoundTable) -> sa.Table:
        """Return a table as SQLAlchemy knows it."""
        return self._describe(known.name, known.columns, table, self._index_names(known, table))

    def _compile(self, dialect: sa.Dialect, form: _TableForm) -> list[str]:
        """Return the statements that create a table of a form, with other names."""
        names = [f"{_ANY_INDEX}{number}" for number in range(len(form.table.indexes))]
        target = self._describe(_ANY_TABLE, dict(form.columns), form.table, names)
        indexes = sorted(target.indexes, key=lambda index: names.index(str(index.name)))
        quote = dialect.identifier_preparer.quote
        return [
            compile_ddl(dialect, sa.schema.CreateTable(target)),
            *(
                compile_ddl(dialect, sa.schema.CreateIndex(index)).replace(quote(name), quote(_ANY_INDEX), 1)
                for index, name in zip(indexes, names, strict=True)
            ),
        ]

    def _describe(
        self, name: str, columns: Mapping[Pair, str], table: BoundTable, index_names: Iterable[str]
    ) -> sa.Table:
        fixed = [self._column(column, table) for column in table.columns]
        own = [sa.Column(column, self._engine.types[kind]) for (_, kind), column in columns.items()]
        target = sa.Table(name, sa.MetaData(), *fixed, *own, **self._engine.options_of(table))
        kinds = {column.name: column.kind for column in table.columns}
        for index, index_name in zip(table.indexes, index_names, strict=True):
            covered = self._engine.index_columns(table, index)
            options = self._engine.index_options([(column, kinds[column]) for column in covered])
            sa.Index(index_name, *(target.c[column] for column in covered), **options)
        return target

    def _index_names(self, known: PhysicalTable, table: BoundTable) -> Iterator[str]:
        """Yield a name for each index; it always gets a tag, because index names are shared by all tables."""
        names: set[str] = set()
        for index in table.indexes:
            wish = "_".join(("ix", known.name, *index))
            name = unique(wish, known.key, {wish, *names}.__contains__, self._engine.name_limit)
            names.add(name)
            yield name

    def _column(self, column: Column, table: BoundTable) -> sa.Column[object]:
        return sa.Column(
            column.name,
            self._engine.types[column.kind],
            primary_key=column.name in table.primary_key,
            nullable=column.nullable,
            autoincrement=False,
        )


def compile_ddl(dialect: sa.Dialect, statement: sa.schema.ExecutableDDLElement) -> str:
    """Return a statement as text."""
    return str(statement.compile(dialect=dialect)).strip()
