"""The transport to a broker: TCP, with TLS and WebSocket if its URL says so."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Final

from amqtt_db.config.broker import BrokerSettings
from amqtt_db.ingest.bridge.peer import Ending, Peer
from amqtt_db.ingest.bridge.tls import NO_TLS, WITH_TLS, describe_failure, tls_context
from amqtt_db.ingest.waiting import wait_within

_CONNECT_SECONDS: Final = 15.0
_QUICKACK: Final[int | None] = getattr(socket, "TCP_QUICKACK", None)  # Linux


async def open_transport(settings: BrokerSettings, peer: Peer) -> Ending | None:
    """Connect ``peer`` to a broker; return None, or why that failed."""
    loop = asyncio.get_running_loop()
    try:
        context = tls_context(settings)
        opening = loop.create_connection(lambda: _over(peer, settings), settings.host, settings.port, ssl=context)
        await wait_within(opening, _CONNECT_SECONDS)
    except (OSError, asyncio.TimeoutError, UnicodeError) as error:
        is_cut_off = isinstance(error, ConnectionResetError) and settings.scheme in WITH_TLS
        return Ending(NO_TLS if is_cut_off else describe_failure(error))
    return None


def acknowledge_bytes(transport: asyncio.BaseTransport) -> None:
    """Acknowledge at once, on the level of TCP, what was received.

    By Nagle's algorithm, which Mosquitto uses unless told otherwise, the other side holds back small packets until
    then, and the system waits for up to 40 ms for something to send with the acknowledgement.
    """
    connection = transport.get_extra_info("socket")
    if _QUICKACK is not None and connection is not None:
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, _QUICKACK, 1)


def _over(peer: Peer, settings: BrokerSettings) -> asyncio.Protocol:
    """Return the protocol for a transport to a broker: the peer itself, or a WebSocket around it."""
    if settings.scheme not in ("ws", "wss"):
        return peer
    from amqtt_db.ingest.bridge.websocket import WebSocket  # noqa: PLC0415 - few need it, and it takes time to import

    return WebSocket(peer, settings.url)
