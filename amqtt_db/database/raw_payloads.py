"""Payloads as they came, beside the records that were made of them, for the routes with ``raw``.

A payload that is longer than one statement may carry has several rows; the first of them counts as the message.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import accumulate
from typing import Any, Final

import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog, key_hash
from amqtt_db.database.engines.base import Engine, batched
from amqtt_db.message import POSITION_BITS, PUBLISH, Message, flags, message_id

RAW_AT_ONCE = 200  # messages that are read, and 10 times as many that are deleted, at once
MOST_RAW_BYTES: Final = 16 * 2**20  # of payloads that are read at once; a larger one is alone
MOST_HASHES: Final = 500  # topics that a statement names

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
            "properties": None if number else fit_properties(one.properties, size),
            "payload": one.payload[start : start + size],
        }
        for one in messages
        for number, start in enumerate(range(0, max(1, len(one.payload)), size))
    ]
    connection.execute(catalog.raw.insert(), rows)


def fit_properties(properties: bytes, size: int) -> bytes | None:
    """Return a message's properties; None if it has none, or more than the ``size`` that fits into a statement."""
    return properties if 0 < len(properties) <= size else None


def raw_after(
    connection: sa.Connection,
    catalog: Catalog,
    topics: Mapping[str, str],
    last: int,
    since: int | None,
    before: int | None,
) -> list[tuple[int, Message]]:
    """Return the next messages of some topics behind the id ``last``, each with its id, in the order of the ids.

    ``topics`` maps hashes to topics; ``since`` (inclusive) and ``before`` bound the time of arrival.
    """
    while heads := _next_heads(connection, catalog, topics, last, since, before):
        last = heads[-1].id
        wanted = _within_size(connection, catalog, [head for head in heads if head.hash in topics])
        if wanted:
            payloads = _payloads(connection, catalog, [head.id for head in wanted])
            return [(head.id, _message(head, topics[head.hash], payloads[head.id])) for head in wanted]
    return []


def _next_heads(
    connection: sa.Connection,
    catalog: Catalog,
    topics: Collection[str],
    last: int,
    since: int | None,
    before: int | None,
) -> Sequence[Any]:
    """Return the envelopes of the next messages; if there are many topics, also those of others."""
    table = catalog.raw
    here = (table.c.number == 0) & (table.c.id > last)
    here &= sa.true() if since is None else table.c.time >= since
    here &= sa.true() if before is None else table.c.time < before
    here &= table.c.hash.in_(list(topics)) if len(topics) <= MOST_HASHES else sa.true()
    names = ("id", "hash", "time", "session", "qos", "retain", "properties")
    columns = [table.c[name] for name in names]
    return connection.execute(sa.select(*columns).where(here).order_by(table.c.id).limit(RAW_AT_ONCE)).all()


def _within_size(connection: sa.Connection, catalog: Catalog, heads: Sequence[Any]) -> Sequence[Any]:
    """Return the first of some messages: as many as there is room for, and at least one."""
    table = catalog.raw
    size = sa.func.sum(sa.func.length(table.c.payload))
    query = sa.select(table.c.id, size).where(table.c.id.in_([head.id for head in heads])).group_by(table.c.id)
    sizes = {row[0]: int(row[1]) for row in connection.execute(query)}
    total = list(accumulate(sizes[head.id] for head in heads))
    return [head for index, head in enumerate(heads) if index == 0 or total[index] <= MOST_RAW_BYTES]


def _payloads(connection: sa.Connection, catalog: Catalog, ids: Sequence[int]) -> Mapping[int, bytes]:
    table = catalog.raw
    query = sa.select(table.c.id, table.c.payload).where(table.c.id.in_(ids)).order_by(table.c.id, table.c.number)
    segments: dict[int, list[bytes]] = {}
    for id_, payload in connection.execute(query):
        segments.setdefault(id_, []).append(payload)
    return {id_: b"".join(some) for id_, some in segments.items()}


def _message(head: Any, topic: str, payload: bytes) -> Message:
    sent = flags(PUBLISH, head.qos, bool(head.retain))
    session = (head.session or 0) & _POSITION_MASK
    kept = head.properties or b""
    return Message(head.id & _POSITION_MASK, head.time, sent, session, topic.encode(), payload, kept)


def has_raw(connection: sa.Connection, catalog: Catalog) -> bool:
    """Return True if any payload is kept."""
    return connection.execute(sa.select(catalog.raw.c.id).limit(1)).first() is not None


def delete_raw(connection: sa.Connection, catalog: Catalog, topic: str, before: int | None) -> int:
    """Delete some of a topic's payloads, those that arrived before a time if there is one; return how many."""
    return _change_some(connection, catalog, topic, before, None)


def delete_raw_of(connection: sa.Connection, catalog: Catalog, ids: Iterable[int]) -> None:
    """Delete the payloads of some messages."""
    for some in batched(ids):
        connection.execute(catalog.raw.delete().where(catalog.raw.c.id.in_(some)))


def rename_raw(connection: sa.Connection, catalog: Catalog, topic: str, new: str) -> int:
    """Give some of a topic's payloads another topic; return how many."""
    return _change_some(connection, catalog, topic, None, new)


def move_raw(connection: sa.Connection, catalog: Catalog, ids: Iterable[int], topic: str) -> None:
    """Give the payloads of some messages another topic."""
    table = catalog.raw
    for some in batched(ids):
        connection.execute(table.update().where(table.c.id.in_(some)).values(hash=key_hash(topic)))


def _change_some(connection: sa.Connection, catalog: Catalog, topic: str, before: int | None, new: str | None) -> int:
    table = catalog.raw
    here = (table.c.hash == key_hash(topic)) & (sa.true() if before is None else table.c.time < before)
    query = sa.select(table.c.id).where(here & (table.c.number == 0)).order_by(table.c.time).limit(10 * RAW_AT_ONCE)
    ids = connection.scalars(query).all()
    for start in range(0, len(ids), 500):
        chosen = table.c.id.in_(ids[start : start + 500])
        change = table.delete() if new is None else table.update().values(hash=key_hash(new))
        connection.execute(change.where(chosen))
    return len(ids)
