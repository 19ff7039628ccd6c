"""journal → database: batches, one transaction each, for ever.

The path is optimistic: a batch is decoded, laid into rows and committed as if everything were in place.  Only an error
brings in the careful path.  An error about a value halves the batch until the message to blame stands alone and becomes
a dead letter; any other error is the database's condition: it is raised, and the batch is tried again from wherever the
checkpoint really is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Final

import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog
from amqtt_db.database.engines.base import Engine, driver_error, is_collision
from amqtt_db.database.lookup import Lookups
from amqtt_db.database.schema import Schema, Wanted
from amqtt_db.database.snapshot import answer
from amqtt_db.errors import DatabaseError, Rejected, StructureError
from amqtt_db.message import POSITION_BITS, Batch
from amqtt_db.routing.records import TopicHandler
from amqtt_db.routing.route import Route
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.existing_tables import check_existing_tables
from amqtt_db.writer.harvest import NO_ROUTE, Decoded, Harvest, decode, lay, refit
from amqtt_db.writer.insert_plan import InsertPlanner, RecordGroup
from amqtt_db.writer.retention import Retention
from amqtt_db.writer.topic_router import TopicRouter, reserved
from amqtt_db.writer.transaction import TransactionWriter
from amqtt_db.writer.view_refresh import ViewKeeper

logger = logging.getLogger(__name__)

STEP: Final = 200  # tables that one transaction makes: a server has room for so many locks


class Writer:
    """Stores batches in the target database; one per journal."""

    def __init__(
        self, engine: Engine, routes: Sequence[Route], guard: CrashGuard, clock: Callable[[], float] = time.time
    ) -> None:
        """``clock`` tells the seconds since 1970 by which records grow old."""
        self._engine = engine
        self._routes = routes
        self._guard = guard
        self._catalog = Catalog(engine)
        self._schema = Schema(engine, self._catalog, reserved(routes))
        self._database = engine.open(write=True)
        self._planner = InsertPlanner(engine, self._schema, Lookups(engine, self._database, guard.pause), routes)
        self._target = TransactionWriter(engine, self._catalog)
        self._router = TopicRouter(routes)
        self._views = ViewKeeper(engine, self._catalog, self._database, routes, reserved(routes))
        self.retention = Retention(engine, self._catalog, self._database, routes, clock)
        self._laid: list[RecordGroup] = []

    def prepare(self) -> None:
        """Make the house tables and read the catalogue; what the server does to weaken the promise is logged."""
        with self._database.begin() as connection:
            self._engine.lock_schema(connection)
            self._catalog.create(connection)
            self._schema.load(connection)
            self._schema.distrust(check_existing_tables(self._engine, self._catalog, connection, self._routes))
            for wish in [route.hypertable for route in self._routes if route.hypertable is not None]:
                self._schema.require_hypertables(connection, wish)
            self._views.vacate(connection)
            for weakness in self._engine.weaknesses(connection):
                logger.warning("%s", weakness)

    def register(self, token: str, first: int) -> tuple[int, int]:
        """The number and the checkpoint of a journal's opening."""
        with self._database.begin() as connection:
            return self._target.register(connection, token, first)

    def checkpoint(self, number: int) -> int:
        """The position up to which an opening is stored."""
        with self._database.begin() as connection:
            return self._target.checkpoint(connection, number)

    def identity(self) -> object:
        """What changes when the database is replaced by another one behind the writer's back."""
        return self._engine.identity()

    def close(self) -> None:
        """Give the connections back."""
        self._database.dispose()

    def store(self, number: int, previous: int | None, start: int, batch: Batch) -> None:
        """Store a batch that begins at the checkpoint ``start``, or the dead letters that are in it.

        ``number`` is the journal opening's, ``previous`` that of the opening before.  Raises CheckpointMoved if another
        writer was there first, and whatever the database raises about its condition.
        """
        self._assign_topics(batch)
        if self._guard.is_to_blame(batch.token, batch.positions[0]):
            killer, rest = batch.split_at(1)
            self._bury(number, previous, start, killer, StructureError(self._guard.reason))
            start, batch = killer.end, rest
        if len(batch):
            self._store(number, previous, start, batch)
        self.retention.step(quiet=False)

    def tidy(self) -> None:
        """Do what can wait until there is nothing to store: refresh the views that are due, delete what is too old."""
        self._views.refresh()
        self.retention.step(quiet=True)

    def mend(self) -> bool:
        """Make again what somebody dropped by hand of the tables last written to; whether there was anything."""
        with self._database.begin() as connection:
            self._engine.lock_schema(connection)
            self._catalog.create(connection)
        ddl = self._grow_stepwise([wish for bucket in self._laid for wish in self._planner.wanted(*bucket)])
        self._views.forget()
        for statement in ddl:
            done = " ".join(statement.split())
            logger.warning("the schema had been changed by hand, or its model has changed; mended with: %s", done)
        return bool(ddl)

    def is_collision(self, error: BaseException) -> bool:
        """Whether another writer was in the way, and the same may succeed at once."""
        return is_collision(self._engine, error)

    def dead_letters(self) -> list[tuple[int, bytes]]:
        """The ids and topics of all dead letters, oldest first."""
        with self._database.begin() as connection:
            return self._target.dead_letters(connection)

    def revive(self, id_: int) -> str | None:
        """Store the dead letter of a message; returns why it cannot be, or None.

        Raises CheckpointMoved if there is no such letter any more, PlacesMoved if this writer knows old places.
        """
        with self._database.begin() as connection:
            message, text = self._target.dead_letter(connection, id_)
        number = id_ >> POSITION_BITS
        batch = Batch.of("", message)
        self._assign_topics(batch)
        if self._router.get(message.topic) is None:
            return "no route covers its topic"
        harvest = Harvest(number, message.position, batch.end)
        try:
            self._harvest(harvest, batch)
            if harvest.dead:
                return harvest.dead[0].reason
            harvest.count(text, dead=-1)
            with self._database.begin() as connection:
                self._target.revive(connection, harvest, id_)
        except Exception as error:
            if not isinstance(error, Rejected) and not self._engine.is_value_fault(error):
                raise
            return str(self._rejection(error))
        return None

    def relearn(self) -> None:
        """Forget which places topics have: somebody has moved them."""
        self._router = TopicRouter(self._routes)
        self._target.forget_assignments()

    def _store(self, number: int, previous: int | None, start: int, batch: Batch) -> None:
        try:
            self._commit(self._harvest(Harvest(number, start, batch.end), batch), previous)
        except Exception as error:
            is_fault = isinstance(error, Rejected) or self._engine.is_value_fault(error)
            is_too_big = self._engine.is_size_fault(error)
            if not is_fault and (not is_too_big or len(batch) == 1):
                raise
            if len(batch) > 1:
                left, right = batch.split_at(len(batch) // 2)
                self._store(number, previous, start, left)
                self._store(number, previous, left.end, right)
            elif is_too_big and self._planner.narrow(self._laid):
                self._store(number, previous, start, batch)
            else:
                self._planner.widen(self._laid)
                self._bury(number, previous, start, batch, error)

    def _bury(self, number: int, previous: int | None, start: int, batch: Batch, error: Exception) -> None:
        """Make the only message of a batch a dead letter."""
        handler = self._router.get(batch.topics[0])
        harvest = Harvest(number, start, batch.end)
        text = handler.filter if isinstance(handler, TopicHandler) else NO_ROUTE
        harvest.bury(batch.message(0), text, self._rejection(error))
        self._commit(harvest, previous)

    def _rejection(self, error: Exception) -> Rejected:
        """The reason for the user; what a database says may hold values, so mostly only its class is told."""
        if isinstance(error, Rejected):
            return error
        detail = self._engine.reason(error) or type(driver_error(error)).__name__
        return Rejected(f"the database refuses a value: {detail}")

    def _commit(self, harvest: Harvest, previous: int | None) -> None:
        with self._database.begin() as connection:
            self._target.write(connection, harvest, previous)

    def _harvest(self, harvest: Harvest, batch: Batch) -> Harvest:
        with self._guard.watch(batch):
            decoded = decode(harvest, batch, self._router)
        unfit = self._lay(harvest, batch, decoded)
        if unfit:
            refit(decoded, unfit, self._planner)
            if self._lay(harvest, batch, decoded):
                raise StructureError("the database cannot hold a value of the message")
        self._views.refresh()
        return harvest

    def _lay(self, harvest: Harvest, batch: Batch, decoded: Decoded) -> list[RecordGroup]:
        self._make_room(decoded)
        with self._guard.watch(batch):
            return lay(harvest, decoded, self._planner)

    def _assign_topics(self, batch: Batch) -> None:
        """Settle, once for each topic, which route and place it has."""
        new = self._router.unknown(batch.topics)
        if not new:
            return
        with self._database.begin() as connection:
            self._engine.lock_schema(connection)
            self._target.require_known_assignments(connection)
            known = self._catalog.assignments(connection, new)
            assignments = self._router.assign(new, known, self._catalog.tables_per_route(connection))
            added = [assignment for assignment in assignments if known.get(assignment.topic) != assignment]
            self._catalog.add_assignments(connection, added)
            self._target.renew(connection)
        self._router.learn(new, assignments)
        self._views.moved(added, known)

    def _grow_stepwise(self, wishes: Sequence[Wanted]) -> list[str]:
        """DDL for any number of tables; what is there then is learnt."""
        ddl: list[str] = []
        keys = sorted({wish.table.key for wish in wishes})
        for first in range(0, len(keys), STEP):
            step = set(keys[first : first + STEP])
            ddl += self._grow([wish for wish in wishes if wish.table.key in step])
            with self._database.begin() as connection:
                self._schema.learn(connection, step)
        return ddl

    def _grow(self, wishes: Sequence[Wanted]) -> list[str]:
        """DDL for some tables; one that cannot have as many columns as it is allowed gets fewer."""
        try:
            with self._database.begin() as connection:
                return self._schema.ensure(connection, wishes)
        except sa.exc.DBAPIError as error:
            if not self._engine.is_size_fault(error):
                raise DatabaseError(answer(error)) from error  # the fault of no message
            if not self._engine.is_value_fault(error):
                raise
            keys = sorted({wish.table.key for wish in wishes})
            if len(keys) == 1:
                with self._database.begin() as connection:
                    if not self._schema.crowd(connection, wishes[0]):
                        raise
        return [ddl for key in keys for ddl in self._grow([wish for wish in wishes if wish.table.key == key])]

    def _make_room(self, decoded: Decoded) -> None:
        """DDL for what the records need and the database lacks."""
        self._views.note(decoded.buckets)
        self._laid = list(decoded.buckets)
        missing = self._planner.missing(decoded.buckets)
        if not missing:
            return
        ddl = self._grow_stepwise(missing)
        self.retention.look_again()
        tables = sum(statement.startswith("CREATE TABLE") for statement in ddl)
        columns = sum(statement.count("ADD COLUMN") for statement in ddl)
        if tables or columns:
            logger.info("the schema grows by %d tables and %d columns", tables, columns)
