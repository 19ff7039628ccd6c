"""New topics: which route each has and where its records go, decided once and noted in the catalogue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from amqtt_db.database.catalog import Catalog
from amqtt_db.database.engines.base import Engine
from amqtt_db.errors import blame_message
from amqtt_db.message import Batch
from amqtt_db.routing.route import Route
from amqtt_db.writer.blame import rejection
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.topic_router import TopicRouter
from amqtt_db.writer.transaction import TransactionWriter
from amqtt_db.writer.view_refresh import ViewKeeper


class TopicAssigner:
    """Assigns topics when their first messages come; ``router`` knows what was decided."""

    def __init__(
        self,
        engine: Engine,
        catalog: Catalog,
        database: sa.Engine,
        target: TransactionWriter,
        views: ViewKeeper,
        guard: CrashGuard,
        routes: Sequence[Route],
    ) -> None:
        self._engine = engine
        self._catalog = catalog
        self._database = database
        self._target = target
        self._views = views
        self._guard = guard
        self._routes = routes
        self.router = TopicRouter(routes)

    def assign(self, batch: Batch) -> None:
        """Decide where the records of a batch's topics go, if that is not known yet.

        Raises AssignmentsMoved if this writer knows outdated assignments.
        """
        new = self.router.unassigned(batch.topics)
        if new:
            self._assign(batch, new)

    def forget(self) -> None:
        """Forget all decisions; the catalogue still has them."""
        self.router = TopicRouter(self._routes)
        self._target.forget_assignments()

    def _assign(self, batch: Batch, topics: Mapping[str, int]) -> None:
        """Assign topics, halving the list if one is at fault; no message of that topic can be stored."""
        try:
            self._assign_together(batch, topics)
            return
        except Exception as error:
            reason = rejection(self._engine, error)
            if reason is None:
                raise
        if len(topics) == 1:
            for topic, index in topics.items():
                self.router.refuse(topic, index, reason)
            return
        for some in _halve(topics):
            self._assign(batch, some)

    def _assign_together(self, batch: Batch, topics: Mapping[str, int]) -> None:
        with self._database.begin() as connection:
            self._engine.lock_schema(connection)
            self._target.require_known_assignments(connection)
            known = self._catalog.assignments(connection, topics)
            tables = self._catalog.tables_per_route(connection)
            with self._guard.watch(batch), blame_message():
                assignments = self.router.assign(topics, known, tables)
            added = [assignment for assignment in assignments if known.get(assignment.topic) != assignment]
            self._catalog.add_assignments(connection, added)
            new = [assignment.topic for assignment in added if assignment.topic not in known]
            self._catalog.note_typings(connection, self.router.typings(new, topics))
            self._target.learn_assignments(connection)
        self.router.learn(topics, assignments)
        self._views.moved(added, known)


def _halve(topics: Mapping[str, int]) -> Sequence[Mapping[str, int]]:
    items, middle = list(topics.items()), len(topics) // 2
    return dict(items[:middle]), dict(items[middle:])
