"""The newest values of devices, read from the database for the routes that store only changes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog
from amqtt_db.database.engines.base import Engine
from amqtt_db.database.lookup import Lookups
from amqtt_db.database.schema import Schema
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.models.eav import read_value
from amqtt_db.models.latest import LATEST_DEVICES, LATEST_RECORDS, LATEST_VALUES
from amqtt_db.reader.latest_tables import DecodedRow, LatestTables
from amqtt_db.record import Record, RecordBatch
from amqtt_db.routing.route import Route
from amqtt_db.writer.decoded import DecodedBatch
from amqtt_db.writer.latest_rows import devices_of
from amqtt_db.writer.unchanged import DeviceName, LatestState, States, StoredValue, drop_unchanged


class ChangeFilter:
    """Leaves records that say nothing new out of batches; ``lookups`` has the ids of devices."""

    def __init__(
        self,
        engine: Engine,
        catalog: Catalog,
        database: sa.Engine,
        schema: Schema,
        lookups: Lookups,
        routes: Iterable[Route],
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._database = database
        self._schema = schema
        self._lookups = lookups
        self._routes = {route.filter.text: route for route in reversed(list(routes)) if route.only is not None}

    def apply(self, decoded: DecodedBatch, known: States | None = None) -> DecodedBatch:
        """Return a batch without the records that say nothing new.

        ``known`` are the states of devices before it, None: those in the database.
        """
        if not self._routes:
            return decoded
        devices = {
            number: devices_of(self._routes[destination.route], RecordBatch.of(shape, records))
            for number, ((destination, shape), records) in enumerate(decoded.groups.items())
            if destination.route in self._routes
        }
        if not devices:
            return decoded
        filters = [destination.route for destination, _ in decoded.groups]
        names = {(filters[number], name) for number, some in devices.items() for name in some if name is not None}
        only = {text: route.only for text, route in self._routes.items() if route.only is not None}
        return drop_unchanged(decoded, devices, only, self._read_states(sorted(names)) if known is None else known)

    def states_after(self, decoded: DecodedBatch, known: States) -> States:
        """Return the states of devices after a batch, given those before it."""
        found: list[tuple[Record, DeviceName]] = []
        for (destination, shape), records in decoded.groups.items() if self._routes else ():
            if destination.route in self._routes:
                devices = devices_of(self._routes[destination.route], RecordBatch.of(shape, records))
                named = zip(records, devices, strict=True)
                found += [(record, (destination.route, device)) for record, device in named if device is not None]
        states = dict(known)
        for record, device in sorted(found, key=lambda one: (one[0].id, one[0].part)):
            states[device] = states.get(device, LatestState()).updated_by(record)
        return states

    def _read_states(self, names: Sequence[DeviceName]) -> States:
        """Return the states of those devices that have stored records."""
        if any(self._schema.get(table.key) is None for table in (LATEST_RECORDS, LATEST_VALUES)):
            return {}
        ids = dict(zip(self._lookups.ids(LATEST_DEVICES, names), names, strict=True))
        with self._database.begin() as connection:
            tables = LatestTables(Snapshot(self._engine, self._catalog, connection))
            records, values = tables.records_of(ids), tables.values_of(ids)
        return {ids[id_]: _make_latest_state(row, values.get(id_, ())) for id_, row in records.items()}


def _make_latest_state(row: DecodedRow, values: Iterable[DecodedRow]) -> LatestState:
    known: dict[str, StoredValue] = {}
    for one in values:
        (path, kind), value = read_value(one)
        known[path] = StoredValue(kind, value, one["time"])
    return LatestState(row["time"], known)
