"""Random histories of brokers, a bridge and crashes: no message is lost, and none is stored twice where that is sound.

The brokers of the model give ids in turn (Mosquitto, EMQX, VerneMQ), the lowest free one (HiveMQ), or new ones on each
connection (RabbitMQ).  All payloads are alike, which is the worst case for recognizing a message by its content.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Literal

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from amqtt_db.ingest.bridge.packets import NO_PROPERTIES, Publish, Pubrel
from amqtt_db.ingest.bridge.session import Note, Received, Session

pytestmark = pytest.mark.slow

Ids = Literal["round", "lowest", "renumbered"]

WINDOW = 5
ROUNDS = 120


@attrs.define
class Delivery:
    """A message in a broker's hands: its number in the model, its packet id, and how far its handshake is."""

    message: int
    packet_id: int = 0
    sent: bool = False
    received: bool = False  # PUBREC has arrived


@attrs.define
class ModelBroker:
    """A broker that holds a persistent session of one subscriber."""

    ids: Ids
    qos: int
    random: Random
    next_id: int = 1
    queue: deque[Delivery] = attrs.field(factory=deque)
    in_flight: list[Delivery] = attrs.field(factory=list)

    def connect(self) -> list[tuple[int, Publish | Pubrel]]:
        """Return what is delivered again on a new connection, with the numbers of messages."""
        if self.ids == "renumbered":
            self.next_id = 1
            for delivery in self.in_flight:
                delivery.packet_id = self._new_id([])
        return [(delivery.message, self._packet(delivery, dup=True)) for delivery in self.in_flight]

    def deliver(self) -> list[tuple[int, Publish | Pubrel]]:
        """Return new messages, as far as the window allows."""
        sent: list[tuple[int, Publish | Pubrel]] = []
        while self.queue and len(self.in_flight) < WINDOW:
            delivery = self.queue.popleft()
            delivery.packet_id = self._new_id([other.packet_id for other in self.in_flight])
            self.in_flight.append(delivery)
            sent.append((delivery.message, self._packet(delivery, dup=False)))
        return sent

    def acknowledge(self, data: bytes) -> list[tuple[int, Publish | Pubrel]]:
        """Take acknowledgements; return the PUBRELs that follow."""
        released: list[tuple[int, Publish | Pubrel]] = []
        for start in range(0, len(data), 4):
            kind, number = data[start], data[start + 2] << 8 | data[start + 3]
            found = [delivery for delivery in self.in_flight if delivery.packet_id == number]
            if kind == 0x50:
                for delivery in found:
                    delivery.received = True
                    released.append((delivery.message, Pubrel(number)))
            else:
                self.in_flight = [delivery for delivery in self.in_flight if delivery not in found]
        return released

    def _packet(self, delivery: Delivery, *, dup: bool) -> Publish | Pubrel:
        if delivery.received:
            return Pubrel(delivery.packet_id)
        return Publish(b"t", b"alike", self.qos, False, dup, delivery.packet_id, NO_PROPERTIES)

    def _new_id(self, used: list[int]) -> int:
        if self.ids == "lowest":
            return min(set(range(1, WINDOW + 2)).difference(used))
        number, self.next_id = self.next_id, self.next_id % 65535 + 1
        return number


@attrs.define
class ModelBridge:
    """The session, the notes that are on disk, and which messages of the model were stored how often."""

    notes: dict[str, bytes] = attrs.field(factory=dict)
    stored: dict[int, int] = attrs.field(factory=dict)
    session: Session = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Begin with what is on disk."""
        self.session = Session(self.notes, WINDOW)

    def receive(self, packets: list[tuple[int, Publish | Pubrel]]) -> Received:
        """Take packets one by one, so that it is known which of them made an entry."""
        entries, notes, sent, took = [], [], b"", []
        for message, packet in packets:
            received = self.session.receive([packet], 0, 0)
            entries += received.entries
            took += [message] * len(received.entries)
            notes += received.notes
            sent += received.acknowledgements
        self._pending = took
        return Received(entries, notes, sent)

    def commit(self, received: Received) -> None:
        """Put entries and notes on disk."""
        for key, value in received.notes:
            self._apply((key, value))
        for message in self._pending:
            self.stored[message] = self.stored.get(message, 0) + 1

    def _apply(self, note: Note) -> None:
        key, value = note
        if value is None:
            self.notes.pop(key, None)
        else:
            self.notes[key] = value

    _pending: list[int] = attrs.field(factory=list, init=False)


def play(ids: Ids, qos: int, seed: int, start_id: int = 1, proven: int = 0) -> tuple[int, int, int]:
    """Play a history; return how many messages there were, how many were lost, and how many stored too often.

    ``proven``: as many messages come first, without a crash.
    """
    random = Random(seed)
    broker, bridge = ModelBroker(ids, qos, random, start_id), ModelBridge()
    published = 0
    may_crash = False

    def publish(count: int) -> None:
        nonlocal published
        for _ in range(count):
            broker.queue.append(Delivery(published))
            published += 1

    bridge.session.connected(False, WINDOW)
    publish(proven)
    arriving: list[tuple[int, Publish | Pubrel]] = []
    for turn in range(ROUNDS + proven):
        may_crash = turn > proven
        publish(random.randrange(4) if may_crash else 0)
        arriving += broker.deliver()
        count = random.randint(0, len(arriving)) if may_crash else len(arriving)
        taken, arriving = arriving[:count], arriving[count:]
        received = bridge.receive(taken)
        fate = random.random() if may_crash else 1.0
        if fate < 0.08:  # killed before the commit
            bridge.restart()
        else:
            bridge.commit(received)
            sent = received.acknowledgements
            if fate < 0.2:  # some acknowledgements are lost with the connection, or with the process
                broker.acknowledge(sent[: 4 * random.randint(0, len(sent) // 4)])
                if fate < 0.14:
                    bridge.restart()
            else:
                arriving += broker.acknowledge(sent)
                bridge.session.acknowledged([packet for _, packet in taken])
                continue
        bridge.session.connected(True, WINDOW)
        arriving = broker.connect()
    while broker.queue or broker.in_flight:
        arriving += broker.deliver()
        taken, arriving = arriving, []
        received = bridge.receive(taken)
        bridge.commit(received)
        arriving = broker.acknowledge(received.acknowledgements)
        bridge.session.acknowledged([packet for _, packet in taken])
    lost = sum(message not in bridge.stored for message in range(published))
    return published, lost, sum(count - 1 for count in bridge.stored.values())


@pytest.mark.parametrize(("ids", "qos"), [("round", 1), ("lowest", 1), ("renumbered", 1), ("round", 2), ("lowest", 2)])
@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), start_id=st.sampled_from([1, 2, 3, 65530]))
def test_no_message_is_lost_at_any_broker(ids: Ids, qos: int, seed: int, start_id: int) -> None:
    """Whenever the bridge or a connection dies, however a broker gives its ids, and although all payloads are alike.

    No broker may give new ids at QoS 2 [MQTT-4.3.3]: the handshake could not work.
    """
    published, lost, _ = play(ids, qos, seed, start_id)
    assert published
    assert lost == 0


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), start_id=st.sampled_from([1, 500, 60_000]))
def test_no_message_is_stored_twice_once_ids_were_in_turn(seed: int, start_id: int) -> None:
    """At QoS 1, by a broker that gives ids in turn and keeps them, from a few windows after its first message on."""
    _, lost, doubled = play("round", 1, seed, start_id, proven=4 * WINDOW + 8)
    assert (lost, doubled) == (0, 0)


@pytest.mark.parametrize(("ids", "seeds"), [("lowest", 40), ("renumbered", 40)])
def test_the_model_loses_messages_without_the_proof(ids: Ids, seeds: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """So the model would find it if a session recognized messages that it cannot know."""
    monkeypatch.setattr(Session, "is_proven", True)
    assert sum(play(ids, 1, seed)[1] for seed in range(seeds)) > 0


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32), ids=st.sampled_from(["round", "lowest"]))
def test_no_message_of_qos_2_is_stored_twice(seed: int, ids: Ids) -> None:
    """Without any proof: packet ids between PUBLISH and PUBREL are enough, if the broker keeps them."""
    _, lost, doubled = play(ids, 2, seed)
    assert (lost, doubled) == (0, 0)
