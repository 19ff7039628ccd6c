"""Asking a broker what it grants, with a separate client id and a temporary session."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from ssl import SSLError
from typing import Final, cast

import attrs

from amqtt_db.config.broker import BrokerSettings
from amqtt_db.ingest.bridge import packets
from amqtt_db.ingest.bridge.packet_reader import PacketReader
from amqtt_db.ingest.bridge.packets import (
    V5,
    V311,
    Connack,
    Disconnect,
    MalformedPacket,
    Packet,
    Properties,
    Publish,
    Suback,
    Version,
)
from amqtt_db.ingest.bridge.peer import Ending, Peer, explain_disconnect, explain_refusal
from amqtt_db.ingest.bridge.tls import describe_failure, suspect_tls
from amqtt_db.ingest.bridge.transport import open_transport
from amqtt_db.ingest.waiting import wait_within

_ANSWER_SECONDS: Final = 5.0
_COUNTER_SECONDS: Final = 0.5
DROPPED: Final = "$SYS/broker/publish/messages/dropped"
_SOFTWARE: Final = "$SYS/broker/version"


@attrs.frozen
class Grant:
    """A broker's answer: ``properties`` of its CONNACK, and a QoS, or a code from 0x80 on, for each filter.

    ``dropped`` is how many messages it has dropped for all its clients since it started, None if it does not say.
    ``software`` is what it calls itself, such as ``mosquitto version 2.0.11``, empty if it does not say.
    """

    version: Version
    properties: Properties
    codes: Mapping[str, int]
    dropped: int | None = None
    software: str = ""


async def ask_broker(settings: BrokerSettings, filters: Sequence[str]) -> Grant | Ending:
    """Return what a broker grants to the bridge, or why there is no connection, without disturbing a running bridge."""
    return await ask_with(lambda version: Probe(settings, version, filters), settings)


async def ask_with(make: Callable[[Version], Probe], settings: BrokerSettings) -> Grant | Ending:
    """Return the answer to a probe that ``make`` makes for a version of MQTT: one that the broker speaks."""
    versions: Sequence[Version] = {"5": (V5,), "3.1.1": (V311,), "auto": (V5, V311)}[settings.protocol]
    answer: Grant | Ending = Ending("was not asked")
    for version in versions:
        answer = await _ask_once(make(version), settings)
        if isinstance(answer, Grant) or not answer.is_older:
            break
    return answer


async def _ask_once(probe: Probe, settings: BrokerSettings) -> Grant | Ending:
    unreachable = await open_transport(settings, probe)
    if unreachable is not None:
        return unreachable
    try:
        return await wait_within(probe.answer, probe.patience)
    except asyncio.TimeoutError:
        ending = Ending(f"has not answered within {probe.patience:g} s", is_older=not probe.is_greeted)
        probe.end(ending)
        return ending


class Probe(Peer):
    """Connects, subscribes and disconnects; then ``answer`` is done, after ``patience`` seconds at most."""

    patience = _ANSWER_SECONDS
    asks_for_retained = False

    def __init__(self, settings: BrokerSettings, version: Version, filters: Sequence[str]) -> None:
        self.answer: asyncio.Future[Grant | Ending] = asyncio.get_running_loop().create_future()
        self._settings = settings
        self._version = version
        self._filters = filters
        self._reader = PacketReader(version)
        self._transport: asyncio.Transport | None = None
        self._connack: Connack | None = None
        self._grant: Grant | None = None

    @property
    def is_greeted(self) -> bool:
        """True once the broker has let the client in."""
        return self._connack is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send CONNECT, as the bridge would, with another client id."""
        self._transport = cast(asyncio.Transport, transport)
        s = self._settings
        self._transport.write(
            packets.connect(
                self._version, probe_id(s.client_id), keep_alive=s.keep_alive, username=s.username,
                password=s.password, session_expiry=s.session, receive_maximum=s.window, clean=True,
            )
        )  # fmt: skip

    def data_received(self, data: bytes) -> None:
        """Take the broker's answers; ignore messages."""
        try:
            for packet in self._reader.feed(data):
                if not self.answer.done():
                    self._take_answer(packet)
        except MalformedPacket as error:
            hint = "" if self.is_greeted else suspect_tls(self._settings)
            self.end(Ending(f"sent what MQTT forbids ({error}){hint}"))

    def connection_lost(self, exc: Exception | None) -> None:
        """Note an early end."""
        if self._grant is not None:  # some brokers disconnect when asked for what they do not publish
            self._finish(self._grant)
        elif isinstance(exc, SSLError):
            self.end(Ending(describe_failure(exc)))
        else:
            hint = "" if self.is_greeted else suspect_tls(self._settings)
            self.end(Ending(f"closed the connection without an answer{hint}", is_older=not self.is_greeted))

    def end(self, ending: Ending) -> None:
        """Close the connection; the first reason given counts."""
        self._finish(ending)

    def _take_answer(self, packet: Packet) -> None:
        if isinstance(packet, Connack) and packet.code:
            self.end(explain_refusal(packet, self._version))
        elif isinstance(packet, Connack) and self._transport is not None:
            self._connack = packet
            handling = 2 if self._version == V5 and not self.asks_for_retained else 0
            self._transport.write(packets.subscribe(self._version, 1, self._filters, self._settings.qos, handling))
        elif isinstance(packet, Suback) and self._connack is not None and self._grant is None:
            codes = dict(zip(self._filters, packet.codes, strict=False))
            self._grant = Grant(self._version, self._connack.properties, codes)
            self.take_grant(self._grant)
        elif isinstance(packet, Publish):
            self.take_message(packet)
        elif isinstance(packet, Disconnect) and self._grant is None:
            self.end(explain_disconnect(packet, probe_id(self._settings.client_id)))

    def take_grant(self, grant: Grant) -> None:
        """Ask for the broker's name and the number of dropped messages; if that does not come soon, disconnect."""
        if self._transport is not None:
            self._transport.write(packets.subscribe(self._version, 2, [_SOFTWARE, DROPPED], 0))
            asyncio.get_running_loop().call_later(_COUNTER_SECONDS, lambda: self.leave(self._grant or grant))

    def take_message(self, message: Publish) -> None:
        """Take the broker's name, and after it the number of dropped messages."""
        said = message.payload.decode("ascii", "replace")
        if self._grant is not None and message.topic == _SOFTWARE.encode():
            self._grant = attrs.evolve(self._grant, software=said)
        elif self._grant is not None and message.topic == DROPPED.encode():
            self.leave(attrs.evolve(self._grant, dropped=int(said) if said.isdecimal() else None))

    def leave(self, grant: Grant) -> None:
        """End the session and the connection."""
        if self._transport is not None and not self.answer.done():
            self._transport.write(packets.disconnect(self._version, ends_session=True))
        self._finish(grant)

    def _finish(self, answer: Grant | Ending) -> None:
        if not self.answer.done():
            self.answer.set_result(answer)
        if self._transport is not None:
            self._transport.close()


def probe_id(client_id: str) -> str:
    """Return the client id for a probe, always the same, so that an interrupted probe leaves nothing behind."""
    return f"amqttdbcheck{hashlib.blake2b(client_id.encode(), digest_size=5).hexdigest()}"
