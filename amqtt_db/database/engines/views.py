"""What views need of a database's SQL, as text: names, literals, and the way out of JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

import sqlalchemy as sa

from amqtt_db import registry
from amqtt_db.database.engines.base import Engine
from amqtt_db.database.engines.urls import dialect_of
from amqtt_db.record import Kind

BUILTIN: Final[Mapping[str, str]] = {
    "mariadb": "amqtt_db.database.engines.mysql_views.MySQLViews",
    "mysql": "amqtt_db.database.engines.mysql_views.MySQLViews",
    "postgresql": "amqtt_db.database.engines.postgresql_views.PostgreSQLViews",
    "sqlite": "amqtt_db.database.engines.sqlite_views.SQLiteViews",
}
"""Dialect names and what makes their views; others come from the entry point group ``amqtt_db.views``."""


class ViewSQL(ABC):
    """One database's SQL for views.

    Expressions are text.  A *place* in JSON is an expression for a document and the keys that lead into it.
    """

    def __init__(self, engine: Engine, dialect: sa.Dialect) -> None:
        self._quote = dialect.identifier_preparer.initial_quote
        self.types = {kind: dialect.type_compiler_instance.process(type_) for kind, type_ in engine.types.items()}

    @contextmanager
    @abstractmethod
    def hasty(self, engine: Engine, database: sa.Engine) -> Iterator[sa.Connection]:
        """A transaction with the schema locked that waits for no lock longer than half a second."""
        yield NotImplemented

    @abstractmethod
    def replace(self, connection: sa.Connection, view: str, select: str) -> None:
        """Make a view, or make it anew."""

    def shown(self, kind: Kind, column: str) -> str:
        """A column's value, written as if it had been found in JSON."""
        return column

    @abstractmethod
    def untagged(self, kind: Kind, document: str) -> str:
        """The value in tagged JSON text as a column of ``kind`` has it; NULL if it is of another kind."""

    @abstractmethod
    def member(self, kind: Kind, data: str, kinds: str, path: str) -> str:
        """The property at ``path`` of a document as a column of ``kind`` has it; NULL if it is of another kind.

        ``data`` is the document, ``kinds`` the kinds by path of values that JSON has no type for.  No key on the path
        has U+0000 or a lone surrogate.
        """

    @abstractmethod
    def level(self, levels: str, name: str) -> str:
        """A named level, text, of an object of them."""

    @abstractmethod
    def rest_of_rows(self, path: str, columns: Mapping[str, Sequence[Kind]], rows: str, known: Collection[str]) -> str:
        """Properties without a column as one JSON object by path, or NULL.

        ``rows`` is what finds the properties of a record, FROM and WHERE, ``path`` the expression for a row's path,
        ``columns`` has the expressions for its value with the kinds that each is for (more than one: tagged
        JSON).  ``known`` are the properties with a column, as :func:`property_key`.
        """

    @abstractmethod
    def rest_of_document(self, data: str, kinds: str, levels: str, known: Collection[str]) -> str:
        """The same for a document."""

    def name(self, name: str) -> str:
        """A quoted name."""
        quote = self._quote
        return f"{quote}{name.replace(quote, 2 * quote)}{quote}"

    def text(self, value: str) -> str:
        """A literal."""
        return "'" + value.replace("'", "''") + "'"

    def is_text(self, column: str, value: str) -> str:
        """Whether a column is exactly this text."""
        return f"{column} = {self.text(value)}"

    def null(self, kind: Kind) -> str:
        """NULL as a column of ``kind`` has it."""
        return f"CAST(NULL AS {self.types[kind]})"

    def texts(self, values: Collection[str]) -> str:
        """A list of literals, never empty."""
        return ", ".join(map(self.text, values)) or "NULL"


def property_key(path: str, kind: Kind) -> str:
    """A property's path and kind as one text."""
    return f"{kind} {path}"


def view_sql(engine: Engine, dialect: sa.Dialect) -> ViewSQL | None:
    """The SQL for views of an engine's database; None where there is none yet."""
    try:
        made: ViewSQL = registry.load(dialect_of(engine.url), BUILTIN, "amqtt_db.views")(engine, dialect)
    except ValueError:
        return None
    return made
