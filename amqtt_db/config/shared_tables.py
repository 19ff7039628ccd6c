"""Routes that share a table must agree on what it holds."""

from __future__ import annotations

from collections.abc import Mapping

from amqtt_db.database.naming import fold
from amqtt_db.entity import Entity
from amqtt_db.errors import Problem
from amqtt_db.models.base import Lookup
from amqtt_db.models.binding import BoundTable, exact_tables, lookups_of
from amqtt_db.record import Pair
from amqtt_db.routing.route import Route


def check_shared_tables(routes: Mapping[str, Route], problems: list[Problem]) -> None:
    """Note routes that share a table without agreeing on its contents."""
    seen: dict[str, tuple[str, Route, BoundTable]] = {}
    for path, route in routes.items():
        for table in exact_tables(route.bound()):
            first_path, first, first_table = seen.setdefault(fold(table.name), (path, route, table))
            key, why = _difference(first, first_table, route, table)
            if key:
                message = f"shares the table {table.name} with {first_path}, but {why}"
                problems.append(Problem(f"{path}.{key}", f"{message}; make them agree or choose another table"))
    _check_lookups(routes, seen, problems)


def _check_lookups(
    routes: Mapping[str, Route], tables: Mapping[str, tuple[str, Route, BoundTable]], problems: list[Problem]
) -> None:
    """Note lookups that have the name of a table, or of a different lookup."""
    seen: dict[str, tuple[str, Lookup]] = {}
    for path, route in routes.items():
        for lookup in lookups_of(route.bound()):
            name = fold(lookup.name)
            first_path, first = seen.setdefault(name, (path, lookup))
            other = tables[name][0] if name in tables else first_path if first != lookup else None
            if other is not None:
                message = f"its lookup {lookup.name} has the name of another table or lookup of {other}"
                problems.append(Problem(f"{path}.model", f"{message}; choose another name"))


def _difference(first: Route, first_table: BoundTable, route: Route, table: BoundTable) -> tuple[str, str]:
    for key in ("hypertable", "keep", "gather"):
        if getattr(first, key) != getattr(route, key):
            return key, f"their `{key}` differs"
    if first is not route and first.gather is not None and (first.reshaping.property or route.reshaping.property):
        return "gather", "it cannot tell devices of the two apart"
    if first_table != table:
        return "model", "their models or options differ"
    has_properties = table.overflow is not None  # as columns, not as rows or in a document
    if has_properties and _declared_problems(first.entity) != _declared_problems(route.entity):
        return "entity", "their entities declare different properties or kinds"
    return "", ""


def _declared_problems(entity: Entity | None) -> frozenset[Pair] | None:
    return None if entity is None else frozenset(entity.shape.properties)
