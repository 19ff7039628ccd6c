"""The ``model:`` of a route: YAML → an instance of a model's class, whose fields are its options."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from threading import Timer
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Union, cast, get_args, get_origin

import attrs
import cattrs

from amqtt_db import registry
from amqtt_db.config.yaml_checks import TYPE_NAMES, Node, found, text
from amqtt_db.database.naming import LONGEST, SYSTEM_TABLES, fold
from amqtt_db.models import BUILTIN as MODELS
from amqtt_db.models.base import Destination, Model
from amqtt_db.models.binding import bind, exact_tables, lookups_of
from amqtt_db.models.eav import PROPERTIES, TOPIC_LOOKUP
from amqtt_db.models.narrow import SERIES

logger = logging.getLogger(__name__)

_SLOW_SECONDS: Final = 10.0


def read_model(node: Node) -> Model | None:
    """Return the model that a route names; mistakes are noted in the node."""
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
