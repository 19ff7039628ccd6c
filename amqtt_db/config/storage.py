"""``hypertable:`` and ``keep:``, the keys that give a route its own tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import Any, Final

import attrs

from amqtt_db.config.keys import ConfigKey, described
from amqtt_db.config.rollup import read_rollup_steps
from amqtt_db.config.yaml_checks import Node, duration, found, text
from amqtt_db.database.naming import table_name
from amqtt_db.errors import Problem
from amqtt_db.models.base import Model, OwnColumns
from amqtt_db.models.binding import BoundTable
from amqtt_db.record import level_path
from amqtt_db.registry import suggest
from amqtt_db.routing.records import escape_path
from amqtt_db.routing.route import CHUNK, Hypertable, Ordering, Route

COLUMNS: Final = described(type=["string", "array"], items=text.accepts, minLength=1)
"""A check for the name of a column, or a list of names; only a route can say whether it has them."""

HYPERTABLE_KEYS: Final = {
    "chunk": ConfigKey("The time span of a chunk.  Default: 7 days.", duration),
    "compress_after": ConfigKey("Compress a chunk this long after its end.  Default: never.", duration),
    "segment_by": ConfigKey("Rows with the same values of these columns are compressed together.", COLUMNS),
    "order_by": ConfigKey("The order of compressed rows; `DESC` may follow a name.  Default: newest first.", COLUMNS),
}

_PREFIX_LIMIT: Final = 40  # bytes, so that there is room for the rest of a table's or index's name
_WITHOUT_HYPERTABLES: Final[Mapping[str, str]] = {"mariadb": "MariaDB", "mysql": "MySQL", "sqlite": "SQLite"}
"""Names of databases without hypertables, by dialect; an engine from elsewhere says itself if it has them."""
_DIRECTIONS: Final[Mapping[str, bool]] = {"": False, "asc": False, "desc": True}


def read_storage(section: Node, route: Route | None) -> Route | None:
    """Return the route with its section's settings for hypertables and retention, which its model must allow.

    If there is no route because the section has other mistakes, note only the mistakes that can be found without it.
    """
    keep = section.child("keep").read(duration, None)
    hypertable = _hypertable(section.child("hypertable"), route, keep)
    if route is None:
        return None
    gather = section.child("gather").read(lambda value: _read_interval(value, route), None)
    indexes = tuple(_read_index(node, route) for node in section.child("indexes").items())
    rollup = read_rollup_steps(section.child("rollup"), keep)
    kept = attrs.evolve(route, hypertable=hypertable, keep=keep, timed=hypertable is not None)
    return attrs.evolve(kept, indexes=indexes, gather=gather, rollup=rollup)


def _read_interval(value: Any, route: Route) -> timedelta:
    """Return the interval that a row of the view is for; its device must be told by columns."""
    length = duration(value)
    if length % timedelta(seconds=1):
        raise ValueError("expected whole seconds")
    if route.reshaping.property and not {"+", "#"}.isdisjoint(route.filter.text.split("/")):
        raise ValueError(f"name every level of the topic, such as {{device}} instead of + or #: {route.filter.text}")
    return length


def _read_index(node: Node, route: Route) -> tuple[str, ...]:
    """Return the columns of an index: a name, or a list of names."""
    first = route.bound().tables()[0]
    columns = _column_list(node, lambda value: _known_column(route, text(value), [first]))
    if node.value in (None, []):
        node.fail("expected the name of a column, or a list of names")
    elif len(set(columns)) < len(columns):
        node.fail("names a column twice")
    return columns


def with_own_tables(routes: Mapping[str, Route]) -> dict[str, Route]:
    """Return the routes; those that need their own tables, and name none, get a prefix made from their filter."""
    taken = {"mqtt", *(getattr(route.model, "prefix", "mqtt") for route in routes.values())}
    made: dict[str, Route] = {}
    for path, route in routes.items():
        made[path] = route
        if _wants_prefix(route):
            words = _filter_words(route.filter.text)
            prefix = table_name(words, is_taken=taken.__contains__, limit=_PREFIX_LIMIT, is_prefix=True)
            taken.add(prefix)
            made[path] = attrs.evolve(route, model=_evolved(route.model, prefix=prefix))
    return made


def storage_problems(routes: Iterable[Route], dialect: str) -> Iterator[Problem]:
    """Yield a mistake for each route that has a hypertable if databases of this dialect have none."""
    for route in routes:
        if route.hypertable is not None and dialect in _WITHOUT_HYPERTABLES:
            yield Problem(
                route.hypertable.path,
                f"{_WITHOUT_HYPERTABLES[dialect]} has no hypertables: they need PostgreSQL with TimescaleDB; "
                "leave this out, or choose such a `database`",
            )


def _wants_prefix(route: Route) -> bool:
    """Return True if a route would share tables that it must not share."""
    options = _options(route.model)
    is_apart = route.timed or route.keep is not None
    return is_apart and "prefix" in options and options["prefix"] == _defaults(route.model)["prefix"]


def _filter_words(filter_: str) -> str:
    return filter_ if any(map(str.isalnum, filter_)) else "all"


def _hypertable(node: Node, route: Route | None, keep: timedelta | None) -> Hypertable | None:
    if node.value is None or node.value is False:
        return None
    section = Node({} if node.value is True else node.value, node.path, node.problems)
    if not isinstance(section.value, Mapping):
        node.fail(f"expected true or a mapping such as {{chunk: 1 day}}, found {found(node.value)}")
        return None
    section.section(HYPERTABLE_KEYS)
    made = Hypertable(
        chunk=section.child("chunk").read(duration, CHUNK),
        compress_after=section.child("compress_after").read(duration, None),
        segment_by=_column_list(section.child("segment_by"), partial(_segment, route)),
        order_by=_column_list(section.child("order_by"), partial(_ordering, route)),
        path=node.path,
    )
    _check(section, made, keep)
    return made


def _column_list(node: Node, read: Callable[[Any], Any]) -> tuple[Any, ...]:
    """Read a name, or a list of names."""
    items = [node] if isinstance(node.value, str) else node.items()
    read_items = [item.require(read, "the name of a column") for item in items]
    return tuple(made for made in read_items if made is not None)


def _segment(route: Route | None, value: Any) -> str:
    name = _known_column(route, text(value))
    if name == "time":
        raise ValueError("chunks are already split by time; choose a column that separates series, such as topic")
    return name


def _ordering(route: Route | None, value: Any) -> Ordering:
    name, _, direction = text(value).strip().rpartition(" ")
    if direction.casefold() not in _DIRECTIONS:
        name, direction = text(value).strip(), ""
    return Ordering(_known_column(route, name.strip()), descending=_DIRECTIONS[direction.casefold()])


def _known_column(route: Route | None, name: str, among: Sequence[BoundTable] = ()) -> str:
    """Return the user's name for a column: a fixed column's name, or a property's path; ``among``: of these tables."""
    if route is None:
        return name
    tables = among or route.bound().tables()
    fixed = {column.name for table in tables for column in table.columns}
    declared = None if route.entity is None else route.entity.declared
    if name in fixed:
        return name
    if isinstance(route.bound().layout, OwnColumns):
        if declared is not None and escape_path(name) in declared:
            return escape_path(name)
        if name in route.filter.names:
            return level_path(name)
        if declared is None or route.unknown == "add":
            return escape_path(name)
    names = {*fixed, *route.filter.names, *(declared or ())} if isinstance(route.bound().layout, OwnColumns) else fixed
    raise ValueError(f"the tables of the route have no column {name!r}; {suggest(name, names)}")


def _check(node: Node, made: Hypertable, keep: timedelta | None) -> None:
    """Note settings that are valid on their own but make no sense together."""
    for child in (node.child("segment_by"), node.child("order_by")):
        if made.compress_after is None and child.value is not None:
            child.fail("has no effect without `compress_after`: it applies to compressed chunks only")
    both = {ordering.column for ordering in made.order_by}.intersection(made.segment_by)
    if both:
        node.child("order_by").fail(
            f"{min(both)} is in `segment_by` too, so it has one value per segment; remove one of them"
        )
    if keep is not None and made.compress_after is not None and keep <= made.compress_after:
        node.child("compress_after").fail(
            "has no effect: `keep` deletes records before that; shorten it or leave it out"
        )
    if keep is not None and keep < made.chunk:
        node.child("chunk").fail(
            "chunks are deleted as a whole, and a chunk is longer than `keep`; shorten it, for example "
            f"`chunk: {_tenth(keep)}`"
        )


def _tenth(keep: timedelta) -> str:
    """Return a tenth of the retention time, as it may be written in the YAML."""
    tenth = int(keep.total_seconds() / 10)
    return f"{tenth // 3600} h" if tenth >= 3600 else f"{max(1, tenth)} s"


def _evolved(model: Model, **options: Any) -> Model:
    """Return a model with other options.  Raises ValueError for whatever a user's class raises."""
    try:
        return attrs.evolve(model, **options)  # type: ignore[misc]
    except Exception as error:
        raise ValueError(str(error)) from error


def _options(model: Any) -> dict[str, Any]:
    return {field.name: getattr(model, field.name) for field in attrs.fields(type(model))}


def _defaults(model: Any) -> dict[str, Any]:
    return {field.name: field.default for field in attrs.fields(type(model))}
