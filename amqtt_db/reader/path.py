"""The rows that hold the records of some topics, and what they mean."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

import attrs

from amqtt_db.database.snapshot import Snapshot
from amqtt_db.errors import DatabaseError
from amqtt_db.models.base import Cell
from amqtt_db.reader.columns import Decode, StoredTable
from amqtt_db.reader.keys import Keys
from amqtt_db.reader.sources import Source, physical_tables
from amqtt_db.record import Record

Rows = Sequence[Any]
"""Tuples as the driver returns them."""

MOST_SINGLE: Final = 100
"""So many topics of a table are found one by one through its index; more by looking at all rows."""


@attrs.frozen(eq=False)
class Path:
    """The rows of a stay, with its tables as they are: those of one topic, or those of all that are wanted.

    ``topic`` is what the column ``topic`` holds for that one, None for all.  ``topics`` are the values of that column
    that are wanted, None if all are that the database finds.
    """

    source: Source
    main: StoredTable
    values: StoredTable | None
    topic: Any = None
    topics: frozenset[Any] | None = None

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The cells of a row in their order; those of the main table win over others of the same name."""
        more = () if self.values is None else (cell for cell in self.values.names if cell not in self.main.names)
        return (*self.main.names, *more)

    @property
    def tables(self) -> tuple[str, ...]:
        """The names of the tables in the database."""
        return tuple(view.target.name for view in (self.main, self.values) if view is not None)

    @property
    def tells_time(self) -> bool:
        """Whether the main table has the records' times."""
        return any(column.name == "time" and column.kind == "timestamp" for column in self.main.table.columns)

    @property
    def has_single_rows(self) -> bool:
        """Whether the main table has one row for each record."""
        return set(self.main.table.primary_key) <= {"id", "part", "time"}

    def maker(self, snapshot: Snapshot, keys: Keys) -> Callable[[Rows], Sequence[Record]]:
        """What turns a page of rows into those of their records that are wanted."""
        cells, topics = self.cells, self.topics
        decoders = [self._decoder(cell, snapshot, keys) for cell in cells]
        read = self.source.model.reader(self.source.destination, cells)
        at = cells.index("topic") if "topic" in cells else None

        def make(rows: Rows) -> Sequence[Record]:
            if topics is not None and at is not None:
                rows = [row for row in rows if row[at] in topics]
            if not rows:
                return ()
            columns = zip(*rows, strict=True)
            decoded = [decode(column) if decode else column for decode, column in zip(decoders, columns, strict=True)]
            try:
                records = read(decoded)
            except Exception as error:  # of a type that no model has foreseen
                raise self._unreadable(error) from error
            return records if at is not None else [one for one in records if one.topic in self.source.topics]

        return make

    def _unreadable(self, error: Exception) -> DatabaseError:
        return DatabaseError(
            f"table {' or '.join(self.tables)} holds a row that {type(self.source.model).__name__} does not write, and "
            f"that it cannot read: {type(error).__name__}; mend the row, or delete it"
        )

    def _decoder(self, cell: Cell, snapshot: Snapshot, keys: Keys) -> Decode | None:
        if self.values is None or cell in self.main.names:
            return self.main.decoder(cell, snapshot.engine, keys, repeats=self.values is not None)
        return self.values.decoder(cell, snapshot.engine, keys, repeats=False)


def paths(snapshot: Snapshot, keys: Keys, wanted: Sequence[Source], *, scan: bool) -> Iterator[Path]:
    """The paths to the records of stays; with ``scan`` none of a single topic.  What has no table yet has none."""
    known = physical_tables(snapshot, wanted)
    for source in wanted:
        query, tables = source.query, source.tables()
        if {query.table, query.values or query.table} <= known.keys():
            main = StoredTable.of(tables[query.table], known[query.table])
            values = None if query.values is None else StoredTable.of(tables[query.values], known[query.values])
            yield from _of(Path(source, main, values), keys, scan=scan)


def _of(path: Path, keys: Keys, *, scan: bool) -> Iterator[Path]:
    topics = path.source.topics
    if path.source.complete or "topic" not in path.main.names:
        yield path
        return
    lookup = path.main.lookup("topic")
    held = topics if lookup is None else keys.ids(lookup, topics)
    if scan or len(held) > MOST_SINGLE or not path.main.has_index("topic"):
        yield attrs.evolve(path, topics=frozenset(held))
    else:
        yield from (attrs.evolve(path, topic=topic, topics=frozenset((topic,))) for topic in held)
