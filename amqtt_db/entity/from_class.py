"""Entities that are a user's attrs class or dataclass."""

from __future__ import annotations

import dataclasses
import inspect
import types
from collections.abc import Callable
from enum import Enum
from operator import attrgetter
from typing import Annotated, Any, Literal, NewType, Union, get_args, get_origin, get_type_hints

import attrs
from cattrs.fns import identity
from cattrs.gen import override

from amqtt_db.entity.declared import EntitySpec, Field, Values
from amqtt_db.entity.hooks import STRICT, converter, is_record
from amqtt_db.entity.strict import CONVERT, DECLARED_KIND, Convert, to_any
from amqtt_db.record import Kind, escape


def class_plan(cls: type) -> EntitySpec:
    """Return how an attrs class or dataclass is read.  Raises ValueError for a class that cannot be filled.

    If a class has its own structure hook, only that hook creates it; what it rejects is not examined further.
    """
    if not is_record(cls):
        raise ValueError(f"{_class_name(cls)} is neither an attrs class nor a dataclass")
    try:
        hook = converter.get_structure_hook(cls)
        fields = _fields(cls, "", (cls,))
    except Exception as error:
        raise ValueError(f"{_class_name(cls)} cannot be created: {type(error).__name__}: {error}") from error
    if not fields:
        raise ValueError(f"{_class_name(cls)} declares no attribute")
    if not hasattr(hook, "overrides"):
        fields = tuple(attrs.evolve(field, convert=to_any, required=False, nullable=True) for field in fields)
    read = _attribute_reader([name for field in fields for name, _ in field.leaves()])
    return EntitySpec(_class_name(cls), fields, lambda data: read(hook(data, cls)))


def _attribute_reader(names: list[str]) -> Callable[[Any], Values]:
    """Return a function that reads attributes, dotted if nested; below None, and if not set, they are None."""
    quick = attrgetter(*names) if len(names) > 1 else lambda instance: (attrgetter(names[0])(instance),)

    def read(instance: Any) -> Values:
        try:
            return quick(instance)
        except AttributeError:
            return tuple(_attribute(instance, name) for name in names)

    return read


def _attribute(instance: Any, name: str) -> Any:
    for part in name.split("."):
        instance = getattr(instance, part, None)
    return instance


def _class_name(cls: Any) -> str:
    return getattr(cls, "__qualname__", None) or repr(cls)


def _fields(cls: type, prefix: str, parents: tuple[type, ...]) -> tuple[Field, ...]:
    hints = get_type_hints(cls, include_extras=True)
    overrides = getattr(converter.get_structure_hook(cls), "overrides", {})
    members = attrs.fields(cls) if attrs.has(cls) else dataclasses.fields(cls)
    fields = []
    for member in members:
        hint = hints.get(member.name, Any)
        rule = overrides.get(member.name) or override()
        field = _field(member, hint, rule, prefix, parents)
        is_plain = _has_plain_init(cls) and rule.struct_hook is None and _is_plain(member, field, _bare(hint)[0])
        fields.append(attrs.evolve(field, seal=None) if is_plain else field)
    return tuple(fields)


def _has_plain_init(cls: type) -> bool:
    """Return True if creating an instance runs no user code."""
    own = ("__attrs_init__", "__attrs_post_init__", "__post_init__")
    parameters = getattr(cls, "__dataclass_params__", None)
    return not any(hasattr(cls, name) for name in own) and (parameters is None or parameters.init)


def _is_plain(member: Any, field: Field, target: Any) -> bool:
    """Return True if an attribute can hold only strictly converted values, or a default that would pass."""
    if field.computed or getattr(member, "converter", None) or target not in STRICT:
        return False
    if converter.get_structure_hook(target) is not STRICT[target]:
        return False
    if field.required or member.default is None:
        return True
    default = member.default
    return type(default) is target and CONVERT[target](default) is default


def _field(member: Any, hint: Any, rule: Any, prefix: str, parents: tuple[type, ...]) -> Field:
    target, nullable = _bare(hint)
    path = prefix + escape(member.name)
    children: tuple[Field, ...] = ()
    if target not in parents and _is_plain_record(target):
        children = _fields(target, path + ".", (*parents, target))
    kind: Kind = "json" if children else _kind(target)
    return Field(
        key=rule.rename or member.name,
        attribute=member.name,
        path=path,
        expected=_class_name(target),
        kind=kind,
        convert=_convert(rule, hint),
        seal=None if children else _seal(target, kind),
        required=not _has_default(member) and member.init and not rule.omit,
        nullable=nullable or hint is Any,
        computed=not member.init or bool(rule.omit),
        children=children,
    )


def _has_default(member: Any) -> bool:
    if isinstance(member, dataclasses.Field):
        return member.default is not dataclasses.MISSING or member.default_factory is not dataclasses.MISSING
    return member.default is not attrs.NOTHING


def _bare(hint: Any) -> tuple[Any, bool]:
    """Return a type without Annotated, NewType and Optional, and whether it was Optional."""
    if get_origin(hint) is Annotated:
        return _bare(get_args(hint)[0])
    if isinstance(hint, NewType):
        return _bare(hint.__supertype__)
    if get_origin(hint) in {Union, types.UnionType} and type(None) in get_args(hint):
        rest = tuple(one for one in get_args(hint) if one is not type(None))
        return (_bare(rest[0])[0] if len(rest) == 1 else Union[rest]), True  # noqa: UP007 - of a tuple
    return hint, False


def _is_plain_record(target: Any) -> bool:
    """Return True if the attributes of a class become properties, and no user hook turns it into something else."""
    if not is_record(target):
        return False
    hooks = converter.get_structure_hook(target), converter.get_unstructure_hook(target)
    return all(hasattr(hook, "overrides") for hook in hooks)


def _convert(rule: Any, hint: Any) -> Convert:
    hook = rule.struct_hook or converter.get_structure_hook(hint)
    return lambda value: hook(value, hint)


def _kind(target: Any) -> Kind:
    if get_origin(target) in {Union, types.UnionType} and set(get_args(target)) <= {int, float}:
        return "number"
    if get_origin(target) is Literal:
        return _kind_of_values(get_args(target))
    if inspect.isclass(target) and issubclass(target, Enum):
        return _kind_of_values([member.value for member in target])
    hook = converter.get_unstructure_hook(target)
    if hook is not identity:
        return _kind_of_hook(hook)
    bases = target.__mro__ if inspect.isclass(target) else ()
    return next((DECLARED_KIND[base] for base in bases if base in DECLARED_KIND), "json")


def _kind_of_values(values: Any) -> Kind:
    kinds = {DECLARED_KIND.get(type(value), "json") for value in values}
    return kinds.pop() if len(kinds) == 1 else "json"


def _kind_of_hook(hook: Any) -> Kind:
    """Return the kind that the annotation of a user's unstructure hook names; ``json`` without one."""
    made = hook
    if not inspect.isclass(hook):
        try:
            made = get_type_hints(hook).get("return")
        except (NameError, TypeError):
            return "json"
    return DECLARED_KIND.get(_bare(made)[0], "json")


def _seal(target: Any, kind: Kind) -> Convert:
    """Return a function that turns an instance's attribute into a plain value of ``kind``."""
    plain = next((convert for base, convert in CONVERT.items() if DECLARED_KIND[base] == kind), None)
    unstructure = converter.get_unstructure_hook(target) if target is not Any else converter.unstructure
    if unstructure is identity:
        return plain or converter.unstructure
    if plain is None:
        return unstructure
    return lambda value: plain(unstructure(value))
