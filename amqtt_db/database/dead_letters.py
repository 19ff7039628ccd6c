"""Dead letters: messages that could not be stored, as the database holds them.

A server limits the size of a statement, and a payload may have 256 MB: what does not fit into the letter's row follows
in segments, which are separate rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog
from amqtt_db.database.engines import engine_for
from amqtt_db.database.snapshot import Snapshot, answer, open_snapshot, require_tables
from amqtt_db.database.store_version import require_version
from amqtt_db.errors import DatabaseError
from amqtt_db.record import EPOCH


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


def letters(database: str, limit: int | None = None) -> list[DeadLetter]:
    """Return the newest ``limit`` dead letters of the database at a URL, without their payloads.

    Raises DatabaseError if it cannot be read.
    """
    with open_snapshot(database) as snapshot:
        require_tables(snapshot)
        query = _query(snapshot).order_by(snapshot.catalog.dead_letter.c.id.desc()).limit(limit)
        return [_letter(row) for row in snapshot.connection.execute(query).mappings()]


def letter(database: str, id: int) -> DeadLetter | None:  # noqa: A002
    """Return the dead letter of message ``id`` with its payload, or None."""
    with open_snapshot(database) as snapshot:
        require_tables(snapshot)
        query = _query(snapshot).where(snapshot.catalog.dead_letter.c.id == id)
        row = snapshot.connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        return attrs.evolve(_letter(row), payload=payload_of(snapshot.connection, snapshot.catalog, id))


def purge(database: str, ids: Iterable[int] | None = None) -> int:
    """Delete dead letters permanently: those with ``ids``, or all of them; return how many there were."""
    engine = engine_for(database)
    target = engine.open(write=True)
    try:
        with target.begin() as connection:
            require_version(connection)
            return delete_letters(connection, Catalog(engine), ids)
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


def _query(snapshot: Snapshot) -> sa.Select[Any]:
    table = snapshot.catalog.dead_letter
    columns = [table.c[name] for name in attrs.fields_dict(DeadLetter) if name not in {"size", "payload"}]
    return sa.select(*columns, size_column(snapshot.catalog).label("size"))


def _letter(row: sa.RowMapping) -> DeadLetter:
    return DeadLetter(**{**row, "time": EPOCH + timedelta(microseconds=row["time"]), "size": int(row["size"])})
