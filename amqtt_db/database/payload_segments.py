"""The payloads of dead letters, in as many rows as it takes.

A server limits what one statement may carry, and a payload may have 256 MB: what the row of the letter does not take
follows in rows of its own, in order.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog


def add_rest(connection: sa.Connection, catalog: Catalog, letter: int, payload: bytes, size: int) -> None:
    """Store what of a payload lies behind its first ``size`` bytes, one statement for each further ``size`` bytes."""
    for number, start in enumerate(range(size, len(payload), size), start=1):
        row = {"id": letter, "number": number, "bytes": payload[start : start + size]}
        connection.execute(catalog.dead_piece.insert(), row)


def payload_of(connection: sa.Connection, catalog: Catalog, letter: int) -> bytes:
    """The whole payload of a dead letter, read piece by piece.  Raises NoResultFound if there is no such letter."""
    first, rest = catalog.dead_letter, catalog.dead_piece
    here = rest.c.id == letter
    pieces = [connection.scalars(sa.select(first.c.payload).where(first.c.id == letter)).one()]
    for number in connection.scalars(sa.select(rest.c.number).where(here).order_by(rest.c.number)).all():
        pieces.append(connection.scalars(sa.select(rest.c.bytes).where(here & (rest.c.number == number))).one())
    return b"".join(pieces)


def size_column(catalog: Catalog) -> sa.ColumnElement[Any]:
    """The bytes of a dead letter's payload, counted by the database."""
    first, rest = catalog.dead_letter, catalog.dead_piece
    more = sa.select(sa.func.sum(sa.func.length(rest.c.bytes))).where(rest.c.id == first.c.id).scalar_subquery()
    return sa.func.length(first.c.payload) + sa.func.coalesce(more, 0)


def delete_letters(connection: sa.Connection, catalog: Catalog, ids: Iterable[int] | None) -> int:
    """Delete the dead letters with ``ids``, or all of them, with all their pieces; returns how many there were."""
    chosen = None if ids is None else list(ids)
    counts = []
    for table in (catalog.dead_piece, catalog.dead_letter):
        statement = table.delete() if chosen is None else table.delete().where(table.c.id.in_(chosen))
        counts.append(connection.execute(statement).rowcount)
    return counts[-1]
