"""Entities that are written down in the YAML: ``{temp: float, "current time": {type: datetime, format: epoch_s}}``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import attrs
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, override

from amqtt_db.entity.declared import EntitySpec, Field
from amqtt_db.entity.strict import (
    CONVERT,
    DECLARED_KIND,
    EPOCHS,
    Convert,
    epoch_reader,
    strptime_reader,
    to_any,
    to_dict,
    to_int,
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
TYPE_NAMES: Final = (*sorted([*_TYPES, *_LOOSE]),)
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
"""What may have been written for what YAML makes of it."""
_OPTIONS: Final = ("format", "items", "optional", "type")
_FORMATS: Final = ("iso8601", *EPOCHS)

_converter: Final = Converter(detailed_validation=False)

Hook = Callable[[Any, Any], Any]


def inline_plan(mapping: Mapping[Any, Any], where: str) -> EntitySpec:
    """The plan of an inline entity.  Raises SpecError with every mistake in it, each under its path below ``where``."""
    problems: list[Problem] = []
    fields = _fields(mapping, where, "", problems)
    if not mapping:
        problems.append(Problem(where, "declares no property"))
    if problems:
        raise SpecError(*problems)
    make, _ = _maker(fields)
    return EntitySpec("the entity", fields, make, independent=not any(field.children for field in fields))


def _fields(mapping: Mapping[Any, Any], where: str, prefix: str, problems: list[Problem]) -> tuple[Field, ...]:
    fields = []
    for index, (key, spec) in enumerate(mapping.items()):
        if not isinstance(key, str):
            written = _UNQUOTED.get(repr(key), repr(key))
            what = f"a property's name is text; quote {written}, which YAML takes for {type(key).__name__}"
            problems.append(Problem(where, what))
            continue
        field = _field(key, f"p{index}", spec, f"{where}.{key}", prefix + escape(key), problems)
        fields.append(field)
    return tuple(fields)


def _field(key: str, attribute: str, spec: Any, where: str, path: str, problems: list[Problem]) -> Field:
    if _is_object(spec):
        children = _fields(spec, where, path + ".", problems)
        return Field(key, attribute, path, "an object", children=children)
    kind, convert, name = _type(spec, where, problems)
    return Field(key, attribute, path, name, kind, convert)


def _is_object(spec: Any) -> bool:
    """A mapping declares properties, unless its ``type`` is a name: then it describes one property with options."""
    return isinstance(spec, Mapping) and bool(spec) and not isinstance(spec.get("type"), str)


def _type(spec: Any, where: str, problems: list[Problem]) -> tuple[Kind, Convert, str]:
    options = spec if isinstance(spec, Mapping) else {"type": spec}
    name = options.get("type")
    problems += _option_problems(options, where)
    if not isinstance(name, str):
        problems.append(Problem(where, f"expected a type's name or a mapping, got {type(spec).__name__} {spec!r}"))
        return "json", to_any, "any"
    name = name.removesuffix("?").strip()
    if name in _TYPES:
        return DECLARED_KIND[_TYPES[name]], _converted(name, options, where, problems), name
    if name not in _LOOSE:
        hint = f"did you mean {_MEANT[name]!r}?" if name in _MEANT else suggest(name, TYPE_NAMES)
        problems.append(Problem(where, f"{name!r} is no type; {hint}"))
        return "json", to_any, name
    items = options.get("items")
    return "json", _LOOSE[name] if items is None else _list_of(items, f"{where}.items", problems), name


def _option_problems(options: Mapping[Any, Any], where: str) -> list[Problem]:
    problems = []
    name = str(options.get("type")).removesuffix("?")
    for option, value in options.items():
        if option not in _OPTIONS:
            what = f"is no option of a property; an object needs 'type: {{type: {name}}}' for a property called type"
            problems.append(Problem(f"{where}.{option}", f"{what}; {suggest(str(option), _OPTIONS)}"))
        elif option == "optional" and value is not True:
            what = "expected true, for any property may be missing; what must be there needs a class as the entity"
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
    if layout in EPOCHS:
        return epoch_reader(EPOCHS[layout])
    try:
        if isinstance(layout, str) and "%" in layout:
            return strptime_reader(layout)
        raise ValueError(f"{layout!r} is no format, and none of strptime with %; {suggest(str(layout), _FORMATS)}")
    except ValueError as error:
        problems.append(Problem(f"{where}.format", str(error)))
        return to_any


def _list_of(spec: Any, where: str, problems: list[Problem]) -> Convert:
    item = _field("", "item", spec, where, "", problems)
    convert = _object_of(item.children) if item.children else item.convert

    def convert_list(value: Any) -> list[Any]:
        return [None if one is None else convert(one) for one in to_list(value)]

    return convert_list


def _object_of(fields: tuple[Field, ...]) -> Convert:
    """Converts the declared properties of an object that stays one; others stay as they are."""
    inner = {field.key: _object_of(field.children) if field.children else field.convert for field in fields}

    def convert_object(value: Any) -> dict[str, Any]:
        data = dict(to_dict(value))
        for key, convert in inner.items():
            if data.get(key) is not None:
                data[key] = convert(data[key])
        return data

    return convert_object


class _Key(str):
    """A key that is safe between the quotes of generated code: cattrs before 26.2 puts it there as it is."""

    __slots__ = ()

    def __format__(self, spec: str) -> str:
        return str(self).encode("unicode_escape").decode().replace("'", "\\'")


def _maker(fields: tuple[Field, ...]) -> tuple[Callable[[Mapping[str, Any]], Any], Any]:
    """A function that makes an instance from data, and the instance that holds nothing."""
    hooks: dict[str, Hook] = {}
    defaults: dict[str, Any] = {}
    for field in fields:
        make, empty = _maker(field.children) if field.children else (None, None)
        hooks[field.attribute] = _hook(field.convert) if make is None else _object_hook(make, empty)
        defaults[field.attribute] = attrs.field(default=empty)
    cls = attrs.make_class("Entity", defaults, slots=True, eq=False, repr=False)
    overrides: dict[str, Any] = {
        f.attribute: override(rename=_Key(f.key), struct_hook=hooks[f.attribute]) for f in fields
    }
    structure: Hook = make_dict_structure_fn(cls, _converter, _cattrs_detailed_validation=False, **overrides)
    return lambda data: structure(data, cls), cls()


def _hook(convert: Convert) -> Hook:
    exact = next((kind for kind, one in CONVERT.items() if one is convert and kind in _PASSED), None)
    if exact is None:
        return _int_hook if convert is to_int else lambda value, _: None if value is None else convert(value)

    def hook(value: Any, _: Any) -> Any:
        if type(value) is exact or value is None:
            return value
        return convert(value)

    return hook


_PASSED: Final = frozenset({bool, float, str, bytes, UUID})
"""Types whose values need no look once their type is right."""


def _int_hook(value: Any, _: Any) -> Any:
    if type(value) is int and -(2**63) <= value < 2**63:
        return value
    return None if value is None else to_int(value)


def _object_hook(make: Callable[[Mapping[str, Any]], Any], empty: Any) -> Hook:
    def hook(value: Any, _: Any) -> Any:
        return empty if value is None else make(to_dict(value))

    return hook
