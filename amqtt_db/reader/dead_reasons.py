"""Why messages could not be stored: the dead letters, counted by their reasons."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.snapshot import Snapshot, require_tables
from amqtt_db.record import EPOCH

COUNTED: Final = 10_000
"""How many dead letters are looked at, however many there are."""


@attrs.frozen
class DeadReason:
    """How many dead letters a route has for one reason, and when the last of them arrived."""

    filter: str
    step: str
    reason: str
    count: int
    last: datetime


def count_reasons(snapshot: Snapshot, most: int = 10) -> list[DeadReason]:
    """Return the most frequent reasons of the newest :data:`COUNTED` dead letters.  Raises NoDatabaseYet."""
    require_tables(snapshot)
    letter = snapshot.catalog.dead_letter
    columns = letter.c.filter, letter.c.step, letter.c.reason, letter.c.time
    newest = sa.select(*columns).order_by(letter.c.id.desc()).limit(COUNTED).subquery()
    what = newest.c.filter, newest.c.step, newest.c.reason
    last = sa.func.max(newest.c.time, type_=letter.c.time.type)
    query = sa.select(*what, sa.func.count().label("n"), last).group_by(*what).order_by(sa.desc("n"), *what).limit(most)
    return [
        DeadReason(filter_, step, reason, count, EPOCH + timedelta(microseconds=time))
        for filter_, step, reason, count, time in snapshot.connection.execute(query)
    ]
