"""A session at a broker: what outlives a connection, so that each message is stored once.

Pure: packets go in; entries for the journal, notes to commit in the same transaction, and acknowledgements to send
after that commit come out.  After a restart, the session is restored from its notes.

A broker redelivers messages whose acknowledgement it has not seen.  At QoS 2, packet ids between PUBLISH and PUBREL
identify them.  At QoS 1 an acknowledgement may have been lost, and the id may already belong to another message.  So a
message counts as redelivered only if all of this holds: the broker has kept the session and marks the message as
redelivered; the last message with this id, fewer than 32,767 messages ago, had the same content; ids have been assigned
in sequence for more than four windows, so none is reused early; and this connection's first id is not 1 or 2, where
brokers start that assign new ids on every connection.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from struct import Struct
from typing import Final
from zlib import crc32

import attrs

from amqtt_db.ingest.bridge.packets import Publish, Pubrel, puback, pubcomp, pubrec
from amqtt_db.journal import Entry
from amqtt_db.message import flags

Note = tuple[str, bytes | None]
"""Key and value of a note; None deletes it."""

_IDS: Final = 65536
_LAST_ID: Final = 65535
_HORIZON: Final = 32_767
_PROOF_WINDOWS: Final = 4
_RENUMBERED: Final = (1, 2)
_STATE: Final = "state"
_RECENT: Final = "recent "
_UNRELEASED: Final = "unreleased "
_COUNTS: Final = Struct("<qHq")  # messages with an id, the last id, how many ids were in sequence
_SESSION_CHECKSUM_BYTES: Final = 6


@attrs.frozen
class Received:
    """The result of some packets: append ``entries``, commit them with ``notes``, then send ``acknowledgements``.

    ``recognized`` messages were stored before and are not stored again; ``unproven`` ones look the same but are stored
    again, because there is no proof.
    """

    entries: list[Entry]
    notes: list[Note]
    acknowledgements: bytes
    recognized: int = 0
    unproven: int = 0


class Session:
    """One session at one broker."""

    def __init__(self, notes: Mapping[str, bytes], window: int, *, drop: bool = True) -> None:
        """``notes`` are all committed notes of this session; without ``drop``, all QoS 1 messages are stored."""
        self._window = window
        self._drop = drop
        self._checksums = array("Q", bytes(8 * _IDS))
        self._numbers = array("q", bytes(8 * _IDS))
        self._unreleased: dict[int, int] = {}
        self._blocks: dict[int, int] = {}  # number of the first message → how many, for each note in the journal
        self._count, self._last_id, self._in_turn = _COUNTS.unpack(notes.get(_STATE, bytes(_COUNTS.size)))
        self._present = False
        self._skip_retained = False
        self._renumbers: bool | None = None
        self._here: set[int] = set()  # ids of this connection that are not acknowledged
        self._to_forget: list[Note] = []
        self._load(notes)

    @property
    def is_proven(self) -> bool:
        """True if redelivered messages of QoS 1 can be recognized."""
        return self._in_turn > _PROOF_WINDOWS * self._window and not self._renumbers

    def connected(self, present: bool, window: int, *, skip_retained: bool = False) -> None:
        """Start on a new connection; ``present``: the broker has kept the session.

        With ``skip_retained``, messages marked as retained are acknowledged but not stored.
        """
        self._window = window
        self._skip_retained = skip_retained
        self._present = present
        self._renumbers = None
        self._here.clear()
        if not present:
            self._forget()

    def receive(self, packets: Iterable[Publish | Pubrel], time: int, connection: int) -> Received:
        """Take packets in order of arrival; they become durable with the next commit.

        ``time`` in microseconds since 1970; ``connection`` is the position of its CONNECT entry, or 0.
        """
        entries: list[Entry] = []
        acknowledgements: list[bytes] = []
        notes, self._to_forget = self._to_forget, []
        recent: list[tuple[int, int]] = []
        recognized = unproven = 0
        for packet in packets:
            if isinstance(packet, Pubrel):
                if self._unreleased.pop(packet.packet_id, None) is not None:
                    notes.append((f"{_UNRELEASED}{packet.packet_id}", None))
                acknowledgements.append(pubcomp(packet.packet_id))
                continue
            number, qos = packet.packet_id, packet.qos
            if qos:
                checksum = _content_checksum(packet)
                if self._renumbers is None:
                    self._renumbers = number in _RENUMBERED
                is_known = self._is_known(packet, checksum)
                acknowledgements.append(puback(number) if qos == 1 else pubrec(number))
                self._here.add(number)
                if is_known:
                    recognized += 1
                    continue
                unproven += packet.dup and self._seen_lately(number, checksum)
                self._count_id(number, checksum)
                recent.append((number, checksum))
                if qos == 2:
                    self._unreleased[number] = checksum
                    notes.append((f"{_UNRELEASED}{number}", checksum.to_bytes(_SESSION_CHECKSUM_BYTES, "little")))
            if self._skip_retained and packet.retain:
                continue
            entries.append((time, flags(0, qos, packet.retain), connection, packet.topic, packet.payload))
        if recent:
            notes += self._remember(recent)
        return Received(entries, notes, b"".join(acknowledgements), recognized, unproven)

    def acknowledged(self, packets: Iterable[Publish | Pubrel]) -> None:
        """Note that the acknowledgements of ``packets`` were sent, on the same connection."""
        for packet in packets:
            self._here.discard(packet.packet_id)

    def _is_known(self, packet: Publish, checksum: int) -> bool:
        number = packet.packet_id
        if packet.qos == 2:
            return self._unreleased.get(number) == checksum
        if number in self._here:  # a broker that redelivers on the same connection what is not acknowledged
            return self._checksums[number] == checksum
        may_be = packet.dup and self._drop and self._present and self.is_proven
        return may_be and self._seen_lately(number, checksum)

    def _seen_lately(self, number: int, checksum: int) -> bool:
        seen = self._numbers[number]
        return bool(seen) and self._checksums[number] == checksum and self._count - seen < _HORIZON

    def _count_id(self, number: int, checksum: int) -> None:
        self._count += 1
        self._in_turn = self._in_turn + 1 if number == self._last_id % _LAST_ID + 1 else 0
        self._last_id = number
        self._checksums[number] = checksum
        self._numbers[number] = self._count

    def _remember(self, recent: list[tuple[int, int]]) -> Iterator[Note]:
        """Yield notes for the newest ids, and deletions of notes that are too old to matter."""
        first = self._count - len(recent) + 1
        self._blocks[first] = len(recent)
        yield f"{_RECENT}{first}", array("Q", [checksum << 16 | number for number, checksum in recent]).tobytes()
        while True:
            oldest = next(iter(self._blocks))
            if self._count - (oldest + self._blocks[oldest]) < _HORIZON:
                break
            del self._blocks[oldest]
            yield f"{_RECENT}{oldest}", None
        yield _STATE, _COUNTS.pack(self._count, self._last_id, self._in_turn)

    def _forget(self) -> None:
        """Forget all ids: the broker has started a new session."""
        self._to_forget += [(f"{_RECENT}{first}", None) for first in self._blocks]
        self._to_forget += [(f"{_UNRELEASED}{number}", None) for number in self._unreleased]
        self._to_forget.append((_STATE, None))
        self._blocks.clear()
        self._unreleased.clear()
        self._numbers = array("q", bytes(8 * _IDS))
        self._count = self._last_id = self._in_turn = 0

    def _load(self, notes: Mapping[str, bytes]) -> None:
        firsts = sorted(int(key[len(_RECENT) :]) for key in notes if key.startswith(_RECENT))
        for first in firsts:
            packed = array("Q", notes[f"{_RECENT}{first}"])
            self._blocks[first] = len(packed)
            for index, value in enumerate(packed):
                self._checksums[value & 0xFFFF] = value >> 16
                self._numbers[value & 0xFFFF] = first + index
        for key, checksum in notes.items():
            if key.startswith(_UNRELEASED):
                self._unreleased[int(key[len(_UNRELEASED) :])] = int.from_bytes(checksum, "little")


def _content_checksum(packet: Publish) -> int:
    """Return 48 bits of a message's QoS, topic and payload."""
    return (crc32(packet.payload, crc32(packet.topic, packet.qos)) << 16) | (len(packet.payload) & 0xFFFF)
