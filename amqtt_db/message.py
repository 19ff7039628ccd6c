"""Messages on their way from the broker to the writer, and batches of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import attrs

# A journal holds four kinds of entries; the kind is the upper half of an entry's flags.
PUBLISH, CONNECT, DISCONNECT, START = range(4)

HAS_PROPERTIES = 8
"""A bit of an entry's flags: in the journal, the properties of a message come before its payload."""

POSITION_BITS = 40


def flags(kind: int, qos: int = 0, retain: bool = False) -> int:
    """Pack an entry's kind (0–3), QoS (0–2) and retain flag into one byte."""
    return kind << 4 | qos << 1 | retain


def message_id(number: int, position: int) -> int:
    """Return the id of the message at ``position`` of generation ``number``: a signed 64-bit integer."""
    return number << POSITION_BITS | position


@attrs.frozen
class Message:
    """One entry of a journal, exactly as the broker received it.

    ``time`` is the arrival in microseconds since 1970 (UTC); ``session`` is the position of the CONNECT entry of the
    connection that it came through, or 0 if that is unknown.  ``payload`` of a CONNECT entry is its details as JSON.
    ``properties`` are those of MQTT 5 that were kept, as a JSON object, or empty.
    """

    position: int
    time: int
    flags: int
    session: int
    topic: bytes
    payload: bytes
    properties: bytes = b""

    @property
    def kind(self) -> int:
        """PUBLISH, CONNECT, DISCONNECT or START."""
        return self.flags >> 4

    @property
    def qos(self) -> int:
        """The QoS it was published with: 0, 1 or 2."""
        return self.flags >> 1 & 3

    @property
    def retain(self) -> bool:
        """True if its publisher asked the broker to retain it."""
        return bool(self.flags & 1)


@attrs.frozen
class Batch:
    """Consecutive entries of one generation of a journal, column by column.

    ``token`` names the generation.  All sequences have the same length; positions ascend, gaps allowed.
    ``end`` is the position behind the batch: what the checkpoint becomes once the batch is stored.  ``properties`` is
    empty if no message has any.
    """

    token: str
    positions: Sequence[int]
    times: Sequence[int]
    flags: Sequence[int]
    sessions: Sequence[int]
    topics: Sequence[bytes]
    payloads: Sequence[bytes]
    end: int
    properties: Sequence[bytes] = ()

    @classmethod
    def of(cls, token: str, message: Message) -> Batch:
        """Return a batch of one message."""
        m = message
        properties = [m.properties] if m.properties else ()
        return cls(
            token, [m.position], [m.time], [m.flags], [m.session], [m.topic], [m.payload], m.position + 1, properties
        )

    @classmethod
    def of_topics(cls, topics: Sequence[bytes]) -> Batch:
        """Return a batch of messages whose topics alone matter."""
        count = len(topics)
        nothing = [0] * count
        return cls("", range(count), nothing, [flags(PUBLISH)] * count, nothing, topics, [b""] * count, count)

    def __len__(self) -> int:
        return len(self.positions)

    def __iter__(self) -> Iterator[tuple[int, int, int, int, bytes, bytes]]:
        return zip(self.positions, self.times, self.flags, self.sessions, self.topics, self.payloads, strict=True)

    def message(self, index: int) -> Message:
        """Return the entry at ``index`` (0-based within the batch)."""
        return Message(
            self.positions[index],
            self.times[index],
            self.flags[index],
            self.sessions[index],
            self.topics[index],
            self.payloads[index],
            self.properties[index] if self.properties else b"",
        )

    def split_at(self, index: int) -> tuple[Batch, Batch]:
        """Return the first ``index`` entries (at least one), and the rest, which begins where the first part ends."""
        end = self.positions[index] if index < len(self) else self.end
        return self._part(0, index, end), self._part(index, len(self), self.end)

    def _part(self, start: int, stop: int, end: int) -> Batch:
        return Batch(
            self.token,
            self.positions[start:stop],
            self.times[start:stop],
            self.flags[start:stop],
            self.sessions[start:stop],
            self.topics[start:stop],
            self.payloads[start:stop],
            end,
            self.properties[start:stop],
        )
