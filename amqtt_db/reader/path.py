"""Plan how to find the rows of some topics, and how to turn them into records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import PhysicalTable
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.errors import DatabaseError, StructureError, find_place
from amqtt_db.models.base import Cell, Lookup
from amqtt_db.reader.columns import Decode, StoredTable
from amqtt_db.reader.keys import LookupCache
from amqtt_db.reader.sources import Source, find_tables
from amqtt_db.reader.statement import DriverText
from amqtt_db.record import Record

PageRows = Sequence[Any]
"""Tuples as the driver returns them."""

MakeRecords = Callable[[PageRows, Sequence[PageRows]], Sequence[Record]]
"""Turns a page of rows, and those in each separately read table, into records."""

MAX_SINGLE_TOPICS: Final = 100
"""Up to this many topics of a table are found one by one by its index; more by scanning all rows."""


@attrs.frozen(eq=False)
class RecordPath:
    """The rows of a source, either of one topic or of all that are wanted.

    ``topic`` is the value of the column ``topic`` for one topic, None for all.  ``topics`` are the wanted values of
    that column, None if all are wanted.  ``statements`` are those built so far: paths through the same tables share
    them, for building one takes longer than running it.
    """

    source: Source
    main: StoredTable
    details: tuple[StoredTable, ...] = ()
    topic: Any = None
    topics: frozenset[Any] | None = None
    statements: dict[Any, sa.Select[Any] | DriverText] = attrs.field(factory=dict)

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells of a row, in order; those of the main table take precedence over others of the same name."""
        more = () if self.joined is None else (cell for cell in self.joined.names if cell not in self.main.names)
        return (*self.main.names, *more)

    @property
    def joined(self) -> StoredTable | None:
        """The detail table whose rows join those of the main table, if the model reads them so."""
        return self.details[0] if self.details and self.source.model.joins else None

    @property
    def apart(self) -> tuple[StoredTable, ...]:
        """The detail tables that are read by separate statements."""
        return self.details if self.joined is None else ()

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables in the database."""
        return tuple(table.target.name for table in (self.main, *self.details))

    def maker(self, snapshot: Snapshot, keys: LookupCache) -> MakeRecords:
        """Return a function from a page of rows, and those of each table ``apart``, to the records that are wanted."""
        cells, topics, key = self.cells, self.topics, self.main.table.key
        decoders = [self._decoder(cell, snapshot, keys) for cell in cells]
        others = [
            [table.decoder(cell, snapshot.engine, keys, repeats=False) for cell in table.names] for table in self.apart
        ]
        read = self.source.model.reader({key: cells, **{table.table.key: tuple(table.names) for table in self.apart}})
        at = cells.index("topic")

        def make(rows: PageRows, details: Sequence[PageRows]) -> Sequence[Record]:
            if topics is not None:
                rows = [row for row in rows if row[at] in topics]
            if not rows:
                return ()
            decoded = {key: _decoded(decoders, rows)}
            for table, found, decode in zip(self.apart, details, others, strict=True):
                decoded[table.table.key] = _decoded(decode, found)
            try:
                return read(decoded)
            except StructureError as error:  # whatever the rows hold
                raise DatabaseError(f"table {' or '.join(self.tables)} cannot be read: {error}") from error
            except Exception as error:  # of a type that no model expects
                raise self._unreadable(error) from error

        return make

    def _unreadable(self, error: Exception) -> DatabaseError:
        """Return an error for a row that was changed by hand, or for a user's model with a mistake."""
        model, place = self.source.model.name, find_place(error)
        remedy = f"correct {model}.read ({place}), or the row" if place else "correct or delete the row"
        return DatabaseError(
            f"table {' or '.join(self.tables)} holds a row that {model} cannot read: {type(error).__name__}; {remedy}"
        )

    def _decoder(self, cell: Cell, snapshot: Snapshot, keys: LookupCache) -> Decode | None:
        if self.joined is None or cell in self.main.names:
            return self.main.decoder(cell, snapshot.engine, keys, repeats=self.joined is not None)
        return self.joined.decoder(cell, snapshot.engine, keys, repeats=False)


def _decoded(decoders: Sequence[Decode | None], rows: PageRows) -> Sequence[Sequence[Any]]:
    """Return the columns of rows, as the model wrote them."""
    columns = zip(*rows, strict=True) if rows else ((),) * len(decoders)
    return [decode(column) if decode else column for decode, column in zip(decoders, columns, strict=True)]


def plan_paths(snapshot: Snapshot, keys: LookupCache, wanted: Sequence[Source], *, scan: bool) -> Iterator[RecordPath]:
    """Yield how to read each source whose tables exist.  With ``scan``, never plan one query per topic."""
    known = find_tables(snapshot, wanted)
    there = [source for source in wanted if {source.query.table, *source.query.details} <= known.keys()]
    whole = list(_plan_whole(there, known))
    held = _find_topics([path for path in whole if not path.source.complete], keys)
    for path in whole:
        yield from (
            (path,) if path.source.complete else _split_by_topic(path, held[path.main.lookup("topic")], scan=scan)
        )


def _plan_whole(wanted: Iterable[Source], known: Mapping[str, PhysicalTable]) -> Iterator[RecordPath]:
    """Yield how to read all topics of each source."""
    found: dict[Any, RecordPath] = {}
    for source in wanted:
        what = source.model.model, source.query
        if what not in found:
            tables = source.tables()
            keys = (source.query.table, *source.query.details)
            main, *details = (StoredTable.of(tables[key], known[key]) for key in keys)
            found[what] = RecordPath(source, main, tuple(details))
        yield attrs.evolve(found[what], source=source)


def _find_topics(paths: Iterable[RecordPath], keys: LookupCache) -> Mapping[Lookup | None, Mapping[str, Any]]:
    """Return the values of the column ``topic`` for the topics of paths, by the lookup that the column refers to."""
    topics: dict[Lookup | None, set[str]] = {}
    for path in paths:
        topics.setdefault(path.main.lookup("topic"), set()).update(path.source.topics)
    return {
        lookup: {topic: topic for topic in some} if lookup is None else keys.find_ids(lookup, some)
        for lookup, some in topics.items()
    }


def _split_by_topic(path: RecordPath, values: Mapping[str, Any], *, scan: bool) -> Iterator[RecordPath]:
    held = [values[topic] for topic in path.source.topics if topic in values]
    if scan or len(held) > MAX_SINGLE_TOPICS or not path.main.has_index("topic"):
        yield attrs.evolve(path, topics=frozenset(held))
    else:
        yield from (attrs.evolve(path, topic=topic, topics=frozenset((topic,))) for topic in held)
