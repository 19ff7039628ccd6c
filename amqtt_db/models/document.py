"""``document``: one JSON document per record, for nested or unknown payloads."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from itertools import repeat
from typing import Any, Final
from uuid import UUID

import attrs

from amqtt_db.models.base import (
    ENVELOPE,
    Cell,
    Column,
    Destination,
    Documents,
    Layout,
    Model,
    Query,
    Row,
    RowMaker,
    Table,
    record_of,
    restored,
    table_key,
)
from amqtt_db.models.eav import message_row, message_table
from amqtt_db.models.object_json import object_writer
from amqtt_db.record import (
    EXACT,
    Kind,
    Pair,
    Record,
    RecordBatch,
    Shape,
    flatten,
    level_path,
    nested,
    split_path,
    unflatten,
)
from amqtt_db.tagged import EncodedJson, dumps

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

_TOLD: Final = frozenset({*_TO_JSON, "int64", "json"})
"""Kinds of which some values at least do not tell themselves in JSON."""

Columns = Sequence[Sequence[Any]]


@attrs.frozen
class Document(Model):
    """``mqtt_document``: the envelope, ``data`` as it came, and what JSON does not tell beside it.

    ``kinds`` names the kinds of properties that JSON has no type for (they are text in ``data``), ``levels`` holds the
    named levels of the topic.  ``prefix`` replaces ``mqtt`` in the table's name, for routes that shall have their own.
    ``timed`` puts the time into the key, as a table in chunks by time needs it.
    """

    prefix: str = "mqtt"
    timed: bool = False

    def tables(self, destination: Destination, shape: Shape) -> tuple[Table, ...]:
        """Always the same one: no property ever needs DDL."""
        table = message_table(f"{self.prefix}_document", timed=self.timed)
        documents = (
            Column("data", "json"),
            Column("kinds", "json", nullable=True),
            Column("levels", "json", nullable=True),
        )
        return (attrs.evolve(table, columns=(*table.columns, *documents)),)

    def rows(self, destination: Destination, record: Record) -> Iterator[tuple[str, Row]]:
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

    def query(self, destination: Destination) -> Query:
        """All documents."""
        return Query(self._key)

    def records(self, destination: Destination, rows: Iterable[Row]) -> Iterator[Record]:
        """A record per document."""
        for row in rows:
            values = dict(_properties(row["data"], row["kinds"] or {}))
            values.update(restored(level_path(name), value) for name, value in (row["levels"] or {}).items())
            yield record_of(row, values)

    def layout(self) -> Layout | None:
        """JSON; a subclass with rows of its own has to say itself."""
        return Documents("data", "kinds", "levels") if type(self).rows is Document.rows else None

    def maker(self, destination: Destination, shape: Shape, cells: Mapping[str, Sequence[Cell]]) -> RowMaker:
        """Columns of documents; a subclass with rows of its own gets the plain maker."""
        if type(self).rows is not Document.rows:
            return super().maker(destination, shape, cells)
        ((key, order),) = cells.items()
        inside = [(path, kind) for path, kind in shape.properties if not path.startswith("{")]
        levels = [(path[1:-1], kind) for path, kind in shape.properties if path.startswith("{")]
        paths = [split_path(path) for path, _ in inside]
        write, nest = object_writer(paths), _nester(paths)

        def make(records: Sequence[Record]) -> Mapping[str, list[tuple[Any, ...]]]:
            block = RecordBatch.of(shape, records)
            named = dict(zip(shape.properties, block.columns, strict=True))
            columns = [named[pair] for pair in inside]
            plain = list(map(_to_json, inside, columns))
            filled: dict[Cell, Iterable[Any]] = {
                **{column.name: values for column, values in zip(ENVELOPE, block.envelope, strict=True)},
                "data": write(plain) or nest(plain, len(block)),
                "kinds": _kinds(inside, columns, len(block)),
                "levels": _levels(levels, [named[f"{{{name}}}", kind] for name, kind in levels], len(block)),
            }
            nothing = (None,) * len(block)
            return {key: list(zip(*(filled.get(cell, nothing) for cell in order), strict=True))}

        return make

    @property
    def _key(self) -> str:
        return table_key(f"{self.prefix}_document", timed=self.timed)


def _needs_kind(kind: Kind, value: Any) -> bool:
    if kind == "int64":
        return bool(-EXACT <= value <= EXACT)
    return kind in _TO_JSON or (kind == "json" and value != {} and not isinstance(value, list))


def _nester(paths: Sequence[tuple[str, ...]]) -> Callable[[Columns, int], list[dict[str, Any]]]:
    """From columns of properties to objects, nested by the keys that lead to each; what is None is left out."""
    names = [path[-1] for path in paths]
    is_flat = all(len(path) == 1 for path in paths)

    def nest(columns: Columns, count: int) -> list[dict[str, Any]]:
        rows = zip(*columns, strict=True) if columns else repeat((), count)
        if is_flat and not any(None in column for column in columns):
            return [dict(zip(names, row, strict=True)) for row in rows]
        return [nested(zip(paths, row, strict=True)) for row in rows]

    return nest


def _to_json(pair: Pair, column: Sequence[Any]) -> Sequence[Any]:
    convert = _TO_JSON.get(pair[1])
    return [None if value is None else convert(value) for value in column] if convert else column


def _kinds(pairs: Sequence[Pair], columns: Columns, count: int) -> Iterable[Any]:
    """The column ``kinds``; mostly it is the same for all records, and then the same object."""
    needs = [_all_need(kind, column) for (_, kind), column in zip(pairs, columns, strict=True)]
    if None not in needs:
        return repeat({path: kind for (path, kind), need in zip(pairs, needs, strict=True) if need} or None, count)
    return [
        {
            path: kind
            for (path, kind), value in zip(pairs, row, strict=True)
            if value is not None and _needs_kind(kind, value)
        }
        or None
        for row in zip(*columns, strict=True)
    ]


def _all_need(kind: Kind, column: Sequence[Any]) -> bool | None:
    """Whether all values of a column need their kind told, or none of them; None where they differ."""
    if kind not in _TOLD:
        return False
    if None in column or kind == "json":
        return False if set(map(type, column)) <= {list, type(None)} and kind == "json" else None
    return True if kind != "int64" or (min(column) >= -EXACT and max(column) <= EXACT) else None


def _levels(pairs: Sequence[Pair], columns: Columns, count: int) -> Iterable[Any]:
    """The column ``levels``; records whose levels are the same texts share the JSON."""
    if not columns:
        return repeat(None, count)
    names, rows = [name for name, _ in pairs], list(zip(*columns, strict=True))
    if any(kind != "text" for _, kind in pairs) or any(None in column for column in columns):
        return [
            {name: value for name, value in zip(names, row, strict=True) if value is not None} or None for row in rows
        ]
    different = {row: EncodedJson(dumps(dict(zip(names, row, strict=True)))) for row in set(rows)}
    return map(different.__getitem__, rows)


def _properties(data: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Iterator[tuple[Pair, Any]]:
    for path, value in flatten(data, kinds).items():
        kind = kinds.get(path)
        if kind is None:
            yield restored(path, value)
        else:
            yield (path, kind), _FROM_JSON[kind](value) if kind in _FROM_JSON else value
