"""SQL for views, as text: names, literals, and values extracted from JSON."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Generic, TypeVar

import sqlalchemy as sa

from amqtt_db import registry
from amqtt_db.database.engines.base import Engine
from amqtt_db.database.engines.urls import dialect_of
from amqtt_db.record import Kind, split_path

_BUILTIN_VIEWS: Final[Mapping[str, str]] = {
    "mariadb": "amqtt_db.database.engines.mysql_views.MySQLViews",
    "mysql": "amqtt_db.database.engines.mysql_views.MySQLViews",
    "postgresql": "amqtt_db.database.engines.postgresql_views.PostgreSQLViews",
    "sqlite": "amqtt_db.database.engines.sqlite_views.SQLiteViews",
}
"""Dialect names and the classes that write their views; others come from the entry point group ``amqtt_db.views``."""


Place = TypeVar("Place")
"""A place in a JSON document, as one database's SQL names it."""

_NEVER_DECLARED: Final[frozenset[Kind]] = frozenset({"number", "text", "bool", "tagged"})
"""Kinds that a document never declares."""

_INTEGERS: Final[frozenset[Kind]] = frozenset({"int64", "bigint"})
"""Kinds that a document declares only for numbers that JSON would read as another kind."""


class ViewSQL(ABC, Generic[Place]):
    """One database's SQL for views; expressions are text."""

    def __init__(self, engine: Engine, dialect: sa.Dialect) -> None:
        self._quote = dialect.identifier_preparer.initial_quote
        self.types = {kind: dialect.type_compiler_instance.process(type_) for kind, type_ in engine.types.items()}

    @contextmanager
    @abstractmethod
    def with_short_timeout(self, engine: Engine, database: sa.Engine) -> Iterator[sa.Connection]:
        """Open a transaction with the schema locked, in which no lock is waited for longer than a second."""
        yield NotImplemented

    @abstractmethod
    def replace(self, connection: sa.Connection, view: str, select: str) -> None:
        """Create a view, or replace it."""

    @abstractmethod
    def at(self, document: str, keys: Sequence[str]) -> Place:
        """Return the place in tagged JSON to which keys lead; none of them has U+0000 or a lone surrogate."""

    @abstractmethod
    def text_at(self, place: Place) -> str:
        """Return the value at a place as text: a number's digits, a string's characters."""

    @abstractmethod
    def json_at(self, place: Place) -> str:
        """Return the value at a place as a column of JSON has it."""

    @abstractmethod
    def is_list_or_empty(self, place: Place) -> str:
        """Return a condition: true for a list or an empty object."""

    @abstractmethod
    def untagged(self, kind: Kind, place: Place) -> str:
        """Return the value at a place of tagged JSON as a column of ``kind`` has it; NULL if it is of another kind."""

    @abstractmethod
    def from_text(self, kind: Kind, text: str) -> str:
        """Return a value of a kind from its text in JSON."""

    @abstractmethod
    def interval_start(self, column: str, seconds: int) -> str:
        """Return the start of the interval of some whole seconds, counted from 1970, that a timestamp is in."""

    def shown(self, kind: Kind, column: str) -> str:
        """Return a column's value, written as if it had been found in JSON."""
        return column

    def member(self, kind: Kind, data: str, kinds: str, path: str) -> str:
        """Return the property at ``path`` of a document as a column of ``kind`` has it; NULL if it is of another kind.

        ``data`` is the document; ``kinds`` has the kinds that it declares, by path.  An object whose kind is declared
        is a value, not nesting.
        """
        place, declared = self.at(data, split_path(path)), self.text_at(self.at(kinds, [path]))
        if kind == "json":
            return f"CASE WHEN {declared} = 'json' OR {self.is_list_or_empty(place)} THEN {self.json_at(place)} END"
        inferred = f"WHEN {declared} IS NULL THEN {self.untagged(kind, place)}"
        if kind in _NEVER_DECLARED:
            return f"CASE {inferred} END"
        value = f"WHEN {declared} = {self.text(kind)} THEN {self.from_text(kind, self.text_at(place))}"
        return f"CASE {value} {inferred if kind in _INTEGERS else ''} END"

    def name(self, name: str) -> str:
        """Return a quoted name."""
        quote = self._quote
        return f"{quote}{name.replace(quote, 2 * quote)}{quote}"

    def text(self, value: str) -> str:
        """Return a literal."""
        return quote_literal(value)

    def is_text(self, column: str, value: str) -> str:
        """Return a condition: true if a column is exactly this text."""
        return f"{column} = {self.text(value)}"

    def null(self, kind: Kind) -> str:
        """Return NULL as a column of ``kind`` has it."""
        return f"CAST(NULL AS {self.types[kind]})"


def quote_literal(text: str) -> str:
    """Return a literal of standard SQL."""
    return "'" + text.replace("'", "''") + "'"


def view_sql(engine: Engine, dialect: sa.Dialect) -> ViewSQL[Any] | None:
    """Return the SQL for views of an engine's database, or None if there is none."""
    try:
        made: ViewSQL[Any] = registry.load(dialect_of(engine.url), _BUILTIN_VIEWS, "amqtt_db.views")(engine, dialect)
    except ValueError:
        return None
    return made
