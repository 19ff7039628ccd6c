"""The newest value of each property, per device: two tables in addition to those of any model.

A row replaces only an older one, so late messages and replays change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs

from amqtt_db.models.base import ENVELOPE, Column, Lookup, Row, ValueRows
from amqtt_db.models.binding import KEY, BoundTable, table_key
from amqtt_db.models.eav import PROPERTIES, TOPIC_LOOKUP, VALUE_COLUMNS
from amqtt_db.record import Kind, Pair, RecordBatch
from amqtt_db.tagged import is_clean

LATEST_DEVICES: Final = Lookup("mqtt_device", ("route", "device"))
"""Devices of a route's topic filter: topics, or the values that ``latest`` names."""

LATEST_LAYOUT: Final = ValueRows("property", VALUE_COLUMNS)
"""Where SQL finds the values in :data:`LATEST_VALUES`."""


def _table(name: str, key: Sequence[Column], *columns: Column) -> BoundTable:
    return BoundTable(
        key=table_key(name, timed=False),
        name=name,
        columns=tuple(key) + columns,
        primary_key=tuple(column.name for column in key),
        exact=True,
        replaces=True,
    )


_DEVICE: Final = Column("device", nullable=False, lookup=LATEST_DEVICES)
_PROPERTY: Final = Column("property", nullable=False, lookup=PROPERTIES)
_IN_LOOKUP: Final[Mapping[str, Lookup]] = {"topic": TOPIC_LOOKUP}
_RECORD_COLUMNS: Final = [attrs.evolve(column, lookup=_IN_LOOKUP.get(column.name)) for column in ENVELOPE]
_AGE: Final = [column for column in ENVELOPE if column.name in {*KEY, "time"}]

LATEST_RECORDS: Final = _table("mqtt_latest", [_DEVICE], *_RECORD_COLUMNS)
"""The envelope of each device's newest record."""

LATEST_VALUES: Final = _table(
    "mqtt_latest_value",
    [_DEVICE, _PROPERTY],
    *_AGE,
    *(Column(name, kind) for kind, name in VALUE_COLUMNS.items()),
)
"""The newest value of each property of a device, and the time of the record that it comes from."""


LATEST_NAMES: Final = frozenset({LATEST_RECORDS.name, LATEST_VALUES.name})
"""The names of the two tables."""


@attrs.frozen
class Newest:
    """The newest values in some records: rows of :data:`LATEST_RECORDS`, and values with the keys of their rows."""

    rows: Sequence[Row]
    values: Sequence[tuple[Pair, Row, Any]]


def find_newest(route: str, devices: Sequence[str | None], batch: RecordBatch) -> Newest:
    """Return the newest values of each device; ``devices`` names each record's device, None if it has none.

    ``route`` is the topic filter of the records' route.
    """
    ages = list(zip(batch.times, batch.ids, batch.parts, strict=True))
    order = sorted((index for index, device in enumerate(devices) if device is not None), key=ages.__getitem__)
    newest = _last_of_each(devices, order)
    values = [
        (pair, {"device": (route, device), "property": pair[0], **_age(batch, index)}, column[index])
        for pair, column in zip(batch.shape.properties, batch.columns, strict=True)
        for device, index in _with_value(newest, devices, order, column).items()
    ]
    return Newest([_record_row(route, device, batch, index) for device, index in newest.items()], values)


def value_row(kind: Kind, identity: Row, value: Any) -> Row:
    """Return a row of :data:`LATEST_VALUES`."""
    return {**identity, VALUE_COLUMNS[kind]: value}


def name_devices(columns: Sequence[Sequence[Any]]) -> Sequence[str | None]:
    """Return the device of each record, from columns of values that identify it; None if one is absent.

    A single value is the device's name, several become a JSON list.
    """
    return [None if None in values else _device_name(values) for values in zip(*columns, strict=True)]


def _device_name(values: Sequence[Any]) -> str:
    """Return one text as it is, anything else as JSON; text that some database cannot hold has escapes."""
    whole = [int(value) if isinstance(value, float) and value.is_integer() else value for value in values]
    if len(whole) == 1 and isinstance(whole[0], str) and is_clean(whole[0]):
        return whole[0]
    named = whole[0] if len(whole) == 1 else whole
    text = json.dumps(named, default=str, ensure_ascii=False)
    return text if is_clean(text) else json.dumps(named, default=str)


def _last_of_each(devices: Sequence[str | None], order: Iterable[int]) -> dict[str | None, int]:
    return {devices[index]: index for index in order}


def _with_value(
    newest: dict[str | None, int], devices: Sequence[str | None], order: Iterable[int], column: Sequence[Any]
) -> dict[str | None, int]:
    """Return each device with its newest record in which a column has a value."""
    if None not in column:
        return newest
    return _last_of_each(devices, (index for index in order if column[index] is not None))


def _age(batch: RecordBatch, index: int) -> dict[str, Any]:
    return {"id": batch.ids[index], "part": batch.parts[index], "time": batch.times[index]}


def _record_row(route: str, device: str | None, batch: RecordBatch, index: int) -> Row:
    values = (column[index] for column in batch.envelope)
    return {"device": (route, device), **dict(zip((column.name for column in ENVELOPE), values, strict=True))}
