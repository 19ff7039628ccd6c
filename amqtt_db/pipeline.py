"""bytes → plain data → typed entity → Record: the pure middle of the way, per route.

A :class:`Lane` is the way of one topic's messages.  What is the same for all messages of a route, above all the shapes
met so far, is kept in its :class:`Typist`, so that a message of a known shape costs a dictionary look-up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from types import GeneratorType
from typing import Any, Final

import attrs

from amqtt_db.entity import Entity
from amqtt_db.errors import EntityError, Rejected, StructureError
from amqtt_db.models.base import Place
from amqtt_db.moment import event_time
from amqtt_db.route import Route
from amqtt_db.shape import KIND_OF_TYPE, Kind, Pair, Record, Shape, escape, flatten, kind_of, level_path, split_path

MAX_SHAPES: Final = 4096  # more are forgotten and learnt again

# Types → kinds, but objects apart from lists: they are flattened first.
_OBJECT: Final = "object"
_key_kind = {**KIND_OF_TYPE, dict: _OBJECT, type(None): "null"}.get

Values = tuple[Any, ...]


@attrs.frozen
class Form:
    """How the values under a set of keys become a record's: its shape, where the event's time is, what picks them."""

    shape: Shape
    time: int | None
    pick: Callable[[Mapping[str, Any]], Values] = tuple


class Typist:
    """Makes typed values of one route's decoded data, and counts what its policies drop."""

    def __init__(self, route: Route) -> None:
        self.route = route
        self.counts: Counter[str] = Counter()
        self._time = None if route.time is None else escape_path(route.time)
        self._each = None if route.each is None else split_path(route.each) if route.each else ()
        self._forms: dict[Any, Form] = {}
        declared = route.entity.declared if route.entity is not None else ()
        self.levels = tuple(name for name in route.filter.names if name not in declared)
        self._level_pairs: tuple[Pair, ...] = tuple((level_path(name), "text") for name in self.levels)
        self.is_simple = self._each is None

    def items(self, data: Any) -> Iterator[dict[str, Any]]:
        """The objects that become records: one, or one per item of a generator or of the ``each:`` list."""
        if isinstance(data, GeneratorType):
            for item in data:
                yield from self.items(item)
        elif self._each is not None:
            yield from (_as_object(item) for item in _spread(data, self._each))
        else:
            yield _as_object(data)

    def undeclared(self, data: dict[str, Any]) -> tuple[Shape, Values, int | None]:
        """Shape, values and the index of the event's time for an object without a declared entity.

        The shape ends with the route's named levels, whose values are the topic's.
        """
        key = (tuple(data), tuple(map(_key_kind, map(type, data.values()))))
        form = self._forms.get(key)
        if form is None:
            return self._unfamiliar(key, data)
        return form.shape, form.pick(data), form.time

    def declared(self, entity: Entity, data: dict[str, Any]) -> tuple[Shape, Values, int | None]:
        """The same for an object that the route's entity describes; deviations go by the route's policies."""
        values, mismatched, unknown = entity.structure(data)
        extra: dict[str, Any] = {}
        if mismatched:
            extra.update(self._mismatched(mismatched))
        if unknown:
            extra.update(self._unknown(unknown))
        return self._declared_form(entity, values, {path: value for path, value in extra.items() if value is not None})

    def _unfamiliar(self, key: tuple[Any, ...], data: dict[str, Any]) -> tuple[Shape, Values, int | None]:
        """Keys and kinds that are new, or objects in objects, which are flattened first."""
        if _OBJECT in key[1]:
            data = flatten(data)
            key = (tuple(data), tuple(map(_key_kind, map(type, data.values()))), _OBJECT)
        form = self._forms.get(key) or self._learn(key, data)
        return form.shape, form.pick(data), form.time

    def _learn(self, key: tuple[Any, ...], data: Mapping[str, Any]) -> Form:
        """A new set of keys and kinds; null values are absent.  Flattened data has its paths for keys."""
        present = [name for name, value in data.items() if value is not None]
        path_of = (lambda name: name) if len(key) > 2 else escape
        pairs = tuple((path_of(name), _kind(data[name])) for name in present)
        form = Form(Shape((*pairs, *self._level_pairs)), self._time_index(pairs), _picker(present))
        self._remember(key, form)
        return form

    def _declared_form(
        self, entity: Entity, values: Values, extra: Mapping[str, Any]
    ) -> tuple[Shape, Values, int | None]:
        key = tuple((path, _kind(value)) for path, value in extra.items())
        form = self._forms.get(key)
        if form is None:
            pairs = (*entity.shape.properties, *key)
            form = Form(Shape((*pairs, *self._level_pairs)), self._time_index(pairs))
            self._remember(key, form)
        return form.shape, (*values, *extra.values()), form.time

    def _remember(self, key: tuple[Any, ...], form: Form) -> None:
        if len(self._forms) >= MAX_SHAPES:
            self._forms.clear()
        self._forms[key] = form

    def _time_index(self, pairs: tuple[Pair, ...]) -> int | None:
        return next((index for index, (path, _) in enumerate(pairs) if path == self._time), None)

    def _mismatched(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        policy = self.route.mismatch
        if policy == "reject":
            raise EntityError(f"property {_names(values)} is not of the declared type (mismatch: reject)")
        if policy == "null":
            self.counts["nulled"] += len(values)
            return {}
        return values

    def _unknown(self, values: Mapping[str, Any]) -> Mapping[str, Any]:
        policy = self.route.unknown
        if policy == "reject":
            raise EntityError(f"property {_names(values)} is not declared (unknown: reject)")
        if policy == "ignore":
            self.counts["dropped"] += len(values)
            return {}
        return values


class Lane:
    """The way of one topic's messages to Records."""

    def __init__(self, topic: str, typist: Typist, place: Place, levels: Mapping[str, str]) -> None:
        self.topic = topic
        self.typist = typist
        self.place = place
        self.filter = typist.route.filter.text
        self._decode = typist.route.decode
        self._entity = typist.route.entity
        self._given, self._odd, self._fault = _typed_levels(typist.route, levels)
        self._levels = tuple(levels[name] for name in typist.levels)

    def records(self, id_: int, time: int, session: int | None, qos: int, retain: bool, payload: bytes) -> list[Record]:
        """The records of one message.  Raises Rejected with the step and the reason where it cannot be stored."""
        try:
            data = self._decode(payload)
            if type(data) is dict and self.typist.is_simple:
                shape, values, moment = self._typed(data, time)
                return [Record(id_, 0, moment, self.topic, session, qos, retain, values, shape)]
            typed = (self._typed(item, time) for item in self.typist.items(data))
            return [
                Record(id_, part, moment, self.topic, session, qos, retain, values, shape)
                for part, (shape, values, moment) in enumerate(typed)
            ]
        except EntityError as error:
            raise EntityError(f"route {self.filter}: table {self._table_name()}: {error}") from error
        except Rejected:
            raise
        except (TypeError, ValueError, RecursionError) as error:
            raise StructureError(f"route {self.filter}: {type(error).__name__}: {error}") from error

    def _typed(self, item: dict[str, Any], arrival: int) -> tuple[Shape, Values, int]:
        """An object's shape and values, and the time of its event."""
        if self._fault is not None:
            raise self._fault
        if self._entity is None:
            shape, values, index = self.typist.undeclared(item)
        else:
            shape, values, index = self.typist.declared(self._entity, self._complete(item) if self._given else item)
        if self._levels:
            values += self._levels
        if self._odd:
            shape, values = _with(self._odd, shape, values)
        event = None if index is None else event_time(values[index])
        return shape, values, arrival if event is None else event

    def _complete(self, item: dict[str, Any]) -> dict[str, Any]:
        """The object with typed levels where it leaves their properties out."""
        missing = {name: level for name, level in self._given.items() if item.get(name) is None}
        return {**item, **missing} if missing else item

    def _table_name(self) -> str:
        return self.typist.route.model.tables(self.place, Shape(()))[0].name


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


def _with(odd: Mapping[str, str], shape: Shape, values: Values) -> tuple[Shape, Values]:
    """Levels that are not of their declared type, as text beside the rest."""
    pairs: list[Pair] = [(level_path(name), "text") for name in odd]
    return Shape((*shape.properties, *pairs)), (*values, *odd.values())


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
