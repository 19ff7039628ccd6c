"""Entities: plain data → values of declared types.

An entity is declared in the YAML (:meth:`Entity.inline`) or is a user's own attrs class or dataclass
(:meth:`Entity.from_class`).  For types of your own, register cattrs hooks on :data:`converter` in the module that
defines them: a structure hook takes what the payload holds, an unstructure hook gives what is stored, and the
annotation of what it returns (``-> str``) decides the column's kind.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Mapping, Sequence
from decimal import Decimal
from typing import Any

import attrs

from amqtt_db.entity.declared import EntitySpec, Values, covers_keys, undeclared, without_mismatches
from amqtt_db.entity.from_class import class_plan
from amqtt_db.entity.hooks import converter
from amqtt_db.entity.inline import inline_plan
from amqtt_db.entity.lossless import is_lossless
from amqtt_db.entity.strict import read_level, to_column
from amqtt_db.errors import EntityError
from amqtt_db.record import Kind, Shape, flatten
from amqtt_db.registry import load_path

__all__ = ["Entity", "converter"]

Structured = tuple[Values, dict[str, Any], dict[str, Any]]


class Entity:
    """Declared properties: their ``shape`` (paths and kinds, in order) and their paths (``declared``).

    ``objects`` are the paths of the objects that contain them.  ``is_plain`` is true if :meth:`columns` may be called.
    """

    __slots__ = (
        "_covers", "_fields", "_leaves", "_name", "_read", "_seals", "declared", "is_plain", "objects", "shape"
    )  # fmt: skip

    def __init__(self, plan: EntitySpec) -> None:
        leaves = [leaf for field in plan.fields for leaf in field.leaves()]
        self.shape = Shape(tuple((field.path, field.kind) for _, field in leaves))
        self.declared: frozenset[str] = frozenset(self.shape.paths)
        self.objects = frozenset(one.path for field in plan.fields for one in field.branches() if one.children)
        self.is_plain = plan.independent
        self._name, self._read = plan.name, plan.read
        self._fields = plan.fields
        self._leaves = {field.path: field for _, field in leaves}
        self._covers = covers_keys(plan.fields)
        seals = tuple(field.seal for _, field in leaves)
        self._seals = seals if any(seals) else None

    @classmethod
    def inline(cls, mapping: Mapping[Any, Any], where: str = "entity") -> Entity:
        """Return the entity that the YAML at the path ``where`` declares; every property may be missing.

        Raises SpecError, a ValueError that holds every mistake with its path.
        """
        return cls(inline_plan(mapping, where))

    @classmethod
    def from_class(cls, path_or_class: str | type) -> Entity:
        """Return the entity of an attrs class or dataclass, given as a class or by its dotted path.

        Its defaults and validators apply, and the attributes of its instances are stored.  Raises ValueError if it
        cannot be found, is another kind of class, or has an attribute that cannot be filled.
        """
        return cls(class_plan(load_path(path_or_class) if isinstance(path_or_class, str) else path_or_class))

    def structure(self, data: Mapping[str, Any]) -> Structured:
        """Return typed values of one message's data: (values, mismatched, unknown).

        ``values`` align with ``shape``, with None for what is absent or mismatched; ``mismatched`` holds the raw
        values that do not have the declared type, ``unknown`` those that are not declared, both by path.  Raises
        EntityError if a required property is missing or a class rejects its values.
        """
        try:
            values = self._values(data)
        except Exception:
            values, mismatched = self._structure_patiently(data)
        else:
            mismatched = {}
        return values, mismatched, {} if self._covers(data) else self._unknown(data)

    def columns(
        self, given: Mapping[str, Sequence[Any]], count: int, mismatched: Container[str] = ()
    ) -> Sequence[Sequence[Any]] | None:
        """Return typed columns of the data of ``count`` messages, given by path, in the order of the shape.

        The columns at the paths ``mismatched`` are left out.  Return None if another value does not have the declared
        type; :meth:`misfits` finds which.
        """
        absent = (None,) * count
        if any(not _are_empty(given.get(path, ())) for path in self.objects if path not in mismatched):
            return None
        try:
            return [
                to_column(field.convert, absent if path in mismatched else given.get(path, absent))
                for path, field in self._leaves.items()
            ]
        except Exception:
            return None

    def misfits(self, given: Mapping[str, Sequence[Any]]) -> Mapping[str, Collection[int]]:
        """Return the indexes of the values that do not have the declared type, by path, as :meth:`columns` has them."""
        fields = (one for field in self._fields for one in field.branches() if one.path in given)
        found = {field.path: field.misfits(given[field.path]) for field in fields}
        return {path: indexes for path, indexes in found.items() if indexes}

    def mismatches(self, mismatched: Mapping[str, Any]) -> str:
        """Describe, by path, what is wrong with the values that :meth:`structure` calls mismatched; show no value."""
        fields = {one.path: one for field in self._fields for one in field.branches()}
        return ", ".join(f"'{path}' {fields[path].mismatch(value)}" for path, value in mismatched.items())

    def level(self, name: str, text: str) -> Any:
        """Return the text of a topic's level as a value of the declared property ``name``.

        Raises EntityError if it does not have the declared type, KeyError for a name that is not declared.
        """
        field = next((field for field in self._fields if field.path == name and not field.children), None)
        if field is None:
            raise KeyError(name)
        try:
            value = field.convert(read_level(field.kind, text))
            return field.seal(value) if field.seal else value
        except Exception:
            raise EntityError(f"topic level {name!r} is not {field.expected}") from None

    def convert(self, path: str, value: Any) -> tuple[Kind, Any]:
        """Return a value that was stored under another kind as the declared property at ``path`` has it, and its kind.

        Raises EntityError unless the value fits exactly; KeyError for a path that is not declared.
        """
        field = self._leaves[path]
        try:
            is_whole = isinstance(value, Decimal) and value == value.to_integral_value()
            converted = field.convert(int(value) if is_whole and field.kind == "int64" else value)
            converted = converted if field.seal is None else field.seal(converted)
        except Exception as error:  # a class's own hooks may raise anything
            raise EntityError(f"property {path!r} {field.mismatch(value)}") from error
        if converted is None or not is_lossless(value, converted):
            raise EntityError(f"property {path!r} is not exactly {field.expected}")
        return field.kind, converted

    def _values(self, data: Mapping[str, Any]) -> Values:
        values = self._read(data)
        return values if self._seals is None else self._sealed(values)

    def _sealed(self, values: Values) -> Values:
        return tuple(
            value if value is None or seal is None else seal(value)
            for value, seal in zip(values, self._seals or (), strict=True)
        )

    def _structure_patiently(self, data: Mapping[str, Any]) -> tuple[Values, dict[str, Any]]:
        mismatched: dict[str, Any] = {}
        clean = without_mismatches(data, self._fields, mismatched)
        try:
            values = self._values(clean)
        except EntityError:
            raise
        except Exception as error:
            raise EntityError(_refusal(self._name, error, clean)) from error
        gone = {path for path in self.shape.paths if _is_below(path, mismatched)}
        return tuple(
            None if path in gone else value for path, value in zip(self.shape.paths, values, strict=True)
        ), mismatched

    def _unknown(self, data: Mapping[str, Any]) -> dict[str, Any]:
        try:
            found = flatten(undeclared(data, self._fields))
            return {path: value for path, value in found.items() if value is not None}
        except TypeError as error:
            raise EntityError(str(error)) from None


def _are_empty(column: Sequence[Any]) -> bool:
    """Return True if values are empty objects or None, which say nothing about an object's properties."""
    return set(map(type, column)) <= {dict, type(None)} and not any(column)


def _is_below(path: str, mismatched: Mapping[str, Any]) -> bool:
    return any(path == one or path.startswith(one + ".") for one in mismatched)


def _refusal(name: str, error: Exception, data: Mapping[str, Any]) -> str:
    """Return why a class rejects its values, without the error's own text, which might repeat them."""
    attribute, function = None, None
    trace = error.__traceback__
    while trace is not None:
        found = [value for value in trace.tb_frame.f_locals.values() if isinstance(value, attrs.Attribute)]
        attribute = found[0].name if found else attribute
        function = trace.tb_frame.f_code.co_name
        trace = trace.tb_next
    if attribute is None:
        return f"{name} rejects the values with {type(error).__name__} in {function}"
    return f"{name} rejects property {attribute!r}, a {type(data.get(attribute)).__name__}, with {type(error).__name__}"
