"""A session at a broker: what outlives a connection, so that each message is stored once.

Pure: packets go in; entries for the journal, notes to commit in the same transaction, and acknowledgements to send
after that commit come out.  After a restart, the session is restored from its notes.

A broker redelivers messages whose acknowledgement it has not seen.  That acknowledgement may have been lost, or the
broker may have seen it and given the id to another message.  What helps to tell depends on how brokers choose ids:
most count on and keep ids (a *round* broker); some take the lowest free one; some count from 1 on each connection.

QoS 1: a message is one that was stored before if all of this holds.
- The broker has kept the session, and marks the message as redelivered.
- The last message with this id had the same content, and came since ids go in sequence, fewer than 32,767 messages ago,
  and fewer than half of the ids that the broker was seen to use: some brokers begin again before 65,535.
  Ids may be missing at the start of a connection: those of messages that went out on the last one and were lost with
  it.  NATS sends these again only later, behind new ones.
- The broker is round: ids have gone in sequence for more than four windows, and went on so after it had seen
  acknowledgements that freed lower ids.  A PINGREQ sent behind them shows that, because brokers answer in order.
- The broker has not counted from 1 again since.  The first id of a connection shows that, if it is 1, 2 or 3; NATS does
  so when it is restarted.  If no id came on the last connection, the first ones may have been sent there: then any low
  first id shows it, unless the message is marked as redelivered.

QoS 2: an id is taken from PUBLISH to PUBREL.  A message with such an id and the same content was stored before if the
broker has not counted from 1 again since, and if it is marked as redelivered, at a broker that does that.  A message
after PUBREL is judged as at QoS 1: Mosquitto forgets that it had got PUBREC if a connection ends before it has sent
PUBREL.

If a CONNECT was never answered, the broker may have lost the session and begun a new one.  That has no subscriptions,
so nothing comes before the next SUBSCRIBE.  So before that, the answer to a PINGREQ is awaited: if a message comes
first, the session is the old one, otherwise everything is forgotten.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Mapping
from struct import Struct
from typing import Final
from zlib import crc32

import attrs

from amqtt_db.ingest.bridge.message_properties import encode_properties
from amqtt_db.ingest.bridge.packets import (
    LARGEST_PACKET,
    PUBACK,
    PUBCOMP,
    PUBREC,
    Pingresp,
    Publish,
    Pubrel,
    acknowledgements,
)
from amqtt_db.journal import Entry, with_properties

Note = tuple[str, bytes | None]
"""Key and value of a note; None deletes it."""

_IDS: Final = 65536
_LAST_ID: Final = 65535
_HORIZON: Final = 32_767
_PROOF_WINDOWS: Final = 4
_PROOF_TRIPS: Final = 3
_UNSEEN: Final = 0  # the checksum of a message whose id is missing
_MOST_MISSING: Final = _HORIZON // 8  # beyond, the broker has begun elsewhere
_FIRST_IDS: Final = (1, 2, 3)  # the first ids of a broker that counts from 1, or from the id of our last request
_BLOCK: Final = 128  # ids in one note
_BLOCKS: Final = _HORIZON // _BLOCK + 2  # notes that are kept
_STATE: Final = "state"
_RECENT: Final = "ids "
_UNRELEASED: Final = "unreleased "
_CONNECTING: Final = "connecting"  # a CONNECT was sent, and no id has come since
_UNANSWERED: Final = b""
_ANSWERED: Final = b"answered"
_ANSWERS: Final = (0, PUBACK, PUBREC)  # by QoS
_COUNTS: Final = Struct("<qHqBB")  # messages with an id, the last id, how many were in sequence, trips, marks
_CHECKSUM_SIZE: Final = 6


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


@attrs.frozen
class Keeping:
    """What is kept of messages: their MQTT 5 properties or not, and payloads of at most so many bytes."""

    properties: bool = False
    max_payload: int = LARGEST_PACKET


class Session:
    """One session at one broker.  It numbers all messages that have an id, from 1 on."""

    def __init__(
        self, notes: Mapping[str, bytes], window: int, *, drop: bool = True, keeps_properties: bool = False
    ) -> None:
        """``notes`` are all committed notes of this session; without ``drop``, all QoS 1 messages are stored.

        With ``keeps_properties``, entries contain the messages' MQTT 5 properties.
        """
        self._keeps_properties = keeps_properties
        self._window = window
        self._drop = drop
        self._checksums = array("Q", bytes(8 * _IDS))  # by id: the content of the last message with it
        self._numbers = array("q", bytes(8 * _IDS))  # by id: that message's number
        self._unreleased: dict[int, int] = {}
        self._notes: list[Note] = []  # of the packets that are being received
        self._recent: list[int] = []  # their ids and checksums
        self._unproven = 0  # among them
        self._block = array("Q")  # what the newest note about ids holds
        self._count = self._last_id = self._in_turn = self._trips = 0
        self._marks = False  # the broker is known to mark what it sends again
        self._began = self._acked = 0  # the last number before this connection, and the last acknowledged on it
        self._present = self._skip_retained = False
        self.counts_again: bool | None = None
        """Whether this connection's ids began as if the broker counted from 1 again; None before the first one."""
        self._released = 0  # the id released last on this connection, or 0
        self._freed: tuple[int, int] | None = None  # id and number of a message acknowledged before our PINGREQ
        self._is_freed = False  # the PINGREQ was answered
        self._trip_end = 0  # the number of the first message whose id may show the result
        self._may_miss = False  # ids that went out on earlier connections may be missing
        self._connecting = self._before = notes.get(_CONNECTING)  # now, and before this connection's CONNECT
        self.is_doubtful = False
        """True if it is not known yet whether the session is that of earlier connections."""
        self._load(notes)

    @property
    def is_proven(self) -> bool:
        """True if redelivered messages of QoS 1 can be recognized."""
        return self._trips >= _PROOF_TRIPS and self._is_in_turn

    @property
    def is_resumed(self) -> bool:
        """True if the session is surely that of earlier connections."""
        return self._present and not self.is_doubtful

    @property
    def is_asking(self) -> bool:
        """True if a PINGREQ is under way whose answer :meth:`receive` needs, in its place among the packets."""
        return self.is_doubtful or (self._freed is not None and not self._is_freed)

    def connecting(self) -> list[Note]:
        """Return notes to commit before CONNECT is sent.

        The broker may have lost the session and start another one, and its answer may never arrive.  Then the next
        CONNACK reports a session, but it is not this one, and has no subscriptions.
        """
        self._before, self._connecting = self._connecting, _UNANSWERED
        return [(_CONNECTING, _UNANSWERED)]

    def refused(self) -> list[Note]:
        """Return notes to commit if the broker has refused the connection."""
        self._connecting = self._before
        return [(_CONNECTING, self._before)]

    def connected(self, present: bool, window: int, *, skip_retained: bool = False) -> list[Note]:
        """Start on a new connection; ``present``: the broker reports that it has kept the session.

        Returns notes to commit before subscribing.  If the session is doubtful then, send PINGREQ, and subscribe once
        it is no longer: a new session has no subscription, so no message comes before the answer.

        With ``skip_retained``, messages marked as retained are acknowledged but not stored.
        """
        self._window = window
        self._skip_retained = skip_retained
        self._present = self._may_miss = present
        self.counts_again = self._freed = None
        self._released = 0
        self.is_doubtful = present and self._before == _UNANSWERED
        self._began = self._acked = self._count
        if self.is_doubtful:
            return []
        self._connecting = _ANSWERED
        return [*([] if present else self._forget()), (_CONNECTING, _ANSWERED)]

    def receive(self, packets: Iterable[Publish | Pubrel | Pingresp], time: int, connection: int) -> Received:
        """Take packets in order of arrival; they become durable with the next commit.

        ``time`` in microseconds since 1970; ``connection`` is the position of its CONNECT entry, or 0.
        """
        entries: list[Entry] = []
        heads: list[int] = []
        notes = self._notes = []
        recent = self._recent = []
        recognized = self._unproven = 0
        checksums = self._checksums
        for packet in packets:
            if not isinstance(packet, Publish):
                heads += self._take_other(packet)
                continue
            topic, payload, qos, retain, dup, packet_id, properties, left_out = packet
            if qos:
                heads.append(_ANSWERS[qos] | packet_id)
                checksum = crc32(payload, crc32(topic, qos)) << 16 | (len(payload) or left_out) & 0xFFFF
                if self.counts_again is None:
                    self._note_start(packet_id, dup=dup)
                self._marks |= dup
                if checksums[packet_id] == checksum and self._is_recent(packet_id) and self._recognize(packet):
                    recognized += 1
                    continue
                self._count_id(packet_id, checksum, dup)
                if qos == 2:
                    self._hold(packet_id, checksum)
            if not (left_out or (retain and self._skip_retained)):
                sent = qos << 1 | retain
                if properties and self._keeps_properties:
                    sent, payload = with_properties(sent, payload, encode_properties(properties))
                entries.append((time, sent, connection, topic, payload))
        if recent:
            notes += self._remember(recent)
        return Received(entries, notes, acknowledgements(heads), recognized, self._unproven)

    def acknowledged(self) -> None:
        """Note that the acknowledgements of everything received on this connection were sent."""
        self._acked = self._count

    def ask(self) -> bool:
        """Return True if a PINGREQ must be sent now, behind all acknowledgements, to learn how ids are chosen."""
        is_behind = self._last_id in self._unreleased  # QoS 2: only lower ids are free
        freed = self._released if is_behind else self._last_id
        wanted = self._in_turn > self._window and self._trips < _PROOF_TRIPS and self._freed is None
        if not wanted or self._numbers[freed] <= self._began:
            return False
        self._freed, self._is_freed = (freed, self._numbers[freed] if is_behind else self._count), False
        self._trip_end = self._window if is_behind else 0  # from the answer on: some ids were chosen before it
        return True

    @property
    def _is_in_turn(self) -> bool:
        return self._in_turn > _PROOF_WINDOWS * self._window

    def _is_recent(self, packet_id: int) -> bool:
        number = self._numbers[packet_id]
        return bool(number) and self._count - number < _HORIZON

    def _is_in_sequence(self, packet_id: int) -> bool:
        """Return True if the last message with an id is recent, and ids have gone in sequence since then."""
        highest = _LAST_ID if self._numbers[_LAST_ID] else self._last_id  # ids go up to this one at least
        distance = self._count - self._numbers[packet_id]
        return self._is_recent(packet_id) and distance <= min(self._in_turn, highest // 2)

    def _recognize(self, packet: Publish) -> bool:
        """Return True if a message with the id and the content of a recent one is that very message; else count it."""
        is_known = self._is_known(packet)
        self._unproven += packet.dup and not is_known
        return is_known

    def _is_known(self, packet: Publish) -> bool:
        number = self._numbers[packet.packet_id]
        is_of_this_connection = number > self._began
        if packet.qos == 2 and packet.packet_id in self._unreleased:
            return is_of_this_connection or packet.dup or not self._marks
        if not packet.dup:
            return False
        if is_of_this_connection and number > self._acked:  # repeated because it is not acknowledged yet
            return True
        return self._drop and self._present and self.is_proven and self._is_in_sequence(packet.packet_id)

    def _take_other(self, packet: Pubrel | Pingresp) -> Iterator[int]:
        """Take a packet other than a message; yield its acknowledgement."""
        if isinstance(packet, Pingresp):
            self._take_pong()
            return
        if self.is_doubtful:
            self._resolve(is_new=False)
        if self.counts_again is None and not self._released and packet.packet_id in _FIRST_IDS:
            self._note_start(packet.packet_id)
        self._released = packet.packet_id
        self._release(packet.packet_id)
        yield PUBCOMP | packet.packet_id

    def _take_pong(self) -> None:
        if self.is_doubtful:
            self._resolve(is_new=True)
        elif self.is_asking:  # the answers to two PINGREQs may come together
            self._is_freed = True
            self._trip_end += self._count

    def _hold(self, packet_id: int, checksum: int) -> None:
        self._unreleased[packet_id] = checksum
        self._notes.append((f"{_UNRELEASED}{packet_id}", checksum.to_bytes(_CHECKSUM_SIZE, "little")))

    def _release(self, packet_id: int) -> None:
        if self._unreleased.pop(packet_id, None) is not None:
            self._notes.append((f"{_UNRELEASED}{packet_id}", None))

    def _note_start(self, packet_id: int, *, dup: bool = False) -> None:
        """Learn from this connection's first id whether the broker counts on.

        If no id has come on the last connection, those from 1 on may have been sent there; then new ones follow.
        """
        is_first = packet_id in _FIRST_IDS
        if self.is_doubtful:
            self._resolve(is_new=is_first)
        self.counts_again = is_first or (self._before is not None and packet_id <= _MOST_MISSING and not dup)
        if self.counts_again:
            self._forget_earlier()
        self._connecting = None
        self._notes.append((_CONNECTING, None))

    def _resolve(self, is_new: bool) -> None:
        """End the doubt about the session: a new one has no subscription, so nothing comes before the answer."""
        self.is_doubtful = False
        self._present = not is_new
        self._connecting = _ANSWERED
        self._notes += [*(self._forget() if is_new else []), (_CONNECTING, _ANSWERED)]

    def _forget_earlier(self) -> None:
        """Recognize nothing from before: its ids may be those of other messages now."""
        for packet_id in list(self._unreleased):
            self._release(packet_id)
        self._may_miss = False
        self._break_sequence()

    def _break_sequence(self) -> None:
        self._in_turn, self._trips, self._freed = -1, 0, None

    def _count_id(self, packet_id: int, checksum: int, dup: bool) -> None:
        if packet_id == self._last_id % _LAST_ID + 1 or self._make_next(packet_id, checksum, dup):
            self._last_id = packet_id
            if self._freed is not None and self._is_freed and self._count >= self._trip_end:
                self._complete_trip(packet_id, *self._freed)
        self._in_turn += 1
        self._count += 1
        self._checksums[packet_id] = checksum
        self._numbers[packet_id] = self._count
        self._recent.append(checksum << 16 | packet_id)

    def _make_next(self, packet_id: int, checksum: int, dup: bool) -> bool:
        """Count the ids that are missing before this one, or begin another sequence with it.

        Return False if it may be a message sent again whose turn was before, perhaps among the missing ids.
        """
        if dup and self._checksums[packet_id] in (_UNSEEN, checksum) and self._is_in_sequence(packet_id):
            return False
        missing = (packet_id - self._last_id - 1) % _LAST_ID
        if self._may_miss and self.is_proven and missing <= _MOST_MISSING:
            self._may_miss = dup
            for _ in range(missing):
                self._count_id(self._last_id % _LAST_ID + 1, _UNSEEN, dup)
        else:
            self._break_sequence()
        return True

    def _complete_trip(self, packet_id: int, freed_id: int, freed_number: int) -> None:
        """Count a trip if the broker has not used a lower id again that it knew to be free."""
        self._trips += packet_id > freed_id and self._numbers[freed_id] == freed_number
        self._freed = None

    def _remember(self, recent: list[int]) -> Iterator[Note]:
        """Yield notes for the newest ids, and deletions of notes that are too old to matter."""
        before = self._count - len(recent)
        while recent:
            block, filled = divmod(before, _BLOCK)
            if not filled:
                self._block = array("Q")
                yield f"{_RECENT}{block - _BLOCKS}", None
            here, recent = recent[: _BLOCK - filled], recent[_BLOCK - filled :]
            self._block.extend(here)
            yield f"{_RECENT}{block}", self._block.tobytes()
            before += len(here)
        yield self._state_note()

    def _state_note(self) -> Note:
        return _STATE, _COUNTS.pack(self._count, self._last_id, self._in_turn, self._trips, self._marks)

    def _forget(self) -> list[Note]:
        """Forget all ids: the broker has started a new session."""
        newest = self._count // _BLOCK
        notes: list[Note] = [(f"{_RECENT}{block}", None) for block in range(max(0, newest - _BLOCKS), newest + 1)]
        notes += [(f"{_UNRELEASED}{packet_id}", None) for packet_id in self._unreleased]
        self._unreleased.clear()
        self._numbers = array("q", bytes(8 * _IDS))
        self._count = self._last_id = self._in_turn = self._trips = self._began = self._acked = 0
        self._marks = False
        return [*notes, (_STATE, None)]

    def _load(self, notes: Mapping[str, bytes]) -> None:
        if len(notes.get(_STATE, b"")) == _COUNTS.size:
            self._count, self._last_id, self._in_turn, self._trips, marks = _COUNTS.unpack(notes[_STATE])
            self._marks = bool(marks)
        blocks = sorted((int(key[len(_RECENT) :]), note) for key, note in notes.items() if key.startswith(_RECENT))
        for block, note in blocks:
            self._block = array("Q", note)
            for number, value in enumerate(self._block, block * _BLOCK + 1):
                self._checksums[value & 0xFFFF], self._numbers[value & 0xFFFF] = value >> 16, number
        for key, note in notes.items():
            if key.startswith(_UNRELEASED):
                self._unreleased[int(key[len(_UNRELEASED) :])] = int.from_bytes(note, "little")
