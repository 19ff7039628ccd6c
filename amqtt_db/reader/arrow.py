"""Records as Arrow tables."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa

from amqtt_db.database.snapshot import Snapshot
from amqtt_db.reader.arrow_columns import ColumnSet, columns_of_records, read_arrow_columns
from amqtt_db.reader.arrow_types import ARROW_TYPES, MOMENT
from amqtt_db.reader.export import header_of
from amqtt_db.reader.keys import LookupCache
from amqtt_db.reader.path import plan_paths
from amqtt_db.reader.records import read_records
from amqtt_db.reader.selection import Selection
from amqtt_db.reader.sources import find_sources
from amqtt_db.record import KINDS, Pair

PATH_KEY: Final = b"amqtt_db.path"
KIND_KEY: Final = b"amqtt_db.kind"
"""Where a field's metadata say which property it holds."""

ENVELOPE_FIELDS: Final = (
    pa.field("id", pa.int64()),
    pa.field("part", pa.int64()),
    pa.field("time", MOMENT),
    pa.field("topic", pa.dictionary(pa.int32(), pa.string())),
    pa.field("session", pa.int64()),
    pa.field("qos", pa.int64()),
    pa.field("retain", pa.bool_()),
)


def read_arrow(snapshot: Snapshot, wanted: Selection) -> pa.Table:
    """Return the wanted records as a table in their order: the envelope, and a column for each path and kind.

    Raises DatabaseError if one cannot be read.
    """
    snapshot.engine.expect_rows(snapshot.connection)
    found, keys = find_sources(snapshot, wanted), LookupCache(snapshot)
    topics = Counter(topic for source in found for topic in source.topics)
    if wanted.limit is not None or any(count > 1 for count in topics.values()):
        return table_of([columns_of_records(list(read_records(snapshot, wanted)))])
    paths = plan_paths(snapshot, keys, found, scan=False)
    sets = [_chosen(read_arrow_columns(snapshot, keys, path, wanted), path.source.topics) for path in list(paths)]
    return _in_order(table_of(sets), descending=wanted.order.descending)


def _chosen(some: ColumnSet, topics: frozenset[str]) -> ColumnSet:
    """Return the records of some topics: a table may hold those of others as well."""
    encoded = some.envelope["topic"].dictionary_encode()
    is_wanted = np.array([topic in topics for topic in encoded.dictionary.to_pylist()], bool)
    if is_wanted.all():
        return some
    rows = pa.array(np.flatnonzero(is_wanted[encoded.indices.to_numpy()]))
    return ColumnSet(
        {name: column.take(rows) for name, column in some.envelope.items()},
        {pair: column.take(rows) for pair, column in some.properties.items()},
    )


def table_of(sets: Sequence[ColumnSet]) -> pa.Table:
    """Return records as one table, one set after the other."""
    counts: Counter[Pair] = Counter()
    for some in sets:
        counts.update({pair: len(column) - column.null_count for pair, column in some.properties.items()})
    fields = make_fields(counts)
    columns = [_join_chunks([some.envelope[field.name] for some in sets], field.type) for field in ENVELOPE_FIELDS]
    for pair, field in fields.items():
        chunks = (some.properties.get(pair) for some in sets)
        whole = [
            pa.nulls(len(some), field.type) if chunk is None else chunk
            for some, chunk in zip(sets, chunks, strict=True)
        ]
        columns.append(_join_chunks(whole, field.type))
    return pa.table(columns, pa.schema([*ENVELOPE_FIELDS, *fields.values()]))


def _join_chunks(chunks: Sequence[pa.Array], kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return _join_chunks(chunks, kind.value_type).dictionary_encode()
    return chunks[0] if len(chunks) == 1 else pa.chunked_array(chunks, kind).combine_chunks()


def make_fields(counts: Mapping[Pair, int]) -> dict[Pair, pa.Field]:
    """Return the field of each pair, in the order of paths, given how many values each pair has.

    A field has the name of its path, with ``data.`` before it if the envelope has that name.  If a path has several
    kinds, the one with most values has that name, and the others their kind behind it: ``temp (text)``.
    """
    by_path: dict[str, list[Pair]] = defaultdict(list)
    for pair in sorted((pair for pair, count in counts.items() if count), key=lambda one: KINDS.index(one[1])):
        by_path[pair[0]].append(pair)
    names = set(map(header_of, by_path))
    fields: dict[Pair, pa.Field] = {}
    for path, pairs in sorted(by_path.items()):
        first, *others = sorted(pairs, key=lambda pair: -counts[pair])
        fields[first] = _field_of(header_of(path), first)
        for pair in others:
            name = f"{header_of(path)} ({pair[1]})"
            while name in names:
                name += "'"
            names.add(name)
            fields[pair] = _field_of(name, pair)
    return fields


def _field_of(name: str, pair: Pair) -> pa.Field:
    path, kind = pair
    return pa.field(name, ARROW_TYPES[kind], metadata={PATH_KEY: path.encode(), KIND_KEY: kind.encode()})


def pair_of(field: pa.Field) -> Pair | None:
    """Return the path and the kind that a field holds; None for a field that this project has not made."""
    found: Any = field.metadata or {}
    if PATH_KEY not in found or found.get(KIND_KEY, b"").decode() not in KINDS:
        return None
    return found[PATH_KEY].decode(), found[KIND_KEY].decode()


def _in_order(table: pa.Table, *, descending: bool) -> pa.Table:
    """Return a table in the order of time, id and part, without work if it is in that order."""
    times, ids, parts = (_numbers_of(table[name]) for name in ("time", "id", "part"))
    if _are_sorted((parts, ids, times), descending=descending):
        return table
    order = np.lexsort((parts, ids, times))
    return table.take(pa.array(order[::-1] if descending else order))


def _are_sorted(keys: Sequence[np.ndarray[Any, Any]], *, descending: bool) -> bool:
    """Return True if each row's key is above the one before it, the last key first."""
    above: Any = False
    for key in keys:
        before, after = (key[1:], key[:-1]) if descending else (key[:-1], key[1:])
        above = (after > before) | ((after == before) & above)
    return bool(np.all(above))


def _numbers_of(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    return column.cast(pa.int64()).to_numpy()  # type: ignore[no-any-return]
