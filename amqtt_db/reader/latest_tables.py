"""The two tables of newest values, read a page of devices at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa

from amqtt_db.database.engines.base import batched
from amqtt_db.database.snapshot import Snapshot, require_tables
from amqtt_db.errors import DatabaseError
from amqtt_db.models.latest import LATEST_RECORDS, LATEST_VALUES
from amqtt_db.reader.columns import StoredTable
from amqtt_db.reader.keys import LookupCache
from amqtt_db.reader.statement import fetch_rows

DEVICE_ID: Final = "id of the device"
"""The key of the device's id in a row; under ``device`` is the name that it stands for."""

DecodedRow = Mapping[str, Any]
"""A row's values by column, as they were before encoding."""

_DEVICES_AT_ONCE: Final = 1000


class LatestTables:
    """Reads the tables.  Raises DatabaseError if there are none."""

    def __init__(self, snapshot: Snapshot) -> None:
        require_tables(snapshot)
        self._snapshot = snapshot
        self._keys = LookupCache(snapshot)
        wanted = {table.key: table for table in (LATEST_RECORDS, LATEST_VALUES)}
        known = snapshot.catalog.physical_tables(snapshot.connection, list(wanted))
        if len(known) < len(wanted):
            raise DatabaseError(
                "no newest values are stored yet; they come with the first message of a route that has `latest: true`"
            )
        self._records, self._values = (StoredTable.of(table, known[key]) for key, table in wanted.items())

    def pages(self) -> Iterator[Sequence[DecodedRow]]:
        """Yield the rows of all devices in the order of their ids, some at a time."""
        column, last, rows = self._records.target.c.device, 0, None
        while rows is None or len(rows) == _DEVICES_AT_ONCE:
            query = sa.select(self._records.target).where(column > last).order_by(column).limit(_DEVICES_AT_ONCE)
            rows = self._fetch(self._records, query)
            if rows:
                yield rows
                last = rows[-1][DEVICE_ID]

    def records_of(self, ids: Iterable[int]) -> Mapping[int, DecodedRow]:
        """Return the rows of devices by their ids, of those that have one."""
        return {row[DEVICE_ID]: row for row in self._fetch_of(self._records, ids)}

    def values_of(self, ids: Iterable[int]) -> Mapping[int, Sequence[DecodedRow]]:
        """Return the rows of values of devices by their ids."""
        found: dict[int, list[DecodedRow]] = {}
        for row in self._fetch_of(self._values, ids):
            found.setdefault(row[DEVICE_ID], []).append(row)
        return found

    def _fetch_of(self, table: StoredTable, ids: Iterable[int]) -> Iterable[DecodedRow]:
        column = table.target.c.device
        for some in batched(ids):
            yield from self._fetch(table, sa.select(table.target).where(column.in_(some)))

    def _fetch(self, table: StoredTable, query: sa.Select[Any]) -> Sequence[DecodedRow]:
        """Return rows with their keys and values decoded, and the id of the device."""
        engine, cells = self._snapshot.engine, list(table.names)
        rows = fetch_rows(engine, self._snapshot.connection, query, {})
        if not rows:
            return []
        decoders = [table.decoder(cell, engine, self._keys, repeats=False) for cell in cells]
        columns = [list(column) for column in zip(*rows, strict=True)]
        decoded = [decode(column) if decode else column for decode, column in zip(decoders, columns, strict=True)]
        named = {DEVICE_ID: columns[cells.index("device")], **dict(zip(map(str, cells), decoded, strict=True))}
        return [dict(zip(named, row, strict=True)) for row in zip(*named.values(), strict=True)]
