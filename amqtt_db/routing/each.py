"""One message → several records: the items of lists, the values of objects, and parallel lists."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from amqtt_db.record import split_path
from amqtt_db.routing.reshape import find, free_name, hoist, replaced, without


@attrs.frozen
class Capture:
    """A part of a path that stands for every key of an object; the key becomes the property ``name``."""

    name: str


@attrs.frozen
class Each:
    """What becomes separate records.

    ``path`` leads to lists, or through captures to objects; it is empty if the message itself is the list.  An item
    replaces its list, or if ``prefix`` is false the object around it.  ``parallel`` are the paths of lists whose items
    at the same position belong together.
    """

    path: tuple[str | Capture, ...] = ()
    prefix: bool = True
    parallel: tuple[tuple[str, ...], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """The keys that lead to an item within its record."""
        return tuple(part for part in self.path if isinstance(part, str)) if self.prefix else ()


def parse_each(text: str) -> tuple[str | Capture, ...]:
    """Return the parts of a path such as ``devices.{device}.readings``."""
    return tuple(_parse_part(part) for part in text.split(".")) if "{" in text else split_path(text) if text else ()


def _parse_part(part: str) -> str | Capture:
    return Capture(part[1:-1]) if part.startswith("{") and part.endswith("}") else part


def spread(each: Each, data: Any) -> Iterator[Any]:
    """Yield the data of each record of a message."""
    if each.parallel:
        yield from _spread_parallel(each.parallel, data)
        return
    for captured, item in _spread(each.path, each.prefix, data):
        yield _with_keys(captured, item)


def _spread(path: Sequence[str | Capture], prefix: bool, data: Any) -> Iterator[tuple[dict[str, str], Any]]:
    """Yield the data of each record, and the keys that were captured on the way."""
    if isinstance(data, list):
        for item in data:
            yield from _spread(path, prefix, item) if path else [({}, item)]
    elif not path or not isinstance(data, Mapping):
        yield {}, data
    elif isinstance(path[0], Capture):
        yield from _spread_keys(path[0], path[1:], prefix, data)
    elif path[0] in data:
        for captured, inner in _spread(path[1:], prefix, data[path[0]]):
            yield captured, _put_back(data, path[0], inner, prefix)
    else:
        yield {}, data


def _spread_keys(
    capture: Capture, path: Sequence[str | Capture], prefix: bool, data: Mapping[str, Any]
) -> Iterator[tuple[dict[str, str], Any]]:
    """Yield what is below each key; single values next to objects belong to each of the objects."""
    chosen = {key: value for key, value in data.items() if isinstance(value, (Mapping, list))} or data
    rest = {key: value for key, value in data.items() if key not in chosen}
    for key, inner in chosen.items():
        for captured, item in _spread(path, prefix, inner):
            yield {capture.name: key, **captured}, hoist(rest, _as_item(item))


def _put_back(data: Mapping[str, Any], key: str, inner: Any, prefix: bool) -> dict[str, Any]:
    if prefix:
        return {**data, key: inner}
    return hoist({name: value for name, value in data.items() if name != key}, _as_item(inner))


def _as_item(item: Any) -> Mapping[str, Any]:
    return item if isinstance(item, Mapping) else {"value": item}


def _with_keys(captured: Mapping[str, str], item: Any) -> Any:
    if not captured:
        return item
    record = dict(_as_item(item))
    for name, key in captured.items():
        record[free_name(name, record)] = key
    return record


def _spread_parallel(paths: Sequence[tuple[str, ...]], data: Any) -> Iterator[Any]:
    """Yield an object for each position of parallel lists; beyond the end of a shorter list its property is absent."""
    found = {path: values for path in paths if isinstance(values := find(data, path), list)}
    if not found:
        yield data
    for index in range(max(map(len, found.values()), default=0)):
        record = data
        for path, values in found.items():
            has_item = index < len(values)
            record = replaced(record, path, values[index]) if has_item else without(record, path)
        yield record
