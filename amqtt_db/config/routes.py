"""The ``routes:`` of the configuration: YAML → routes, with every mistake reported at once."""

from __future__ import annotations

import json
import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from itertools import combinations
from threading import Timer
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, cast, get_args, get_origin

import attrs
import cattrs

from amqtt_db import decode, registry
from amqtt_db.config.keys import ConfigKey, defined_in, described
from amqtt_db.config.latest import CHANGES_KEYS, read_latest
from amqtt_db.config.payload import PAYLOAD_KEYS, read_each, read_readings, read_reshaping
from amqtt_db.config.storage import COLUMNS, read_storage, with_own_tables
from amqtt_db.config.yaml_checks import TYPE_NAMES, Node, choice, duration, flag, found, text, whole_number
from amqtt_db.database.naming import LONGEST, SYSTEM_TABLES, fold
from amqtt_db.entity import Entity
from amqtt_db.errors import Problem, Rejected
from amqtt_db.models import BUILTIN as MODELS
from amqtt_db.models.base import Destination, Lookup, Model, OwnColumns
from amqtt_db.models.binding import BoundTable, bind, exact_tables, lookups_of
from amqtt_db.models.eav import PROPERTIES, TOPIC_LOOKUP
from amqtt_db.models.narrow import SERIES
from amqtt_db.models.wide import Wide
from amqtt_db.record import Pair
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

logger = logging.getLogger(__name__)

_SLOW_SECONDS: Final = 10.0
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
    _check_shared_tables(judged, node.problems)
    return routes


def _is_within(path: str, paths: Iterable[str]) -> bool:
    """Return True if one of ``paths`` is the path of a value or leads into it."""
    return any(one == path or one.startswith(f"{path}.") for one in paths)


def find_idle_keys(node: Node, routes: Mapping[str, Route]) -> Iterator[Problem]:
    """Yield remarks on what is valid in ``routes:`` but has no effect, or perhaps not the intended one."""
    for (earlier, first), (path, second) in combinations(routes.items(), 2):
        if covers(first.filter.mqtt, second.filter.mqtt):
            yield Problem(
                f"{path}.topic", f"never matches: {earlier} ({first.filter.text}) already matches all its topics"
            )
    for item in node.items() if isinstance(node.value, list) else ():
        if item.path in routes and routes[item.path].stores:
            with suppress(Rejected):  # from a user's model, whose mistakes are told elsewhere
                yield from _idle_keys_of(item, routes[item.path])


def _idle_keys_of(item: Node, route: Route) -> Iterator[Problem]:
    if route.entity is None:
        for key in item.value.keys() & {"unknown", "mismatch"}:
            yield Problem(f"{item.path}.{key}", "has no effect without `entity`, which declares the properties")
    elif item.value.get("mismatch", "") is None:
        message = (
            "is empty, which YAML reads as null: values of another type are dropped; write 'null' if that is meant"
        )
        yield Problem(f"{item.path}.mismatch", message)
    if "max_columns" in item.value and not isinstance(route.bound().layout, OwnColumns):
        yield Problem(f"{item.path}.max_columns", "has no effect: this model has no column for each property")
    if "max_tables" in item.value and not route.is_per_topic:
        yield Problem(f"{item.path}.max_tables", "has no effect: all topics of this route share the model's tables")


def covers(general: str, special: str) -> bool:
    """Return True if ``general`` matches every topic that the MQTT filter ``special`` matches."""
    wide, narrow = general.split("/"), special.split("/")
    if special.startswith("$") and wide[0] in ("+", "#"):
        return False
    for index, level in enumerate(wide):
        if level == "#":
            return True
        other = narrow[index] if index < len(narrow) else None
        if other in (None, "#") or level not in ("+", other):
            return False
    return len(wide) == len(narrow)


def _route(item: Node) -> Route | None:
    section = item.section(ROUTE_KEYS, _MISPLACED)
    if not isinstance(item.value, Mapping):
        if item.value is None:
            item.fail("expected a mapping, found nothing")
        return None
    filter_ = section.child("topic").require(_topic, _FILTER_OR_COMMENT if "topic" in item.value else _FILTER)
    if section.child("store").read(flag, default=True) is False:
        return _ignoring(section, filter_)
    model = _model(section.child("model"))
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


def _model(node: Node) -> Model | None:
    name, options = "wide" if node.value is None else node.value, Node(None, node.path, node.problems)
    if isinstance(name, Mapping):
        if len(name) != 1:
            node.fail("expected one model with its options, such as {wide: {table: climate}}")
            return None
        (name,) = name
        options = node.child(name)
    cls = Node(name, node.path, node.problems).read(_model_class, None)
    return None if cls is None else _structure(cls, options)


def _model_class(value: object) -> type[Model]:
    cls = registry.load(text(value), MODELS, "amqtt_db.models")
    if isinstance(cls, type) and issubclass(cls, Model) and attrs.has(cls):
        return cast(type[Model], cls)
    raise ValueError(f"{value} is not a model: expected an attrs class derived from amqtt_db.models.Model")


def _structure(cls: Any, options: Node) -> Model | None:
    """Create an instance of a model class, checking its options against the types of the class's fields."""
    before = len(options.problems)
    fields = {field.alias: field for field in attrs.fields(attrs.resolve_types(cls)) if field.init}
    given = options.section(fields).value or {}
    for alias, field in fields.items():
        if alias not in given and field.default is attrs.NOTHING:
            options.child(alias).fail("missing; the model needs it")
    values = {alias: _option(options.child(alias), fields[alias].type) for alias in given if alias in fields}
    return _made(cls, values, options) if len(options.problems) == before else None


def _made(cls: type[Model], values: Mapping[str, Any], options: Node) -> Model | None:
    try:
        with _tell_if_slow(f"{options.path}: {cls.__name__}"):
            model = cls(**values)
            names = _table_names(model)
    except Exception as error:  # from a validator, or anything else in a user's class
        options.fail(str(error))
        return None
    own = _own_names(cls)
    node = options.child(next(iter(values))) if len(values) == 1 else options
    for name in names:
        Node(name, node.path, node.problems).read(partial(_check_table_name, own), None)
    return model


@contextmanager
def _tell_if_slow(what: str) -> Iterator[None]:
    """Log a warning if a user's class takes very long; it cannot be stopped here."""
    timer = Timer(_SLOW_SECONDS, logger.warning, ("%s has been creating its tables for %g s", what, _SLOW_SECONDS))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _own_names(cls: type[Model]) -> frozenset[str]:
    """Return the project's own tables that a built-in model may use."""
    if f"{cls.__module__}.{cls.__qualname__}" not in MODELS.values():
        return frozenset()
    return frozenset(_table_names(cls()))


def _table_names(model: Model) -> list[str]:
    bound = bind(model, Destination(""), timed=False)
    own = [lookup.name for lookup in lookups_of(bound) if lookup not in (PROPERTIES, SERIES, TOPIC_LOOKUP)]
    return [*(table.name for table in exact_tables(bound)), *own]


def _option(node: Node, wanted: Any) -> Any:
    try:
        return _CONVERTER.structure(node.value, wanted)
    except Exception:  # a user's type may raise anything
        node.fail(f"expected {_words(wanted)}, found {found(node.value)}")
        return None


def _words(wanted: Any) -> str:
    """Return a type in the words of YAML."""
    wanted = get_args(wanted)[0] if get_origin(wanted) is Annotated else wanted
    kinds = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    return " or ".join(TYPE_NAMES.get(kind, str(kind)) for kind in kinds if kind is not NoneType)


def _check_table_name(own: Collection[str], name: str) -> None:
    if not text(name).isprintable():
        raise ValueError("a table's name must not contain control characters")
    if len(name.encode()) > LONGEST:
        raise ValueError(f"{name} has {len(name.encode())} bytes; a table name may have at most {LONGEST}")
    if fold(name) in SYSTEM_TABLES and name not in own:
        raise ValueError(f"{name} is one of amqtt_db's own tables; choose another name")
    if fold(name).startswith(("sqlite_", "pg_")):
        raise ValueError(f"names that begin with {name.partition('_')[0]}_ belong to the database; choose another name")


def _check_shared_tables(routes: Mapping[str, Route], problems: list[Problem]) -> None:
    """Note routes that share a table without agreeing on its contents."""
    seen: dict[str, tuple[str, Route, BoundTable]] = {}
    for path, route in routes.items():
        for table in exact_tables(route.bound()):
            first_path, first, first_table = seen.setdefault(fold(table.name), (path, route, table))
            key, why = _difference(first, first_table, route, table)
            if key:
                message = f"shares the table {table.name} with {first_path}, but {why}"
                problems.append(Problem(f"{path}.{key}", f"{message}; make them agree or choose another table"))
    _check_lookups(routes, seen, problems)


def _check_lookups(
    routes: Mapping[str, Route], tables: Mapping[str, tuple[str, Route, BoundTable]], problems: list[Problem]
) -> None:
    """Note lookups that have the name of a table, or of a different lookup."""
    seen: dict[str, tuple[str, Lookup]] = {}
    for path, route in routes.items():
        for lookup in lookups_of(route.bound()):
            name = fold(lookup.name)
            first_path, first = seen.setdefault(name, (path, lookup))
            other = tables[name][0] if name in tables else first_path if first != lookup else None
            if other is not None:
                message = f"its lookup {lookup.name} has the name of another table or lookup of {other}"
                problems.append(Problem(f"{path}.model", f"{message}; choose another name"))


def _difference(first: Route, first_table: BoundTable, route: Route, table: BoundTable) -> tuple[str, str]:
    for key in ("hypertable", "keep", "gather"):
        if getattr(first, key) != getattr(route, key):
            return key, f"their `{key}` differs"
    if first is not route and first.gather is not None and (first.reshaping.property or route.reshaping.property):
        return "gather", "it cannot tell devices of the two apart"
    if first_table != table:
        return "model", "their models or options differ"
    has_properties = table.overflow is not None  # as columns, not as rows or in a document
    if has_properties and _declared_problems(first.entity) != _declared_problems(route.entity):
        return "entity", "their entities declare different properties or kinds"
    return "", ""


def _declared_problems(entity: Entity | None) -> frozenset[Pair] | None:
    return None if entity is None else frozenset(entity.shape.properties)


def _strict_converter() -> cattrs.Converter:
    """Return a strict converter: cattrs would turn 'false' into True and 1.9 into 1; here these are mistakes."""
    converter = cattrs.Converter(forbid_extra_keys=True)
    for primitive in (bool, int, float, str):
        converter.register_structure_hook(primitive, _strictly)
    return converter


def _strictly(value: Any, wanted: type) -> Any:
    if wanted is float and type(value) is int:
        return float(value)
    if type(value) is not wanted:
        raise TypeError
    return value


_CONVERTER: Final = _strict_converter()
