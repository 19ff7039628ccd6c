"""Delete old sessions and dead letters, in small steps.

Ids rise with time within a journal, so a walk from its oldest row may end at the first page with nothing too old.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import sqlalchemy as sa

from amqtt_db.config.operation import SystemKeep
from amqtt_db.database.catalog import Catalog
from amqtt_db.database.dead_letters import delete_letters
from amqtt_db.message import POSITION_BITS

ROWS_AT_ONCE: Final = 500  # deleted in a transaction


def delete_old_rows(catalog: Catalog, database: sa.Engine, keep: SystemKeep, now: float) -> Iterator[int]:
    """Delete what is too old by now, in seconds since 1970; yield how many rows each step has deleted."""
    with database.begin() as connection:
        numbers = connection.scalars(sa.select(catalog.journal.c.number)).all()
    for number in numbers:
        for column, age, delete in (
            (catalog.session.c.disconnected, keep.sessions, _delete_sessions),
            (catalog.dead_letter.c.time, keep.dead_letters, _delete_dead_letters),
        ):
            if age is not None:
                before = round((now - age.total_seconds()) * 1_000_000)
                yield from _delete(catalog, database, number, column, before, delete)


def _delete(
    catalog: Catalog,
    database: sa.Engine,
    number: int,
    column: sa.Column[object],
    before: int,
    delete: Callable[[sa.Connection, Catalog, Sequence[int]], object],
) -> Iterator[int]:
    """Delete the rows of a journal whose time in a column is before another, page by page."""
    id_, last = column.table.c.id, (number << POSITION_BITS) - 1
    while True:
        page = sa.select(id_, column).where((id_ > last) & (id_ < (number + 1) << POSITION_BITS)).order_by(id_)
        with database.begin() as connection:
            rows = connection.execute(page.limit(ROWS_AT_ONCE)).all()
            old = [row[0] for row in rows if row[1] is not None and row[1] < before]
            if old:
                delete(connection, catalog, old)
        yield len(old)
        if not old or len(rows) < ROWS_AT_ONCE:
            return
        last = rows[-1][0]


def _delete_sessions(connection: sa.Connection, catalog: Catalog, ids: Sequence[int]) -> None:
    connection.execute(catalog.session.delete().where(catalog.session.c.id.in_(ids)))


def _delete_dead_letters(connection: sa.Connection, catalog: Catalog, ids: Sequence[int]) -> None:
    delete_letters(connection, catalog, ids)
