"""How things stand: received = stored + dead + ignored + pending; refused is apart."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
import sqlalchemy as sa

from amqtt_db.config import Settings
from amqtt_db.database.catalog import COUNTS
from amqtt_db.database.snapshot import Snapshot, open_snapshot, require_tables
from amqtt_db.errors import DatabaseError, JournalError, format_count
from amqtt_db.journal import NO_LONGER_FULL, JournalReader


@attrs.frozen
class JournalStatus:
    """The journal's newest opening that the database knows: its number, its checkpoint, and the entries that wait."""

    number: int
    position: int
    pending: int


@attrs.frozen
class Counts:
    """Messages of one topic filter (``""``: no route): stored, dead, ignored; and what their policies dropped."""

    filter: str
    stored: int = 0
    dead: int = 0
    ignored: int = 0
    records: int = 0
    dropped: int = 0
    nulled: int = 0


@attrs.frozen
class Status:
    """The whole picture; ``warnings`` say what could not be looked at or weakens the promise."""

    journals: tuple[JournalStatus, ...] = ()
    counters: tuple[Counts, ...] = ()
    refused: int = 0
    warnings: tuple[str, ...] = ()

    @property
    def pending(self) -> int:
        """Messages in the journal that wait for the writer."""
        return sum(journal.pending for journal in self.journals)


def status(settings: Settings) -> Status:
    """Look at the journal and at the database.  What cannot be looked at becomes a warning, not an error."""
    result = Status()
    try:
        with open_snapshot(settings.database) as snapshot:
            require_tables(snapshot)
            result = attrs.evolve(result, counters=_counters(snapshot), warnings=tuple(_weaknesses(snapshot)))
            checkpoints = _checkpoints(snapshot)
    except DatabaseError as error:
        result, checkpoints = attrs.evolve(result, warnings=(str(error),)), {}
    try:
        result = _with_journal(result, settings, checkpoints)
    except JournalError as error:
        return attrs.evolve(result, warnings=(*result.warnings, str(error)))
    return result if result.counters else attrs.evolve(result, warnings=(*result.warnings, *_stuck(result.pending)))


def _with_journal(result: Status, settings: Settings, checkpoints: dict[str, tuple[int, int]]) -> Status:
    reader = JournalReader(settings.journal.path)
    try:
        known = [generation for generation in reader.generations() if generation.token in checkpoints]
        token = known[-1].token if known else None  # openings are registered one after the other
        number, position = checkpoints[token] if token else (0, 0)
        journal = JournalStatus(number, position, reader.pending(token, position))
        held = tuple(_held_back(reader.size(), settings.journal.max_size))
        return attrs.evolve(result, journals=(journal,), refused=reader.refused(), warnings=(*result.warnings, *held))
    finally:
        reader.close()


def _stuck(pending: int) -> Iterator[str]:
    """Where to look if messages wait and none is known to be stored."""
    if pending:
        yield (
            f"{format_count(pending, 'message')} pending: if that lasts, the log of the broker, or of"
            " `amqtt-db write`, says why the writer cannot store"
        )


def _held_back(size: int, most: int) -> Iterator[str]:
    """What no counter tells: senders keep what a full journal does not take."""
    if size >= most * NO_LONGER_FULL:
        yield (
            f"the journal is full, or nearly so: {size} bytes, and max_size is {most}; while it is, QoS 1 and 2 are not"
            " acknowledged and wait with their senders, and QoS 0 is refused"
        )


def _checkpoints(snapshot: Snapshot) -> dict[str, tuple[int, int]]:
    rows = snapshot.connection.execute(sa.select(snapshot.catalog.journal))
    return {row.token: (row.number, row.position) for row in rows}


def _counters(snapshot: Snapshot) -> tuple[Counts, ...]:
    counter = snapshot.catalog.counter
    sums = [sa.func.sum(counter.c[name]).label(name) for name in COUNTS]
    query = sa.select(counter.c.filter, *sums).group_by(counter.c.hash, counter.c.filter).order_by(counter.c.filter)
    rows = snapshot.connection.execute(query).mappings()
    return tuple(Counts(row["filter"], **{name: int(row[name]) for name in COUNTS}) for row in rows)


def _weaknesses(snapshot: Snapshot) -> list[str]:
    return list(snapshot.engine.weaknesses(snapshot.connection))
