"""Count the messages: accepted = stored + dead + ignored + empty + unchanged + pending.

Refused ones are counted separately.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from datetime import datetime, timedelta, timezone
from time import time_ns
from typing import Final

import attrs
import sqlalchemy as sa

from amqtt_db.config import Settings, masked
from amqtt_db.database.catalog import COUNTS
from amqtt_db.database.snapshot import Snapshot, open_snapshot, require_tables
from amqtt_db.errors import DatabaseError, JournalError, NoDatabaseYet, format_count
from amqtt_db.ingest.bridge.link_state import LINK_SCOPE, LinkState, decode_states
from amqtt_db.ingest.refusals import DENIED, INTAKE_SCOPE
from amqtt_db.journal import NO_LONGER_FULL, JournalReader, Progress, read_progress, read_report
from amqtt_db.record import EPOCH

_LOOKS: Final = 3  # the most that are worth it: a busy writer gets ahead again and again

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

    For messages: stored, dead, ignored, and those that make no record: empty, or unchanged.  For records: how many
    there are, how many properties were dropped or set to null, and how many got their arrival time because their own
    was missing.
    """

    filter: str
    stored: int = 0
    dead: int = 0
    ignored: int = 0
    empty: int = 0
    unchanged: int = 0
    records: int = 0
    dropped: int = 0
    nulled: int = 0
    time_missing: int = 0


@attrs.frozen
class CauseStatus:
    """Something that has kept the writer from storing: in how many attempts, and when first and last."""

    cause: str
    attempts: int
    first: datetime
    last: datetime


@attrs.frozen
class WriterStatus:
    """The writer: when it last stored something, and the last few causes that kept it from that, the newest last.

    ``rate`` is the number of messages per second in the last minute.  It ``is_failing`` as long as the newest cause
    lasts.
    """

    is_running: bool
    committed: datetime | None = None
    is_failing: bool = False
    causes: tuple[CauseStatus, ...] = ()
    rate: float = 0.0


@attrs.frozen
class Status:
    """The number of messages in each state; None for what could not be read, with the reason in ``errors``.

    ``database`` and ``journal`` are what is spoken of.  ``denied`` messages may not be published by their senders;
    ``dead_letters`` are those that are kept now.  ``oldest`` is when the first message that waits arrived, and ``lag``
    how many seconds ago that is.  ``warnings`` say what weakens the promise, and where to look for help.
    """

    database: str = ""
    journal: str = ""
    journals: tuple[JournalStatus, ...] | None = None
    counters: tuple[TopicCounts, ...] | None = None
    refused: int | None = None
    denied: int | None = None
    dead_letters: int | None = None
    oldest: datetime | None = None
    lag: float | None = None
    writer: WriterStatus | None = None
    brokers: tuple[LinkState, ...] = ()
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def pending(self) -> int | None:
        """Messages in the journal that wait for the writer; None if that is unknown."""
        return None if self.journals is None else sum(journal.pending for journal in self.journals)


def read_status(settings: Settings) -> Status:
    """Read the counters in the database and the journal.  What cannot be read becomes an error in the result.

    The journal may be trimmed while it is read, up to what the writer has stored since the database was read; then what
    is missing there is not in the counters, so both are read again, a few times at most.
    """
    for _ in range(_LOOKS):
        status, checkpoints = _read_database(settings)
        try:
            status = _add_journal(status, settings, checkpoints)
        except JournalError as error:
            return attrs.evolve(status, errors=(*status.errors, str(error)))
        if checkpoints is None or not _is_behind(checkpoints, read_progress(settings.journal.path)):
            break
    return status if status.counters else attrs.evolve(status, warnings=(*status.warnings, *_stuck(status.pending)))


def _is_behind(checkpoints: _Checkpoints, progress: Progress | None) -> bool:
    """Return True if the writer has stored more, according to its report, than the database had when it was read."""
    return progress is not None and checkpoints.get(progress.token, (0, 0))[1] < progress.position


def _read_database(settings: Settings) -> tuple[Status, _Checkpoints | None]:
    """Return what the database knows, and the checkpoints in it; None if they are unknown."""
    status = Status(database=masked(settings.database), journal=str(settings.journal.path))
    try:
        with open_snapshot(settings.database) as snapshot:
            require_tables(snapshot)
            weaknesses = tuple(snapshot.engine.weaknesses(snapshot.connection))
            kept = _count_dead_letters(snapshot)
            found = attrs.evolve(status, counters=_counters(snapshot), dead_letters=kept, warnings=weaknesses)
            return found, _checkpoints(snapshot)
    except NoDatabaseYet as error:  # then nothing is stored
        return attrs.evolve(status, errors=(str(error),)), {}
    except DatabaseError as error:
        return attrs.evolve(status, errors=(str(error),)), None


def _add_journal(status: Status, settings: Settings, checkpoints: _Checkpoints | None) -> Status:
    with closing(JournalReader(settings.journal.path)) as reader:
        held = tuple(_held_back(reader.size(), settings.journal.max_size))
        status = attrs.evolve(
            status,
            refused=reader.refused(),
            denied=int(reader.notes(INTAKE_SCOPE).get(DENIED, b"0")),
            writer=_read_writer(reader),
            brokers=_brokers(reader),
            warnings=(*status.warnings, *held),
        )
        return status if checkpoints is None else _add_backlog(status, reader, checkpoints)


def _add_backlog(status: Status, reader: JournalReader, checkpoints: _Checkpoints) -> Status:
    """Add what waits behind the newest checkpoint in the database."""
    known = [generation for generation in reader.generations() if generation.token in checkpoints]
    token = known[-1].token if known else None  # generations are registered one after the other
    number, position = checkpoints[token] if token else (0, 0)
    oldest = _to_time(reader.oldest(token, position))
    lag = 0.0 if oldest is None else max(0.0, round((datetime.now(timezone.utc) - oldest).total_seconds(), 1))
    waiting = JournalStatus(number, position, reader.pending(token, position))
    return attrs.evolve(status, journals=(waiting,), oldest=oldest, lag=lag)


def _read_writer(reader: JournalReader) -> WriterStatus:
    """Return the last writer's report, and whether one is running."""
    report = read_report(reader.path)
    if report is None:
        return WriterStatus(reader.has_writer())
    causes = [
        CauseStatus(failure.cause, failure.attempts, _to_utc(failure.first), _to_utc(failure.last))
        for failure in report.failures
    ]
    rate = round(report.rate(time_ns() // 1000), 1)
    return WriterStatus(reader.has_writer(), _to_time(report.committed), report.is_failing, tuple(causes), rate)


def _to_time(time: int | None) -> datetime | None:
    return None if time is None else _to_utc(time)


def _to_utc(time: int) -> datetime:
    return EPOCH + timedelta(microseconds=time)


def _brokers(reader: JournalReader) -> tuple[LinkState, ...]:
    """Return the brokers that a bridge has subscribed to; none is connected unless the bridge runs."""
    states = decode_states(reader.notes(LINK_SCOPE))
    return states if reader.is_owned() else tuple(attrs.evolve(state, is_connected=False) for state in states)


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


def _count_dead_letters(snapshot: Snapshot) -> int:
    return int(snapshot.connection.scalar(sa.select(sa.func.count()).select_from(snapshot.catalog.dead_letter)) or 0)


def _counters(snapshot: Snapshot) -> tuple[TopicCounts, ...]:
    counter = snapshot.catalog.counter
    sums = [sa.func.sum(counter.c[name]).label(name) for name in COUNTS]
    query = sa.select(counter.c.filter, *sums).group_by(counter.c.hash, counter.c.filter).order_by(counter.c.filter)
    rows = snapshot.connection.execute(query).mappings()
    return tuple(TopicCounts(row["filter"], **{name: int(row[name]) for name in COUNTS}) for row in rows)
