"""bytes → plain data → typed entity → Record: the pure middle of the way, per route.

A :class:`TopicHandler` turns the payloads of one topic into records.  What all messages of a route share, above all the
shapes met so far, is in its :class:`RecordBuilder`.  It types objects with the same keys together, column by column;
where that is impossible it types them one by one, and a known set of keys and kinds costs a dictionary look-up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from operator import itemgetter
from types import GeneratorType
from typing import Any, Final

import attrs

from amqtt_db.errors import EntityError, Rejected, StructureError
from amqtt_db.models.base import Destination
from amqtt_db.record import KIND_OF_TYPE, Kind, Pair, Shape, escape, flatten, kind_of, level_path, split_path
from amqtt_db.routing.route import Route

MAX_SHAPES: Final = 4096  # more are forgotten and learnt again

# Types → kinds, but objects apart from lists: they are flattened first.
_OBJECT: Final = "object"
_key_kind = {**KIND_OF_TYPE, dict: _OBJECT, type(None): "null"}.get
_FLAT: Final = KIND_OF_TYPE.keys() - {dict}

Values = tuple[Any, ...]
Columns = Sequence[Sequence[Any]]
Pick = Callable[[Mapping[str, Any]], Values]


@attrs.frozen(eq=False)
class TimedShape:
    """What records of a route may look like: their shape, and the index of the value that is the event's time.

    A typist has one form for each shape, so forms are told apart by identity.
    """

    shape: Shape
    time: int | None


TypedRecord = tuple[TimedShape, Values]
"""A record without its envelope."""


class RecordBuilder:
    """Makes typed values of one route's decoded data, and counts what its policies drop."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.counts: Counter[str] = Counter()
        self._time = None if route.time is None else escape_path(route.time)
        self._each = None if route.each is None else split_path(route.each) if route.each else ()
        declared = route.entity.declared if route.entity is not None else ()
        self.levels = tuple(name for name in route.filter.names if name not in declared)
        self._level_pairs: tuple[Pair, ...] = tuple((level_path(name), "text") for name in self.levels)
        self.is_single = self._each is None
        self.is_plain = self.is_single and (route.entity is None or route.entity.is_plain)
        self._ways: dict[Any, tuple[TimedShape, Pick]] = {}
        self._timed_shapes: dict[Shape, TimedShape] = {}
        if route.entity is not None:
            self._entity = route.entity
            self._declared = self._timed_shape(route.entity.shape.properties)

    def begin(self) -> None:
        """Begin a batch: count anew, and forget shapes if they have become too many."""
        self.counts.clear()
        if len(self._ways) > MAX_SHAPES or len(self._timed_shapes) > MAX_SHAPES:
            self._ways.clear()
            self._timed_shapes.clear()
            if self.route.entity is not None:
                self._timed_shapes[self._declared.shape] = self._declared

    def items(self, data: Any) -> Iterator[dict[str, Any]]:
        """The objects that become records: one, or one per item of a generator or of the ``each:`` list."""
        if isinstance(data, GeneratorType):
            for item in data:
                yield from self.items(item)
        elif self._each is not None:
            yield from (_as_object(item) for item in _spread(data, self._each))
        else:
            yield _as_object(data)

    def columns(self, names: Sequence[str], columns: Columns) -> tuple[TimedShape, Columns] | None:
        """Form and columns of many objects with the keys ``names``; None where they must be looked at one by one.

        That is where a property is an object, has values of several kinds, or some that deviate from what is declared.
        The columns of the topic's levels are to follow.
        """
        entity = self.route.entity
        if entity is None:
            more = _undeclared(zip(names, columns, strict=True))
            return (
                None if more is None else (self._timed_shape(tuple(pair for pair, _ in more)), [one for _, one in more])
            )
        declared = entity.columns(dict(zip(names, columns, strict=True)), len(columns[0]))
        rest = [(name, column) for name, column in zip(names, columns, strict=True) if name not in entity.keys]
        more = None if rest and self.route.unknown == "reject" else _undeclared(rest)
        if declared is None or more is None:
            return None
        if self.route.unknown == "ignore":
            self.counts["dropped"] += sum(len(column) - column.count(None) for _, column in more)
            more = []
        timed_shape = self._timed_shape((*entity.shape.properties, *(pair for pair, _ in more)))
        return timed_shape, [*declared, *(column for _, column in more)]

    def has_gaps(self, columns: Columns) -> bool:
        """Whether, in columns made by :meth:`columns`, a property that is not declared is absent here and there."""
        declared = 0 if self.route.entity is None else len(self.route.entity.shape.properties)
        return any(None in column for column in columns[declared:])

    def undeclared(self, data: dict[str, Any]) -> TypedRecord:
        """Form and values of an object without a declared entity; the values of the topic's levels are to follow."""
        key = (tuple(data), tuple(map(_key_kind, map(type, data.values()))))
        way = self._ways.get(key)
        if way is None:
            return self._unfamiliar(key, data)
        timed_shape, pick = way
        return timed_shape, pick(data)

    def declared(self, data: dict[str, Any]) -> TypedRecord:
        """The same for an object that the route's entity describes; deviations go by the route's policies."""
        values, mismatched, unknown = self._entity.structure(data)
        if not mismatched and not unknown:
            return self._declared, values
        extra = {**self._mismatched(mismatched), **self._unknown(unknown)}
        present = {path: value for path, value in extra.items() if value is not None}
        more = ((path, _kind(value)) for path, value in present.items())
        return self._timed_shape((*self._entity.shape.properties, *more)), (*values, *present.values())

    def _unfamiliar(self, key: tuple[Any, ...], data: dict[str, Any]) -> TypedRecord:
        """Keys and kinds that are new, or objects in objects, which are flattened first."""
        if _OBJECT in key[1]:
            data = flatten(data)
            key = (tuple(data), tuple(map(_key_kind, map(type, data.values()))), _OBJECT)
        timed_shape, pick = self._ways.get(key) or self._learn(key, data)
        return timed_shape, pick(data)

    def _learn(self, key: tuple[Any, ...], data: Mapping[str, Any]) -> tuple[TimedShape, Pick]:
        """A new set of keys and kinds; null values are absent.  Flattened data has its paths for keys."""
        present = [name for name, value in data.items() if value is not None]
        path_of = (lambda name: name) if len(key) > 2 else escape
        timed_shape = self._timed_shape(tuple((path_of(name), _kind(data[name])) for name in present))
        self._ways[key] = timed_shape, _picker(present)
        return self._ways[key]

    def _timed_shape(self, pairs: tuple[Pair, ...]) -> TimedShape:
        return self.timed_shape(Shape((*pairs, *self._level_pairs)))

    def timed_shape(self, shape: Shape) -> TimedShape:
        """The form that has a shape, the topic's levels included."""
        timed_shape = self._timed_shapes.get(shape)
        if timed_shape is None:
            time = next((index for index, path in enumerate(shape.paths) if path == self._time), None)
            timed_shape = self._timed_shapes[shape] = TimedShape(shape, time)
        return timed_shape

    def _mismatched(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        policy = self.route.mismatch
        if policy == "reject" and values:
            raise EntityError(f"property {self._entity.mismatches(values)} (mismatch: reject)")
        if policy == "null":
            self.counts["nulled"] += len(values)
            return {}
        return values

    def _unknown(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        policy = self.route.unknown
        if policy == "reject" and values:
            raise EntityError(f"property {_names(values)} is not declared (unknown: reject)")
        if policy == "ignore":
            self.counts["dropped"] += len(values)
            return {}
        return values


FAULTS: Final = (Rejected, TypeError, ValueError, RecursionError)
"""What decoding and typing a message raise where it cannot be stored."""


class TopicHandler:
    """The way of one topic's messages to records."""

    def __init__(self, topic: str, builder: RecordBuilder, destination: Destination, levels: Mapping[str, str]) -> None:
        self.topic = topic
        self.builder = builder
        self.destination = destination
        self.filter = builder.route.filter.text
        self.decode = builder.route.decode
        self._given, self._odd, self._fault = _typed_levels(builder.route, levels)
        self.levels = (*(levels[name] for name in builder.levels), *self._odd.values())
        self._type: Callable[[dict[str, Any]], TypedRecord] = (
            builder.undeclared if builder.route.entity is None else builder.declared
        )
        is_special = bool(self._given or self._odd or self._fault)
        if is_special:
            self._type = self._with_levels
        self.is_plain = builder.is_plain and not is_special

    def typed(self, data: Any) -> Sequence[TypedRecord]:
        """The records of a message's decoded data.  Raises one of FAULTS where it cannot be stored."""
        if type(data) is dict and self.builder.is_single:
            timed_shape, values = self._type(data)
            return ((timed_shape, values + self.levels),)
        typed = map(self._type, self.builder.items(data))
        return [(timed_shape, values + self.levels) for timed_shape, values in typed]

    def reason(self, fault: Exception) -> Rejected:
        """One of FAULTS as what its user reads of a dead letter."""
        if isinstance(fault, EntityError):
            return EntityError(f"route {self.filter}: {self._where()}: {fault}")
        if isinstance(fault, Rejected):
            return fault
        return StructureError(f"route {self.filter}: {type(fault).__name__}: {fault}")

    def _with_levels(self, item: dict[str, Any]) -> TypedRecord:
        """An object of a topic whose levels the entity declares; those that do not convert are text beside the rest."""
        if self._fault is not None:
            raise self._fault
        timed_shape, values = self.builder.declared(self._complete(item))
        odd: list[Pair] = [(level_path(name), "text") for name in self._odd]
        return self.builder.timed_shape(Shape((*timed_shape.shape.properties, *odd))) if odd else timed_shape, values

    def _complete(self, item: dict[str, Any]) -> dict[str, Any]:
        """The object with typed levels where it leaves their properties out."""
        missing = {name: level for name, level in self._given.items() if item.get(name) is None}
        return {**item, **missing} if missing else item

    def _where(self) -> str:
        """The table, where its name is the user's; one that a topic has to itself is named later."""
        if self.destination.key == self.topic:
            return f"topic {self.topic}"
        return f"table {self.builder.route.model.tables(self.destination, Shape(()))[0].name}"


def escape_path(path: str) -> str:
    """A path as the user writes it in ``time:`` is a path already, or the bare name of a property with odd letters."""
    return path if "\\" in path else ".".join(escape(key) for key in path.split("."))


def _typed_levels(route: Route, levels: Mapping[str, str]) -> tuple[dict[str, Any], dict[str, str], EntityError | None]:
    """Levels that the entity declares: typed; as text where they do not convert; and why that may not be."""
    typed: dict[str, Any] = {}
    odd: dict[str, str] = {}
    for name, level in levels.items():
        if route.entity is None or name not in route.entity.declared:
            continue
        try:
            typed[name] = route.entity.level(name, level)
        except EntityError as error:
            odd[name] = level
            if route.mismatch == "reject":
                return typed, odd, error
    return typed, odd, None


def _as_object(data: Any) -> dict[str, Any]:
    if type(data) is dict:
        return data
    return dict(data) if isinstance(data, Mapping) else {"value": data}


def _spread(data: Any, path: tuple[str, ...]) -> Iterator[Any]:
    """The data once per item of the list at ``path``, with the item in the list's place."""
    if not path:
        yield from data if isinstance(data, list) else [data]
    elif isinstance(data, Mapping) and path[0] in data:
        yield from ({**data, path[0]: inner} for inner in _spread(data[path[0]], path[1:]))
    else:
        yield data


def _undeclared(columns: Iterable[tuple[str, Sequence[Any]]]) -> list[tuple[Pair, Sequence[Any]]] | None:
    """Columns by name with the pairs that their values have in common, if they have; without those of null alone."""
    found: list[tuple[Pair, Sequence[Any]]] = []
    for name, column in columns:
        kinds = _kinds(frozenset(map(type, column)))
        if kinds is None or len(kinds) > 1:
            return None
        found += [((escape(name), kind), column) for kind in kinds]
    return found


@lru_cache(1024)
def _kinds(types: frozenset[type]) -> frozenset[Kind] | None:
    """The kinds of values of these types; None where one has none, or the value itself must be looked at."""
    there = types - {type(None)}
    return frozenset(KIND_OF_TYPE[one] for one in there) if there <= _FLAT else None


def _kind(value: Any) -> Kind:
    """The kind by type alone; whether a number is exact is seen where columns are encoded."""
    try:
        return KIND_OF_TYPE[type(value)]
    except KeyError:
        return kind_of(value) or "json"


def _picker(names: list[str]) -> Callable[[Mapping[str, Any]], Values]:
    if len(names) > 1:
        return itemgetter(*names)
    return lambda data: tuple(data[name] for name in names)


def _names(values: Mapping[str, Any]) -> str:
    return ", ".join(f"'{path}'" for path in values)
