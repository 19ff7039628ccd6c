"""Read records from all tables that hold them, each once, in one order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from heapq import merge
from itertools import chain, groupby, islice
from operator import attrgetter
from typing import Final

from amqtt_db.database.snapshot import Snapshot
from amqtt_db.errors import DatabaseError, UnreadableRecords, format_count
from amqtt_db.reader.keys import LookupCache
from amqtt_db.reader.path import plan_paths
from amqtt_db.reader.selection import BY_ID, Selection
from amqtt_db.reader.sources import Source, find_sources
from amqtt_db.reader.walk import walk
from amqtt_db.record import Record

ROWS: Final = 20_000  # approximate rows in memory, however many walks share them
_PAGE_ROWS: Final = (32, 2000)  # rows fetched at a time, at least and at most

_get_identity = attrgetter("id", "part")


def read_records(snapshot: Snapshot, wanted: Selection) -> Iterator[Record]:
    """Return the wanted records in their order.

    Raises NoDatabaseYet if nothing has ever been stored, and UnreadableRecords at the end if some could not be read.
    """
    unread: Counter[str] = Counter()
    snapshot.engine.expect_rows(snapshot.connection)
    found, keys = find_sources(snapshot, wanted), LookupCache(snapshot)
    paths = list(plan_paths(snapshot, keys, found, scan=wanted.order == BY_ID))
    smallest, largest = _PAGE_ROWS
    size = min(largest, max(smallest, ROWS // (len(paths) or 1)))
    if wanted.limit is not None:
        size = max(1, min(size, wanted.limit))
    snapshot.connection.execution_options(
        compiled_cache={}
    )  # SQLAlchemy's own has room for the statements of only a few tables

    def skip(error: DatabaseError) -> None:
        unread[str(error)] += 1

    walks = [walk(snapshot, keys, path, wanted, size, skip) for path in paths]
    merged = walks[0] if len(walks) == 1 else merge(*walks, key=wanted.order.key, reverse=wanted.order.descending)
    return chain(islice(_merge_duplicates(merged, found), wanted.limit), _raise_unread(unread))


def _raise_unread(unread: Mapping[str, int]) -> Iterator[Record]:
    """Yield nothing; raise UnreadableRecords if there are any."""
    if unread:
        raise UnreadableRecords("; ".join(_describe_unread(unread)))
    yield from ()


def _describe_unread(unread: Mapping[str, int]) -> Iterator[str]:
    for reason, count in unread.items():
        yield reason if count == 1 else f"{reason} ({format_count(count, 'record')})"


def _merge_duplicates(merged: Iterable[Record], found: Iterable[Source]) -> Iterator[Record]:
    """Yield each record once, even while two tables hold it, choosing the one that has properties."""
    destinations = Counter(topic for source in found for topic in source.topics)
    if all(count == 1 for count in destinations.values()):
        return iter(merged)
    return (max(same, key=lambda record: len(record.values)) for _, same in groupby(merged, key=_get_identity))
