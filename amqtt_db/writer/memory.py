"""What decoders remember, as one writer knows it: read when it is first needed, and changed by each commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog
from amqtt_db.database.decoder_memory import Remembered, read_memory, write_memory
from amqtt_db.writer.transaction import CheckpointMoved

MAX_REMEMBERED: Final = 64 * 2**20  # characters; if there are more, all are forgotten and read again


class DecoderMemory:
    """A cache of what is committed; another writer's changes are noticed when this one commits its own."""

    def __init__(self, catalog: Catalog, database: sa.Engine) -> None:
        self._catalog = catalog
        self._database = database
        self._known: dict[str, Remembered] = {}
        self._size = 0

    def recall(self, names: Iterable[str]) -> dict[str, str]:
        """Return what is remembered under some names."""
        if self._size > MAX_REMEMBERED:
            self._known.clear()
            self._size = 0
        wanted = set(names)
        unknown = wanted - self._known.keys()
        if unknown:
            with self._database.begin() as connection:
                found = read_memory(connection, self._catalog, unknown)
            self._learn({name: found.get(name, Remembered()) for name in unknown})
        return {name: text for name in wanted if (text := self._known[name].text) is not None}

    def write(self, connection: sa.Connection, changes: Mapping[str, str]) -> None:
        """Store what has changed, in the connection's transaction.

        Raises CheckpointMoved if another writer has changed it in the meantime.
        """
        if changes and not write_memory(connection, self._catalog, self._known, changes):
            raise CheckpointMoved

    def note_committed(self, changes: Mapping[str, str]) -> None:
        """Note that a transaction with these changes was committed."""
        known = {name: self._known.get(name, Remembered()).version for name in changes}
        self._learn({name: Remembered(text, known[name] + 1) for name, text in changes.items()})

    def _learn(self, news: Mapping[str, Remembered]) -> None:
        for name, new in news.items():
            old = self._known.get(name)
            self._size += len(new.text or "") - (len(old.text or "") if old else -len(name))
            self._known[name] = new
