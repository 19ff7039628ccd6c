"""The open connections, and their CONNECT and DISCONNECT entries in the journal."""

from __future__ import annotations

import logging
from time import time_ns
from typing import Any

import attrs
import orjson
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler
from amqtt.session import Session

from amqtt_db.ingest.broker.compat import has_ended
from amqtt_db.ingest.group_commit import GroupCommit
from amqtt_db.message import CONNECT, DISCONNECT, flags

logger = logging.getLogger(__name__)


@attrs.frozen(eq=False)
class Connection:
    """An open connection: the position of its CONNECT entry, its handler, and its session."""

    position: int
    handler: BrokerProtocolHandler
    session: Session

    @property
    def ended(self) -> bool:
        """True if it has ended, whether or not the broker has fired an event about it."""
        return has_ended(self.handler)


class Connections:
    """Journals connections as they open and close.

    A session can have one connection after another, or for a moment two when a client takes over its own session.
    amqtt reports an end by session only, sometimes after the next connection has begun, and sometimes not at all; so
    each connection is checked.
    """

    def __init__(self, group_commit: GroupCommit, keep_alive_grace: int = 0) -> None:
        """``keep_alive_grace``: seconds that the broker adds to each client's keep-alive time."""
        self._group_commit = group_commit
        self._grace = keep_alive_grace
        self._open: list[Connection] = []

    @property
    def count(self) -> int:
        """The number of open connections."""
        return len(self._open)

    def opened(self, session: Session, handler: BrokerProtocolHandler) -> int:
        """Journal a new connection; return the position of its CONNECT entry, or 0 if there is no memory for it."""
        self._close([connection for connection in self._open if connection.session is session])
        if self._group_commit.overwhelmed:
            return 0
        position = self._group_commit.position
        details = self._details(session, handler)
        self._append(CONNECT, 0, orjson.dumps(details))
        logger.info("client %r connected from %s:%s as user %r", session.client_id, details["address"],
                    details["port"], session.username)  # fmt: skip
        self._open.append(Connection(position, handler, session))
        return position

    def close_ended(self) -> None:
        """Journal the end of the connections that have ended."""
        self._close([connection for connection in self._open if connection.ended])

    def close_all(self) -> None:
        """Journal the end of all connections."""
        self._close(list(self._open))

    def _close(self, connections: list[Connection]) -> None:
        for connection in connections:
            self._open.remove(connection)
            self._append(DISCONNECT, connection.position, b"")
            logger.info("client %r disconnected", connection.session.client_id)

    def _append(self, kind: int, session: int, payload: bytes) -> None:
        self._group_commit.append(flags(kind), time_ns() // 1000, session, b"", payload)

    def _details(self, session: Session, handler: BrokerProtocolHandler) -> dict[str, Any]:
        peer = handler.writer.get_peer_info() if handler.writer is not None else None
        address, port = peer or (session.remote_address, session.remote_port)
        return {
            "client_id": session.client_id,
            "username": session.username,
            "address": address,
            "port": port,
            "keep_alive": max(0, session.keep_alive - self._grace),
            "clean_session": session.parent == 0 and bool(session.clean_session),
        }
