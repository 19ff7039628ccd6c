"""Dead letters: messages that could not be stored, as the database holds them.

A server limits the size of a statement, and a payload may have 256 MB: what does not fit into the letter's row follows
in segments, which are separate rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog
from amqtt_db.database.engines import engine_for
from amqtt_db.database.snapshot import Snapshot, answer, open_snapshot, require_tables
from amqtt_db.database.store_version import require_version
from amqtt_db.errors import DatabaseError
from amqtt_db.record import EPOCH, to_micros
from amqtt_db.routing.topics import TopicFilter

_PAGE_LETTERS: Final = 500


@attrs.frozen
class DeadLetter:
    """One message that could not be stored.

    ``time`` is its arrival, ``filter`` the topic filter of its route; ``step`` and ``reason`` say where and why it was
    rejected.  ``topic``, ``client`` and ``payload`` are bytes, exactly as received; ``size`` is the payload's size in
    bytes, given even if the payload was not requested and is None.
    """

    id: int
    time: datetime
    filter: str
    step: str
    reason: str
    topic: bytes
    client: bytes | None
    size: int
    payload: bytes | None = attrs.field(default=None, repr=False)


@attrs.frozen
class LetterChoice:
    """Which dead letters are meant: those that have all of this; None stands for any.

    ``topic`` is a topic filter, ``step`` what rejected them, and ``since`` a time of arrival.
    """

    ids: frozenset[int] | None = None
    topic: str = "#"
    step: str | None = None
    since: datetime | None = None

    def find(self, connection: sa.Connection, catalog: Catalog) -> list[int]:
        """Return the ids of these dead letters, the oldest first."""
        table, wanted = catalog.dead_letter, TopicFilter.parse(self.topic)
        query = sa.select(table.c.id, table.c.topic).order_by(table.c.id)
        if self.step is not None:
            query = query.where(table.c.step == self.step)
        if self.since is not None:
            query = query.where(table.c.time >= to_micros(self.since))
        return [
            row.id
            for row in connection.execute(query)
            if (self.ids is None or row.id in self.ids) and _covers(wanted, row.topic)
        ]


ALL_LETTERS: Final = LetterChoice()


def _covers(wanted: TopicFilter, topic: bytes) -> bool:
    return wanted.text == "#" or wanted.match(topic.decode(errors="replace")) is not None


def letters(database: str, limit: int | None = None, choice: LetterChoice = ALL_LETTERS) -> list[DeadLetter]:
    """Return the newest ``limit`` chosen dead letters of the database at a URL, without their payloads.

    Raises DatabaseError if it cannot be read.
    """
    with open_snapshot(database) as snapshot:
        require_tables(snapshot)
        ids = choice.find(snapshot.connection, snapshot.catalog)[::-1][:limit]
        return [_letter(row) for page in _letter_pages(ids) for row in _fetch(snapshot, page)]


def letter(database: str, id: int) -> DeadLetter | None:  # noqa: A002
    """Return the dead letter of message ``id`` with its payload, or None."""
    with open_snapshot(database) as snapshot:
        require_tables(snapshot)
        for row in _fetch(snapshot, [id]):
            return attrs.evolve(_letter(row), payload=payload_of(snapshot.connection, snapshot.catalog, id))
        return None


def count_letters(database: str, choice: LetterChoice) -> int:
    """Return how many dead letters are chosen.  Raises DatabaseError if the database cannot be read."""
    with open_snapshot(database) as snapshot:
        require_tables(snapshot)
        return len(choice.find(snapshot.connection, snapshot.catalog))


def purge(database: str, choice: LetterChoice = ALL_LETTERS) -> int:
    """Delete the chosen dead letters permanently; return how many there were."""
    engine = engine_for(database)
    catalog, target = Catalog(engine), engine.open(write=True)
    try:
        with target.begin() as connection:
            require_version(connection)
            pages = [None] if choice == ALL_LETTERS else _letter_pages(choice.find(connection, catalog))
            return sum(delete_letters(connection, catalog, page) for page in pages)
    except sa.exc.DBAPIError as error:
        raise DatabaseError(answer(error)) from error
    finally:
        target.dispose()


def add_rest(connection: sa.Connection, catalog: Catalog, letter: int, payload: bytes, size: int) -> None:
    """Store a payload from byte ``size`` on, in segments of ``size`` bytes, one statement each."""
    for number, start in enumerate(range(size, len(payload), size), start=1):
        row = {"id": letter, "number": number, "bytes": payload[start : start + size]}
        connection.execute(catalog.dead_segment.insert(), row)


def payload_of(connection: sa.Connection, catalog: Catalog, letter: int) -> bytes:
    """Return a dead letter's whole payload, read segment by segment.

    Raises NoResultFound if there is no such letter.
    """
    first, rest = catalog.dead_letter, catalog.dead_segment
    here = rest.c.id == letter
    segments = [connection.scalars(sa.select(first.c.payload).where(first.c.id == letter)).one()]
    for number in connection.scalars(sa.select(rest.c.number).where(here).order_by(rest.c.number)).all():
        segments.append(connection.scalars(sa.select(rest.c.bytes).where(here & (rest.c.number == number))).one())
    return b"".join(segments)


def size_column(catalog: Catalog) -> sa.ColumnElement[Any]:
    """Return the number of bytes of a dead letter's payload, counted by the database."""
    first, rest = catalog.dead_letter, catalog.dead_segment
    more = sa.select(sa.func.sum(sa.func.length(rest.c.bytes))).where(rest.c.id == first.c.id).scalar_subquery()
    return sa.func.length(first.c.payload) + sa.func.coalesce(more, 0)


def delete_letters(connection: sa.Connection, catalog: Catalog, ids: Iterable[int] | None) -> int:
    """Delete the dead letters with ``ids``, or all of them, with all their segments; return how many there were."""
    chosen = None if ids is None else list(ids)
    counts = []
    for table in (catalog.dead_segment, catalog.dead_letter):
        statement = table.delete() if chosen is None else table.delete().where(table.c.id.in_(chosen))
        counts.append(connection.execute(statement).rowcount)
    return counts[-1]


def _letter_pages(ids: Sequence[int]) -> Iterator[Sequence[int]]:
    """Return ids in lists that fit into a statement."""
    return (ids[start : start + _PAGE_LETTERS] for start in range(0, len(ids), _PAGE_LETTERS))


def _fetch(snapshot: Snapshot, ids: Sequence[int]) -> Sequence[sa.RowMapping]:
    """Return the rows of dead letters without their payloads, the newest first."""
    table = snapshot.catalog.dead_letter
    columns = [table.c[name] for name in attrs.fields_dict(DeadLetter) if name not in {"size", "payload"}]
    query = sa.select(*columns, size_column(snapshot.catalog).label("size")).where(table.c.id.in_(ids))
    return snapshot.connection.execute(query.order_by(table.c.id.desc())).mappings().all()


def _letter(row: sa.RowMapping) -> DeadLetter:
    return DeadLetter(**{**row, "time": EPOCH + timedelta(microseconds=row["time"]), "size": int(row["size"])})
