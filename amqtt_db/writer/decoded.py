"""What a batch of the journal becomes when it is decoded: the first of a batch's three values."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs
import orjson

from amqtt_db.errors import Rejected
from amqtt_db.message import CONNECT, Batch, Message
from amqtt_db.models.base import Destination
from amqtt_db.record import Record, Shape

RecordGroup = tuple[Destination, Shape]
"""The key of records that need the same columns."""

RecordGroups = Mapping[RecordGroup, Sequence[Record]]
"""Records by destination and shape."""


@attrs.frozen
class Rejection:
    """A message that cannot be stored, the topic filter that it is counted under, the step that rejects it, and why."""

    message: Message
    filter: str
    step: str
    reason: str


@attrs.frozen
class DecodedBatch:
    """The result of decoding the entries up to ``end`` (excluded) of one generation.

    ``connections`` are the entries that say which clients connected and disconnected, ``counts`` what to add to the
    counters of each topic filter.  ``raw`` are the messages whose payloads are kept as they came.  ``memory`` is what
    decoders remember from now on, by its name in the database, as far as it has changed.
    """

    number: int
    end: int
    groups: RecordGroups = attrs.field(factory=dict)
    rejected: Sequence[Rejection] = ()
    connections: Sequence[Message] = ()
    raw: Sequence[Message] = ()
    counts: Mapping[str, Counter[str]] = attrs.field(factory=dict)
    memory: Mapping[str, str] = attrs.field(factory=dict)


def reject_message(
    number: int, batch: Batch, filter_: str, error: Rejected, memory: Mapping[str, str] = MappingProxyType({})
) -> DecodedBatch:
    """Return the only message of a batch as rejected; ``memory`` is what its decoder remembers of it all the same."""
    rejection = Rejection(batch.message(0), filter_, error.step, str(error))
    return DecodedBatch(number, batch.end, rejected=[rejection], counts={filter_: Counter(dead=1)}, memory=memory)


def in_ascii(decoded: DecodedBatch) -> DecodedBatch:
    """Return the batch with all text outside records in ASCII, for a database that cannot hold every character."""
    rejected = [attrs.evolve(one, reason=_escape(one.reason)) for one in decoded.rejected]
    connections = [_in_ascii(message) if message.kind == CONNECT else message for message in decoded.connections]
    return attrs.evolve(decoded, rejected=rejected, connections=connections)


def _in_ascii(message: Message) -> Message:
    details = orjson.loads(message.payload)
    texts = {name: _escape(value) for name, value in details.items() if isinstance(value, str)}
    return attrs.evolve(message, payload=orjson.dumps({**details, **texts}))


def _escape(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()
