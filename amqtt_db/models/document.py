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

from amqtt_db.models.base import Cell, Column, Documents, Layout, Row, Table, TableName
from amqtt_db.models.eav import TOPIC_LOOKUP, Prefix
from amqtt_db.models.fast import BatchMaker, BatchReader, ColumnRows, FastModel
from amqtt_db.models.object_json import Columns, object_writer
from amqtt_db.record import (
    ENVELOPE_NAMES,
    EXACT,
    Kind,
    Pair,
    Record,
    RecordBatch,
    Shape,
    flatten,
    in_order,
    level_path,
    nested,
    records_of,
    restored,
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
"""Kinds with values whose kind cannot be told from JSON."""


@attrs.frozen
class Document(FastModel):
    """``mqtt_document``: the envelope, ``data`` as it came, and columns for what JSON cannot express.

    ``kinds`` names the kinds of properties that JSON has no type for (they are text in ``data``), ``levels`` holds the
    topic's named levels.
    """

    prefix: Prefix = "mqtt"

    def tables(self, shape: Shape) -> Iterable[Table]:
        """Yield the same table for every shape: no property ever needs DDL."""
        documents = Column("data", "json", nullable=False), Column("kinds", "json"), Column("levels", "json")
        yield Table(self._name, [Column("topic", lookup=TOPIC_LOOKUP), *documents])

    def write(self, record: Record) -> Iterator[tuple[TableName, Row]]:
        """Yield one row."""
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
        yield self._name, {"data": unflatten(data), "kinds": kinds or None, "levels": levels or None}

    def read(self, envelope: Record, rows: Mapping[TableName, Sequence[Row]]) -> Record:
        """Return the record of a document."""
        (row,) = rows[self._name]
        return envelope.with_values(_stored_values(row["data"], row["kinds"], row["levels"]))

    def layout(self) -> Layout | None:
        """Say which columns hold the JSON."""
        return Documents("data", "kinds", "levels")

    @property
    def _name(self) -> str:
        return f"{self.prefix}_document"

    # the rest makes it fast

    def reader(self, cells: Sequence[Cell]) -> BatchReader | None:
        """Return a reader that makes each record once, with all it has."""
        envelope = [cells.index(name) for name in ENVELOPE_NAMES]
        own = [cells.index(name) for name in ("data", "kinds", "levels")]

        def read(columns: Columns) -> Sequence[Record]:
            shapes, values = [], []
            for document in zip(*(columns[index] for index in own), strict=True):
                found = _stored_values(*document)
                shape, pick = in_order(tuple(found))
                shapes.append(shape)
                values.append(pick(tuple(found.values())))
            return records_of(*(columns[index] for index in envelope), values, shapes)

        return read

    def maker(self, shape: Shape, cells: Mapping[TableName, Sequence[Cell]]) -> BatchMaker | None:
        """Return a function that makes whole columns of documents."""
        order = cells[self._name]
        inside = [(path, kind) for path, kind in shape.properties if not path.startswith("{")]
        levels = [(path[1:-1], kind) for path, kind in shape.properties if path.startswith("{")]
        paths = [split_path(path) for path, _ in inside]
        write, nest = object_writer(paths), _nester(paths)

        def make(batch: RecordBatch) -> Mapping[TableName, ColumnRows]:
            named = dict(zip(shape.properties, batch.columns, strict=True))
            columns = [named[pair] for pair in inside]
            plain = list(map(_to_json, inside, columns))
            filled: dict[Cell, Sequence[Any]] = {
                **dict(zip(ENVELOPE_NAMES, batch.envelope, strict=True)),
                "data": write(plain) or nest(plain, len(batch)),
                "kinds": _kinds(inside, columns, len(batch)),
                "levels": _level_cells(levels, [named[f"{{{name}}}", kind] for name, kind in levels], len(batch)),
            }
            return {self._name: ColumnRows([filled[cell] for cell in order])}

        return make


def _needs_kind(kind: Kind, value: Any) -> bool:
    if kind == "int64":
        return bool(-EXACT <= value <= EXACT)
    return kind in _TO_JSON or (kind == "json" and value != {} and not isinstance(value, list))


def _nester(paths: Sequence[tuple[str, ...]]) -> Callable[[Columns, int], list[dict[str, Any]]]:
    """Return a function from columns of properties to objects, nested by the keys to each; None is left out."""
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


def _kinds(pairs: Sequence[Pair], columns: Columns, count: int) -> Sequence[Any]:
    """Return the column ``kinds``; if it is the same for all records, as usual, it is one shared object."""
    needs = [_all_need(kind, column) for (_, kind), column in zip(pairs, columns, strict=True)]
    if None not in needs:
        return [{path: kind for (path, kind), need in zip(pairs, needs, strict=True) if need} or None] * count
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
    """Return True if all values of a column need their kind stored, False if none does, None if they differ."""
    if kind not in _TOLD:
        return False
    if None in column or kind == "json":
        return False if set(map(type, column)) <= {list, type(None)} and kind == "json" else None
    return True if kind != "int64" or (min(column) >= -EXACT and max(column) <= EXACT) else None


def _level_cells(pairs: Sequence[Pair], columns: Columns, count: int) -> Sequence[Any]:
    """Return the column ``levels``; records with the same levels share the JSON."""
    if not columns:
        return [None] * count
    names, rows = [name for name, _ in pairs], list(zip(*columns, strict=True))
    if any(kind != "text" for _, kind in pairs) or any(None in column for column in columns):
        return [
            {name: value for name, value in zip(names, row, strict=True) if value is not None} or None for row in rows
        ]
    different = {row: EncodedJson(dumps(dict(zip(names, row, strict=True)))) for row in set(rows)}
    return list(map(different.__getitem__, rows))


def _stored_values(data: Any, kinds: Mapping[str, Kind] | None, levels: Mapping[str, Any] | None) -> dict[Pair, Any]:
    """Return the properties and levels of a stored document."""
    values = dict(_document_properties(data, kinds or {}))
    values.update(restored(level_path(name), value) for name, value in (levels or {}).items())
    return values


def _document_properties(data: Mapping[str, Any], kinds: Mapping[str, Kind]) -> Iterator[tuple[Pair, Any]]:
    for path, value in flatten(data, kinds).items():
        kind = kinds.get(path)
        if kind is None:
            yield restored(path, value)
        else:
            yield (path, kind), _FROM_JSON[kind](value) if kind in _FROM_JSON else value
