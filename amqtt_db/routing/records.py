"""Plain data → typed values: what one route's messages become before their envelopes are added.

A :class:`RecordBuilder` types the objects of one route.  Objects with the same keys are typed together, column by
column; any other object is typed alone, and a known set of keys and kinds costs a dictionary lookup.  A
:class:`TopicHandler` adds what is specific to one topic: its levels, and where its records go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cached_property
from operator import itemgetter
from types import GeneratorType
from typing import Any, Final, NamedTuple

import attrs

from amqtt_db.decode import (
    EMPTY,
    Arrival,
    Decoder,
    DecoderByProperty,
    Recollection,
    RememberingDecoder,
    choose_decoder,
    decodes_json,
)
from amqtt_db.errors import EntityError, Rejected, StructureError, describe_fault
from amqtt_db.models.base import Destination
from amqtt_db.record import (
    KIND_OF_TYPE,
    PROPERTIES_PATH,
    Kind,
    Pair,
    Shape,
    as_plain,
    escape,
    flatten,
    kind_of,
    level_path,
)
from amqtt_db.routing.columns import KNOWN_TYPES, OBJECT, kind_mark
from amqtt_db.routing.each import Each, spread
from amqtt_db.routing.reshape import names_in, reshape_message, reshape_record
from amqtt_db.routing.route import Route

MAX_SHAPES: Final = 4096  # if there are more, all are forgotten and learnt again

RecordValues = tuple[Any, ...]
RecordColumns = Sequence[Sequence[Any]]
_Pick = Callable[[Mapping[str, Any]], RecordValues]


@attrs.frozen(eq=False)
class TimedShape:
    """A shape of a route's records, with the index of the value that is the event's time.

    A builder has only one per shape, so they can be compared by identity.
    """

    shape: Shape
    time: int | None


class TypedRecord(NamedTuple):
    """A record without its envelope, and how many of its properties the route's policies dropped or set to NULL."""

    timed_shape: TimedShape
    values: RecordValues
    dropped: int = 0
    nulled: int = 0


@attrs.frozen
class TopicLevels:
    """The named levels of a topic, grouped by how they are stored.

    ``values`` follow the values of each record.  ``declared`` are those that the entity declares, typed: they are used
    if a message lacks the property.  ``mistyped`` are the pairs of those that do not have their declared type; their
    text is at the end of ``values``.  ``fault`` is the reason if this keeps messages from being stored
    (``mismatch: reject``).
    """

    values: tuple[str, ...] = ()
    declared: Mapping[str, Any] = attrs.field(factory=dict)
    mistyped: tuple[Pair, ...] = ()
    fault: EntityError | None = None

    @property
    def are_plain(self) -> bool:
        """True if they only follow the values of each record."""
        return not (self.declared or self.mistyped or self.fault)

    def complete(self, data: dict[str, Any]) -> dict[str, Any]:
        """Return the object with the levels that the entity declares for properties that it lacks."""
        missing = {name: level for name, level in self.declared.items() if data.get(name) is None}
        return {**data, **missing} if missing else data


class RecordBuilder:
    """Types the decoded data of one route's messages.

    ``levels`` names the topics' levels that are stored as text, and ``level_pairs`` are their paths and kinds.
    ``times`` are the paths at which a record's time is looked for.  ``is_single`` is true if a message is one record,
    ``types_columns`` if its objects may be typed column by column, ``has_time`` if a property is the event's time.
    ``property_pairs`` stand for the MQTT properties of messages, which come last and are known only to the caller.
    :meth:`type_object` types one object, given the levels of its topic.
    """

    def __init__(self, route: Route) -> None:
        self.route = route
        self.times = () if route.time is None else time_paths(route.time, route.each)
        self.has_time = route.time is not None
        declared = route.entity.declared if route.entity is not None else ()
        naming = names_in(route.reshaping.property)
        self.levels = tuple(name for name in route.filter.names if name not in declared and name not in naming)
        self.level_pairs: tuple[Pair, ...] = tuple((level_path(name), "text") for name in self.levels)
        self.property_pairs: tuple[Pair, ...] = ((PROPERTIES_PATH, "json"),) if route.properties else ()
        self.is_single = route.each is None
        self.types_columns = self.is_single and (route.entity is None or route.entity.is_plain)
        self.type_object: Callable[[dict[str, Any], TopicLevels], TypedRecord] = self._type_undeclared
        if route.entity is not None:
            self._entity = route.entity
            self.type_object = self._type_declared
        self._forget_shapes()

    def limit_memory(self) -> None:
        """Forget the known shapes if there are too many.  Call this only between batches."""
        if len(self._known) > MAX_SHAPES or len(self._timed_shapes) > MAX_SHAPES:
            self._forget_shapes()

    def _forget_shapes(self) -> None:
        self._known: dict[Any, tuple[TimedShape, _Pick]] = {}
        self._timed_shapes: dict[Shape, TimedShape] = {}
        if self.route.entity is not None:
            self._declared = self.timed_shape(self.route.entity.shape.properties)

    def items(self, data: Any) -> Iterator[dict[str, Any]]:
        """Yield the objects that become records: one, or one per item of a generator or of the ``each:`` list."""
        if isinstance(data, GeneratorType):
            for item in data:
                if item is not EMPTY:
                    yield from self.items(item)
        elif self.route.each is not None:
            yield from (self._reshape_record(_as_object(item)) for item in spread(self.route.each, data))
        else:
            yield _as_object(data)

    def with_reshaping(self, decode: Decoder, levels: Mapping[str, str]) -> Decoder:
        """Return a decoder that also reshapes what it has decoded; ``levels`` are those of the topic."""
        reshaping = self.route.reshaping
        if not reshaping.changes_messages and not reshaping.changes_records:
            return decode
        return lambda payload: self._reshape(decode(payload), levels)

    def _reshape(self, data: Any, levels: Mapping[str, str]) -> Any:
        if data is EMPTY:
            return data
        if isinstance(data, GeneratorType):
            return (item for item in (self._reshape(part, levels) for part in data))
        data = reshape_message(self.route.reshaping, levels, data)
        return self._reshape_record(_as_object(data)) if self.is_single else data

    def _reshape_record(self, data: dict[str, Any]) -> dict[str, Any]:
        reshaping = self.route.reshaping
        return reshape_record(reshaping, data) if reshaping.changes_records else data

    def _type_undeclared(self, data: dict[str, Any], levels: TopicLevels) -> TypedRecord:
        """Type an object of a route without an entity."""
        key: tuple[Any, ...] = (tuple(data), tuple(map(kind_mark, map(type, data.values()))))
        known = self._known.get(key)
        if known is None and (OBJECT in key[1] or None in key[1] or not all(isinstance(name, str) for name in data)):
            data = _flatten_any(data)
            key = (tuple(data), tuple(map(kind_mark, map(type, data.values()))), OBJECT)
            known = self._known.get(key)
        timed_shape, pick = known or self._learn(key, data)
        return TypedRecord(timed_shape, pick(data) + levels.values)

    def _type_declared(self, data: dict[str, Any], levels: TopicLevels) -> TypedRecord:
        """Type an object that the route's entity describes; the route's policies apply to what does not match."""
        if levels.fault is not None:
            raise levels.fault
        values, mismatched, unknown = self._entity.structure(levels.complete(data))
        if not mismatched and not unknown and not levels.mistyped:
            return TypedRecord(self._declared, values + levels.values)
        dropped, nulled = self._judge(mismatched, unknown)
        extra = {**({} if nulled else mismatched), **({} if dropped else unknown)}
        present = {path: _as_known_type(value) for path, value in extra.items() if value is not None}
        pairs = (*self._entity.shape.properties, *((path, _kind_by_type(value)) for path, value in present.items()))
        timed_shape = self.timed_shape(pairs, levels.mistyped)
        return TypedRecord(timed_shape, (*values, *present.values(), *levels.values), dropped, nulled)

    def _judge(self, mismatched: Mapping[str, Any], unknown: Mapping[str, Any]) -> tuple[int, int]:
        """Return how many properties are dropped and set to NULL.  Raise EntityError if a policy rejects the object."""
        route = self.route
        if mismatched and route.mismatch == "reject":
            raise EntityError(f"property {self._entity.mismatches(mismatched)} (mismatch: reject)")
        if unknown and route.unknown == "reject":
            raise EntityError(f"property {_quote(unknown)} is not declared (unknown: reject)")
        dropped = len(unknown) if route.unknown == "ignore" else 0
        return dropped, len(mismatched) if route.mismatch == "null" else 0

    def _learn(self, key: tuple[Any, ...], data: Mapping[str, Any]) -> tuple[TimedShape, _Pick]:
        """Learn a new set of keys and kinds; null values are absent.  The keys of flattened data are paths."""
        present = [name for name, value in data.items() if value is not None]
        path_of = (lambda name: name) if len(key) > 2 else escape
        timed_shape = self.timed_shape(tuple((path_of(name), _kind_by_type(data[name])) for name in present))
        self._known[key] = timed_shape, _picker(present)
        return self._known[key]

    def timed_shape(self, pairs: tuple[Pair, ...], more_levels: tuple[Pair, ...] = ()) -> TimedShape:
        """Return the only TimedShape for these properties, the topic's levels, and perhaps the MQTT properties."""
        shape = Shape((*pairs, *self.level_pairs, *more_levels, *self.property_pairs))
        timed_shape = self._timed_shapes.get(shape)
        if timed_shape is None:
            time = next((shape.paths.index(path) for path in self.times if path in shape.paths), None)
            timed_shape = self._timed_shapes[shape] = TimedShape(shape, time)
        return timed_shape


@attrs.frozen(eq=False)
class TopicMemory:
    """Decodes the messages of a topic with a decoder that remembers; ``levels`` are the topic's."""

    decoder: RememberingDecoder
    topic: str
    levels: Mapping[str, str]

    @cached_property
    def names(self) -> Mapping[str, str]:
        """The decoder's names for what it remembers, each with its name in the database.

        Raises whatever the decoder raises.
        """
        return self.decoder.names(self.topic)

    def decode(self, payload: bytes, time_us: int, memory: Mapping[str, str]) -> Recollection:
        """Return what becomes of a message that arrived at a time; ``memory`` is by the names in the database.

        Raises whatever the decoder raises.
        """
        return self.decoder.decode(Arrival(self.topic, payload, self.levels, time_us), self.names, memory)


class TopicHandler:
    """Turns the payloads of one topic into typed records; ``destination`` is where these go.

    ``decode`` returns the data of a payload if ``takes_payload`` is true.  Otherwise ``memory`` decodes, for a decoder
    that remembers, or ``by_property``, which depends on the message's MQTT 5 properties, and ``decode`` takes the data
    that these return.  ``types_columns`` is true if messages with the same keys may be typed together, by the route's
    builder.  Handlers with the same ``plain_json``, unless it is None, decode and type messages in the same way, and
    :func:`~amqtt_db.decode.decode_many` may decode them together.
    """

    def __init__(self, topic: str, builder: RecordBuilder, destination: Destination, levels: Mapping[str, str]) -> None:
        self.topic = topic
        self.builder = builder
        self.destination = destination
        self.filter = builder.route.filter.text
        decoder = choose_decoder(builder.route.decode, levels)
        self.memory = TopicMemory(decoder, topic, levels) if isinstance(decoder, RememberingDecoder) else None
        self.by_property = decoder if isinstance(decoder, DecoderByProperty) else None
        plain = _keep if isinstance(decoder, (RememberingDecoder, DecoderByProperty)) else decoder
        self.takes_payload = plain is decoder
        self.decode = builder.with_reshaping(plain, levels)
        self.levels = _type_levels(builder, levels)
        self.types_columns = builder.types_columns and self.levels.are_plain
        self.plain_json = (builder, self.decode) if self.types_columns and decodes_json(self.decode) else None

    def type_message(self, data: Any) -> list[TypedRecord]:
        """Return the records of a message's decoded data.  Raise whatever the decoder or the entity raises."""
        type_object, levels = self.builder.type_object, self.levels
        if type(data) is dict and self.builder.is_single:
            return [type_object(data, levels)]
        return [type_object(item, levels) for item in self.builder.items(data)]

    def explain(self, fault: Exception) -> Rejected:
        """Return an error from decoding or typing as the reason that the user sees in the dead letter."""
        if isinstance(fault, EntityError):
            return EntityError(f"route {self.filter}: {self._place()}: {fault}")
        if isinstance(fault, Rejected):
            return fault
        return StructureError(f"route {self.filter}: {describe_fault(fault)}")

    def _place(self) -> str:
        """Return the table's name if the user chose it; a topic's own table is named later."""
        if self.destination.key != self.topic:
            with suppress(Rejected):
                return f"table {self.builder.route.bound(self.destination).tables()[0].name}"
        return f"topic {self.topic}"


def _keep(data: Any) -> Any:
    return data


def escape_path(path: str) -> str:
    """Return the path that ``time:`` means; it may be the unescaped name of a property with unusual characters."""
    return path if "\\" in path else ".".join(escape(key) for key in path.split("."))


def time_paths(path: str, each: Each | None) -> tuple[str, ...]:
    """Return the paths at which a record's time is looked for: in an item of ``each`` first, then in the message."""
    path = escape_path(path)
    return (path,) if each is None or not each.names else (".".join((*map(escape, each.names), path)), path)


def _type_levels(builder: RecordBuilder, levels: Mapping[str, str]) -> TopicLevels:
    """Type the levels that the entity declares; those that do not have their declared type are kept as text."""
    entity = builder.route.entity
    declared: dict[str, Any] = {}
    mistyped: dict[str, EntityError] = {}
    for name, level in levels.items():
        if entity is not None and name in entity.declared:
            try:
                declared[name] = entity.level(name, level)
            except EntityError as error:
                mistyped[name] = error
    fault = next(iter(mistyped.values()), None) if builder.route.mismatch == "reject" else None
    values = tuple(levels[name] for name in (*builder.levels, *mistyped))
    return TopicLevels(values, declared, tuple((level_path(name), "text") for name in mistyped), fault)


def _as_object(data: Any) -> dict[str, Any]:
    if type(data) is dict:
        return data
    return dict(data) if isinstance(data, Mapping) else {"value": data}


def _flatten_any(data: dict[str, Any]) -> dict[str, Any]:
    """Flatten an object; values of similar types are converted to the project's types."""
    flat = flatten(data)
    return flat if set(map(type, flat.values())) <= KNOWN_TYPES else flatten(as_plain(data))


def _as_known_type(value: Any) -> Any:
    return value if type(value) in KNOWN_TYPES else as_plain(value)


def _kind_by_type(value: Any) -> Kind:
    """Return the kind by type alone; whether a number is exact is checked when columns are encoded."""
    try:
        return KIND_OF_TYPE[type(value)]
    except KeyError:
        return kind_of(value) or "json"


def _picker(names: list[str]) -> _Pick:
    if len(names) > 1:
        return itemgetter(*names)
    return lambda data: tuple(data[name] for name in names)


def _quote(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
