"""A snapshot of what the process that accepts messages knows."""

from __future__ import annotations

import attrs

from amqtt_db.ingest.bridge.link_state import LinkState
from amqtt_db.journal.report import Distribution


@attrs.frozen
class Intake:
    """Counts of this process, with two exceptions: ``refused`` and ``denied`` are those of all owners of the journal.

    ``clients`` is the number of connected clients, None for a bridge, which has ``links`` instead.  The journal accepts
    no messages while it ``is_blocked``.  ``delays`` are the seconds that groups of messages waited for their commit.
    """

    received: int
    refused: int
    restarts: int
    journal_bytes: int
    is_blocked: bool
    denied: int | None = None
    repeated: int = 0
    logins_failed: int | None = None
    clients: int | None = None
    links: tuple[LinkState, ...] = ()
    delays: Distribution | None = None
