"""One connection to a broker: handshake, subscription, and messages, which are acknowledged once they are on disk."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from functools import partial
from ssl import SSLError
from time import monotonic, time_ns
from typing import Final, cast

import orjson

from amqtt_db.config.broker import BrokerSettings
from amqtt_db.ingest.bridge import packets
from amqtt_db.ingest.bridge.linger import FETCH_SECONDS, Linger
from amqtt_db.ingest.bridge.packet_reader import PacketReader
from amqtt_db.ingest.bridge.packets import (
    V5,
    Connack,
    Disconnect,
    MalformedPacket,
    Packet,
    Pingresp,
    Publish,
    Pubrel,
    Suback,
    Version,
)
from amqtt_db.ingest.bridge.peer import Ending, Peer, explain_disconnect, explain_refusal, mqtt_name
from amqtt_db.ingest.bridge.session import Note, Received, Session
from amqtt_db.ingest.bridge.subscription import Subscription
from amqtt_db.ingest.bridge.tls import describe_failure, suspect_tls
from amqtt_db.ingest.bridge.transport import acknowledge_bytes
from amqtt_db.ingest.group_commit import GroupCommit
from amqtt_db.message import CONNECT, DISCONNECT, flags

logger = logging.getLogger(__name__)

_LONGEST_PING_PAUSE: Final = 1.0  # seconds without reading, after which pings have to be answered
_GREETING_SECONDS: Final = 5.0

VERSION_NOTE: Final = "version"
"""The key of a session's note on the version of MQTT that the broker speaks."""


class BrokerConnection(Peer):
    """One connection; use a new one for each attempt.  ``ended`` is done when the connection has ended."""

    def __init__(
        self,
        settings: BrokerSettings,
        version: Version,
        session: Session,
        subscription: Subscription,
        group_commit: GroupCommit,
        max_payload: int = packets.LARGEST_PACKET,
    ) -> None:
        """Messages with payloads of more than ``max_payload`` bytes are not stored."""
        self.ended: asyncio.Future[Ending] = asyncio.get_running_loop().create_future()
        self.is_streaming = False
        self._settings = settings
        self._version = version
        self._session = session
        self.subscription = subscription
        self._group_commit = group_commit
        self._max_payload = max_payload
        self._reader = PacketReader(version, most_payload=max_payload)
        self._transport: asyncio.Transport | None = None
        self._is_asked = False
        self._is_greeted = False
        self._position = 0
        self._waiting: list[Publish | Pubrel | Pingresp] = []
        self._committing: asyncio.Future[None] | None = None
        self._linger = Linger(settings.window if version == V5 else 0, monotonic())
        self._lingering: asyncio.TimerHandle | None = None
        self._paused_at: float | None = None
        self._pings = 0  # PINGREQs without an answer yet
        self._keep_alive = settings.keep_alive
        self._sent_at = self._received_at = monotonic()

    @property
    def is_working(self) -> bool:
        """True while messages can arrive."""
        return self.is_streaming and not self.ended.done()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT, once a note is on disk that it was sent."""
        self._transport = cast(asyncio.Transport, transport)
        self._remember(self._session.connecting())
        self._when_done(self._group_commit.extend(()), self._connect)

    def _connect(self) -> None:
        self._is_asked = True
        s = self._settings
        self._write(
            packets.connect(
                self._version, s.client_id, keep_alive=s.keep_alive, username=s.username, password=s.password,
                session_expiry=s.session, receive_maximum=s.window,
            )
        )  # fmt: skip

    def data_received(self, data: bytes) -> None:
        """Take packets."""
        self._received_at = monotonic()
        try:
            arrived = self._reader.feed(data)
            if self.ended.done():
                return
            for packet in arrived:
                if isinstance(packet, Publish) and self._is_greeted:  # nearly all: a check for more types is slower
                    self._waiting.append(packet)
                else:
                    self._take_other(packet)
        except MalformedPacket as error:
            hint = "" if self._is_greeted else suspect_tls(self._settings)
            self.end(Ending(f"sent what MQTT forbids ({error}){hint}"))
            return
        if self._waiting and self._committing is None:
            self._take_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        """Note the end; nothing more is acknowledged."""
        said = f" ({exc})" if exc is not None and str(exc) else ""
        if isinstance(exc, SSLError):
            self.end(Ending(describe_failure(exc)))
        elif self._is_greeted:
            self.end(Ending(f"closed the connection{said}", is_unexplained=True))
        else:
            hint = suspect_tls(self._settings)
            self.end(Ending(f"closed the connection without an answer to CONNECT{said}{hint}", is_older=True))

    def end(self, ending: Ending) -> None:
        """Close the connection; the first reason given counts."""
        self._drop_waiting()
        if self._transport is not None:
            self._transport.close()
        if not self.ended.done():
            self.ended.set_result(ending)
            if self._position:
                self._group_commit.append(flags(DISCONNECT), time_ns() // 1000, self._position, b"", b"")

    async def close(self) -> None:
        """Acknowledge what is being committed, send DISCONNECT, and close; the broker keeps the session."""
        if self._transport is not None and not self.ended.done():
            self._pause()
            self._drop_waiting()
            if self._committing is not None:
                await asyncio.wait([self._committing], timeout=_LONGEST_PING_PAUSE)
                await asyncio.sleep(0)  # the acknowledgements are written by a callback of that future
            self._write(packets.disconnect(self._version))
        self.end(Ending("was left"))

    def subscribe_again(self) -> None:
        """Ask for another QoS, if the broker has been found to need that."""
        if self.is_working and self.subscription.needs_other_qos(self._version):
            self._request(is_resumed=True)

    def publish(self, topic: str, payload: bytes) -> None:
        """Publish a message with QoS 0, if the connection works."""
        if self.is_working:
            self._write(packets.publish(self._version, topic, payload))

    def tick(self) -> None:
        """Do the periodic work: send pings, detect a dead connection, and go on when the journal has room again."""
        now = monotonic()
        if self._paused_at is not None and now - self._paused_at > _LONGEST_PING_PAUSE:
            self._resume()
        if self._waiting and self._committing is None and self._lingering is None:
            self._take()
        if self._is_asked and not self._is_greeted and now - self._sent_at > _GREETING_SECONDS:
            self.end(Ending(f"has not answered CONNECT within {_GREETING_SECONDS:g} s", is_older=True))
        if not self._is_greeted or not self._keep_alive:
            return
        if self._paused_at is None and now - self._received_at > 1.5 * self._keep_alive:
            self.end(Ending(f"has been silent for {1.5 * self._keep_alive:g} s"))
        elif now - self._sent_at >= 0.5 * self._keep_alive:
            self._ping()

    def _take_other(self, packet: Packet) -> None:
        """Take a packet other than a message."""
        if isinstance(packet, Pubrel) and self._is_greeted:
            self._waiting.append(packet)
        elif isinstance(packet, Pingresp) and self._is_greeted:
            self._take_pong(packet)
        else:
            self._control(packet)

    def _control(self, packet: Packet) -> None:
        if isinstance(packet, Connack) and not self._is_greeted:
            self._greeted(packet)
        elif isinstance(packet, Suback):
            self.subscription.answered(packet)
            self._group_commit.extend(())
        elif isinstance(packet, Disconnect):
            self.end(explain_disconnect(packet, self._settings.client_id))
        elif not self._is_greeted:
            raise MalformedPacket("the first packet is not CONNACK")

    def _greeted(self, connack: Connack) -> None:
        if connack.code:
            self._remember(self._session.refused())
            self.end(explain_refusal(connack, self._version))
            return
        if self._settings.group is not None and not connack.properties.get(packets.SHARED_AVAILABLE, 1):
            self.end(Ending("offers no shared subscriptions: leave out `group`, and let one bridge store everything"))
            return
        self._is_greeted = True
        self._keep_alive = connack.properties.get(packets.SERVER_KEEP_ALIVE, self._keep_alive)
        settings = self._settings
        granted = connack.properties.get(packets.SESSION_EXPIRY, settings.session)
        if granted < settings.session:
            logger.warning("%s: the broker keeps the session for %d s, not %d s", settings.url, granted,
                           settings.session)  # fmt: skip
        skip = settings.retained == "ignore" and self._version != V5
        self._remember(self._session.connected(connack.session_present, settings.window, skip_retained=skip))
        self._group_commit.remember(self.subscription.scope, VERSION_NOTE, bytes((self._version,)))
        self._position = self._group_commit.position
        committed = self._group_commit.append(flags(CONNECT), time_ns() // 1000, 0, b"", self._details())
        if self._session.is_doubtful:
            self._ping()
        elif connack.session_present:
            self._subscribe()
        else:
            self.subscription.lose()
            # The ids of the earlier session must be forgotten before messages of this one come.
            self._when_done(committed, self._subscribe)

    def _subscribe(self) -> None:
        if self.is_streaming:
            return
        self._request(self._session.is_resumed)
        self.is_streaming = True
        kept = "the session was kept" if self._session.is_resumed else "with a new session"
        logger.info("%s: connected with MQTT %s, %s", self._settings.url, mqtt_name(self._version), kept)

    def _request(self, is_resumed: bool) -> None:
        for data in self.subscription.requests(self._version, is_resumed):
            self._write(data)

    def _details(self) -> bytes:
        settings = self._settings
        return orjson.dumps(
            {
                "client_id": settings.client_id, "username": settings.username, "address": settings.host,
                "port": settings.port, "keep_alive": self._keep_alive, "clean_session": False,
            }
        )  # fmt: skip

    def _take_soon(self) -> None:
        """Take what is waiting, or let it wait a little for more."""
        if not self._linger.allows(len(self._waiting)):
            self._take()
        elif self._lingering is None:
            self._lingering = asyncio.get_running_loop().call_later(self._linger.seconds - FETCH_SECONDS, self._fetch)

    def _fetch(self) -> None:
        """Let the broker send what it holds back, and take everything as soon as that has come."""
        if self._transport is not None:
            acknowledge_bytes(self._transport)
        self._lingering = asyncio.get_running_loop().call_later(FETCH_SECONDS, self._take)

    def _drop_waiting(self) -> None:
        """Leave to the broker what it will redeliver, and take the rest."""
        self._waiting = [packet for packet in self._waiting if isinstance(packet, Publish) and not packet.qos]
        if self._waiting:
            self._take()
        self._stop_lingering()

    def _stop_lingering(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None

    def _take(self) -> None:
        """Journal what is waiting; if the journal is full, neither take nor acknowledge it."""
        self._stop_lingering()
        if self._group_commit.blocked:
            kept = [packet for packet in self._waiting if not isinstance(packet, Publish) or packet.qos]
            for _ in range(len(self._waiting) - len(kept)):
                self._group_commit.refuse()
            self._waiting = kept
            return
        taken, self._waiting = self._waiting, []
        received = self._session.receive(taken, time_ns() // 1000, self._position)
        if self._max_payload < packets.LARGEST_PACKET:
            self.subscription.refuse(packet for packet in taken if isinstance(packet, Publish) and packet.left_out)
        self._linger.note(len(taken), len(received.acknowledgements) // packets.ACKNOWLEDGEMENT_SIZE, monotonic())
        self._remember(received.notes)
        if not (self.is_streaming or self._session.is_resumed or self._session.is_doubtful):
            self.subscription.suspect()
        self._committing = self._group_commit.extend(received.entries)
        self._committing.add_done_callback(partial(self._committed, received))
        self._pause()

    def _remember(self, notes: Iterable[Note]) -> None:
        for key, value in notes:
            self._group_commit.remember(self.subscription.scope, key, value)

    def _committed(self, received: Received, future: asyncio.Future[None]) -> None:
        self._committing = None
        if future.cancelled() or self.ended.done():
            return
        self._write(received.acknowledgements)
        if not (self.is_streaming or self._session.is_doubtful):
            self._subscribe()
        self._session.acknowledged()
        if not self._pings and self._session.ask():
            self._ping()
        self.subscription.count(received)
        if self._waiting:
            self._take()
        if self._committing is None:
            rest = self._linger.rest(monotonic())
            if rest:
                asyncio.get_running_loop().call_later(rest, self._resume)
            else:
                self._resume()

    def _when_done(self, committed: asyncio.Future[None], go_on: Callable[[], None]) -> None:
        """Go on once something is on disk, unless the connection has ended."""

        def check(future: asyncio.Future[None]) -> None:
            if not future.cancelled() and not self.ended.done():
                go_on()

        committed.add_done_callback(check)

    def _ping(self) -> None:
        self._pings += 1
        self._write(packets.PINGREQ)

    def _take_pong(self, packet: Pingresp) -> None:
        """Note an answer to a PINGREQ; the session learns from the one to its own, which is the first to come."""
        self._pings = max(0, self._pings - 1)
        if self._session.is_asking:
            self._waiting.append(packet)

    def _write(self, data: bytes) -> None:
        if data and self._transport is not None:
            self._transport.write(data)
            self._sent_at = monotonic()

    def _pause(self) -> None:
        """Read nothing during a commit, so that the next read brings many messages."""
        if self._paused_at is None and self._transport is not None:
            self._transport.pause_reading()
            self._paused_at = monotonic()

    def _resume(self) -> None:
        if self._paused_at is not None and self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
            self._received_at = monotonic()
        self._paused_at = None
