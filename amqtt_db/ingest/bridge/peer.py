"""What the bridge's connection shares with the one for `check`: how it ends, and what refusals mean."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Final

import attrs

from amqtt_db.ingest.bridge import packets
from amqtt_db.ingest.bridge.packets import V5, Connack, Disconnect, Version

_UNSUPPORTED: Final = (0x01, 0x84)
_TAKEN_OVER: Final = 0x8E
_MAKE_PEACE: Final = "stop that one, or set another `client_id` here"
_CONNECT_REFUSALS: Final = {
    0x02: "does not accept the client id", 0x85: "does not accept the client id",
    0x03: "is not available", 0x88: "is not available", 0x89: "is busy",
    0x04: "does not accept user name and password", 0x86: "does not accept user name and password",
    0x05: "does not allow this client in: check user name and password",
    0x87: "does not allow this client in: check user name and password",
    0x8A: "has banned this client", 0x95: "rejects a packet as too large", 0x97: "reports that a quota is exceeded",
    0x9F: "reports too many connections",
}  # fmt: skip


@attrs.frozen
class Ending:
    """The end of a connection; its ``reason`` completes "the broker …".

    ``is_older`` if the broker may know only another version of MQTT, ``is_rival`` if another client has taken over,
    ``is_unexplained`` if the broker has closed a working connection without saying why.
    """

    reason: str
    is_older: bool = False
    is_rival: bool = False
    is_unexplained: bool = False


class Peer(asyncio.Protocol):
    """A client's side of a connection to a broker."""

    @abstractmethod
    def end(self, ending: Ending) -> None:
        """Close the connection; the first reason given counts."""


def mqtt_name(version: Version) -> str:
    """Return the version of MQTT as people write it."""
    return "5" if version == V5 else "3.1.1"


def explain_refusal(connack: Connack, version: Version) -> Ending:
    """Return what a CONNACK with a code other than 0 means."""
    is_older = connack.code in _UNSUPPORTED
    reason = _CONNECT_REFUSALS.get(connack.code, f"refuses the connection with code 0x{connack.code:02x}")
    return Ending(
        _with_words(f"does not speak MQTT {mqtt_name(version)}" if is_older else reason, connack), is_older=is_older
    )


def explain_disconnect(packet: Disconnect, client_id: str) -> Ending:
    """Return why a broker sent DISCONNECT."""
    is_rival = packet.code == _TAKEN_OVER
    reason = f"ended the connection with code 0x{packet.code:02x}"
    if is_rival:
        reason = f"has another client with the client id {client_id}, which has taken over: {_MAKE_PEACE}"
    return Ending(_with_words(reason, packet), is_rival=is_rival)


def suspect_rival(client_id: str) -> Ending:
    """Return the probable reason why a broker closes several connections soon after they are made."""
    reason = f"closes connections soon after they are made: another client may use the client id {client_id}"
    return Ending(f"{reason}; {_MAKE_PEACE}", is_rival=True)


def _with_words(reason: str, packet: Connack | Disconnect) -> str:
    """Return a reason followed by the broker's own words."""
    said = packet.properties.get(packets.REASON)
    return f"{reason} ({said})" if said else reason
