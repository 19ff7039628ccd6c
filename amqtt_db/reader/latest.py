"""The newest values of each device, for the routes that keep them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.config import Settings
from amqtt_db.database.snapshot import Snapshot, open_snapshot, require_tables
from amqtt_db.errors import DatabaseError
from amqtt_db.models.eav import read_value
from amqtt_db.models.latest import LATEST_RECORDS, LATEST_VALUES
from amqtt_db.reader import url_of
from amqtt_db.reader.columns import StoredTable
from amqtt_db.reader.keys import LookupCache
from amqtt_db.reader.statement import fetch_rows
from amqtt_db.record import EPOCH, Kind
from amqtt_db.routing.topics import TopicFilter

_DEVICES_AT_ONCE: Final = 1000

_ID: Final = "id of the device"
_DecodedRow = Mapping[str, Any]


@attrs.frozen
class DeviceState:
    """The newest values of a device: each property's kind and value by path, and its time.

    ``topic`` and ``time`` are those of the device's newest record, ``levels`` the named levels of its topic.
    """

    device: str
    topic: str
    time: datetime
    levels: Mapping[str, str]
    properties: Mapping[str, tuple[Kind, Any]]
    times: Mapping[str, datetime]

    @property
    def values(self) -> dict[str, Any]:
        """The values alone, by path."""
        return {path: value for path, (_, value) in self.properties.items()}


def latest(database: str | Settings, topic: str = "#") -> Iterator[DeviceState]:
    """Yield the newest values of each device whose newest topic an MQTT filter covers, first seen first.

    ``database`` is a SQLAlchemy URL, or the settings that name one.  Raises ValueError at once for a wrong argument,
    and DatabaseError, when the first state is requested, if the database cannot be read or no route of the writer
    keeps newest values.
    """
    return _read_states(url_of(database), TopicFilter.parse(topic))


def _read_states(url: str, wanted: TopicFilter) -> Iterator[DeviceState]:
    with open_snapshot(url) as snapshot:
        tables = _Tables(snapshot)
        last = 0
        while rows := tables.devices_after(last):
            values = tables.values_between(rows[0][_ID], rows[-1][_ID])
            for row in rows:
                if wanted.match(row["topic"]) is not None:
                    yield _make_state(row, values.get(row[_ID], ()))
            last = rows[-1][_ID]


class _Tables:
    """The tables of newest values, read a page at a time.  Raises DatabaseError if there are none."""

    def __init__(self, snapshot: Snapshot) -> None:
        require_tables(snapshot)
        self._snapshot = snapshot
        self._keys = LookupCache(snapshot)
        wanted = {table.key: table for table in (LATEST_RECORDS, LATEST_VALUES)}
        known = snapshot.catalog.physical_tables(snapshot.connection, list(wanted))
        if len(known) < len(wanted):
            raise DatabaseError("no newest values are stored; set `latest: true` for a route")
        self._records, self._values = (StoredTable.of(table, known[key]) for key, table in wanted.items())

    def devices_after(self, id_: int) -> Sequence[_DecodedRow]:
        """Return the rows of the next devices with higher ids, in order."""
        column = self._records.target.c.device
        query = sa.select(self._records.target).where(column > id_).order_by(column).limit(_DEVICES_AT_ONCE)
        return self._fetch(self._records, query)

    def values_between(self, first: int, last: int) -> Mapping[int, Sequence[_DecodedRow]]:
        """Return the rows of values of the devices with ids from first to last, by id."""
        column = self._values.target.c.device
        rows = self._fetch(self._values, sa.select(self._values.target).where(column.between(first, last)))
        found: dict[int, list[_DecodedRow]] = {}
        for row in rows:
            found.setdefault(row[_ID], []).append(row)
        return found

    def _fetch(self, table: StoredTable, query: sa.Select[Any]) -> Sequence[_DecodedRow]:
        """Return rows with their keys and values decoded, and the id of the device."""
        engine, cells = self._snapshot.engine, list(table.names)
        rows = fetch_rows(engine, self._snapshot.connection, query, {})
        if not rows:
            return []
        decoders = [table.decoder(cell, engine, self._keys, repeats=False) for cell in cells]
        columns = [list(column) for column in zip(*rows, strict=True)]
        decoded = [decode(column) if decode else column for decode, column in zip(decoders, columns, strict=True)]
        names = [_ID, *map(str, cells)]
        return [
            dict(zip(names, row, strict=True)) for row in zip(columns[cells.index("device")], *decoded, strict=True)
        ]


def _make_state(row: _DecodedRow, values: Iterable[_DecodedRow]) -> DeviceState:
    by_path = {value["property"]: value for value in sorted(values, key=itemgetter("property"))}
    found = {path: read_value(value) for path, value in by_path.items()}
    return DeviceState(
        device=row["device"][1],
        topic=row["topic"],
        time=_time_of(row),
        levels={path[1:-1]: value for path, (_, value) in found.items() if path.startswith("{")},
        properties={path: (pair[1], value) for path, (pair, value) in found.items() if not path.startswith("{")},
        times={path: _time_of(by_path[path]) for path in found if not path.startswith("{")},
    )


def _time_of(row: _DecodedRow) -> datetime:
    return EPOCH + timedelta(microseconds=row["time"])
