"""Records → rows of the newest values of each device, for the routes that keep them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, Final

from amqtt_db.database.engines.base import Engine, Unfit
from amqtt_db.database.lookup import Lookups
from amqtt_db.models.base import Row
from amqtt_db.models.binding import BoundTable
from amqtt_db.models.latest import LATEST_RECORDS, LATEST_VALUES, find_newest, name_devices, value_row
from amqtt_db.record import Pair, Record, RecordBatch, RecordSlice, level_path
from amqtt_db.routing.route import Route
from amqtt_db.writer.decoded import RecordGroup
from amqtt_db.writer.insert_target import InsertTarget, TargetRows, encode_rows, fitting_kind, target_of


def _target(table: BoundTable) -> InsertTarget:
    return target_of(table.name, table, tuple((column.name, column.name) for column in table.columns))


_ROWS: Final = _target(LATEST_RECORDS)
_VALUES: Final = _target(LATEST_VALUES)


class LatestPlanner:
    """Makes the rows; ``routes`` maps topic filters to routes."""

    def __init__(self, engine: Engine, lookups: Lookups, routes: Mapping[str, Route]) -> None:
        self._engine = engine
        self._lookups = lookups
        self._routes = {text: route for text, route in routes.items() if route.latest is not None}

    def rows(self, filled: Sequence[tuple[RecordGroup, Sequence[Record]]]) -> Iterator[TargetRows]:
        """Yield the encoded rows of groups that are slices of one batch of records, or of a single group."""
        for text, groups in self._by_route(filled).items():
            batch = _together(groups)
            newest = find_newest(text, devices_of(self._routes[text], batch), batch)
            yield self._encode(_ROWS, newest.rows)
            yield self._encode_values(newest.values)

    def _by_route(
        self, filled: Sequence[tuple[RecordGroup, Sequence[Record]]]
    ) -> Mapping[str, list[tuple[RecordGroup, Sequence[Record]]]]:
        found: dict[str, list[tuple[RecordGroup, Sequence[Record]]]] = {}
        for group, records in filled if self._routes else ():
            if group[0].route in self._routes:
                found.setdefault(group[0].route, []).append((group, records))
        return found

    def _encode(self, target: InsertTarget, rows: Sequence[Row]) -> TargetRows:
        filled = [tuple(map(row.get, target.columns)) for row in rows]
        return target, encode_rows(self._engine, self._lookups, target, filled)[1] if filled else ()

    def _encode_values(self, values: Sequence[tuple[Pair, Row, Any]]) -> TargetRows:
        """Encode values; one that its kind's column would not return exactly goes to another column."""
        try:
            return self._encode(_VALUES, [value_row(kind, identity, value) for (_, kind), identity, value in values])
        except Unfit:
            fitting = (
                (fitting_kind(self._engine, pair[1], value), identity, value) for pair, identity, value in values
            )
            return self._encode(_VALUES, [value_row(kind, identity, value) for kind, identity, value in fitting])


def _together(groups: Sequence[tuple[RecordGroup, Sequence[Record]]]) -> RecordBatch:
    """Return the records of one group, or of groups that are slices of the same batch, as one batch."""
    (_, shape), first = groups[0]
    if not isinstance(first, RecordSlice):
        return RecordBatch.of(shape, first)
    slices = [records for _, records in groups if isinstance(records, RecordSlice)]
    return first.whole.at(sorted(chain.from_iterable(one.indexes for one in slices)))


def devices_of(route: Route, batch: RecordBatch) -> Sequence[str | None]:
    """Return the name of each record's device; None if it has none."""
    if route.latest is not None and route.latest.paths:
        return name_devices([_identifying_values(route, path, batch) for path in route.latest.paths])
    if route.reshaping.property is None:
        return batch.topics
    named = {topic: route.without_property(topic) for topic in set(batch.topics)}
    return [named[topic] for topic in batch.topics]


def _identifying_values(route: Route, path: str, batch: RecordBatch) -> Sequence[Any]:
    """Return the value at a path in each record, whatever its kind; a level that is none is in the topic."""
    for (own, _), column in zip(batch.shape.properties, batch.columns, strict=True):
        if own == path:
            return column
    names = {level_path(name): name for name in route.filter.names}
    if path not in names:
        return [None] * len(batch)
    levels = {topic: (route.filter.match(topic) or {}).get(names[path]) for topic in set(batch.topics)}
    return [levels[topic] for topic in batch.topics]
