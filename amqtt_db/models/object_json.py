"""JSON of many objects with the same keys, written column by column: most of the text is the same for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any, Final

import orjson

from amqtt_db.record import nested
from amqtt_db.tagged import EncodedJson, is_clean, needs_no_tag

Columns = Sequence[Sequence[Any]]
ObjectWriter = Callable[[Columns], Sequence[EncodedJson] | None]

_NUMBERS: Final = frozenset({int, float})


def object_writer(paths: Sequence[Sequence[str]]) -> ObjectWriter:
    """Return a function that writes objects from columns of values, each value under the keys that lead to it.

    The text is what :func:`tagged.dumps` would return; it is None if a quick look cannot tell, or something is absent.
    """
    if not _is_tree(paths) or not all(map(_is_plain_key, (key for path in paths for key in path))):
        return lambda columns: None
    parts = list(_parts(nested(zip(paths, range(len(paths)), strict=True))))

    def write(columns: Columns) -> Sequence[EncodedJson] | None:
        texts: list[Sequence[str]] = []
        for column in columns:
            found = _json_texts(column)
            if found is None:
                return None
            texts.append(found)
        pieces = (repeat(part, len(columns[0])) if isinstance(part, str) else texts[part] for part in parts)
        return list(map(EncodedJson, map("".join, zip(*pieces, strict=True))))

    return write


def _is_tree(paths: Sequence[Sequence[str]]) -> bool:
    """Return True if there are paths and no path is a prefix of another."""
    inner = {tuple(path[:end]) for path in paths for end in range(1, len(path))}
    return bool(paths) and inner.isdisjoint(map(tuple, paths))


def _is_plain_key(key: str) -> bool:
    return is_clean(key) and not key.startswith("$")


def _parts(level: Mapping[str, Any]) -> Iterator[str | int]:
    """Return the text of an object, with the indexes of columns in place of their values."""
    mark = "{"
    for key, inside in level.items():
        yield f"{mark}{orjson.dumps(key).decode()}:"
        if isinstance(inside, dict):
            yield from _parts(inside)
        else:
            yield inside
        mark = ","
    yield "}"


def _json_texts(column: Sequence[Any]) -> Sequence[str] | None:
    """Return the JSON of values of one type."""
    types = set(map(type, column))
    try:
        if types == {bool} or (types and types <= _NUMBERS):
            return _texts_of_numbers(column)
        return _texts_of_texts(column) if types == {str} else None
    except TypeError:  # an integer that is not a double, a lone surrogate
        return None


def _texts_of_numbers(column: Sequence[Any]) -> Sequence[str] | None:
    text = orjson.dumps(column, option=orjson.OPT_STRICT_INTEGER)
    return text[1:-1].decode().split(",") if needs_no_tag(text) else None


def _texts_of_texts(column: Sequence[str]) -> Sequence[str] | None:
    """Return the lines of one JSON text, in which the only backslashes are those between lines."""
    lines = "\n".join(column)
    written = orjson.dumps(lines).decode()[1:-1]
    texts = written.split("\\n")
    are_apart = "\\" not in lines and len(texts) == len(column)
    is_tagged = lines.startswith("$") or "\n$" in lines or "\x00" in lines
    return [f'"{text}"' for text in texts] if are_apart and not is_tagged else None
