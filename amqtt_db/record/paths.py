"""Property paths: the keys that lead to a value, joined by dots.

What would make a path ambiguous, or what some database cannot hold, is escaped (see :func:`escape`).  So a path is
always printable text, and its keys can always be recovered.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import chain
from operator import itemgetter
from typing import Any, Final

LEVELS: Final = 16  # deeper objects stay JSON: a path of hundreds of keys is useless
SPARSE: Final = 3  # objects with fewer than a third of all their keys on average are not put in columns

_SPECIAL = re.compile("[\\\\.\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|^[{]")
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})|\\(.)")
_DOT = re.compile(r"(?<!\\)((?:\\\\)*)\.")


@lru_cache(4096)
def escape(key: str) -> str:
    r"""Return one key of an object as a safe part of a path.

    A dot, a backslash, a leading brace, control characters and lone surrogates become ``\.``, ``\\``, ``\{`` or
    ``\uXXXX``.
    """
    return _SPECIAL.sub(_escape_one, key)


def _escape_one(found: re.Match[str]) -> str:
    character = found[0]
    return "\\" + character if character in "\\.{" else f"\\u{ord(character):04x}"


def unescape(part: str) -> str:
    """Undo :func:`escape`."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[2], part)


def level_path(name: str) -> str:
    """Return the path of a named topic level; no payload key has it, because a leading brace is escaped there."""
    return f"{{{name}}}"


PROPERTIES_PATH: Final = level_path("properties")
"""The path of a message's own MQTT properties, where they are kept; no payload key has it."""


def flatten(data: Mapping[str, Any], whole: Container[str] = ()) -> dict[str, Any]:
    """Return nested objects as path → value.

    An empty object stays, as the value ``{}``; so do objects nested deeper than 16 levels, and those at the paths
    ``whole``.  Raises TypeError for a key that is not text.
    """
    flat: dict[str, Any] = {}
    _flatten(data, "", flat, whole, LEVELS)
    return flat


def _flatten(data: Mapping[str, Any], prefix: str, flat: dict[str, Any], whole: Container[str], levels: int) -> None:
    for key, value in data.items():
        if not isinstance(key, str):
            raise TypeError(f"a key of an object is a {type(key).__name__}, not text")
        path = prefix + escape(key)
        if isinstance(value, dict) and value and levels > 1 and path not in whole:
            _flatten(value, path + ".", flat, whole, levels - 1)
        else:
            flat[path] = value


def columns_of(objects: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[Any]] | None:
    """Return the values of objects by key, column by column, None where an object lacks a key.

    The keys are in the order of an object that has them all, otherwise sorted.  Return None if more than two of three
    values would be missing.
    """
    even = even_columns(objects)
    if even is not None:
        return even
    longest, found = max(objects, key=len), set(chain.from_iterable(objects))
    keys = tuple(longest) if len(longest) == len(found) else tuple(sorted(found))
    if len(keys) * len(objects) > SPARSE * sum(map(len, objects)):
        return None
    return {key: [one.get(key) for one in objects] for key in keys}


def even_columns(objects: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[Any]] | None:
    """Return the values of objects by key, column by column; None unless all have the same keys, at least one."""
    keys = tuple(objects[0])
    if not keys or set(map(len, objects)) != {len(keys)}:
        return None
    try:
        rows = list(map(itemgetter(*keys), objects))
    except KeyError:
        return None
    return {keys[0]: rows} if len(keys) == 1 else dict(zip(keys, zip(*rows, strict=True), strict=True))


def flatten_columns(
    columns: Mapping[str, Sequence[Any]], whole: Container[str] = ()
) -> dict[str, Sequence[Any]] | None:
    """Flatten many objects at once, given column by column, None where an object lacks a key.

    Each column becomes what :func:`flatten` makes of its values.  Return None if objects share a column with anything
    but None, or if more than two of three values of a column would be missing.  Raises TypeError for a key that is not
    text.
    """
    try:
        return dict(_flat_columns(columns, "", whole, LEVELS))
    except _Uneven:
        return None


class _Uneven(Exception):  # noqa: N818 - it reads as what is the case
    """Objects cannot be put in columns."""


def _flat_columns(
    columns: Mapping[str, Sequence[Any]], prefix: str, whole: Container[str], levels: int
) -> Iterator[tuple[str, Sequence[Any]]]:
    for key, column in columns.items():
        if not isinstance(key, str):
            raise TypeError(f"a key of an object is a {type(key).__name__}, not text")
        path = prefix + escape(key)
        types = set(map(type, column))
        if dict in types and levels > 1 and path not in whole and any(column):
            yield from _flat_columns(_object_columns(column, types), path + ".", whole, levels - 1)
        else:
            yield path, column


def _object_columns(column: Sequence[Any], types: set[type]) -> dict[str, Sequence[Any]]:
    """Return the columns of a column of objects of these types.  Raises _Uneven if that is not what it is."""
    is_even = types <= {dict, type(None)} and {} not in column
    found = columns_of(column if None not in column else [one or {} for one in column]) if is_even else None
    if found is None:
        raise _Uneven
    return found


def split_path(path: str) -> tuple[str, ...]:
    """Return the keys that lead to a property: the inverse of joining escaped keys by dots."""
    return tuple(unescape(part) for part in _DOT.sub("\\1\x00", path).split("\x00"))


def unflatten(properties: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Undo :func:`flatten` for (path, value) pairs; None values are left out."""
    return nested((split_path(path), value) for path, value in properties if value is not None)


def nested(values: Iterable[tuple[Sequence[str], Any]]) -> dict[str, Any]:
    """Return nested objects made of values and the keys that lead to each; None values are left out."""
    data: dict[str, Any] = {}
    for keys, value in values:
        if value is not None:
            level = data
            for key in keys[:-1]:
                level = level.setdefault(key, {})
            level[keys[-1]] = value
    return data
