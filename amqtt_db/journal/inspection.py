"""Inspecting a journal: what it holds, what is wrong with it, and its messages for other programs.

Nothing here changes the journal or blocks its owner.
"""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import attrs
import orjson

from amqtt_db.errors import JournalError
from amqtt_db.journal import file as journal_file
from amqtt_db.journal.group import decode_group
from amqtt_db.journal.progress import Progress, read_progress
from amqtt_db.journal.salvage import readable
from amqtt_db.message import CONNECT, PUBLISH
from amqtt_db.record import EPOCH

_GENERATIONS: Final = """
SELECT opening.token, coalesce(min(entries.first), opening.first), coalesce(max(entries.first + count), opening.first),
       coalesce(sum(count), 0), coalesce(sum(messages), 0), coalesce(sum(size), 0)
FROM opening LEFT JOIN entries ON opening = number GROUP BY number ORDER BY number
"""
_ALL_GROUPS: Final = "SELECT first, count, opening, blob FROM entries ORDER BY first"


@attrs.frozen
class GenerationInfo:
    """The contents of one generation: positions from ``first`` up to ``end`` (excluded), bytes as in the file."""

    token: str
    first: int
    end: int
    entries: int
    messages: int
    bytes: int


@attrs.frozen
class JournalInfo:
    """The contents of a journal; ``progress`` is what its writer last reported, None if it never did."""

    path: Path
    generations: tuple[GenerationInfo, ...]
    refused: int
    progress: Progress | None

    @property
    def messages(self) -> int:
        """The number of messages in the journal, stored elsewhere or not."""
        return sum(generation.messages for generation in self.generations)

    @property
    def bytes(self) -> int:
        """The number of bytes that count towards ``max_size``."""
        return sum(generation.bytes for generation in self.generations)


def read_journal_info(path: Path) -> JournalInfo:
    """Return what the journal at ``path`` holds.  Raises JournalError if it cannot be read."""
    with closing(journal_file.connect_reader(path)) as connection, journal_file.explained(path):
        generations = tuple(GenerationInfo(*row) for row in connection.execute(_GENERATIONS))
        refused = connection.execute("SELECT value FROM meta WHERE name = 'refused'").fetchone()[0]
    return JournalInfo(path, generations, refused, read_progress(path))


def find_problems(path: Path) -> Iterator[str]:
    """Yield what is wrong with the journal at ``path``: damaged pages and groups, missing positions.

    Raises JournalError if it is not a journal.
    """
    with closing(journal_file.connect_reader(path)) as connection:
        try:
            yield from (text for (text,) in connection.execute("PRAGMA quick_check") if text != "ok")
            yield from _group_problems(connection)
        except sqlite3.DatabaseError as error:
            yield f"the rest cannot be read: {error}"


def _group_problems(connection: sqlite3.Connection) -> Iterator[str]:
    behind, before = 0, None
    for first, count, generation, blob in connection.execute(_ALL_GROUPS):
        if generation == before and first != behind:
            yield f"positions {behind} to {first - 1} are missing"
        behind, before = first + count, generation
        try:
            decode_group(count, blob)
        except JournalError:
            yield f"positions {first} to {behind - 1} are damaged"


def export_lines(path: Path) -> Iterator[bytes]:
    """Yield every readable message of the journal at ``path`` as JSON Lines, in order of arrival.

    ``client`` is null if the journal no longer has the beginning of the connection.
    """
    clients: dict[int, Any] = {}
    if not path.exists():
        raise JournalError(f"journal {path}: it does not exist; name it with --journal, or give a configuration")
    for first, count, _, _, _, blob in readable(path):
        columns = decode_group(count, blob)
        kept = columns.properties or [b""] * count
        entries = zip(*columns.all(), kept, strict=True)
        for position, (time, sent, session, topic, payload, properties) in enumerate(entries, first):
            if sent >> 4 == CONNECT:
                clients[position] = orjson.loads(payload).get("client_id")
            elif sent >> 4 == PUBLISH:
                line = {
                    **readable_bytes("topic", topic),
                    **readable_bytes("payload", payload),
                    "time": (EPOCH + timedelta(microseconds=time)).isoformat(),
                    "qos": sent >> 1 & 3,
                    "retain": bool(sent & 1),
                    "client": clients.get(session),
                    **({"properties": orjson.loads(properties)} if properties else {}),
                }
                yield orjson.dumps(line, option=orjson.OPT_APPEND_NEWLINE)


def readable_bytes(name: str, raw: bytes) -> dict[str, str]:
    """Return bytes for JSON: under ``name`` if they are UTF-8 text, else under ``name_base64``."""
    try:
        return {name: raw.decode()}
    except UnicodeDecodeError:
        return {f"{name}_base64": base64.b64encode(raw).decode()}
