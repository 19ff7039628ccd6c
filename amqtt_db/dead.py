"""Dead letters: the messages that could not be stored, as they are in the database."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import attrs
import sqlalchemy as sa

from amqtt_db.house import visit
from amqtt_db.shape import EPOCH


@attrs.frozen
class DeadLetter:
    """One message that could not be stored.

    ``time`` is its arrival, ``filter`` the topic filter of its route, ``step`` and ``reason`` say where and why it was
    refused.  ``topic``, ``client`` and ``payload`` are bytes, exactly as they came.
    """

    id: int
    time: datetime
    filter: str
    step: str
    reason: str
    topic: bytes
    client: bytes | None
    payload: bytes = attrs.field(repr=False)


def letters(database: str, limit: int | None = None) -> list[DeadLetter]:
    """The newest ``limit`` dead letters of the database at a URL.  Raises DatabaseError if it cannot be read."""
    with visit(database) as house:
        table = house.catalog.dead_letter
        query = sa.select(table).order_by(table.c.id.desc()).limit(limit)
        return [_letter(row) for row in house.connection.execute(query).mappings()]


def letter(database: str, id: int) -> DeadLetter | None:  # noqa: A002
    """The dead letter of message ``id``, None if there is none."""
    with visit(database) as house:
        table = house.catalog.dead_letter
        row = house.connection.execute(sa.select(table).where(table.c.id == id)).mappings().one_or_none()
        return None if row is None else _letter(row)


def _letter(row: sa.RowMapping) -> DeadLetter:
    fields: dict[str, Any] = {name: row[name] for name in attrs.fields_dict(DeadLetter)}
    return DeadLetter(**{**fields, "time": EPOCH + timedelta(microseconds=fields["time"])})
