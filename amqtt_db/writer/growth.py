"""Which tables and columns some DDL creates, for the log and the report."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import takewhile
from typing import Final

import attrs

_CREATED: Final = re.compile(r"CREATE TABLE (?:IF NOT EXISTS )?(\S+)")
_COLUMN: Final = re.compile(r"\s+(?!PRIMARY KEY|UNIQUE|CONSTRAINT|CHECK|FOREIGN KEY)([^\s,(]+) \S")
_ALTERED: Final = re.compile(r"ALTER TABLE (\S+) ")
_ADDED: Final = re.compile(r"ADD COLUMN (?:IF NOT EXISTS )?(\S+)")
_MOST_NAMED: Final = 10  # tables and columns in a line of the log


@attrs.frozen
class Growth:
    """New tables, and new columns of others, as ``table.column``."""

    tables: tuple[str, ...]
    columns: tuple[str, ...]

    def __str__(self) -> str:
        parts = (("tables", self.tables), ("columns", self.columns))
        return "; ".join(f"new {what}: {_name_some(names)}" for what, names in parts if names)


@attrs.frozen
class CreatedTable:
    """A table that a statement creates, with its columns."""

    name: str
    columns: tuple[str, ...]


def read_created(ddl: Iterable[str]) -> Iterator[CreatedTable]:
    """Yield the tables that some statements create."""
    for statement in ddl:
        created = _CREATED.match(statement.strip())
        if created:
            inside = takewhile(lambda line: not line.startswith(")"), statement.strip().splitlines()[1:])
            columns = (found[1] for line in inside if (found := _COLUMN.match(line)))
            yield CreatedTable(created[1], tuple(columns))


def read_growth(ddl: Iterable[str]) -> Growth:
    """Return what some statements create."""
    tables, columns = [], []
    for statement in ddl:
        created, altered = _CREATED.match(statement), _ALTERED.match(statement)
        if created:
            tables.append(created[1])
        if altered:
            columns += [f"{altered[1]}.{column}" for column in _ADDED.findall(statement)]
    return Growth(tuple(tables), tuple(columns))


def _name_some(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
