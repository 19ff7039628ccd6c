"""Dead letters: the messages that could not be stored, as they are in the database."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import attrs
import sqlalchemy as sa

from amqtt_db.catalog import Catalog
from amqtt_db.engines import engine_for
from amqtt_db.errors import DatabaseError
from amqtt_db.house import answer, visit
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


def purge(database: str, ids: Iterable[int] | None = None) -> int:
    """Delete dead letters for good: those with ``ids``, or all of them; returns how many there were."""
    engine = engine_for(database)
    table = Catalog(engine).dead_letter
    target = engine.open(write=True)
    try:
        with target.begin() as connection:
            chosen = table.delete() if ids is None else table.delete().where(table.c.id.in_(list(ids)))
            return connection.execute(chosen).rowcount
    except sa.exc.DBAPIError as error:
        raise DatabaseError(answer(error)) from error
    finally:
        target.dispose()


def _letter(row: sa.RowMapping) -> DeadLetter:
    fields: dict[str, Any] = {name: row[name] for name in attrs.fields_dict(DeadLetter)}
    return DeadLetter(**{**fields, "time": EPOCH + timedelta(microseconds=fields["time"])})
