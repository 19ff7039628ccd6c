"""Entities declared in the YAML: ``{temp: float, "current time": {type: datetime, format: epoch_s}}``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from amqtt_db.entity.declared import EntitySpec, Field, Values
from amqtt_db.entity.strict import (
    CONVERT,
    DECLARED_KIND,
    EPOCHS,
    Convert,
    epoch_reader,
    strptime_reader,
    to_any,
    to_dict,
    to_list,
)
from amqtt_db.errors import Problem
from amqtt_db.record import Kind, escape
from amqtt_db.registry import SpecError, suggest

_TYPES: Final[Mapping[str, type]] = {
    "bool": bool,
    "bytes": bytes,
    "date": date,
    "datetime": datetime,
    "decimal": Decimal,
    "float": float,
    "int": int,
    "str": str,
    "time": time,
    "uuid": UUID,
}
_LOOSE: Final[Mapping[str, Convert]] = {"any": to_any, "dict": to_dict, "list": to_list}
INLINE_TYPES: Final = (*sorted([*_TYPES, *_LOOSE]),)
"""The type names that an inline entity may use."""

_MEANT: Final[Mapping[str, str]] = {
    "array": "list",
    "double": "float",
    "json": "any",
    "number": "float",
    "numeric": "decimal",
    "object": "dict",
    "text": "str",
    "timestamp": "datetime",
}
_UNQUOTED: Final[Mapping[str, str]] = {
    "True": "on (or yes, or true)",
    "False": "off (or no, or false)",
    "None": "null (or ~)",
}
"""Value that YAML reads → the text that the user may have written."""
_OPTIONS: Final = ("format", "items", "optional", "type")
FORMAT_NAMES: Final = ("iso8601", *EPOCHS)
"""The named formats of a datetime."""


def inline_plan(mapping: Mapping[Any, Any], where: str) -> EntitySpec:
    """Return how an inline entity is read.  Raises SpecError with every mistake and its path below ``where``."""
    problems: list[Problem] = []
    fields = _inline_fields(mapping, where, "", problems)
    if not mapping:
        problems.append(Problem(where, "declares no properties"))
    if problems:
        raise SpecError(*problems)
    return EntitySpec("the entity", fields, _values_of(fields), independent=True)


def _inline_fields(mapping: Mapping[Any, Any], where: str, prefix: str, problems: list[Problem]) -> tuple[Field, ...]:
    fields = []
    for index, (key, spec) in enumerate(mapping.items()):
        if not isinstance(key, str):
            written = _UNQUOTED.get(repr(key), repr(key))
            what = f"a property's name must be text; quote {written}, which YAML reads as {type(key).__name__}"
            problems.append(Problem(where, what))
            continue
        field = _inline_field(key, f"p{index}", spec, f"{where}.{key}", prefix + escape(key), problems)
        fields.append(field)
    return tuple(fields)


def _inline_field(key: str, attribute: str, spec: Any, where: str, path: str, problems: list[Problem]) -> Field:
    if _is_object(spec):
        children = _inline_fields(spec, where, path + ".", problems)
        return Field(key, attribute, path, "an object", children=children)
    kind, convert, name = _type(spec, where, problems)
    return Field(key, attribute, path, name, kind, convert)


def _is_object(spec: Any) -> bool:
    """Return True if a mapping declares properties; if its ``type`` is a name, it describes one property."""
    return isinstance(spec, Mapping) and bool(spec) and not isinstance(spec.get("type"), str)


def _type(spec: Any, where: str, problems: list[Problem]) -> tuple[Kind, Convert, str]:
    options = spec if isinstance(spec, Mapping) else {"type": spec}
    name = options.get("type")
    problems += _property_problems(options, where)
    if not isinstance(name, str):
        problems.append(Problem(where, f"expected a type's name or a mapping, got {type(spec).__name__} {spec!r}"))
        return "json", to_any, "any"
    name = name.removesuffix("?").strip()
    if name in _TYPES:
        return DECLARED_KIND[_TYPES[name]], _converted(name, options, where, problems), name
    if name not in _LOOSE:
        hint = f"did you mean {_MEANT[name]!r}?" if name in _MEANT else suggest(name, INLINE_TYPES)
        problems.append(Problem(where, f"{name!r} is not a type; {hint}"))
        return "json", to_any, name
    items = options.get("items")
    return "json", _LOOSE[name] if items is None else _list_of(items, f"{where}.items", problems), name


def _property_problems(options: Mapping[Any, Any], where: str) -> list[Problem]:
    problems = []
    name = str(options.get("type")).removesuffix("?")
    for option, value in options.items():
        if option not in _OPTIONS:
            what = (
                f"is not an option of a property; an object needs 'type: {{type: {name}}}' for a property called type"
            )
            problems.append(Problem(f"{where}.{option}", f"{what}; {suggest(str(option), _OPTIONS)}"))
        elif option == "optional" and value is not True:
            what = "expected true, because every property may be missing; to require one, use a class as the entity"
            problems.append(Problem(f"{where}.optional", what))
        elif option == "items" and name != "list":
            problems.append(Problem(f"{where}.items", f"is for the type 'list', not for {name!r}"))
        elif option == "format" and name != "datetime":
            problems.append(Problem(f"{where}.format", f"is for the type 'datetime', not for {name!r}"))
    return problems


def _converted(name: str, options: Mapping[str, Any], where: str, problems: list[Problem]) -> Convert:
    layout = options.get("format", "iso8601")
    if name != "datetime" or layout == "iso8601":
        return CONVERT[_TYPES[name]]
    if isinstance(layout, str) and layout in EPOCHS:
        return epoch_reader(EPOCHS[layout])
    try:
        if isinstance(layout, str) and "%" in layout:
            return strptime_reader(layout)
        raise ValueError(
            f"{layout!r} is neither a known format nor a strptime format; {suggest(str(layout), FORMAT_NAMES)}"
        )
    except ValueError as error:
        problems.append(Problem(f"{where}.format", str(error)))
        return to_any


def _list_of(spec: Any, where: str, problems: list[Problem]) -> Convert:
    item = _inline_field("", "item", spec, where, "", problems)
    convert = _object_of(item.children) if item.children else item.convert

    def convert_list(value: Any) -> list[Any]:
        return [None if one is None else convert(one) for one in to_list(value)]

    return convert_list


def _object_of(fields: tuple[Field, ...]) -> Convert:
    """Return a function that converts the declared properties of an object and leaves the others unchanged."""
    inner = {field.key: _object_of(field.children) if field.children else field.convert for field in fields}

    def convert_object(value: Any) -> dict[str, Any]:
        data = dict(to_dict(value))
        for key, convert in inner.items():
            if data.get(key) is not None:
                data[key] = convert(data[key])
        return data

    return convert_object


def _values_of(fields: tuple[Field, ...]) -> Callable[[Mapping[str, Any] | None], Values]:
    """Return a function that converts the declared properties of an object, None for those that are absent."""
    steps = [(field.key, _values_of(field.children) if field.children else None, field) for field in fields]
    width = sum(1 for field in fields for _ in field.leaves())

    def read(data: Mapping[str, Any] | None) -> Values:
        if data is None:
            return (None,) * width
        values: list[Any] = []
        for key, read_inner, field in steps:
            value = data.get(key)
            if read_inner is not None:
                values.extend(read_inner(None if value is None else to_dict(value)))
            else:
                values.append(None if value is None else field.convert(value))
        return tuple(values)

    return read
