"""Why messages could not be stored: the dead letters, counted by their reasons."""

from __future__ import annotations

from datetime import datetime, timedelta

import attrs
import sqlalchemy as sa

from amqtt_db.database.snapshot import Snapshot, require_tables
from amqtt_db.record import EPOCH


@attrs.frozen
class DeadReason:
    """How many dead letters a route has for one reason, and when the last of them arrived."""

    filter: str
    step: str
    reason: str
    count: int
    last: datetime


def count_reasons(snapshot: Snapshot, most: int = 10) -> list[DeadReason]:
    """Return the most frequent reasons.  Raises NoDatabaseYet if nothing was ever stored."""
    require_tables(snapshot)
    letter = snapshot.catalog.dead_letter
    what = letter.c.filter, letter.c.step, letter.c.reason
    last = sa.func.max(letter.c.time, type_=letter.c.time.type)
    query = sa.select(*what, sa.func.count().label("n"), last).group_by(*what).order_by(sa.desc("n"), *what).limit(most)
    return [
        DeadReason(filter_, step, reason, count, EPOCH + timedelta(microseconds=time))
        for filter_, step, reason, count, time in snapshot.connection.execute(query)
    ]
