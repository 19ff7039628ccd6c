"""journal → database: batches, one transaction each.

A batch is stored in three steps, each with its own value: *decode* it to typed records, *plan* their rows per table,
*commit* them with the checkpoint.  All three assume that everything is in place and that every value fits.  Only an
error leads to the careful path: see :mod:`amqtt_db.writer.blame` for whose fault it is.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType

import attrs

from amqtt_db.config.operation import KEEP_ALL, SystemKeep
from amqtt_db.database.catalog import Catalog
from amqtt_db.database.copies import require_whole_copy
from amqtt_db.database.dead_letters import LetterChoice
from amqtt_db.database.engines.base import Engine, is_collision
from amqtt_db.database.lookup import Lookups
from amqtt_db.database.rollup_expiry import end_rollups
from amqtt_db.database.schema import Schema, Wanted
from amqtt_db.errors import Rejected, StructureError, blame_message
from amqtt_db.journal import Progress
from amqtt_db.message import POSITION_BITS, Batch
from amqtt_db.models.latest import LATEST_NAMES
from amqtt_db.record import Record
from amqtt_db.routing.records import TopicHandler
from amqtt_db.routing.route import Route
from amqtt_db.writer.blame import blame_data, rejection
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.decoded import DecodedBatch, RecordGroup, RecordGroups, in_ascii, reject_message
from amqtt_db.writer.decoding import decode_batch
from amqtt_db.writer.existing_tables import check_existing_tables, named_tables, names_of
from amqtt_db.writer.growth import read_growth
from amqtt_db.writer.insert_plan import InsertPlanner, Misfits, fit, plan_rows
from amqtt_db.writer.insert_target import TargetRows, merge_rows
from amqtt_db.writer.latest_states import ChangeFilter
from amqtt_db.writer.memory import DecoderMemory
from amqtt_db.writer.retention import Retention
from amqtt_db.writer.rollup_notes import find_rollup_rules
from amqtt_db.writer.steady_clock import SteadyClock
from amqtt_db.writer.table_maker import TableMaker
from amqtt_db.writer.tally import Tally
from amqtt_db.writer.topic_assigner import TopicAssigner
from amqtt_db.writer.topic_router import IgnoredTopic
from amqtt_db.writer.transaction import TransactionWriter
from amqtt_db.writer.view_refresh import ViewKeeper

logger = logging.getLogger(__name__)


class Writer:
    """Stores batches in the target database; one per journal."""

    def __init__(
        self,
        engine: Engine,
        routes: Sequence[Route],
        guard: CrashGuard,
        clock: SteadyClock | None = None,
        tally: Tally | None = None,
        keep: SystemKeep = KEEP_ALL,
    ) -> None:
        """``clock`` returns the time by which the age of records is measured; ``tally`` counts what is done.

        ``keep`` says how long sessions and dead letters are kept.
        """
        self._engine = engine
        self._routes = routes
        self._guard = guard
        self._tally = tally or Tally()
        self._catalog = Catalog(engine)
        self._named = named_tables(routes, guard.watch_task)
        self._schema = Schema(engine, self._catalog, names_of(self._named))
        self._database = engine.open(write=True)
        self._maker = TableMaker(engine, self._database, self._schema)
        self._lookups = Lookups(engine, self._database, guard.pause)
        self._planner = InsertPlanner(engine, self._schema, self._lookups, routes)
        self._changes = ChangeFilter(engine, self._catalog, self._database, self._schema, self._lookups, routes)
        self._target = TransactionWriter(engine, self._catalog, find_rollup_rules(routes))
        self._memory = DecoderMemory(self._catalog, self._database)
        self._views = ViewKeeper(engine, self._catalog, self._database, routes, self._named, guard.watch_task)
        self._assigner = TopicAssigner(engine, self._catalog, self._database, self._target, self._views, guard, routes)
        clock = clock or SteadyClock()
        self.retention = Retention(
            engine, self._catalog, self._database, routes, clock, self._views, keep, guard.watch_task
        )

    def prepare(self) -> Sequence[str]:
        """Create the system tables and read the catalogue; return warnings about the server's settings."""
        with self._database.begin() as connection:
            self._engine.lock_schema(connection)
            self._catalog.create(connection)
            without = {route.filter.text for route in self._routes} - find_rollup_rules(self._routes).keys()
            end_rollups(connection, self._catalog, without)
            self._schema.load(connection)
            watch = self._guard.watch_task
            self._schema.mark_incomplete(
                check_existing_tables(self._engine, self._catalog, connection, self._named, watch)
            )
            for wish in [route.hypertable for route in self._routes if route.hypertable is not None]:
                self._schema.require_hypertables(connection, wish)
            self._views.drop_conflicting(connection)
            self._views.resume(connection)
            return list(self._engine.weaknesses(connection))

    def require_whole_copy(self, progress: Progress | None) -> None:
        """Raise DatabaseError if another database has more of a journal, whose last writer has reported ``progress``.

        The database was copied from that one, and has to be copied once more before the writer may go on.
        """
        with self._database.begin() as connection:
            require_whole_copy(connection, self._catalog, progress)

    def register(self, token: str, first: int) -> tuple[int, int]:
        """Return the number and the checkpoint of a journal's generation."""
        with self._database.begin() as connection:
            return self._target.register(connection, token, first)

    def checkpoint(self, number: int) -> int:
        """Return the position up to which a generation is stored."""
        with self._database.begin() as connection:
            return self._target.checkpoint(connection, number)

    def identity(self) -> object:
        """Return a value that changes if the database is replaced while the writer is running."""
        return self._engine.identity()

    def close(self) -> None:
        """Release the connections."""
        self._database.dispose()

    def store(self, number: int, previous: int | None, start: int, batch: Batch) -> int:
        """Store a batch that begins at the checkpoint ``start``, with any dead letters in it.

        Returns how many tables got rows together: 0 if the batch had to be divided.
        ``number`` is that of the journal's generation, ``previous`` that of the generation before.  Raises
        CheckpointMoved if another writer was faster, and any error for which the database is to blame.
        """
        if self._guard.is_to_blame(batch.token, batch.positions[0]):
            killer, rest = batch.split_at(1)
            self._reject(number, previous, start, killer, StructureError(self._guard.reason))
            start, batch = killer.end, rest
        tables = 0
        if len(batch):
            self._assigner.assign(batch)
            tables = self._store(number, previous, start, batch)
        self.retention.step(quiet=False)
        return tables

    def do_idle_work(self) -> bool:
        """Do work that can wait until there is nothing to store: refresh views that are due, delete old records.

        Returns True if something was due, so there may be more to do.
        """
        has_refreshed = self._views.refresh(quiet=True)
        return self.retention.step(quiet=True) or has_refreshed

    def finish_views(self, is_late: Callable[[], bool]) -> None:
        """Refresh all views that are due, so that nobody waits for the next writer; give up when time is up."""
        self._views.finish(is_late)

    def repair(self, batch: Batch) -> bool:
        """Recreate tables and columns that a batch needs and somebody dropped; return False if there are none."""
        with self._database.begin() as connection:
            self._engine.lock_schema(connection)
            self._catalog.create(connection)
        ddl = self._maker.make(self._wanted(batch))
        self._views.forget()
        for statement in ddl:
            done = " ".join(statement.split())
            logger.warning("the schema was changed by hand, or a model has changed; repaired with: %s", done)
        return bool(ddl)

    def is_collision(self, error: BaseException) -> bool:
        """Return True if another writer was in the way, and a retry may succeed at once."""
        return is_collision(self._engine, error)

    def dead_letters(self, choice: LetterChoice) -> list[int]:
        """Return the ids of the chosen dead letters, oldest first."""
        with self._database.begin() as connection:
            return self._target.dead_letters(connection, choice)

    def replay_one(self, id_: int) -> str | None:
        """Store the dead letter of a message; return why it cannot be stored, or None.

        Raises CheckpointMoved if there is no longer such a letter, AssignmentsMoved if this writer knows outdated
        assignments.
        """
        with self._database.begin() as connection:
            message, filter_ = self._target.dead_letter(connection, id_)
        batch = Batch.of("", message)
        self._assigner.assign(batch)
        (handler,) = self._assigner.router.handlers(batch.topics)
        if isinstance(handler, IgnoredTopic):
            return handler.reason
        try:
            decoded, rows = self._prepare(id_ >> POSITION_BITS, batch)
            if decoded.rejected:
                return decoded.rejected[0].reason
            decoded = attrs.evolve(decoded, counts=_without_dead_letter(decoded.counts, filter_))
            with self._database.begin() as connection:
                self._target.replace_dead_letter(connection, decoded, rows, id_)
        except Exception as error:
            reason = rejection(self._engine, error)
            if reason is None:
                raise
            return str(reason)
        return None

    def fill_latest(self, records: Sequence[Record]) -> None:
        """Keep the newest values of records that are already stored, if their routes say so.

        Raises AssignmentsMoved if this writer knows outdated assignments.
        """
        batch = Batch.of_topics([record.topic.encode() for record in records])
        self._assigner.assign(batch)
        groups: dict[RecordGroup, list[Record]] = {}
        for record, handler in zip(records, self._assigner.router.handlers(batch.topics), strict=True):
            if isinstance(handler, TopicHandler) and handler.builder.route.latest is not None:
                groups.setdefault((handler.destination, record.shape), []).append(record)
        _, rows = self._fit_rows(batch, groups)
        newest = merge_rows(some for some in rows if some[0].table in LATEST_NAMES)
        with self._database.begin() as connection:
            self._target.require_known_assignments(connection, lock=True)
            with blame_data(self._database):
                self._engine.insert(connection, newest)

    def reset(self) -> None:
        """Forget where topics are assigned, and ids: another process has reassigned some topics, or forgotten keys."""
        self._lookups.forget()
        self._assigner.forget()

    def _store(self, number: int, previous: int | None, start: int, batch: Batch) -> int:
        groups: Iterable[RecordGroup] = ()
        try:
            decoded, rows = self._prepare(number, batch)
            groups = decoded.groups
            self._commit(decoded, rows, start, previous)
            return len({target.table for target, _ in rows})
        except Exception as error:
            reason = rejection(self._engine, error)
            is_too_big = self._engine.is_size_fault(error)
            if reason is None and (not is_too_big or len(batch) == 1):
                raise
        if len(batch) > 1:
            left, right = batch.split_at(len(batch) // 2)
            self._store(number, previous, start, left)
            self._store(number, previous, left.end, right)
        elif is_too_big and self._limit_columns(batch, groups):
            self._store(number, previous, start, batch)
        elif reason is not None:
            self._planner.unlimit_columns(groups)
            self._reject(number, previous, start, batch, reason, self._memory_after(number, batch))
        return 0

    def _limit_columns(self, batch: Batch, groups: Iterable[RecordGroup]) -> bool:
        with suppress(Rejected), self._guard.watch(batch):
            return self._planner.limit_columns(groups)
        return False

    def _reject(
        self,
        number: int,
        previous: int | None,
        start: int,
        batch: Batch,
        error: Rejected,
        memory: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Turn the only message of a batch into a dead letter; ``memory`` is what its decoder remembers of it."""
        rejected = reject_message(number, batch, self._assigner.router.filter_of(batch.topics[0]), error, memory)
        self._commit(rejected, (), start, previous)

    def _memory_after(self, number: int, batch: Batch) -> Mapping[str, str]:
        """Return what decoders remember of messages that were decoded, but cannot be stored."""
        with suppress(Rejected):
            return self._decode(number, batch).memory
        return {}

    def _commit(self, decoded: DecodedBatch, rows: Sequence[TargetRows], start: int, previous: int | None) -> None:
        try:
            self._write(decoded, rows, start, previous)
        except Exception as error:
            if rejection(self._engine, error) is None or not (decoded.rejected or decoded.connections):
                raise
            self._write(in_ascii(decoded), rows, start, previous)

    def _write(self, decoded: DecodedBatch, rows: Sequence[TargetRows], start: int, previous: int | None) -> None:
        with self._database.begin() as connection:
            self._target.write(connection, decoded, rows, start, previous)
            self._memory.write(connection, decoded.memory)
            due = self._views.leave_due(connection, decoded.number)
        self._views.note_committed(due)
        self._memory.note_committed(decoded.memory)
        self._tally.note_memory(decoded.memory)
        self._tally.add_counts(decoded.counts)

    def _prepare(self, number: int, batch: Batch) -> tuple[DecodedBatch, Sequence[TargetRows]]:
        """Return what a batch's messages have become, and the rows of their records, for which the tables have room."""
        decoded = self._changes.apply(self._decode(number, batch))
        groups, rows = self._fit_rows(batch, decoded.groups)
        self._views.refresh()
        return attrs.evolve(decoded, groups=groups), rows

    def _fit_rows(self, batch: Batch, groups: RecordGroups) -> tuple[RecordGroups, Sequence[TargetRows]]:
        """Return the records, in shapes whose columns return their values exactly, and their rows."""
        rows = self._plan_rows(batch, groups)
        if isinstance(rows, Misfits):
            with self._guard.watch(batch), blame_data(self._database):
                groups = fit(groups, rows, self._planner)
            rows = self._plan_rows(batch, groups)
            if isinstance(rows, Misfits):
                raise StructureError("the database cannot hold a value of the message")
        return groups, rows

    def _decode(self, number: int, batch: Batch) -> DecodedBatch:
        memory = self._recall(batch) if self._assigner.router.remembers else {}
        with self._guard.watch(batch), blame_message():
            return decode_batch(number, batch, self._assigner.router, memory)

    def _recall(self, batch: Batch) -> Mapping[str, str]:
        """Return what the decoders of a batch's messages remember."""
        with self._guard.watch(batch), blame_message():
            names = self._assigner.router.memory_names(batch.topics)
        return self._memory.recall(names)

    def _plan_rows(self, batch: Batch, groups: RecordGroups) -> Sequence[TargetRows] | Misfits:
        with self._guard.watch(batch), blame_data(self._database):
            self._views.note(groups)
            missing = self._planner.missing(groups)
            if not missing:
                return plan_rows(groups, self._planner)
        self._make_room(missing)
        with self._guard.watch(batch), blame_data(self._database):
            return plan_rows(groups, self._planner)

    def _wanted(self, batch: Batch) -> list[Wanted]:
        """Return the tables that the records of a batch need, as far as they are known."""
        if self._assigner.router.unassigned(batch.topics):
            return []
        groups, wanted = self._decode(0, batch).groups, []
        with self._guard.watch(batch):
            for group in groups:
                with suppress(Rejected):
                    wanted += self._planner.wanted(*group)
        return wanted

    def _make_room(self, missing: Sequence[Wanted]) -> None:
        """Run the DDL for everything that records need and the database lacks."""
        ddl = self._maker.make(missing)
        self.retention.look_again()
        growth = read_growth(ddl)
        if growth.tables or growth.columns:
            self._tally.add_schema_changes(len(growth.tables), len(growth.columns))
            logger.info("%s", growth)


def _without_dead_letter(counts: Mapping[str, Counter[str]], filter_: str) -> Mapping[str, Counter[str]]:
    """Return the change in counts for a message that is no longer a dead letter, given its topic filter."""
    counted = Counter(counts.get(filter_, Counter()))
    counted.update(dead=-1)
    return {**counts, filter_: counted}
