"""Records (typed messages), and the shapes that they share."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from itertools import repeat
from operator import attrgetter, itemgetter
from typing import Any, Final

import attrs

from amqtt_db.record.kinds import Kind, Pair, restored, tag
from amqtt_db.record.paths import PROPERTIES_PATH, unflatten

ENVELOPE_NAMES: Final = ("id", "part", "time", "topic", "session", "qos", "retain")
"""The columns of what a record has besides its properties, in the order of its fields."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
MICROSECOND: Final = timedelta(microseconds=1)

_envelope = attrgetter("id", "part", "time_us", "topic", "session", "qos", "retain")


@attrs.frozen(cache_hash=True)
class Shape:
    """The (property path, kind) pairs of a record, in the order of its values."""

    properties: tuple[Pair, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The property paths alone."""
        return tuple(path for path, _ in self.properties)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds alone."""
        return tuple(kind for _, kind in self.properties)


@attrs.frozen
class Record:
    """One typed message, or one part of it.

    ``id`` is unique in the database, ``part`` counts the records of one message from 0.  ``time_us`` is the event's
    time in microseconds since 1970 (UTC).  ``session`` is the id of the connection's row, or None.  ``values`` align
    with ``shape``; None means that the property is absent.
    """

    id: int
    part: int
    time_us: int
    topic: str
    session: int | None
    qos: int
    retain: bool
    values: tuple[Any, ...]
    shape: Shape

    @property
    def time(self) -> datetime:
        """The event's time as an aware datetime in UTC."""
        return EPOCH + timedelta(microseconds=self.time_us)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a property by its path, or of a topic's named level as ``{room}``; else ``default``."""
        for path, value in zip(self.shape.paths, self.values, strict=True):
            if path == name and value is not None:
                return value
        return default

    def __getitem__(self, name: str) -> Any:
        """Return the value of a property by its path: ``record["pos.lat"]``.  Raises KeyError if it is absent."""
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def envelope(self) -> dict[str, Any]:
        """Return what the record has besides its properties, by column name; ``time`` is in microseconds since 1970."""
        return dict(zip(ENVELOPE_NAMES, _envelope(self), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return the envelope (``time`` as a datetime), ``levels`` and ``data`` as plain nested objects.

        There are also ``properties`` if the message's MQTT properties were kept.
        """
        kept = self.mqtt_properties()
        more = {"properties": kept} if kept else {}
        return {**self.envelope(), "time": self.time, "levels": self.levels(), **more, "data": self.data()}

    def data(self) -> dict[str, Any]:
        """Return the properties as the nested objects they came in, without the topic's named levels."""
        named = zip(self.shape.paths, self.values, strict=True)
        return unflatten((path, value) for path, value in named if not path.startswith("{"))

    def levels(self) -> dict[str, Any]:
        """Return the topic's named levels: ``{"room": "kitchen"}`` if the route is ``home/{room}/climate``."""
        named = zip(self.shape.paths, self.values, strict=True)
        levels = {path[1:-1]: value for path, value in named if path.startswith("{") and path != PROPERTIES_PATH}
        return {name: value for name, value in levels.items() if value is not None}

    def mqtt_properties(self) -> dict[str, Any]:
        """Return the MQTT 5 properties that the message came with, by name, if its route keeps them."""
        found: dict[str, Any] = self.get(PROPERTIES_PATH, {})
        return found

    def properties(self) -> dict[str, tuple[Kind, Any]]:
        """Return path → (kind, value) of the properties that are present; equal for equal records."""
        pairs = zip(self.shape.properties, self.values, strict=True)
        return {path: (kind, value) for (path, kind), value in pairs if value is not None}

    def to_json(self) -> dict[str, Any]:
        """Return the properties by path, for a column of kind ``json``; :meth:`with_json` reverses this."""
        return {path: tag(kind, value) for path, (kind, value) in self.properties().items()}

    def with_json(self, properties: Mapping[str, Any]) -> Record:
        """Return the record with the properties that :meth:`to_json` returned."""
        return self.with_values(dict(restored(path, value) for path, value in properties.items()))

    def with_values(self, values: Mapping[Pair, Any]) -> Record:
        """Return the record with other properties, given by (path, kind) and put in the order of their paths."""
        shape, pick = in_order(tuple(values))
        found = pick(tuple(values.values()))
        return Record(self.id, self.part, self.time_us, self.topic, self.session, self.qos, self.retain, found, shape)


_SETTERS: Final = [getattr(Record, field.name).__set__ for field in attrs.fields(Record)]


def records_of(ids: Sequence[int], *others: Iterable[Any]) -> list[Record]:
    """Return records from their fields, given column by column in a record's order.

    Slots are set one column at a time: the initialiser of a frozen class takes twice as long.
    """
    records = list(map(Record.__new__, repeat(Record, len(ids))))
    for fill, column in zip(_SETTERS, (ids, *others), strict=True):
        deque(map(fill, records, column), maxlen=0)
    return records


def picker(indexes: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Return a function that picks the values at ``indexes``, always as a tuple."""
    if len(indexes) > 1:
        return itemgetter(*indexes)
    return lambda values: tuple(values[index] for index in indexes)


@lru_cache(4096)
def in_order(pairs: tuple[Pair, ...]) -> tuple[Shape, Callable[[Sequence[Any]], tuple[Any, ...]]]:
    """Return the shape of ``pairs`` in the order of their paths, and a function that reorders values to match."""
    order = sorted(range(len(pairs)), key=pairs.__getitem__)
    return Shape(tuple(pairs[index] for index in order)), picker(order)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970 of an aware datetime."""
    return (moment - EPOCH) // MICROSECOND
