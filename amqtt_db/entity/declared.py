"""An entity's declaration as a tree of fields, and the handling of data that does not match it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs

from amqtt_db.entity.strict import Convert, to_column, to_dict
from amqtt_db.errors import EntityError
from amqtt_db.record import Kind

Values = tuple[Any, ...]
"""Typed values in the order of an entity's properties, None for those that are absent."""


@attrs.frozen
class Field:
    """One declared property, or an object of declared properties.

    ``key`` is its name in the payload, ``attribute`` its name in the instance, ``path`` its property path, ``expected``
    the name of its type for messages.  ``convert`` turns a decoded value into its type or raises; ``seal`` turns what
    the instance holds into a plain value of ``kind``, and is None if it is known to be one.  ``nullable`` is true if
    ``convert`` handles null itself; ``computed`` fields are never read from a payload.
    """

    key: str
    attribute: str
    path: str
    expected: str
    kind: Kind = "json"
    convert: Convert = attrs.field(default=lambda value: value)
    seal: Convert | None = None
    required: bool = False
    nullable: bool = True
    computed: bool = False
    children: tuple[Field, ...] = ()

    def leaves(self, parents: str = "") -> Iterator[tuple[str, Field]]:
        """Yield the declared properties in and below this field, each with the dotted attribute that leads to it."""
        name = parents + self.attribute
        if not self.children:
            yield name, self
        for child in self.children:
            yield from child.leaves(f"{name}.")

    def branches(self) -> Iterator[Field]:
        """Yield this field and all those below it."""
        yield self
        for child in self.children:
            yield from child.branches()

    def misfits(self, column: Sequence[Any]) -> Collection[int]:
        """Return the indexes of values that do not have the declared type."""
        convert = to_dict if self.children else self.convert
        with suppress(Exception):
            to_column(convert, column)
            return ()
        return {index for index, value in enumerate(column) if value is not None and not _accepts(convert, value)}

    def mismatch(self, value: object) -> str:
        """Describe what is wrong with a value (its type, or else its range or its items) without the value itself."""
        given = type(value).__name__
        if given == self.expected:
            return f"is {given}, but does not fit"
        return f"is not {self.expected} but {given}"


@attrs.frozen
class EntitySpec:
    """The plan for reading an entity: its name, its fields, and the function that returns their values.

    ``read`` takes the data of a message and returns the values of all leaves of the fields, in their order.
    ``independent`` is true if each field is only converted, independently of the others.
    """

    name: str
    fields: tuple[Field, ...]
    read: Callable[[Mapping[str, Any]], Values]
    independent: bool = False


def without_mismatches(data: Mapping[str, Any], fields: tuple[Field, ...], found: dict[str, Any]) -> dict[str, Any]:
    """Return the data without values that lack their declared type; these go into ``found`` (path → value).

    Raises EntityError for a required property that is missing or has another type.
    """
    clean = dict(data)
    for field in fields:
        value = data.get(field.key)
        if field.computed or (value is None and field.nullable and field.key in data):
            continue
        if value is None:
            clean.pop(field.key, None)
            _require(field, "is missing")
            continue
        try:
            if field.children:
                clean[field.key] = without_mismatches(to_dict(value), field.children, found)
            else:
                field.convert(value)
        except EntityError:
            raise
        except Exception:
            found[field.path] = clean.pop(field.key)
            _require(field, field.mismatch(value))
    return clean


def covers_keys(fields: tuple[Field, ...]) -> Callable[[Mapping[str, Any]], bool]:
    """Return a function that checks quickly whether every key of nested data is declared."""
    keys = frozenset(field.key for field in fields)
    parents = tuple((field.key, covers_keys(field.children)) for field in fields if field.children)

    def covered(data: Mapping[str, Any]) -> bool:
        if not keys.issuperset(data):
            return False
        for key, inner in parents:
            value = data.get(key)
            if isinstance(value, dict) and not inner(value):
                return False
        return True

    return covered if parents else keys.issuperset


def undeclared(data: Mapping[str, Any], fields: tuple[Field, ...]) -> dict[str, Any]:
    """Return the part of nested data that no field declares, without null values."""
    declared = {field.key: field for field in fields}
    rest: dict[str, Any] = {}
    for key, value in data.items():
        field = declared.get(key)
        if field is None and value is not None:
            rest[key] = value
        elif (
            field is not None
            and field.children
            and isinstance(value, dict)
            and (inner := undeclared(value, field.children))
        ):
            rest[key] = inner
    return rest


def _accepts(convert: Convert, value: Any) -> bool:
    try:
        convert(value)
    except Exception:
        return False
    return True


def _require(field: Field, problem: str) -> None:
    if field.required:
        raise EntityError(f"property {field.path!r} {problem}, and the entity cannot be created without it")
