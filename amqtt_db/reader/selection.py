"""What a reader wants: which topics, of which time, how many, in which order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from operator import attrgetter
from typing import Any, Final

import attrs

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
"""What models have indexes for, and what several journals have in common."""

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
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int | None = None,
        *,
        newest: bool = False,
    ) -> Selection:
        """A selection as a user states it.  Raises ValueError for no filter, a datetime without zone, a limit < 0."""
        if limit is not None and limit < 0:
            raise ValueError(f"limit is {limit}; it must be 0 or more")
        order = NEWEST if newest else BY_TIME
        return cls(TopicFilter.parse(topic), _moment("since", since), _moment("until", until), limit, order)

    @property
    def exact(self) -> str | None:
        """The only topic that is covered, None where the filter has wildcards."""
        levels = self.topic.mqtt.split("/")
        return None if "+" in levels or "#" in levels else self.topic.mqtt


def _moment(name: str, value: datetime | None) -> int | None:
    if value is not None and value.utcoffset() is None:
        raise ValueError(f"{name} is {value.isoformat()}; it needs a time zone, such as timezone.utc")
    return None if value is None else to_micros(value)
