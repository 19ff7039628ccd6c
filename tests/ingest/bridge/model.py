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

from amqtt_db.ingest.bridge.packets import NO_PROPERTIES, Pingresp, Publish, Pubrel, Suback
from amqtt_db.ingest.bridge.session import Note, Session

Ids = Literal["round", "lowest", "last freed", "renumbered"]
"""How a broker chooses packet ids: Mosquitto, EMQX, VerneMQ; HiveMQ; nobody known; RabbitMQ, rumqttd."""

PINGREQ = (0xC0, 0)
SUBSCRIBE = (0x82, 0)
GRANTED = "granted"
"""The key of the bridge's note that it is subscribed."""


@attrs.frozen
class World:
    """What does not change during a history.

    ``window`` is what the bridge asks for, ``in_flight`` what the broker allows: more, if it does not listen.
    A broker that ``resends_late``, as NATS does, first sends new messages on a new connection.  One that
    ``forgets_pubrec``, as Mosquitto may, sends messages of QoS 2 again that the bridge has released.
    Its ids begin again after ``last_id``, as MQTT has it, or earlier: after ``ring``.  If it ``restarts``, as NATS
    does, it keeps sessions, but counts from 1 and gives new ids to what was not received yet.
    ``trouble`` is the probability of a crash in a step.
    """

    ids: Ids
    qos: tuple[int, ...] = (1,)
    sets_dup: bool = True
    window: int = 5
    in_flight: int = 5
    last_id: int = 65535
    ring: int = 65535
    start_id: int = 1
    contents: int = 1
    trouble: float = 0.05
    retries: bool = False
    resends_late: bool = False
    forgets_pubrec: bool = False
    loses_sessions: bool = False
    restarts: bool = False
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

    @property
    def _last_id(self) -> int:
        return min(self._world.ring, self._world.last_id)

    def _start(self) -> None:
        self.queue: deque[Delivery] = deque()
        self.in_flight: list[Delivery] = []
        self.sent: deque[Publish | Pubrel | Pingresp | Suback] = deque()  # on their way to the bridge
        self.arriving: deque[tuple[int, int]] = deque()  # on their way from the bridge
        self.has_session = self.is_subscribed = False
        self._late: deque[Delivery] = deque()  # what this connection still has to send again
        self._next_id = 1
        self._freed = list(range(self._last_id, 0, -1))

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

    def forget(self) -> list[Delivery]:
        """Lose the session; return what was lost with it."""
        lost = [*self.in_flight, *self.queue]
        self._start()
        return lost

    def restart(self) -> None:
        """Count from 1; only what was received keeps its id."""
        self._next_id = 1
        for delivery in self.in_flight:
            delivery.packet_id *= delivery.received

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
            if head == SUBSCRIBE:
                self.is_subscribed = True
                self.sent.append(Suback(1, (2,)))
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
            self._next_id = self._next_id % self._last_id + 1
        packet_id = self._next_id
        self._next_id = packet_id % self._last_id + 1
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
        self._is_proven = self._is_reading = self._is_begun = self._is_streaming = False
        self._connect()

    def play(self) -> Result:
        """Play it to its end: without more trouble, until everything is delivered and acknowledged."""
        for _ in range(self._world.steps):
            if self._random.random() < self._world.trouble:
                self._trouble()
            else:
                self._step()
        self._settle()
        self._broker.is_subscribed = self._publish(3, anyway=True)
        self._settle()
        counts = [self._stored.get(one, 0) for one in self._published]
        return Result(
            len(counts), counts.count(0), sum(count - 1 for count in counts if count), self._doubled_though_proven,
            self._proven,
        )  # fmt: skip

    def _settle(self) -> None:
        broker = self._broker
        while broker.arriving or broker.queue or broker.in_flight or self._uncommitted or broker.sent:
            broker.write()
            broker.resend(self._world.in_flight)
            self._commit()
            self._read(len(broker.sent))
            self._commit()
            broker.read(len(broker.arriving))

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
        if self._world.restarts and self._random.random() < 0.3:
            self._broker.restart()
        self._connect()

    def _connect(self) -> None:
        had_session = self._ask_for_connection()
        while self._random.random() < self._world.trouble:  # the answer is lost, or the bridge is killed
            if self._random.random() < 0.5:
                self._session = Session(self._disk, self._world.window)
            had_session = self._ask_for_connection()
        notes = self._session.connected(had_session, self._world.window)
        self._is_reading = had_session
        self._is_begun = self._is_streaming = self._is_proven = False
        self._uncommitted.append(Group(self._connection, [*notes, *self._forget_filters()], [], b""))
        if self._session.is_doubtful:
            self._broker.arriving.append(PINGREQ)
        elif had_session:
            self._subscribe()

    def _ask_for_connection(self) -> bool:
        """Send CONNECT, once everything is on disk; return whether the broker had a session."""
        self._connection += 1
        self._uncommitted.append(Group(0, self._session.connecting(), [], b""))
        self._commit()
        return self._broker.connect()

    def _forget_filters(self) -> list[Note]:
        """Return a note for the first commit in a new session."""
        is_new = not (self._is_streaming or self._session.is_resumed or self._session.is_doubtful)
        return [(GRANTED, None)] if is_new else []

    def _subscribe(self) -> None:
        self._is_streaming = True
        if GRANTED not in self._disk:
            self._broker.arriving.append(SUBSCRIBE)

    def _publish(self, count: int, *, anyway: bool = False) -> bool:
        """Publish what the broker queues for its subscriber; return whether there is one.

        Without one, it counts as published only if the bridge should be subscribed ``anyway``.
        """
        is_subscribed = self._broker.is_subscribed
        for _ in range(count if is_subscribed or anyway else 0):
            payload = bytes(bytearray(b"alike %d" % self._random.randrange(self._world.contents)))
            self._published[id(payload)] = payload
            if is_subscribed:
                self._broker.queue.append(Delivery(payload, self._random.choice(self._world.qos)))
        return is_subscribed

    def _read(self, count: int) -> None:
        """Let the bridge take packets, unless it waits for a commit."""
        if not self._is_reading or not self._broker.sent:
            return
        taken = [self._broker.sent.popleft() for _ in range(min(count, len(self._broker.sent)))]
        messages = [one for one in taken if not isinstance(one, Suback)]
        was_proven = self._session.is_proven
        received = self._session.receive(messages, 0, 0)
        if not self._is_begun and self._session.counts_again is not None:
            self._is_begun = True
            self._is_proven = was_proven and not self._session.counts_again
            self._proven += self._is_proven
        notes = [*received.notes, *self._forget_filters()]
        if len(messages) < len(taken):
            notes.append((GRANTED, b""))
        payloads = [entry[4] for entry in received.entries]
        self._uncommitted.append(Group(self._connection, notes, payloads, received.acknowledgements))
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
        if not (self._is_streaming or self._session.is_doubtful or self._uncommitted):
            self._subscribe()
        if data:
            self._session.acknowledged()
            if self._session.ask():
                self._broker.arriving.append(PINGREQ)
