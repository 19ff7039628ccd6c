"""Stored records as their route would type them now: declared kinds, named levels, and the time of an event.

All functions are pure, and to retype a record a second time changes nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import orjson

from amqtt_db.entity import Entity
from amqtt_db.entity.timestamp import event_time
from amqtt_db.errors import EntityError
from amqtt_db.record import Pair, Record, escape
from amqtt_db.routing.readings import Reading
from amqtt_db.routing.records import RecordBuilder, TopicHandler
from amqtt_db.routing.reshape import names_in, read_text
from amqtt_db.routing.route import Route

PairValues = dict[Pair, Any]


@attrs.frozen
class Retyped:
    """A record as its route types it now.

    ``converted`` counts the values that have another kind than before; ``left`` those that do not fit exactly into the
    kind that is declared for them, and keep their own.
    """

    record: Record
    is_changed: bool
    converted: int = 0
    left: int = 0


def retype(record: Record, handler: TopicHandler) -> Retyped:
    """Return a record of the handler's topic as its route types it now."""
    before: PairValues = {
        (path, kind): value
        for (path, kind), value in zip(record.shape.properties, record.values, strict=True)
        if value is not None
    }
    values, converted, left = _convert_values(before, handler.builder.route)
    missing = _missing_levels({path for path, _ in values}, handler)
    retyped = record.with_values({**values, **missing}) if converted or missing else record
    time = _event_time(retyped, handler.builder.times)
    is_changed = bool(converted or missing or time != record.time_us)
    return Retyped(attrs.evolve(retyped, time_us=time), is_changed, converted, left)


def typing_of(builder: RecordBuilder) -> str:
    """Return what a route declares of its records, as text; empty if it declares nothing."""
    route = builder.route
    kinds = [] if route.entity is None else sorted(route.entity.shape.properties)
    names = sorted({*route.filter.names} - names_in(route.reshaping.property))
    return orjson.dumps([kinds, names, builder.times]).decode() if kinds or names or builder.times else ""


def _convert_values(before: PairValues, route: Route) -> tuple[PairValues, int, int]:
    """Return the values with the declared kinds, and how many were converted and how many do not fit."""
    if route.entity is None:
        return before, 0, 0
    kinds, readings = dict(route.entity.shape.properties), _readings_by_path(route)
    values: PairValues = {}
    converted = left = 0
    for (path, kind), value in before.items():
        if kinds.get(path, kind) == kind:
            values[path, kind] = value
            continue
        try:
            new_kind, new = _convert_value(route, route.entity, readings.get(path), path, value)
        except EntityError:
            values[path, kind] = value
            left += 1
        else:
            values[path, new_kind] = new
            converted += 1
    return values, converted, left


def _convert_value(route: Route, entity: Entity, reading: Reading | None, path: str, value: Any) -> Any:
    """Return the kind and the value of a property; what is stored as a number may have been scaled already."""
    if isinstance(value, str):
        value = read_text(route.reshaping, value)
    elif reading is not None:
        reading = reading.unscaled()
    return entity.convert(path, value if reading is None else reading.read(value))


def _readings_by_path(route: Route) -> Mapping[str, Reading]:
    return {".".join(map(escape, keys)): reading for keys, reading in route.reshaping.readings.items()}


def _missing_levels(paths: set[str], handler: TopicHandler) -> PairValues:
    """Return the levels of the topic that are not stored with a record whose properties have these paths."""
    levels, entity = handler.levels, handler.builder.route.entity
    named: PairValues = dict(zip((*handler.builder.level_pairs, *levels.mistyped), levels.values, strict=True))
    kinds = {} if entity is None else dict(entity.shape.properties)
    declared: PairValues = {(name, kinds[name]): value for name, value in levels.declared.items()}
    return {pair: value for pair, value in (named | declared).items() if pair[0] not in paths}


def _event_time(record: Record, paths: tuple[str, ...]) -> int:
    """Return the time that the first of some properties gives; that of the record if there is none."""
    stored = record.properties()
    told = next((event_time(stored[path][1]) for path in paths if path in stored), None)
    return record.time_us if told is None else told
