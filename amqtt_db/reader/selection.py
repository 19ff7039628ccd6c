"""A selection of records: which topics and times, how many, and in which order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

import attrs

from amqtt_db.entity.timestamp import TIMES, read_time
from amqtt_db.record import Record, to_micros
from amqtt_db.routing.topics import TopicFilter


@attrs.frozen
class Order:
    """The fields of the envelope that records are ordered by; each record has different values of them."""

    fields: tuple[str, ...]
    descending: bool = False
    key: Callable[[Record], Any] = attrs.field(init=False, eq=False, repr=False)

    @key.default
    def _key(self) -> Callable[[Record], Any]:
        return attrgetter(*("time_us" if field == "time" else field for field in self.fields))


BY_TIME: Final = Order(("time", "id", "part"))
"""The order that models have indexes for; it is valid across journals."""

NEWEST: Final = Order(("time", "id", "part"), descending=True)

BY_ID: Final = Order(("id", "part"))
"""The order of arrival, within a journal."""


@attrs.frozen
class Selection:
    """The records that are wanted.

    ``low`` (inclusive) and ``high`` (exclusive) bound the first field of ``order``: times in microseconds since 1970,
    or ids.  ``limit`` is how many records are wanted at most.
    """

    topic: TopicFilter
    low: int | None = None
    high: int | None = None
    limit: int | None = None
    order: Order = BY_TIME

    @classmethod
    def of(
        cls,
        topic: str = "#",
        since: datetime | str | None = None,
        until: datetime | str | None = None,
        limit: int | None = None,
        *,
        newest: bool = False,
    ) -> Selection:
        """Return the selection that a user describes.  Raises ValueError for a wrong filter, time or limit."""
        if limit is not None and not 0 <= limit < 2**63:
            raise ValueError(f"limit is {limit}; it must be between 0 and 2**63 - 1")
        order = NEWEST if newest else BY_TIME
        return cls(TopicFilter.parse(topic), _parse_bound("since", since), _parse_bound("until", until), limit, order)

    @property
    def exact(self) -> str | None:
        """The only topic that the filter covers, None if it has wildcards."""
        levels = self.topic.mqtt.split("/")
        return None if "+" in levels or "#" in levels else self.topic.mqtt


def _parse_bound(name: str, value: datetime | str | None) -> int | None:
    """Return a bound of times in microseconds since 1970.  Raises ValueError, naming the argument."""
    if value is None:
        return None
    if isinstance(value, str):
        return to_micros(read_time(value))
    if not isinstance(value, datetime):
        raise ValueError(f"{name} is {value!r}; give a datetime with a time zone, or text: {TIMES}")
    if value.utcoffset() is None:
        raise ValueError(f"{name} is {value.isoformat()}; it needs a time zone, such as timezone.utc")
    return to_micros(value)
