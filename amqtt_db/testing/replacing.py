"""Tables whose rows replace older ones: what they must contain, in plain Python, and what they do contain."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa

from amqtt_db.database.snapshot import open_snapshot
from amqtt_db.models.base import TableName
from amqtt_db.models.binding import BoundModel, BoundTable
from amqtt_db.reader.columns import StoredTable
from amqtt_db.reader.keys import LookupCache
from amqtt_db.record import Record
from amqtt_db.testing.answer import same

RowsByKey = Mapping[tuple[Any, ...], Mapping[str, Any]]
"""RowsByKey by their keys."""


def replacing_faults(url: str, model: BoundModel, records: Iterable[Record]) -> Iterator[str]:
    """Yield sentences about rows that do not belong to the newest records."""
    written = list(records)
    for name, table in model.named_tables().items():
        if table.replaces:
            wanted, found = _newest(model, name, table, written), _stored_rows(url, table)
            for key in sorted({*wanted, *found}, key=repr):
                if not same(_plain(wanted.get(key)), _plain(found.get(key))):
                    yield f"table {name}, key {key}: should have {wanted.get(key)}, has {found.get(key)}"


def _newest(model: BoundModel, name: TableName, table: BoundTable, records: Iterable[Record]) -> RowsByKey:
    newest: dict[tuple[Any, ...], dict[str, Any]] = {}
    for record in sorted(records, key=lambda record: (record.time_us, record.id, record.part)):
        for written, row in model.model.write(record):
            if written == name:
                cells = {**record.envelope(), **row}
                full = {column.name: cells.get(column.name) for column in table.columns}
                newest[tuple(full[column] for column in table.primary_key)] = full
    return newest


def _stored_rows(url: str, table: BoundTable) -> RowsByKey:
    with open_snapshot(url) as snapshot:
        known = snapshot.catalog.physical_tables(snapshot.connection, [table.key]).get(table.key)
        if known is None:
            return {}
        stored, keys = StoredTable.of(table, known), LookupCache(snapshot)
        rows = snapshot.connection.execute(sa.select(stored.target)).cursor.fetchall()
        if not rows:
            return {}
        names = [column.name for column in table.columns]
        decoders = [stored.decoder(name, snapshot.engine, keys, repeats=False) for name in names]
        columns = [
            decode(values) if decode else values
            for decode, values in zip(decoders, zip(*rows, strict=True), strict=True)
        ]
    found = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
    return {tuple(row[name] for name in table.primary_key): row for row in found}


def _plain(value: Any) -> Any:
    """Return a value in which integers equal their doubles: a reader may return either."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    try:
        return float(value) if type(value) is int or type(value) is bool else value
    except OverflowError:
        return value
