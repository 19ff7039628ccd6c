"""Rows of the project's own tables, copied from one database to another: sessions, dead letters, payloads."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from operator import itemgetter
from typing import Any, Final

import sqlalchemy as sa

from amqtt_db.database.dead_letters import add_rest, payload_of
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.writer.workshop import Workshop

_Convert = Callable[[Snapshot, sa.Connection, sa.Table, list[dict[str, Any]], int], None]
"""Writes the rows of one id, with payloads in segments of a size that the new database takes."""


def copy_rows(
    snapshot: Snapshot, shop: Workshop, connection: sa.Connection, name: str, wanted: Collection[int]
) -> None:
    """Copy those rows with some ids of the system table ``name`` that the new database, in a workshop, does not have.

    ``connection`` is one to the new database, in a transaction.
    """
    old, new = getattr(snapshot.catalog, name), getattr(shop.catalog, name)
    there = set(connection.scalars(sa.select(new.c.id).where(new.c.id.in_(wanted))))
    size = shop.engine.segment_size(connection)
    for id_ in wanted:
        if id_ not in there:
            rows = snapshot.connection.execute(sa.select(old).where(old.c.id == id_)).mappings().all()
            if rows:
                _CONVERTERS[name](snapshot, connection, new, [dict(row) for row in rows], size)


def _as_it_is(_: Snapshot, connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]], size: int) -> None:
    connection.execute(table.insert(), rows)


def _without_segments(
    snapshot: Snapshot, connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]], size: int
) -> None:
    for row in rows:
        payload = payload_of(snapshot.connection, snapshot.catalog, row["id"])
        connection.execute(table.insert(), {**row, "payload": payload[:size]})
        add_rest(connection, snapshot.catalog, row["id"], payload, size)


def _in_segments(
    _: Snapshot, connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]], size: int
) -> None:
    rows.sort(key=itemgetter("number"))
    payload, first = b"".join(row["payload"] for row in rows), {**rows[0], "properties": None}
    starts = enumerate(range(0, max(1, len(payload)), size))
    segments = [{**first, "number": number, "payload": payload[start : start + size]} for number, start in starts]
    segments[0]["properties"] = rows[0]["properties"]
    connection.execute(table.insert(), segments)


_CONVERTERS: Final[Mapping[str, _Convert]] = {
    "session": _as_it_is,
    "dead_letter": _without_segments,
    "raw": _in_segments,
}
