"""The JSON Schema of the YAML, for editors; made of the same tables and signatures that check it.

An editor knows less than :mod:`amqtt_db.config`: whatever that accepts is valid here, but not the other way round.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from enum import Enum
from importlib.metadata import entry_points
from types import NoneType, UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin, get_type_hints

import attrs
from amqtt.contexts import BrokerConfig, ListenerConfig

from amqtt_db import registry
from amqtt_db.config import BRIDGE_KEYS, JOURNAL_KEYS, WRITER_KEYS
from amqtt_db.config.broker import BROKER_KEYS, TLS_KEYS
from amqtt_db.config.broker_file import KEYS, PLUGIN_NAMES
from amqtt_db.config.keys import ConfigKey, JsonSchema
from amqtt_db.config.operation import KEEP_KEYS, LOG_KEYS, METRICS_KEYS, WEB_KEYS
from amqtt_db.config.payload import MEANINGS, READING_KEYS, SPELLINGS
from amqtt_db.config.rollup import ROLLUP_KEYS
from amqtt_db.config.routes import ROUTE_KEYS
from amqtt_db.config.storage import HYPERTABLE_KEYS
from amqtt_db.config.yaml_checks import duration
from amqtt_db.decode import DECODER_GROUP
from amqtt_db.decode.formats import FORMATS
from amqtt_db.entity.inline import FORMAT_NAMES, INLINE_TYPES
from amqtt_db.models import BUILTIN

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
_DOTTED: Final = {"type": "string", "pattern": "[.:]", "description": "The dotted path of your own."}
_EMPTY_KEY: Final = {"type": "null"}
_TYPE_NAMES: Final[Mapping[Any, str]] = {
    bool: "boolean", int: "integer", float: "number", str: "string", NoneType: "null", list: "array", dict: "object",
}  # fmt: skip


def make_schema() -> dict[str, Any]:
    """Return the JSON Schema of the YAML: of one that names brokers, or of an amqtt broker's."""
    return {
        "$schema": _DIALECT,
        "title": "amqtt_db",
        "description": "Which messages are stored, and in which database.",
        "type": "object",
        "if": {"anyOf": [{"required": [key]} for key in BRIDGE_KEYS]},
        "then": _section_schema({**BRIDGE_KEYS, **KEYS}),
        "else": _amqtt_schema(),
        "$defs": dict(sorted(_schema_parts())),
    }


def _schema_parts() -> Iterator[tuple[str, JsonSchema]]:
    """Yield the parts to which :func:`amqtt_db.config.keys.defined_in` refers; an empty key counts as absent."""
    yield "section", _nullable(_section_schema(KEYS))
    yield "journal", _nullable(_section_schema(JOURNAL_KEYS))
    yield "writer", _nullable(_section_schema(WRITER_KEYS))
    yield "log", _nullable(_section_schema(LOG_KEYS))
    yield "tls", _nullable(_section_schema(TLS_KEYS))
    yield "metrics", _nullable(_or_object(METRICS_KEYS["listen"].check.accepts, METRICS_KEYS))
    yield "web", _nullable(_or_object(WEB_KEYS["listen"].check.accepts, WEB_KEYS))
    yield "keep", _nullable(_or_object(duration.accepts, KEEP_KEYS))
    yield "hypertable", _nullable(_or_object({"type": "boolean"}, HYPERTABLE_KEYS))
    yield "broker", _or_object(BROKER_KEYS["url"].check.accepts, BROKER_KEYS)
    yield "brokers", {"type": ["object", "null"], "minProperties": 1, "additionalProperties": _ref("broker")}
    yield "routes", {"type": ["array", "null"], "minItems": 1, "items": _ref("route")}
    yield "route", _route_schema()
    yield "latest", _LATEST_SCHEMA
    yield "rollup", {"type": ["array", "null"], "items": _section_schema(ROLLUP_KEYS)}
    yield (
        "booleans",
        _nullable({**_closed_schema(_spelled(dict.fromkeys(SPELLINGS, MEANINGS.accepts))), "minProperties": 1}),
    )
    yield "entity", {"type": ["string", "object", "null"], "minLength": 1, "minProperties": 1, **_PROPERTIES}
    yield "property", _PROPERTY_SCHEMA
    yield "decode", _decode_schema()
    yield "model", _model_schema()


def _ref(part: str) -> JsonSchema:
    return {"$ref": f"#/$defs/{part}"}


def _section_schema(keys: Mapping[str, ConfigKey]) -> dict[str, Any]:
    """Return the schema of a mapping with only these keys."""
    properties = {
        name: _described(key) if key.is_required else _nullable(_described(key)) for name, key in keys.items()
    }
    return _closed_schema(properties, [name for name, key in keys.items() if key.is_required])


def _closed_schema(properties: Mapping[str, Any], required: Iterable[str] = ()) -> dict[str, Any]:
    needed = {"required": [*required]} if required else {}
    return {"type": "object", "properties": properties, **needed, "additionalProperties": False}


def _or_object(short: JsonSchema, keys: Mapping[str, ConfigKey]) -> dict[str, Any]:
    """Return the schema of a mapping, or of a value in its place."""
    return {**short, **_section_schema(keys), "type": [short["type"], "object"]}


def _described(key: ConfigKey) -> dict[str, Any]:
    return {"description": key.meaning, **key.check.accepts}


def _nullable(schema: JsonSchema) -> dict[str, Any]:
    """Return a schema that also accepts nothing; the parts that are referred to say so themselves."""
    if "enum" in schema:
        return {**schema, "enum": [*schema["enum"], None]}
    if "anyOf" in schema:
        return {**schema, "anyOf": [*schema["anyOf"], _EMPTY_KEY]}
    if "type" in schema:
        types = schema["type"] if isinstance(schema["type"], list) else [schema["type"]]
        return {**schema, "type": [*types, "null"]}
    return {**schema}


def _route_schema() -> JsonSchema:
    ignores = {"required": ["store"], "properties": {"store": {"const": False}}}
    return {**_section_schema(ROUTE_KEYS), "if": ignores, "then": {"propertyNames": {"enum": ["topic", "store"]}}}


_LATEST_SCHEMA: Final = {
    "type": ["boolean", "array", "null"],
    "minItems": 1,
    "items": {"type": ["string", "object"], "minLength": 1, "maxProperties": 1, "additionalProperties": _EMPTY_KEY},
}


def _spelled(keys: Mapping[Any, Any]) -> dict[str, Any]:
    """Return a mapping with every spelling of keys that YAML reads as true or false; JSON has only text."""
    return {name: value for key, value in keys.items() for name in SPELLINGS.get(key, (key,))}


_TYPE: Final = {
    "anyOf": [
        {"enum": [*INLINE_TYPES]},
        {"type": "string", "pattern": rf"^\s*({'|'.join(INLINE_TYPES)})\s*\??$"},
    ]
}
_FORMAT: Final = {"anyOf": [{"enum": [*FORMAT_NAMES]}, {"type": "string", "pattern": "%"}]}
_DECLARATION: Final = {
    "type": {"description": "The type of the property.", **_TYPE},
    "format": {"description": "How a datetime is written.  Default: iso8601.", **_FORMAT},
    "items": {"description": "The type of a list's items.", "anyOf": [_ref("property"), _EMPTY_KEY]},
    "optional": {"description": "Every property may be missing, so this has no effect.", "const": True},
}
_PROPERTIES: Final = {"additionalProperties": _ref("property")}
_PROPERTY_SCHEMA: Final = {
    "type": ["string", "object"],
    "if": {"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}},
    "then": _closed_schema(
        {**_DECLARATION, **_spelled({key: _nullable(_described(one)) for key, one in READING_KEYS.items()})}
    ),
    "else": {"if": {"type": "object"}, "then": {"minProperties": 1, **_PROPERTIES}, "else": _TYPE},
}


def _decode_schema() -> JsonSchema:
    options = {name: _options_schema(parameters_of(make)) for name, make in FORMATS.items()}
    alone = [_name_schema(name, make.__doc__) for name, make in FORMATS.items() if "required" not in options[name]]
    stage = [*alone, _DOTTED, *_installed(DECODER_GROUP), _one_of(options, DECODER_GROUP)]
    one = {"anyOf": [*stage, {"type": "array", "minItems": 1, "items": {"anyOf": stage}}]}
    meaning = "A level of the topic, content_type or {user_property: name}; the other keys are its values."
    chosen = {"type": ["string", "object"], "description": meaning}
    by = {"type": "object", "required": ["by"], "properties": {"by": chosen}, "additionalProperties": one}
    return {"anyOf": [*one["anyOf"], {**by, "minProperties": 2}, _EMPTY_KEY]}


def parameters_of(make: Callable[..., Any]) -> Mapping[str, tuple[Any, bool]]:
    """Return the options of a decoder: the annotation of each, and whether it is required."""
    parameters = inspect.signature(make, eval_str=True).parameters
    return {name: (one.annotation, one.default is one.empty) for name, one in parameters.items()}


def _model_schema() -> JsonSchema:
    classes = {name: registry.load_path(path) for name, path in BUILTIN.items()}
    options = {name: _options_schema(_fields_of(cls)) for name, cls in classes.items()}
    alone = [_name_schema(name, cls.__doc__) for name, cls in classes.items()]
    group = "amqtt_db.models"
    return {"anyOf": [*alone, _DOTTED, *_installed(group), _one_of(options, group), _EMPTY_KEY]}


def _fields_of(cls: type) -> Mapping[str, tuple[Any, bool]]:
    fields = attrs.fields(attrs.resolve_types(cls))
    return {field.alias: (field.type, field.default is attrs.NOTHING) for field in fields if field.init}


def _options_schema(options: Mapping[str, tuple[Any, bool]]) -> dict[str, Any]:
    properties = {name: schema_of_type(annotation) for name, (annotation, _) in options.items()}
    made = _closed_schema(properties, [name for name, (_, is_required) in options.items() if is_required])
    return made if "required" in made else _nullable(made)


def _name_schema(name: str, doc: str | None) -> JsonSchema:
    """Return the schema of a name, described by the first paragraph of a docstring."""
    meaning = " ".join((doc or "").partition("\n\n")[0].split()).replace("``", "`").replace("Return a ", "A ")
    return {"const": name, "description": meaning}


def _installed(group: str) -> list[JsonSchema]:
    """Return the schemas of the names that installed packages provide."""
    return [{"const": point.name, "description": f"From {point.value}."} for point in entry_points(group=group)]


def _one_of(options: Mapping[str, Any], group: str) -> JsonSchema:
    """Return the schema of a mapping of one name to its options; only those of built-in names are known."""
    anything = {"type": ["object", "null"]}
    others = dict.fromkeys((point.name for point in entry_points(group=group)), anything)
    named = {**_closed_schema({**others, **options}), "patternProperties": {"[.:]": anything}}
    return {**named, "minProperties": 1, "maxProperties": 1}


def _amqtt_schema() -> JsonSchema:
    """Return the schema of an amqtt broker's configuration, as far as amqtt's classes say what it is."""
    listener = _closed_schema({name: schema_of_type(hint) for name, hint in get_type_hints(ListenerConfig).items()})
    keys = {name: schema_of_type(hint) for name, hint in get_type_hints(BrokerConfig).items()}
    listeners = {"type": "object", "required": ["default"], "additionalProperties": listener}
    whole = {**keys, "topic-check": keys["topic_check"], "listeners": listeners, "plugins": _plugins_schema()}
    return _closed_schema(whole, ["plugins"])


def _plugins_schema() -> JsonSchema:
    """Return the schema of ``plugins:``, a mapping or a list that names this project's plugin among others."""
    sections = dict.fromkeys(PLUGIN_NAMES, _ref("section"))
    has_one = {"anyOf": [{"required": [name]} for name in PLUGIN_NAMES]}
    return {
        "type": ["object", "array"],
        "properties": sections,
        "propertyNames": {"not": {"enum": [*KEYS]}},
        **has_one,
        "items": {"type": ["string", "object"], "properties": sections},
        "contains": {"anyOf": [{"enum": [*PLUGIN_NAMES]}, {"type": "object", **has_one}]},
    }


def schema_of_type(annotation: Any) -> dict[str, Any]:
    """Return the JSON Schema of a Python type; what it cannot express is anything."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return {**schema_of_type(arguments[0]), "description": str(arguments[1])}
    if origin is Literal:
        return {"enum": [*arguments]}
    if origin in (Union, UnionType):
        return {"anyOf": [schema_of_type(one) for one in arguments]}
    if inspect.isclass(annotation) and issubclass(annotation, Enum):
        return {"enum": [one.value for one in annotation]}
    if origin is list:
        return {"type": "array", "items": schema_of_type(*arguments)}
    name = _TYPE_NAMES.get(origin or annotation)
    return {} if name is None else {"type": name}
