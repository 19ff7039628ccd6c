"""Creates the tables and columns that records need, some tables in each transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import sqlalchemy as sa

from amqtt_db.database.engines.base import Engine
from amqtt_db.database.schema import Schema, Wanted
from amqtt_db.database.snapshot import answer
from amqtt_db.errors import DatabaseError, StructureError
from amqtt_db.writer.blame import blame_data

TABLES_AT_ONCE: Final = 200  # tables that one transaction creates: a server has room for this many locks


class TableMaker:
    """Runs the DDL of a writer; it locks the schema in each transaction."""

    def __init__(self, engine: Engine, database: sa.Engine, schema: Schema) -> None:
        self._engine = engine
        self._database = database
        self._schema = schema

    def make(self, wishes: Sequence[Wanted]) -> list[str]:
        """Run the DDL for any number of tables, and read the result; return the statements.

        Raises DatabaseError unless a name or a value in a message is at fault.
        """
        ddl: list[str] = []
        keys = sorted({wish.table.key for wish in wishes})
        for first in range(0, len(keys), TABLES_AT_ONCE):
            step = set(keys[first : first + TABLES_AT_ONCE])
            ddl += self._make_some([wish for wish in wishes if wish.table.key in step])
            with self._database.begin() as connection:
                self._schema.learn(connection, step)
        return ddl

    def _make_some(self, wishes: Sequence[Wanted]) -> list[str]:
        """Run the DDL for some tables; one that cannot have as many columns as it may gets fewer."""
        try:
            with blame_data(self._database), self._database.begin() as connection:
                return self._schema.ensure(connection, wishes)
        except sa.exc.DBAPIError as error:
            is_value_fault = self._engine.is_value_fault(error) and not isinstance(error, sa.exc.IntegrityError)
            if not self._engine.is_size_fault(error):
                if is_value_fault:
                    raise
                raise DatabaseError(answer(error)) from error
            if not is_value_fault:
                raise
        keys = sorted({wish.table.key for wish in wishes})
        if len(keys) == 1:
            with self._database.begin() as connection:
                if not self._schema.reduce_columns(connection, wishes[0]):
                    raise StructureError(f"table {wishes[0].table.name} cannot have the columns that it needs")
        return [ddl for key in keys for ddl in self._make_some([wish for wish in wishes if wish.table.key == key])]
