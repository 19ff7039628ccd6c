"""Read records back from the database, the same from every model."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

from amqtt_db.config import Settings
from amqtt_db.database.engines.urls import check_url
from amqtt_db.database.snapshot import open_snapshot
from amqtt_db.reader.records import read_records
from amqtt_db.reader.selection import Selection
from amqtt_db.record import Record

__all__ = ["Selection", "read", "read_records", "url_of"]


def read(
    database: str | Settings,
    topic: str = "#",
    *,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    limit: int | None = None,
    newest: bool = False,
) -> Iterator[Record]:
    """Yield the records of all topics that an MQTT filter covers, in time order, whatever their models.

    ``database`` is a SQLAlchemy URL, or the settings that name one.  ``since`` (inclusive) and ``until`` (exclusive)
    limit the records' times: datetimes with a zone, or text such as ``2026-01-31T12:00`` (UTC) and ``24h`` (ago).
    ``limit`` is the maximum number of records; ``newest`` reverses the order.  Records with equal times are ordered by
    id and part, and the properties of a record by path.  Records are fetched a page at a time, from the database as it
    was when the first one was requested; close the iterator if you stop halfway.

    Raises ValueError at once for a wrong argument, and DatabaseError, when the first record is requested, if the
    database cannot be read.
    """
    return _read(url_of(database), Selection.of(topic, since, until, limit, newest=newest))


def _read(url: str, selection: Selection) -> Iterator[Record]:
    with open_snapshot(url) as snapshot:
        yield from read_records(snapshot, selection)


def url_of(database: str | Settings) -> str:
    """Return the database URL.  Raises ValueError if it is malformed."""
    if isinstance(database, Settings):
        return database.database
    check_url(database)
    return database
