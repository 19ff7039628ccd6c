"""The ``routes:`` of the configuration: YAML → routes, with every mistake reported at once."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, cast

from amqtt_db import decode, registry
from amqtt_db.config.keys import ConfigKey, defined_in, described
from amqtt_db.config.latest import CHANGES_KEYS, read_latest
from amqtt_db.config.model import read_model
from amqtt_db.config.payload import PAYLOAD_KEYS, read_each, read_readings, read_reshaping
from amqtt_db.config.shared_tables import check_shared_tables
from amqtt_db.config.storage import COLUMNS, read_storage, with_own_tables
from amqtt_db.config.yaml_checks import Node, choice, duration, flag, text, whole_number
from amqtt_db.entity import Entity
from amqtt_db.models.wide import Wide
from amqtt_db.routing.each import Each
from amqtt_db.routing.records import time_paths
from amqtt_db.routing.route import Mismatch, Route, Unknown
from amqtt_db.routing.topics import TopicFilter

MOST_COLUMNS: Final = 10_000  # more than any database allows in a table
MOST_TABLES: Final = 1_000_000  # of a route: more than any database can list in reasonable time

ROUTE_KEYS: Final = {
    "topic": ConfigKey(
        "An MQTT filter with +, # or named levels such as {room}, each of which becomes a column.",
        text,
        is_required=True,
    ),
    "store": ConfigKey("false: do not store these messages, but count them as ignored.", flag),
    "model": ConfigKey("The relational model, with its options.  Default: wide.", defined_in("model")),
    "decode": ConfigKey(
        "How payloads are decoded: a decoder, or a list of stages.  Default: auto.", defined_in("decode")
    ),
    "entity": ConfigKey("The properties and their types, or the dotted path of a class.", defined_in("entity")),
    "time": ConfigKey("The property that is the event's time.  Default: the time of arrival.", text),
    "unknown": ConfigKey(
        "What to do with properties that the entity does not declare.  Default: extra, without an entity add.",
        choice("add", "extra", "ignore", "reject"),
    ),
    "mismatch": ConfigKey(
        "What to do with a value whose type is not the declared one.  Default: variant, a column of its own.",
        choice("variant", "null", "reject"),
    ),
    "max_columns": ConfigKey("The largest number of property columns of a table.", whole_number(1, MOST_COLUMNS)),
    "max_tables": ConfigKey("The largest number of tables of the route.  Default: 1000.", whole_number(1, MOST_TABLES)),
    "hypertable": ConfigKey("Tables that are split by time, on PostgreSQL with TimescaleDB.", defined_in("hypertable")),
    "keep": ConfigKey("How long records are kept, such as 90 days.  Default: forever.", duration),
    "indexes": ConfigKey(
        "Columns to index, beside what the model indexes itself; a list is one index.",
        described(type="array", items={**COLUMNS.accepts, "minItems": 1}),
    ),
    "latest": ConfigKey(
        "Also keep the newest values of each topic, or of each device that these levels and properties name.",
        defined_in("latest"),
    ),
    **CHANGES_KEYS,
    "gather": ConfigKey("The view has one row per device and interval, such as 10 s.", duration),
    "rollup": ConfigKey("Also sum up the records of each topic over intervals of time.", defined_in("rollup")),
    "raw": ConfigKey("Also keep each payload as it came, so that messages can be stored again.  Default: false.", flag),
    "properties": ConfigKey("Also keep the MQTT 5 properties of each message, as JSON.  Default: false.", flag),
    **PAYLOAD_KEYS,
}

_FILTER: Final = "an MQTT topic filter such as 'home/{room}/climate'"
_FILTER_OR_COMMENT: Final = f"{_FILTER}; quote one that begins with #, or YAML reads it as a comment: topic: '#'"
_MISPLACED: Final = {"table": "the table is an option of the model: write `model: {wide: {table: NAME}}`"}


def read_routes(node: Node) -> dict[str, Route]:
    """Return path in the YAML → route, in order; without ``routes:``, ``#`` as ``wide``.

    Mistakes are noted in the node; routes with mistakes may be missing from the result.
    """
    everything = Node([{"topic": "#"}], node.path, node.problems)
    items = (everything if node.value is None else node).items()
    if node.value == []:
        node.fail("expected at least one route; leave `routes` out to store everything")
    made = {item.path: _route(item) for item in items}
    routes = with_own_tables({path: route for path, route in made.items() if route is not None})
    wrong = tuple(problem.path for problem in node.problems)
    judged = {path: route for path, route in routes.items() if not _is_within(f"{path}.entity", wrong)}
    check_shared_tables(judged, node.problems)
    return routes


def _is_within(path: str, paths: Iterable[str]) -> bool:
    """Return True if one of ``paths`` is the path of a value or leads into it."""
    return any(one == path or one.startswith(f"{path}.") for one in paths)


def _route(item: Node) -> Route | None:
    section = item.section(ROUTE_KEYS, _MISPLACED)
    if not isinstance(item.value, Mapping):
        if item.value is None:
            item.fail("expected a mapping, found nothing")
        return None
    filter_ = section.child("topic").require(_topic, _FILTER_OR_COMMENT if "topic" in item.value else _FILTER)
    if section.child("store").read(flag, default=True) is False:
        return _ignoring(section, filter_)
    model = read_model(section.child("model"))
    decoder = _decoder(section.child("decode"), () if filter_ is None else filter_.names)
    declared, readings = read_readings(section.child("entity"))
    entity = _entity(section.child("entity"), declared)
    options = _contract(section, entity, filter_)
    options["reshaping"] = read_reshaping(section, () if filter_ is None else filter_.names, readings)
    route = None
    if filter_ is not None and model is not None and decoder is not None:
        route = Route(filter=filter_, model=model, decode=decoder, entity=entity, **options)
    return read_storage(section, route)


def _ignoring(section: Node, filter_: TopicFilter | None) -> Route | None:
    """Return a route with ``store: false``, which needs only its topic."""
    for key in section.value.keys() & {*ROUTE_KEYS} - {"topic", "store"}:
        section.child(key).fail("has no effect with `store: false`; leave one of them out")
    return None if filter_ is None else Route(filter_, Wide(), bytes, stores=False)


def _contract(section: Node, entity: Entity | None, filter_: TopicFilter | None) -> dict[str, Any]:
    unknown = section.child("unknown")
    each = read_each(section)
    is_closed = unknown.value is None and section.child("entity").value is not None
    given = decode.time_given_by(section.child("decode").value)
    return {
        "time": section.child("time").read(lambda value: _time(value, entity, each), given),
        "each": each,
        "unknown": cast(
            Unknown, unknown.read(choice("add", "extra", "ignore", "reject"), "extra" if is_closed else "add")
        ),
        "mismatch": cast(Mismatch, _mismatch(section).read(choice("variant", "null", "reject"), "variant")),
        **read_latest(section, entity, () if filter_ is None else filter_.names),
        "max_columns": section.child("max_columns").read(whole_number(1, MOST_COLUMNS), None),
        "format": _describe_decoder(section.child("decode").value),
        "raw": section.child("raw").read(flag, False),
        "properties": section.child("properties").read(lambda value: _keeps_properties(value, filter_), False),
        "max_tables": section.child("max_tables").read(whole_number(1, MOST_TABLES), 1000),
    }


def _mismatch(section: Node) -> Node:
    """Read a policy; ``null`` is a policy's name, but YAML reads it as nothing unless it is quoted."""
    node = section.child("mismatch")
    return Node("null", node.path, node.problems) if section.value.get("mismatch", "") is None else node


def _keeps_properties(value: object, filter_: TopicFilter | None) -> bool:
    kept = flag(value)
    if kept and filter_ is not None and "properties" in filter_.names:
        raise ValueError("the topic has a level of the same name: give the level another name")
    return kept


def _topic(value: object) -> TopicFilter:
    return TopicFilter.parse(text(value))


def _describe_decoder(spec: Any) -> str:
    """Return how payloads are decoded, as one may write it in the YAML."""
    return spec if isinstance(spec, str) else "auto" if spec is None else json.dumps(spec, default=str)


def _decoder(node: Node, levels: Collection[str]) -> decode.RouteDecoder | None:
    spec = "auto" if node.value is None else node.value
    decoder = Node(spec, node.path, node.problems).read(lambda value: decode.resolve(value, where=node.path), None)
    if isinstance(decoder, decode.DecoderByLevel) and decoder.level not in levels:
        hint = registry.suggest(decoder.level, levels) if levels else "name one in `topic`"
        node.child("by").fail(f"the topic has no level {{{decoder.level}}}; {hint}")
    return decoder


def _entity(node: Node, declared: Any) -> Entity | None:
    """Return the entity of a route; ``declared`` is an inline one without the keys that say how values are read."""
    if isinstance(node.value, Mapping):
        return node.read(lambda _: Entity.inline(declared, where=node.path), None)
    return node.read(lambda value: Entity.from_class(text(value)), None)


def _time(value: object, entity: Entity | None, each: Each | None) -> str:
    path = text(value)
    if entity is not None and entity.declared.isdisjoint(time_paths(path, each)):
        raise ValueError(f"the entity declares no property {path!r}; {registry.suggest(path, entity.declared)}")
    return path
