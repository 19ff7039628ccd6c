"""A model of a broker, the network, a bridge and its disk, around the real session: random histories with crashes.

Time passes in random steps, and each does one thing: somebody publishes, the broker reads or writes, the bridge
reads, a commit reaches the disk, the network breaks, a process is killed.  What was sent in order arrives in order, as
far as it arrives.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Literal

import attrs

from amqtt_db.ingest.bridge.packets import NO_PROPERTIES, Pingresp, Publish, Pubrel
from amqtt_db.ingest.bridge.session import Note, Session

Ids = Literal["round", "lowest", "last freed", "renumbered"]
"""How a broker chooses packet ids: Mosquitto, EMQX, VerneMQ; HiveMQ; nobody known; RabbitMQ, rumqttd."""

PINGREQ = (0xC0, 0)


@attrs.frozen
class World:
    """What does not change during a history.

    ``window`` is what the bridge asks for, ``in_flight`` what the broker allows: more, if it does not listen.
    A broker that ``resends_late``, as NATS does, first sends new messages on a new connection.  One that
    ``forgets_pubrec``, as Mosquitto may, sends messages of QoS 2 again that the bridge has released.
    ``trouble`` is the probability of a crash in a step.
    """

    ids: Ids
    qos: tuple[int, ...] = (1,)
    sets_dup: bool = True
    window: int = 5
    in_flight: int = 5
    last_id: int = 65535
    start_id: int = 1
    contents: int = 1
    trouble: float = 0.05
    retries: bool = False
    resends_late: bool = False
    forgets_pubrec: bool = False
    loses_sessions: bool = False
    steps: int = 300


@attrs.define(eq=False)
class Delivery:
    """A message in the broker's hands; ``payload`` is an object of its own, however it reads."""

    payload: bytes
    qos: int
    packet_id: int = 0
    received: bool = False  # PUBREC has arrived


@attrs.frozen
class Result:
    """How many messages were published and reached the bridge's broker, and what became of them.

    ``doubled_though_proven``: on connections that began with the proof that redelivered messages can be recognized.
    """

    published: int
    lost: int
    doubled: int
    doubled_though_proven: int
    proven_connections: int


class ModelBroker:
    """A broker that holds a persistent session of one subscriber."""

    def __init__(self, world: World, random: Random) -> None:
        self._world = world
        self._random = random
        self._start()
        self._next_id = world.start_id

    def _start(self) -> None:
        self.queue: deque[Delivery] = deque()
        self.in_flight: list[Delivery] = []
        self.sent: deque[Publish | Pubrel | Pingresp] = deque()  # on their way to the bridge
        self.arriving: deque[tuple[int, int]] = deque()  # on their way from the bridge
        self.has_session = False
        self._late: deque[Delivery] = deque()  # what this connection still has to send again
        self._next_id = 1
        self._freed = list(range(self._world.last_id, 0, -1))

    def connect(self) -> bool:
        """Begin a connection; send again what is in flight; return whether there was a session."""
        self.sent.clear()
        self.arriving.clear()
        had_session, self.has_session = self.has_session, True
        if self._world.ids == "renumbered":
            self._next_id = self._random.choice((1, 2, 3))
            for delivery in self.in_flight:
                delivery.packet_id = 0
        if self._world.forgets_pubrec:
            for delivery in self.in_flight:
                delivery.received = delivery.received and self._random.random() < 0.5
        self._late = deque(self.in_flight)
        if not self._world.resends_late:
            self.resend(len(self._late))
        return had_session

    def first_ids(self) -> list[int]:
        """Return the ids of which one comes first on this connection, if it sends something again."""
        if self._late:
            return [self._next_id, *(delivery.packet_id for delivery in self._late)]
        again = [packet for packet in self.sent if not isinstance(packet, Pingresp)]
        start = next((place for place, packet in enumerate(again, 1) if isinstance(packet, Publish)), 0)
        return [packet.packet_id for packet in again[:start]]

    def forget(self) -> list[Delivery]:
        """Lose the session; return what was lost with it."""
        lost = [*self.in_flight, *self.queue]
        self._start()
        return lost

    def write(self) -> None:
        """Send new messages, as far as the window allows."""
        while self.queue and len(self.in_flight) < self._world.in_flight:
            delivery = self.queue.popleft()
            delivery.packet_id = self._new_id()
            self.in_flight.append(delivery)
            self.sent.append(self._packet(delivery, again=False))

    def resend(self, count: int) -> None:
        """Send again some of what an earlier connection has not got acknowledged."""
        for _ in range(min(count, len(self._late))):
            delivery = self._late.popleft()
            delivery.packet_id = delivery.packet_id or self._new_id()
            self.sent.append(self._packet(delivery, again=True))

    def retry(self) -> None:
        """Send again, on the same connection, something that is not acknowledged."""
        if self._world.resends_late:
            self._random.shuffle(self._late)
            self.resend(self._random.randint(0, len(self._late)))
        elif self.in_flight:
            self.sent.append(self._packet(self._random.choice(self.in_flight), again=True))

    def read(self, count: int) -> None:
        """Take some of what has arrived."""
        for _ in range(min(count, len(self.arriving))):
            head = self.arriving.popleft()
            if head == PINGREQ:
                self.sent.append(Pingresp())
                continue
            kind, packet_id = head
            for delivery in [one for one in self.in_flight if one.packet_id == packet_id]:
                if kind == 0x50 and delivery.qos == 2:
                    delivery.received = True
                    self.sent.append(Pubrel(packet_id))
                elif kind == (0x70 if delivery.received else 0x40):
                    self.in_flight.remove(delivery)
                    self._freed.append(packet_id)

    def _packet(self, delivery: Delivery, *, again: bool) -> Publish | Pubrel:
        if delivery.received:
            return Pubrel(delivery.packet_id)
        dup = again and self._world.sets_dup
        return Publish(b"t", delivery.payload, delivery.qos, False, dup, delivery.packet_id, NO_PROPERTIES)

    def _new_id(self) -> int:
        if self._world.ids == "last freed":
            return self._freed.pop()
        used = {delivery.packet_id for delivery in self.in_flight}
        if self._world.ids == "lowest":
            return min(set(range(1, len(used) + 2)) - used)
        while self._next_id in used:
            self._next_id = self._next_id % self._world.last_id + 1
        packet_id = self._next_id
        self._next_id = packet_id % self._world.last_id + 1
        return packet_id


@attrs.frozen
class Group:
    """What one commit puts on disk, and what is sent after it, if its connection still stands."""

    connection: int
    notes: list[Note]
    payloads: list[bytes]
    acknowledgements: bytes


class History:
    """One random history."""

    def __init__(self, world: World, seed: int) -> None:
        self._world = world
        self._random = Random(seed)
        self._broker = ModelBroker(world, self._random)
        self._disk: dict[str, bytes] = {}
        self._session = Session({}, world.window)
        self._uncommitted: deque[Group] = deque()
        self._published: dict[int, bytes] = {}  # by identity, so that messages that read alike can be told apart
        self._stored: dict[int, int] = {}
        self._connection = self._proven = self._doubled_though_proven = 0
        self._is_proven = False
        self._is_reading = False
        self._connect()

    def play(self) -> Result:
        """Play it to its end: without more trouble, until everything is delivered and acknowledged."""
        for _ in range(self._world.steps):
            if self._random.random() < self._world.trouble:
                self._trouble()
            else:
                self._step()
        while self._broker.queue or self._broker.in_flight or self._uncommitted or self._broker.sent:
            self._broker.write()
            self._broker.resend(self._world.in_flight)
            self._commit()
            self._read(len(self._broker.sent))
            self._commit()
            self._broker.read(len(self._broker.arriving))
        counts = [self._stored.get(one, 0) for one in self._published]
        return Result(
            len(counts), counts.count(0), sum(count - 1 for count in counts if count), self._doubled_though_proven,
            self._proven,
        )  # fmt: skip

    def _step(self) -> None:
        kind = self._random.randrange(8 if self._world.retries or self._world.resends_late else 7)
        if kind == 0:
            self._publish(self._random.choice((1, 1, 3, 3, 10, 2 * self._world.in_flight)))
        elif kind == 1:
            self._broker.write()
        elif kind == 2:
            self._broker.read(self._random.randint(1, 10))
        elif kind == 3:
            self._broker.read(len(self._broker.arriving))
            self._broker.write()
        elif kind < 6:
            self._read(self._random.choice((1, 5, len(self._broker.sent))))
        elif kind == 6:
            self._commit()
        else:
            self._broker.retry()

    def _trouble(self) -> None:
        """Break the connection somehow; what is under way may get through before."""
        self._broker.read(self._random.randint(0, len(self._broker.arriving)))
        if self._random.random() < 0.5:
            self._broker.write()
        if self._random.random() < 0.5:  # the bridge is killed
            self._uncommitted.clear()
            self._session = Session(self._disk, self._world.window)
        if self._world.loses_sessions and self._random.random() < 0.2:
            for delivery in self._broker.forget():
                if id(delivery.payload) not in self._stored:
                    del self._published[id(delivery.payload)]
        self._connect()

    def _connect(self) -> None:
        self._connection += 1
        self._uncommitted.append(Group(0, self._session.connecting(), [], b""))
        self._commit()
        had_session = self._broker.connect()
        while self._random.random() < self._world.trouble:  # the answer is lost, or the bridge is killed
            if self._random.random() < 0.5:
                self._session = Session(self._disk, self._world.window)
            self._uncommitted.append(Group(0, self._session.connecting(), [], b""))
            self._commit()
            had_session = self._broker.connect()
        notes = self._session.connected(had_session, self._world.window)
        self._is_reading = had_session
        self._uncommitted.append(Group(self._connection, notes, [], b""))
        first = self._broker.first_ids()
        self._is_proven = bool(first) and self._session.is_proven and min(first) > 3
        self._proven += self._is_proven

    def _publish(self, count: int) -> None:
        for _ in range(count):
            payload = bytes(bytearray(b"alike %d" % self._random.randrange(self._world.contents)))
            self._published[id(payload)] = payload
            self._broker.queue.append(Delivery(payload, self._random.choice(self._world.qos)))

    def _read(self, count: int) -> None:
        """Let the bridge take packets, unless it waits for a commit."""
        if not self._is_reading or not self._broker.sent:
            return
        taken = [self._broker.sent.popleft() for _ in range(min(count, len(self._broker.sent)))]
        received = self._session.receive(taken, 0, 0)
        payloads = [entry[4] for entry in received.entries]
        self._uncommitted.append(Group(self._connection, received.notes, payloads, received.acknowledgements))
        self._is_reading = False

    def _commit(self) -> None:
        """Put what is not committed yet on disk; acknowledge it if its connection still stands."""
        while self._uncommitted:
            group = self._uncommitted.popleft()
            for key, value in group.notes:
                self._disk.pop(key, None)
                if value is not None:
                    self._disk[key] = value
            for payload in group.payloads:
                before = self._stored.get(id(payload), 0)
                self._stored[id(payload)] = before + 1
                self._doubled_though_proven += bool(before) and self._is_proven
            if group.connection == self._connection:
                self._acknowledge(group)

    def _acknowledge(self, group: Group) -> None:
        data = group.acknowledgements
        for start in range(0, len(data), 4):
            self._broker.arriving.append((data[start], int.from_bytes(data[start + 2 : start + 4], "big")))
        self._is_reading = True
        if data:
            self._session.acknowledged()
            if self._session.ask():
                self._broker.arriving.append(PINGREQ)
