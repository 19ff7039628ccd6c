"""Dead letters: the messages that could not be stored, as they are in the database."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import attrs
import sqlalchemy as sa

from amqtt_db.catalog import Catalog
from amqtt_db.catalog.pieces import delete_letters, payload_of, size_column
from amqtt_db.engines import engine_for
from amqtt_db.errors import DatabaseError
from amqtt_db.house import House, answer, require_tables, visit
from amqtt_db.shape import EPOCH


@attrs.frozen
class DeadLetter:
    """One message that could not be stored.

    ``time`` is its arrival, ``filter`` the topic filter of its route, ``step`` and ``reason`` say where and why it was
    refused.  ``topic``, ``client`` and ``payload`` are bytes, exactly as they came; ``size`` is the payload's, in
    bytes, also where the payload itself was not asked for and is None.
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
    """The newest ``limit`` dead letters of the database at a URL, without their payloads.

    Raises DatabaseError if it cannot be read.
    """
    with visit(database) as house:
        require_tables(house)
        query = _query(house).order_by(house.catalog.dead_letter.c.id.desc()).limit(limit)
        return [_letter(row) for row in house.connection.execute(query).mappings()]


def letter(database: str, id: int) -> DeadLetter | None:  # noqa: A002
    """The dead letter of message ``id`` with its payload, None if there is none."""
    with visit(database) as house:
        require_tables(house)
        query = _query(house).where(house.catalog.dead_letter.c.id == id)
        row = house.connection.execute(query).mappings().one_or_none()
        if row is None:
            return None
        return attrs.evolve(_letter(row), payload=payload_of(house.connection, house.catalog, id))


def purge(database: str, ids: Iterable[int] | None = None) -> int:
    """Delete dead letters for good: those with ``ids``, or all of them; returns how many there were."""
    engine = engine_for(database)
    target = engine.open(write=True)
    try:
        with target.begin() as connection:
            return delete_letters(connection, Catalog(engine), ids)
    except sa.exc.DBAPIError as error:
        raise DatabaseError(answer(error)) from error
    finally:
        target.dispose()


def _query(house: House) -> sa.Select[Any]:
    table = house.catalog.dead_letter
    columns = [table.c[name] for name in attrs.fields_dict(DeadLetter) if name not in {"size", "payload"}]
    return sa.select(*columns, size_column(house.catalog).label("size"))


def _letter(row: sa.RowMapping) -> DeadLetter:
    return DeadLetter(**{**row, "time": EPOCH + timedelta(microseconds=row["time"]), "size": int(row["size"])})
