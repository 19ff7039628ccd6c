"""The cattrs converter that creates instances of users' classes, with hooks that never guess."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from enum import Enum
from typing import Annotated, Any, Final, Literal, get_args, get_origin, get_type_hints

import attrs
from cattrs import Converter
from cattrs.gen import make_dict_structure_fn, override
from cattrs.strategies import configure_union_passthrough

from amqtt_db.entity.strict import CONVERT, Convert, to_list

Hook = Callable[[Any, Any], Any]

_Rule: Final = type(override())

_COLLECTIONS: Final[Mapping[Any, Callable[[Any], Any]]] = {
    list: list,
    collections.abc.Sequence: list,
    collections.abc.MutableSequence: list,
    set: set,
    collections.abc.MutableSet: set,
    frozenset: frozenset,
    collections.abc.Set: frozenset,
}


def _strict_hook(kind: type, convert: Convert) -> Hook:
    """Return a hook for a type and, by cattrs's rules, for its subclasses that have none."""

    def hook(value: Any, target: Any) -> Any:
        converted = convert(value)
        return converted if target is kind else target(converted)

    return hook


STRICT: Final[Mapping[type, Hook]] = {kind: _strict_hook(kind, convert) for kind, convert in CONVERT.items()}
"""The hooks for the project's own types."""


def make_converter() -> Converter:
    """Return a new converter with strict hooks, independent of any other."""
    made = Converter(
        detailed_validation=False,
        unstruct_collection_overrides={set: list, frozenset: list, tuple: list},
    )
    configure_union_passthrough(bool | int | float | str | bytes | None, made)
    for kind, hook in STRICT.items():
        made.register_structure_hook(kind, hook)
    made.register_structure_hook(Enum, _to_member)
    made.register_structure_hook_factory(is_record, lambda cls: _record_hook(cls, made))
    made.register_structure_hook_factory(_is_literal, _literal_hook)
    made.register_structure_hook_factory(_is_collection, lambda target: _collection_hook(target, made))
    return made


def is_record(target: Any) -> bool:
    """Return True for an attrs class or a dataclass."""
    return inspect.isclass(target) and (attrs.has(target) or dataclasses.is_dataclass(target))


def _record_hook(cls: type, made: Converter) -> Hook:
    """Return the hook that cattrs generates for a class; it respects overrides in Annotated."""
    hints = get_type_hints(cls, include_extras=True)
    rules = {name: rule for name, hint in hints.items() if (rule := _annotated_rule(hint)) is not None}
    hook: Hook = make_dict_structure_fn(cls, made, _cattrs_detailed_validation=False, **rules)
    return hook


def _annotated_rule(hint: Any) -> Any:
    rules = get_args(hint)[1:] if get_origin(hint) is Annotated else ()
    return next((rule for rule in rules if isinstance(rule, _Rule)), None)


def _to_member(value: Any, target: type[Enum]) -> Enum:
    member = target(value)
    if member is not value and type(member.value) is not type(value):
        raise ValueError("not a member of the enumeration")
    return member


def _is_literal(target: Any) -> bool:
    origin: Any = get_origin(target)
    return origin is Literal


def _literal_hook(target: Any) -> Hook:
    values = {(type(value), value) for value in get_args(target)}

    def hook(value: Any, _: Any) -> Any:
        if (type(value), value) not in values:
            raise ValueError("not one of the literal values")
        return value

    return hook


def _is_collection(target: Any) -> bool:
    return (get_origin(target) or target) in _COLLECTIONS


def _collection_hook(target: Any, made: Converter) -> Hook:
    """Return a hook that makes lists and sets only from lists: cattrs would turn text into a list of letters."""
    collect = _COLLECTIONS[get_origin(target) or target]
    item = (*get_args(target), Any)[0]
    hook = made.get_structure_hook(item)

    def collect_items(value: Any, _: Any) -> Any:
        items = list(value) if isinstance(value, (set, frozenset)) else to_list(value)
        return collect([hook(one, item) for one in items])

    return collect_items


converter: Final = make_converter()
"""The project's converter; register hooks for your own types here, when your module is imported."""
