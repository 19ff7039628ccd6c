"""Many objects of one route, typed together, column by column; those that differ are divided first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, Final

import attrs

from amqtt_db.record import KIND_OF_TYPE, Pair, escape, flatten_columns
from amqtt_db.routing.route import Route

OBJECT: Final = "object"
"""What :func:`kind_mark` returns for an object: it is flattened before it has a kind."""

KNOWN_TYPES: Final = KIND_OF_TYPE.keys() | {type(None)}

_FLAT: Final = KIND_OF_TYPE.keys() - {dict}
_ABSENT: Final = "null"

kind_mark: Final = {**KIND_OF_TYPE, dict: OBJECT, type(None): _ABSENT}.get
"""Types → kinds, but objects apart from lists; None for a type that this project does not know."""

ObjectColumns = Mapping[str, Sequence[Any]]
"""Values of many objects, by key or by path, None where an object has none."""


@attrs.frozen
class TypedColumns:
    """Many records of one shape, column by column, without envelopes and without the topics' levels.

    ``dropped`` and ``nulled`` count properties of all of them.  ``has_gaps`` is true if an undeclared property is
    absent from some of them.
    """

    pairs: tuple[Pair, ...]
    columns: Sequence[Sequence[Any]]
    dropped: int = 0
    nulled: int = 0
    has_gaps: bool = False


@attrs.frozen
class Alike:
    """Objects that can be typed together: their indexes, and the declared paths that have another type in all."""

    indexes: Sequence[int]
    mismatched: frozenset[str] = frozenset()


def type_columns(route: Route, columns: ObjectColumns, mismatched: frozenset[str]) -> TypedColumns | None:
    """Type the objects of a route, given by key; return None if they are not alike (see :func:`divide`).

    ``mismatched`` are the declared paths at which no value has the declared type.
    """
    typed = _type_flat(route, {escape(key): column for key, column in columns.items()}, mismatched, _FLAT)
    flat = _flatten_columns(route, columns) if typed is None else None
    return typed if flat is None else _type_flat(route, flat, mismatched, KNOWN_TYPES)


def divide(route: Route, columns: ObjectColumns, mismatched: frozenset[str]) -> Sequence[Alike]:
    """Divide the objects of a route, given by key, into those that are alike.

    Alike are those whose objects have the same keys, whose undeclared properties have the same kinds, and which have
    the same properties of another type than the declared one.
    """
    flat, rows = _flatten_columns(route, columns), range(len(next(iter(columns.values()))))
    if flat is None:
        forms = [list(map(_form, column)) for column in columns.values() if dict in set(map(type, column))]
        return [Alike(indexes, mismatched) for indexes in _equal_rows(rows, forms)]
    found = {} if route.entity is None else route.entity.misfits(flat)
    misfits = {path: indexes for path, indexes in found.items() if path not in mismatched}
    kinds = [
        list(_kind_marks(column))
        for path, column in flat.items()
        if path in misfits or _is_further(route, path, mismatched)
    ]
    several = [marks for marks in kinds if len(set(marks) - {_ABSENT}) > 1]
    wrong = [[row in indexes for row in rows] for indexes in misfits.values()]
    return [
        Alike(indexes, mismatched.union(path for path, some in misfits.items() if indexes[0] in some))
        for indexes in _equal_rows(rows, [*several, *wrong])
    ]


def _type_flat(route: Route, given: ObjectColumns, mismatched: frozenset[str], types: Set[type]) -> TypedColumns | None:
    """Type columns by path, whose values have no other types than those given."""
    entity, count = route.entity, len(next(iter(given.values())))
    declared = () if entity is None else entity.columns(given, count, mismatched)
    more = _by_pair({path: given[path] for path in given if _is_further(route, path, mismatched)}, types)
    if declared is None or more is None:
        return None
    unknown = {pair: column for pair, column in more.items() if pair[0] not in mismatched}
    if (mismatched and route.mismatch == "reject") or (unknown and entity and route.unknown == "reject"):
        return None
    drops, nulls = entity is not None and route.unknown == "ignore", route.mismatch == "null"
    kept = {pair: column for pair, column in more.items() if not (drops if pair in unknown else nulls)}
    return TypedColumns(
        (*(() if entity is None else entity.shape.properties), *kept),
        [*declared, *kept.values()],
        sum(len(column) - column.count(None) for column in unknown.values()) if drops else 0,
        len(mismatched) * count if nulls else 0,
        any(None in column for column in kept.values()),
    )


def _flatten_columns(route: Route, columns: ObjectColumns) -> ObjectColumns | None:
    return flatten_columns(columns, () if route.entity is None else route.entity.declared)


def _is_further(route: Route, path: str, mismatched: frozenset[str]) -> bool:
    """Return True if the values at a path do not go into the column of a declared property."""
    entity = route.entity
    return entity is None or path in mismatched or not (path in entity.declared or path in entity.objects)


def _by_pair(given: ObjectColumns, types: Set[type]) -> dict[Pair, Sequence[Any]] | None:
    """Return columns by the pair that all their values share, without all-null columns.

    Return None if some values differ, or have another type than those given.
    """
    found: dict[Pair, Sequence[Any]] = {}
    for path, column in given.items():
        there = set(map(type, column)) - {type(None)}
        kinds = {KIND_OF_TYPE[one] for one in there} if there <= types else set()
        if len(kinds) != bool(there):
            return None
        found.update({(path, kind): column for kind in kinds})
    return found


def _kind_marks(column: Sequence[Any]) -> Iterator[str | None]:
    return map(kind_mark, map(type, column))


def _form(value: Any) -> Any:
    """Return what must be equal for two values to share a column, or the columns of an object's values."""
    if type(value) is dict and value:
        return tuple((key, _form(inner)) for key, inner in value.items())
    return kind_mark(type(value))


def _equal_rows(rows: range, columns: Sequence[Sequence[Any]]) -> Sequence[Sequence[int]]:
    """Return the indexes of rows that are equal in some columns, for each row that occurs."""
    if not columns:
        return [rows]
    found: dict[tuple[Any, ...], list[int]] = {}
    for index, row in zip(rows, zip(*columns, strict=True), strict=True):
        found.setdefault(row, []).append(index)
    return list(found.values())
