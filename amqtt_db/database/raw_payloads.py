"""Payloads as they came, beside the records that were made of them, for the routes with ``raw``.

A payload that is longer than one statement may carry has several rows; the first of them counts as the message.
"""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog, key_hash
from amqtt_db.database.engines.base import Engine
from amqtt_db.message import POSITION_BITS, PUBLISH, Message, flags, message_id

RAW_AT_ONCE = 200  # messages that are read, and 10 times as many that are deleted, at once

_POSITION_MASK = (1 << POSITION_BITS) - 1


def add_raw(
    connection: sa.Connection, engine: Engine, catalog: Catalog, journal: int, messages: Sequence[Message]
) -> None:
    """Keep the payloads of a journal's messages."""
    if not messages:
        return
    size, hashes = engine.segment_size(connection), {one.topic: key_hash(one.topic.decode()) for one in messages}
    rows = [
        {
            "id": message_id(journal, one.position),
            "number": number,
            "hash": hashes[one.topic],
            "time": one.time,
            "session": message_id(journal, one.session) if one.session else None,
            "qos": one.qos,
            "retain": one.retain,
            "payload": one.payload[start : start + size],
        }
        for one in messages
        for number, start in enumerate(range(0, max(1, len(one.payload)), size))
    ]
    connection.execute(catalog.raw.insert(), rows)


def raw_after(
    connection: sa.Connection, catalog: Catalog, topic: str, last: int, since: int | None, before: int | None
) -> list[tuple[int, Message]]:
    """Return a topic's next messages behind the id ``last``, each with its id, that arrived in a range of times."""
    table = catalog.raw
    here = (table.c.hash == key_hash(topic)) & (table.c.number == 0) & (table.c.id > last)
    here &= sa.true() if since is None else table.c.time >= since
    here &= sa.true() if before is None else table.c.time < before
    columns = (table.c.id, table.c.time, table.c.session, table.c.qos, table.c.retain)
    rows = connection.execute(sa.select(*columns).where(here).order_by(table.c.id).limit(RAW_AT_ONCE)).all()
    payloads: dict[int, bytes] = {}
    ids = [row.id for row in rows]
    for id_, payload in connection.execute(
        sa.select(table.c.id, table.c.payload).where(table.c.id.in_(ids)).order_by(table.c.id, table.c.number)
    ):
        payloads[id_] = payloads.get(id_, b"") + payload
    return [
        (
            row.id,
            Message(
                row.id & _POSITION_MASK,
                row.time,
                flags(PUBLISH, row.qos, bool(row.retain)),
                (row.session or 0) & _POSITION_MASK,
                topic.encode(),
                payloads[row.id],
            ),
        )
        for row in rows
    ]


def has_raw(connection: sa.Connection, catalog: Catalog) -> bool:
    """Return True if any payload is kept."""
    return connection.execute(sa.select(catalog.raw.c.id).limit(1)).first() is not None


def delete_raw(connection: sa.Connection, catalog: Catalog, topic: str, before: int | None) -> int:
    """Delete some of a topic's payloads, those that arrived before a time if there is one; return how many."""
    return _change_some(connection, catalog, topic, before, None)


def rename_raw(connection: sa.Connection, catalog: Catalog, topic: str, new: str) -> int:
    """Give some of a topic's payloads another topic; return how many."""
    return _change_some(connection, catalog, topic, None, new)


def _change_some(connection: sa.Connection, catalog: Catalog, topic: str, before: int | None, new: str | None) -> int:
    table = catalog.raw
    here = (table.c.hash == key_hash(topic)) & (sa.true() if before is None else table.c.time < before)
    query = sa.select(table.c.id).where(here & (table.c.number == 0)).order_by(table.c.time).limit(10 * RAW_AT_ONCE)
    ids = connection.scalars(query).all()
    for start in range(0, len(ids), 500):
        chosen = table.c.id.in_(ids[start : start + 500])
        if new is None:
            connection.execute(table.delete().where(chosen))
        else:
            connection.execute(table.update().where(chosen).values(hash=key_hash(new)))
    return len(ids)
