"""Metrics → records: one for all metrics of a payload that have the same time, or one for each metric."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Final

import attrs

from amqtt_db.decode.sparkplug.metrics import MetricValue
from amqtt_db.decode.sparkplug.values import read_milliseconds

_OTHERS: Final = "metric"
_TAKEN_NAMES: Final = frozenset({
    "message_type", "group_id", "edge_node_id", "device_id", "time", "historical", "online", "missed", "uuid", "body",
    "properties", "metadata", _OTHERS,
})  # fmt: skip
"""The names that a metric of a record cannot have as its property; it is below ``metric`` then."""


@attrs.frozen
class Head:
    """What a payload says besides its metrics: where it is from, its status, and when it was sent.

    The time is in milliseconds since 1970, as in the payload; ``at`` replaces all times of the payload.
    """

    origin: Mapping[str, Any]
    status: Mapping[str, Any]
    milliseconds: int | None = None
    at: datetime | None = None

    def begin(self, milliseconds: int | None, *, is_historical: bool = False) -> dict[str, Any]:
        """Return a record with only its origin and its time."""
        record = dict(self.origin)
        if self.at is not None:
            record["time"] = self.at
        elif milliseconds is not None:
            record["time"] = read_milliseconds(milliseconds)
        if is_historical:
            record["historical"] = True
        return record

    def time_of(self, metric: MetricValue) -> int | None:
        """Return the time of a metric: its own, or that of the payload; None if another one replaces it."""
        if self.at is not None:
            return None
        return self.milliseconds if metric.milliseconds is None else metric.milliseconds


def records_of_payload(head: Head, metrics: Iterable[MetricValue]) -> list[dict[str, Any]]:
    """Return a record for each time, and further ones for metrics that occur again at the same time.

    The status belongs to the payload's time.
    """
    records: list[dict[str, Any]] = []
    newest: dict[Any, dict[str, Any]] = {}
    if head.status:
        records.append({**head.begin(head.milliseconds), **head.status})
        newest[head.milliseconds, False] = records[0]
    for metric in metrics:
        key = head.time_of(metric), metric.is_historical
        record, is_own = newest.get(key), metric.name in _TAKEN_NAMES
        if record is None or metric.name in (record.get(_OTHERS, ()) if is_own else record):
            record = newest[key] = head.begin(key[0], is_historical=metric.is_historical)
            records.append(record)
        values = record.setdefault(_OTHERS, {}) if is_own else record
        values[metric.name] = metric.value
        for kind, more in metric.more.items():
            record.setdefault(kind, {})[metric.name] = more
    return records or [head.begin(head.milliseconds)]


def records_of_metrics(head: Head, metrics: Iterable[MetricValue]) -> list[dict[str, Any]]:
    """Return a record for each metric, and before them one for the status, if there is any."""
    records = [{**head.begin(head.milliseconds), **head.status}] if head.status else []
    for metric in metrics:
        record = head.begin(head.time_of(metric), is_historical=metric.is_historical)
        records.append({**record, _OTHERS: metric.name, "value": metric.value, **metric.more})
    return records or [head.begin(head.milliseconds)]
