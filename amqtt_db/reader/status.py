"""Count the messages: accepted = stored + dead + ignored + empty + pending; refused ones are counted separately."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import attrs
import sqlalchemy as sa

from amqtt_db.config import Settings
from amqtt_db.database.catalog import COUNTS
from amqtt_db.database.snapshot import Snapshot, open_snapshot, require_tables
from amqtt_db.errors import DatabaseError, JournalError, NoDatabaseYet, format_count
from amqtt_db.ingest.bridge.link_state import LINK_SCOPE, LinkState, decode_states
from amqtt_db.journal import NO_LONGER_FULL, JournalReader

_Checkpoints = Mapping[
    str, tuple[int, int]
]  # a generation's token → its number, and the position up to which it is stored


@attrs.frozen
class JournalStatus:
    """The journal's newest generation in the database: its number, its checkpoint, and how many messages wait."""

    number: int
    position: int
    pending: int


@attrs.frozen
class TopicCounts:
    """Counters of one topic filter (``""`` for messages without a route).

    For messages: stored, dead, ignored, and empty ones, which make no record.  For records: how many there are, how
    many properties were dropped or set to null, and how many got their arrival time because their own was missing.
    """

    filter: str
    stored: int = 0
    dead: int = 0
    ignored: int = 0
    empty: int = 0
    records: int = 0
    dropped: int = 0
    nulled: int = 0
    time_missing: int = 0


@attrs.frozen
class Status:
    """The number of messages in each state; None for what could not be read, with the reason in ``errors``.

    ``warnings`` say what weakens the promise, and where to look for help.
    """

    journals: tuple[JournalStatus, ...] | None = None
    counters: tuple[TopicCounts, ...] | None = None
    refused: int | None = None
    brokers: tuple[LinkState, ...] = ()
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def pending(self) -> int | None:
        """Messages in the journal that wait for the writer; None if that is unknown."""
        return None if self.journals is None else sum(journal.pending for journal in self.journals)


def read_status(settings: Settings) -> Status:
    """Read the counters in the database and the journal.  What cannot be read becomes an error in the result."""
    status, checkpoints = _read_database(settings)
    try:
        status = _add_journal(status, settings, checkpoints)
    except JournalError as error:
        return attrs.evolve(status, errors=(*status.errors, str(error)))
    return status if status.counters else attrs.evolve(status, warnings=(*status.warnings, *_stuck(status.pending)))


def _read_database(settings: Settings) -> tuple[Status, _Checkpoints | None]:
    """Return what the database knows, and the checkpoints in it; None if they are unknown."""
    try:
        with open_snapshot(settings.database) as snapshot:
            require_tables(snapshot)
            weaknesses = tuple(snapshot.engine.weaknesses(snapshot.connection))
            return Status(counters=_counters(snapshot), warnings=weaknesses), _checkpoints(snapshot)
    except NoDatabaseYet as error:  # nothing is stored
        return Status(errors=(str(error),)), {}
    except DatabaseError as error:
        return Status(errors=(str(error),)), None


def _add_journal(status: Status, settings: Settings, checkpoints: _Checkpoints | None) -> Status:
    reader = JournalReader(settings.journal.path)
    try:
        journals = None if checkpoints is None else (_newest_journal(reader, checkpoints),)
        held = tuple(_held_back(reader.size(), settings.journal.max_size))
        return attrs.evolve(
            status,
            journals=journals,
            refused=reader.refused(),
            brokers=_brokers(reader),
            warnings=(*status.warnings, *held),
        )
    finally:
        reader.close()


def _brokers(reader: JournalReader) -> tuple[LinkState, ...]:
    """Return the brokers that a bridge has subscribed to; none is connected unless the bridge runs."""
    states = decode_states(reader.notes(LINK_SCOPE))
    return states if reader.is_owned() else tuple(attrs.evolve(state, is_connected=False) for state in states)


def _newest_journal(reader: JournalReader, checkpoints: _Checkpoints) -> JournalStatus:
    known = [generation for generation in reader.generations() if generation.token in checkpoints]
    token = known[-1].token if known else None  # generations are registered in order
    number, position = checkpoints[token] if token else (0, 0)
    return JournalStatus(number, position, reader.pending(token, position))


def _stuck(pending: int | None) -> Iterator[str]:
    """Say where to look if messages are waiting and none is known to be stored."""
    if pending:
        yield (
            f"{format_count(pending, 'message')} pending: if that lasts, the log of the broker, or of"
            " `amqtt-db write`, says why the writer cannot store"
        )


def _held_back(size: int, most: int) -> Iterator[str]:
    """Warn about a full journal, which no counter shows: senders keep the messages that it does not accept."""
    if size >= most * NO_LONGER_FULL:
        yield (
            f"the journal is full, or nearly full: {size} bytes, and max_size is {most}; while it is full, QoS 1 and 2"
            " are not acknowledged and wait with their senders, and QoS 0 is refused"
        )


def _checkpoints(snapshot: Snapshot) -> dict[str, tuple[int, int]]:
    rows = snapshot.connection.execute(sa.select(snapshot.catalog.journal))
    return {row.token: (row.number, row.position) for row in rows}


def _counters(snapshot: Snapshot) -> tuple[TopicCounts, ...]:
    counter = snapshot.catalog.counter
    sums = [sa.func.sum(counter.c[name]).label(name) for name in COUNTS]
    query = sa.select(counter.c.filter, *sums).group_by(counter.c.hash, counter.c.filter).order_by(counter.c.filter)
    rows = snapshot.connection.execute(query).mappings()
    return tuple(TopicCounts(row["filter"], **{name: int(row[name]) for name in COUNTS}) for row in rows)
