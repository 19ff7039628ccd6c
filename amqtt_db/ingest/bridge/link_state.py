"""The state of the connection to each broker, kept in the journal so that `status` can show it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Final

import attrs
import orjson

LINK_SCOPE: Final = "bridge brokers"
"""The scope of the journal's notes about connections; a note's key is the scope of the broker's session."""


@attrs.frozen
class LinkState:
    """Whether a broker is connected, and since when; the counts start with the bridge's process.

    ``recognized`` messages were redelivered and not stored again; ``unproven`` ones may be stored twice.
    """

    url: str
    is_connected: bool
    since: datetime
    connections: int = 0
    recognized: int = 0
    unproven: int = 0

    def encode(self) -> bytes:
        """Return the note for this state."""
        return orjson.dumps(attrs.asdict(self))


def decode_states(notes: Mapping[str, bytes]) -> tuple[LinkState, ...]:
    """Return the states in notes, sorted by URL."""
    found = [orjson.loads(note) for note in notes.values()]
    states = [LinkState(**{**one, "since": datetime.fromisoformat(one["since"])}) for one in found]
    return tuple(sorted(states, key=lambda state: state.url))


def next_state(before: LinkState | None, url: str, is_connected: bool, *counts: int) -> LinkState:
    """Return the new state; ``counts``: connections, recognized and unproven messages."""
    since = before.since if before is not None and before.is_connected == is_connected else _now()
    return LinkState(url, is_connected, since, *counts)


def _now() -> datetime:
    return datetime.now(timezone.utc).replace(microsecond=0)
