"""Replace stored records by others, or by none: their rows, and the newest values that came from them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import sqlalchemy as sa

from amqtt_db.models.binding import BoundTable
from amqtt_db.models.latest import LATEST_RECORDS, LATEST_VALUES
from amqtt_db.record import Record
from amqtt_db.writer.erase import erase
from amqtt_db.writer.insert_target import TargetRows, merge_rows
from amqtt_db.writer.rollup_notes import note_changed_records
from amqtt_db.writer.workshop import Workshop

_LATEST_TABLES = (LATEST_RECORDS, LATEST_VALUES)


def _accept(connection: sa.Connection) -> None:
    """Find nothing wrong with what has been written."""


class Replacer:
    """Replaces records with the tools of a workshop; hold the maintenance lock."""

    def __init__(self, shop: Workshop) -> None:
        self._shop = shop
        self._newest: frozenset[tuple[int, int]] | None = None

    def replace(
        self,
        tables: Iterable[tuple[BoundTable, str]],
        old: Sequence[Record],
        rows: Iterable[TargetRows] = (),
        confirm: Callable[[sa.Connection], None] = _accept,
        new: Sequence[Record] = (),
    ) -> int:
        """Delete records from tables, each given with its name, and insert rows, all in one transaction.

        The rows are those of the records ``new``.  ``confirm`` looks at the result before it is committed.  Return how
        many rows were deleted.
        """
        gone = list(map(self._shop.identify, old))
        newest = [one for one in gone if one[:2] in self._find_newest()]
        with self._shop.database.begin() as connection:
            count = erase(connection, self._shop.engine, tables, gone) if gone else 0
            if newest:
                erase(connection, self._shop.engine, [(table, table.name) for table in _LATEST_TABLES], newest)
            self._shop.engine.insert(connection, merge_rows(rows))
            self._note(connection, old, new)
            confirm(connection)
        return count

    def _note(self, connection: sa.Connection, old: Sequence[Record], new: Sequence[Record]) -> None:
        """Note for the rollups what changes; records that replace none are new."""
        routes, catalog = self._shop.routes, self._shop.catalog
        note_changed_records(connection, catalog, routes, [*old, *new], are_new=not old)

    def _find_newest(self) -> frozenset[tuple[int, int]]:
        """Return the ids and parts of the records that newest values came from when this began.

        Those that have come since are of records that need no replacement.
        """
        if self._newest is None:
            with self._shop.database.begin() as connection:
                there = set(sa.inspect(connection).get_table_names())
                names = [table.name for table in _LATEST_TABLES if table.name in there]
                tables = [sa.table(name, sa.column("id"), sa.column("part")) for name in names]
                rows = [row for table in tables for row in connection.execute(sa.select(table.c.id, table.c.part))]
            self._newest = frozenset((row.id, row.part) for row in rows)
        return self._newest
