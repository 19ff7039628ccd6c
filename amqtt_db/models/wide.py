"""``wide``: a column per property; one table per topic, or one for all topics of a route."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import attrgetter, itemgetter
from typing import Any, Final

import attrs

from amqtt_db.models.base import ENVELOPE, Cell, Column, Model, Place, Query, Row, RowMaker, Table, record_of, restored
from amqtt_db.shape import Pair, Record, Shape
from amqtt_db.tagged import typed

EXTRA: Final = "extra"

_ENVELOPE_NAMES: Final = tuple(column.name for column in ENVELOPE)
_envelope = attrgetter(*_ENVELOPE_NAMES)


@attrs.frozen
class Wide(Model):
    """The friendliest SQL: ``SELECT time, temp FROM climate``.

    ``table`` names one table for all topics of the route; without it each topic has a table of its own, named after it.
    """

    table: str | None = None

    @property
    def per_topic(self) -> bool:  # type: ignore[override]
        """Whether each topic has a table of its own."""
        return self.table is None

    def tables(self, place: Place, shape: Shape) -> tuple[Table, ...]:
        """One table: the envelope, a column per property, and ``extra`` for properties without a column."""
        return (
            Table(
                key=self._key(place),
                name=self.table or place.key,
                exact=self.table is not None,
                columns=(*ENVELOPE, Column(EXTRA, "json", nullable=True)),
                properties=tuple(pair for pair in shape.properties if has_column(place, pair[0])),
                indexes=(("time",),) if self.per_topic else (("topic", "time"), ("time",)),
                overflow=EXTRA,
            ),
        )

    def rows(self, place: Place, record: Record) -> Iterator[tuple[str, Row]]:
        """One row: the envelope and a cell per property."""
        row: dict[Cell, Any] = dict(zip(_ENVELOPE_NAMES, _envelope(record), strict=True))
        row.update(zip(record.shape.properties, record.values, strict=True))
        yield self._key(place), row

    def query(self, place: Place) -> Query:
        """All rows of the place's table."""
        return Query(self._key(place))

    def records(self, place: Place, rows: Iterable[Row]) -> Iterator[Record]:
        """A record per row; NULL cells are absent properties."""
        for row in rows:
            yield record_of(row, dict(_properties(row)))

    def maker(self, place: Place, shape: Shape, cells: Mapping[str, Sequence[Cell]]) -> RowMaker:
        """One list comprehension over the records; a subclass with rows of its own gets the plain maker."""
        if type(self).rows is not Wide.rows:
            return super().maker(place, shape, cells)
        ((key, order),) = cells.items()
        pick = _picker(shape, order[len(_ENVELOPE_NAMES) :])

        def make(records: Sequence[Record]) -> Mapping[str, list[tuple[Any, ...]]]:
            return {
                key: [(r.id, r.part, r.time, r.topic, r.session, r.qos, r.retain, *pick(r.values)) for r in records]
            }

        return make

    def _key(self, place: Place) -> str:
        return f"$table/{self.table}" if self.table else place.key  # no topic of a client begins with $


def has_column(place: Place, path: str) -> bool:
    """Whether a property may have a column: not if ``unknown: extra`` sends it to the JSON column."""
    return place.unknown != "extra" or place.declared is None or path in place.declared or path.startswith("{")


def _properties(row: Row) -> Iterator[tuple[Pair, Any]]:
    for cell, value in row.items():
        if isinstance(cell, tuple) and value is not None:
            path, kind = cell
            yield restored(path, value) if kind == "tagged" else (cell, value)
    for path, value in (row[EXTRA] or {}).items():
        yield restored(path, value)


def _picker(shape: Shape, cells: Sequence[Cell]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    """From a record's values to the values of ``cells``, in their order."""
    if tuple(cells) == shape.properties:
        return tuple
    places = {pair: index for index, pair in enumerate(shape.properties)}
    indexes = [places.get(cell, -1) for cell in cells if isinstance(cell, tuple)]
    homeless = [(pair, index) for pair, index in places.items() if pair not in set(cells)]
    direct = _getter(indexes)
    if EXTRA not in cells:
        return lambda values: direct((*values, None))
    return lambda values: (_rest(homeless, values), *direct((*values, None)))


def _getter(indexes: list[int]) -> Callable[[tuple[Any, ...]], tuple[Any, ...]]:
    if len(indexes) > 1:
        return itemgetter(*indexes)
    return lambda values: tuple(values[index] for index in indexes)


def _rest(homeless: list[tuple[Pair, int]], values: tuple[Any, ...]) -> dict[str, Any] | None:
    rest = {path: typed(kind, values[index]) for (path, kind), index in homeless if values[index] is not None}
    return rest or None
