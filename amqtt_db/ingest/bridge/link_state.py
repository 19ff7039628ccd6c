"""The state of the connection to each broker, kept in the journal so that `status` can show it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Final

import attrs
import orjson

LINK_SCOPE: Final = "bridge brokers"
"""The scope of the journal's notes about connections; a note's key is the scope of the broker's session."""


_TIME_FIELDS: Final = ("since", "lost_at", "lost_since")


@attrs.frozen
class LinkState:
    """Whether a broker is connected, and since when; the counts start with the bridge's process.

    ``recognized`` messages were redelivered and not stored again; ``unproven`` ones may be stored twice.

    The rest outlives the process.  ``dropped`` messages were dropped by the broker, for all its clients, since the
    bridge first looked at its ``drop_counter``.  ``codes`` are those of filters that are refused (from 128 on) or
    granted with a lower QoS.  ``lost_at`` is when the broker was last found to have lost the session, and
    ``lost_since`` when the connection before ended, if that is known.  ``software`` is what the broker calls itself.
    """

    url: str
    is_connected: bool
    since: datetime
    connections: int = 0
    recognized: int = 0
    unproven: int = 0
    dropped: int = 0
    drop_counter: int | None = None
    codes: Mapping[str, int] = attrs.field(factory=dict)
    lost_at: datetime | None = None
    lost_since: datetime | None = None
    software: str = ""

    def encode(self) -> bytes:
        """Return the note for this state."""
        return orjson.dumps(attrs.asdict(self))


def decode_states(notes: Mapping[str, bytes]) -> tuple[LinkState, ...]:
    """Return the states in notes, sorted by URL."""
    return tuple(sorted(map(decode_state, notes.values()), key=lambda state: state.url))


def decode_state(note: bytes) -> LinkState:
    """Return the state in a note; what only a later version of this program knows is left out."""
    known = attrs.fields_dict(LinkState)
    found = {name: value for name, value in orjson.loads(note).items() if name in known}
    times = {name: datetime.fromisoformat(found[name]) for name in _TIME_FIELDS if found.get(name) is not None}
    return LinkState(**{**found, **times})


def next_state(before: LinkState | None, url: str, is_connected: bool, counts: tuple[int, int, int]) -> LinkState:
    """Return the new state; ``counts``: connections, recognized and unproven messages."""
    since = before.since if before is not None and before.is_connected == is_connected else current_second()
    return LinkState(url, is_connected, since, *counts)


def current_second() -> datetime:
    """Return the time now, to the second."""
    return datetime.now(timezone.utc).replace(microsecond=0)
