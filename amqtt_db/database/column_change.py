"""Rename or drop a column of a table of records, with what the catalogue says of it.

Where DDL commits by itself, a process that is killed in the middle leaves a note in ``mqtt_meta``, which readers heed;
the next writer finishes the change.  Writers must be kept away: lock the schema and raise the routing versions first.
"""

from __future__ import annotations

from typing import Final

import orjson
import sqlalchemy as sa

from amqtt_db.database.store_version import past_broken_views

_NOTE: Final = "column change"


def change_column(connection: sa.Connection, meta: sa.Table, column: sa.Table, table: str, old: str, new: str) -> None:
    """Rename a table's column, or drop it if ``new`` is empty, in the connection's transaction."""
    quote = connection.dialect.identifier_preparer.quote
    change = f"RENAME COLUMN {quote(old)} TO {quote(new)}" if new else f"DROP COLUMN {quote(old)}"
    note = orjson.dumps([table, old, new]).decode()
    connection.execute(meta.delete().where(meta.c.name == _NOTE))
    connection.execute(meta.insert(), {"name": _NOTE, "value": note})
    with past_broken_views(connection):
        connection.execution_options(no_parameters=True).exec_driver_sql(f"ALTER TABLE {quote(table)} {change}")
    _record_change(connection, meta, column, table, old, new)


def finish_column_change(connection: sa.Connection, meta: sa.Table, column: sa.Table) -> None:
    """Finish what a killed process has left half done, if there is anything; call it with the schema locked."""
    half_done = half_done_change(connection, meta)
    if half_done is not None:
        _record_change(connection, meta, column, *half_done)


def half_done_change(connection: sa.Connection, meta: sa.Table) -> tuple[str, str, str] | None:
    """Return the table, the column and its new name of a change that the table has seen, and the catalogue has not."""
    note = connection.scalar(sa.select(meta.c.value).where(meta.c.name == _NOTE))
    if note is None:
        return None
    table, old, new = orjson.loads(note)
    inspector = sa.inspect(connection)
    there = {one["name"] for one in inspector.get_columns(table)} if inspector.has_table(table) else {old}
    return None if old in there else (table, old, new)


def rename_in_catalog(connection: sa.Connection, column: sa.Table, table: str, old: str, new: str) -> None:
    """Give a column of a table or a view another name in the catalogue; forget it if ``new`` is empty."""
    here = (column.c.table_name == table) & (column.c.column_name == old)
    connection.execute(column.update().where(here).values(column_name=new) if new else column.delete().where(here))


def _record_change(connection: sa.Connection, meta: sa.Table, column: sa.Table, table: str, old: str, new: str) -> None:
    rename_in_catalog(connection, column, table, old, new)
    connection.execute(meta.delete().where(meta.c.name == _NOTE))
