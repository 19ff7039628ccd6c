"""The envelopes of a batch's messages, column by column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import attrs

from amqtt_db.message import Batch, message_id

_QOS: Final = tuple(flags >> 1 & 3 for flags in range(256))
_RETAIN: Final = tuple(bool(flags & 1) for flags in range(256))


@attrs.frozen
class Envelopes:
    """What records have besides their properties, their topics and their own times."""

    ids: Sequence[int]
    arrivals: Sequence[int]
    sessions: Sequence[int | None]
    qos: Sequence[int]
    retains: Sequence[bool]


def envelopes_at(number: int, batch: Batch, indexes: Sequence[int]) -> Envelopes:
    """Return the envelopes of the messages at some indexes of a batch of the journal with this number."""
    base = message_id(number, 0)
    sessions, flags = values_at(batch.sessions, indexes), values_at(batch.flags, indexes)
    session_ids = {session: base | session if session else None for session in set(sessions)}
    return Envelopes(
        list(map(base.__or__, values_at(batch.positions, indexes))),
        values_at(batch.times, indexes),
        list(map(session_ids.__getitem__, sessions)),
        list(map(_QOS.__getitem__, flags)),
        list(map(_RETAIN.__getitem__, flags)),
    )


def values_at(column: Sequence[Any], indexes: Sequence[int]) -> Sequence[Any]:
    """Return the values at some indexes of a column: the column itself for the range of all."""
    if type(indexes) is range and len(indexes) == len(column):
        return column
    return list(map(column.__getitem__, indexes))
