"""A route: the settings for the topics that one filter matches."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from typing import Final, Literal
from zoneinfo import ZoneInfo

import attrs

from amqtt_db.decode import DecoderByProperty, RouteDecoder
from amqtt_db.entity import Entity
from amqtt_db.models.base import Destination, Model
from amqtt_db.models.binding import BoundModel, BoundTable, bind
from amqtt_db.models.latest import LATEST_RECORDS, LATEST_VALUES
from amqtt_db.routing.each import Each
from amqtt_db.routing.reshape import Reshaping, names_in
from amqtt_db.routing.topics import TopicFilter

Unknown = Literal["add", "extra", "ignore", "reject"]
Mismatch = Literal["variant", "null", "reject"]


_UNCHANGED: Final = Reshaping()
_ANYWHERE: Final = Destination("")
CHUNK: Final = timedelta(days=7)
"""The default time span of a chunk, the same as TimescaleDB's."""


@attrs.frozen
class Ordering:
    """A column that rows are ordered by, as in :class:`Hypertable`."""

    column: str
    descending: bool = False


@attrs.frozen
class Hypertable:
    """The settings of a route's hypertables, for PostgreSQL with TimescaleDB.

    ``chunk`` is the time span of a chunk.  A chunk that ended ``compress_after`` ago is compressed, None: never.  In
    it, rows with equal values in the columns ``segment_by`` are stored together, in the order ``order_by``; both are
    names of fixed columns or paths of properties, and if they are empty, they come from the model's indexes.  ``path``
    is the path in the YAML, for messages.
    """

    chunk: timedelta = CHUNK
    compress_after: timedelta | None = None
    segment_by: tuple[str, ...] = ()
    order_by: tuple[Ordering, ...] = ()
    path: str = attrs.field(default="hypertable", eq=False)


@attrs.frozen
class Latest:
    """The devices whose newest values a route keeps: those that the properties or levels at ``paths`` name.

    Without paths each topic is one, or the topics that differ in nothing but the levels that name a property.
    """

    paths: tuple[str, ...] = ()


@attrs.frozen
class OnlyChanges:
    """What counts as a change: values that differ by more than ``deadband``, by path, from those stored last.

    After ``at_least_every`` a record is stored even if nothing has changed, None: never.
    """

    deadband: Mapping[str, float] = attrs.field(factory=dict)
    at_least_every: timedelta | None = None


@attrs.frozen
class RollupStep:
    """The length of the intervals that records are summed up over, and how long the sums are kept, None: forever."""

    every: timedelta
    keep: timedelta | None = None


@attrs.frozen
class Route:
    """One entry of ``routes:``, ready for use.

    ``filter`` covers its topics; ``decode``, ``entity`` and ``model`` are the three steps for its messages.  ``time``
    is the path of the property that is the event's time, ``each`` tells what becomes records of their own, and
    ``reshaping`` what is changed before.  ``unknown`` and ``mismatch`` say what becomes of properties
    that the entity does not declare and of values that do not have the declared type.  ``max_columns`` is None for the
    engine's own limit; ``max_tables`` bounds a model that makes a table per topic.  ``hypertable`` is None for plain
    tables; records whose time is longer ago than ``keep`` are deleted, None: never.  ``timed`` says that the tables
    have the time in their keys, as hypertables need it.  ``indexes`` are further ones on the record's own table: names
    of fixed columns, and paths of properties.  ``latest`` is None if no newest values are kept apart.  With
    ``only`` records that say nothing new are not stored; ``gather`` is the interval for which a view has one row, None:
    it has one for each record.  ``rollup`` says over which intervals records are summed up, the shortest first.  With
    ``raw`` the payloads are kept as they came, with ``properties`` also the MQTT properties of the messages.  Without
    ``stores`` the messages are ignored.  ``format`` says in words of the YAML how payloads are decoded.
    """

    filter: TopicFilter
    model: Model
    decode: RouteDecoder
    entity: Entity | None = None
    time: str | None = None
    each: Each | None = None
    reshaping: Reshaping = _UNCHANGED
    unknown: Unknown = "add"
    mismatch: Mismatch = "variant"
    max_columns: int | None = None
    max_tables: int = 1000
    hypertable: Hypertable | None = None
    keep: timedelta | None = None
    timed: bool = False
    indexes: tuple[tuple[str, ...], ...] = ()
    latest: Latest | None = None
    only: OnlyChanges | None = None
    gather: timedelta | None = None
    rollup: tuple[RollupStep, ...] = ()
    raw: bool = False
    properties: bool = False
    stores: bool = True
    format: str = "auto"

    @property
    def uses_properties(self) -> bool:
        """True if the MQTT 5 properties of messages are stored, or choose the decoder."""
        return self.properties or isinstance(self.decode, DecoderByProperty)

    @cached_property
    def is_per_topic(self) -> bool:
        """True if each topic has its own table."""
        return self.bound().is_per_topic

    def bound(self, destination: Destination = _ANYWHERE) -> BoundModel:
        """Return the model with the tables that it has at a destination."""
        return bind(self.model, destination, timed=self.timed)

    def destination(self, key: str) -> Destination:
        """Return the destination with a key at which this route stores records."""
        declared = None if self.entity is None else self.entity.declared
        return Destination(key, self.filter.text, declared, self.unknown)

    def with_timezone(self, zone: ZoneInfo | None) -> Route:
        """Return the route with a time zone for times without one, unless it has one already."""
        if zone is None or self.reshaping.timezone is not None:
            return self
        return attrs.evolve(self, reshaping=attrs.evolve(self.reshaping, timezone=zone))

    @property
    def latest_tables(self) -> tuple[BoundTable, ...]:
        """The tables of the newest values; none if the route does not keep them."""
        return () if self.latest is None else (LATEST_RECORDS, LATEST_VALUES)

    @property
    def device_levels(self) -> tuple[str, ...]:
        """The named levels that do not name a property."""
        naming = names_in(self.reshaping.property)
        return tuple(name for name in self.filter.names if name not in naming)

    def without_property(self, topic: str) -> str:
        """Return a topic of the route without the levels that name a property."""
        named = self._property_levels
        return "/".join(level for index, level in enumerate(topic.split("/")) if index not in named) if named else topic

    def siblings_of(self, topic: str) -> str:
        """Return the MQTT filter for all topics that differ from one of the route only in the name of the property."""
        named = self._property_levels
        return "/".join("+" if index in named else level for index, level in enumerate(topic.split("/")))

    @property
    def _property_levels(self) -> frozenset[int]:
        """The indexes of the levels that name a property."""
        naming = names_in(self.reshaping.property)
        return frozenset(index for index, part in enumerate(self.filter.text.split("/")) if part[1:-1] in naming)
