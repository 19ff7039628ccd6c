"""``document``: one JSON document per record, for nested or unknown payloads."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

import attrs

from amqtt_db.models.base import (
    Cell,
    Column,
    Documents,
    Layout,
    Model,
    Place,
    Query,
    Row,
    Table,
    record_of,
    restored,
    table_key,
)
from amqtt_db.models.eav import message_row, message_table
from amqtt_db.shape import EXACT, Kind, Pair, Record, Shape, flatten, level_path, unflatten

_TO_JSON: Final[Mapping[Kind, Callable[[Any], Any]]] = {
    "bigint": str,
    "bytes": lambda value: base64.b64encode(value).decode(),
    "date": date.isoformat,
    "datetime": datetime.isoformat,
    "decimal": str,
    "time": time.isoformat,
    "uuid": str,
}
_FROM_JSON: Final[Mapping[Kind, Callable[[Any], Any]]] = {
    "bigint": int,
    "bytes": base64.b64decode,
    "date": date.fromisoformat,
    "datetime": datetime.fromisoformat,
    "decimal": Decimal,
    "time": time.fromisoformat,
    "uuid": UUID,
}


@attrs.frozen
class Document(Model):
    """``mqtt_document``: the envelope, ``data`` as it came, and what JSON does not tell beside it.

    ``kinds`` names the kinds of properties that JSON has no type for (they are text in ``data``), ``levels`` holds the
    named levels of the topic.  ``prefix`` replaces ``mqtt`` in the table's name, for routes that shall have their own.
    ``timed`` puts the time into the key, as a table in chunks by time needs it.
    """

    prefix: str = "mqtt"
    timed: bool = False

    def tables(self, place: Place, shape: Shape) -> tuple[Table, ...]:
        """Always the same one: no property ever needs DDL."""
        table = message_table(f"{self.prefix}_document", timed=self.timed)
        documents = (
            Column("data", "json"),
            Column("kinds", "json", nullable=True),
            Column("levels", "json", nullable=True),
        )
        return (attrs.evolve(table, columns=(*table.columns, *documents)),)

    def rows(self, place: Place, record: Record) -> Iterator[tuple[str, Row]]:
        """One row."""
        data: list[tuple[str, Any]] = []
        kinds: dict[str, Kind] = {}
        levels: dict[str, Any] = {}
        for path, (kind, value) in record.properties().items():
            if path.startswith("{"):
                levels[path[1:-1]] = value
                continue
            if _needs_kind(kind, value):
                kinds[path] = kind
            data.append((path, _TO_JSON[kind](value) if kind in _TO_JSON else value))
        row: dict[Cell, Any] = dict(message_row(record))
        yield self._key, {**row, "data": unflatten(data), "kinds": kinds or None, "levels": levels or None}

    def query(self, place: Place) -> Query:
        """All documents."""
        return Query(self._key)

    def records(self, place: Place, rows: Iterable[Row]) -> Iterator[Record]:
        """A record per document."""
        for row in rows:
            values = dict(_properties(row["data"], row["kinds"] or {}))
            values.update(restored(level_path(name), value) for name, value in (row["levels"] or {}).items())
            yield record_of(row, values)

    def layout(self) -> Layout | None:
        """JSON; a subclass with rows of its own has to say itself."""
        return Documents("data", "kinds", "levels") if type(self).rows is Document.rows else None

    @property
    def _key(self) -> str:
        return table_key(f"{self.prefix}_document", timed=self.timed)


def _needs_kind(kind: Kind, value: Any) -> bool:
    if kind == "int64":
        return bool(-EXACT <= value <= EXACT)
    return kind in _TO_JSON or (kind == "json" and value != {} and not isinstance(value, list))


def _properties(data: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Iterator[tuple[Pair, Any]]:
    for path, value in flatten(data, kinds).items():
        kind = kinds.get(path)
        if kind is None:
            yield restored(path, value)
        else:
            yield (path, kind), _FROM_JSON[kind](value) if kind in _FROM_JSON else value
