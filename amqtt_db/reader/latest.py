"""The newest values of each device, for the routes that keep them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from operator import itemgetter
from typing import Any

import attrs

from amqtt_db.config import Settings
from amqtt_db.database.snapshot import open_snapshot
from amqtt_db.models.eav import read_value
from amqtt_db.reader import url_of
from amqtt_db.reader.latest_tables import DEVICE_ID, DecodedRow, LatestTables
from amqtt_db.record import EPOCH, Kind
from amqtt_db.routing.topics import TopicFilter


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
    """Yield the newest values of each device whose name or newest topic an MQTT filter covers, first seen first.

    ``database`` is a SQLAlchemy URL, or the settings that name one.  Raises ValueError at once for a wrong argument,
    and DatabaseError, when the first state is requested, if the database cannot be read or no route of the writer
    keeps newest values.
    """
    return _read_states(url_of(database), TopicFilter.parse(topic))


def _read_states(url: str, wanted: TopicFilter) -> Iterator[DeviceState]:
    with open_snapshot(url) as snapshot:
        tables = LatestTables(snapshot)
        for rows in tables.pages():
            found = [row for row in rows if _is_covered(wanted, row)]
            values = tables.values_of([row[DEVICE_ID] for row in found])
            for row in found:
                yield _make_state(row, values.get(row[DEVICE_ID], ()))


def _is_covered(wanted: TopicFilter, row: DecodedRow) -> bool:
    return any(wanted.match(name) is not None for name in (row["topic"], row["device"][1]))


def _make_state(row: DecodedRow, values: Iterable[DecodedRow]) -> DeviceState:
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


def _time_of(row: DecodedRow) -> datetime:
    return EPOCH + timedelta(microseconds=row["time"])
