"""Rewrite the records of past assignments to the tables of the current ones, and compare them there.

The records of many topics share a transaction, because most of what a topic with few records costs is its transactions,
and the look into the catalogue.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from operator import attrgetter, itemgetter
from typing import Any, Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import MOVED, Assignment, key_hash
from amqtt_db.models.binding import BoundTable
from amqtt_db.record import Record
from amqtt_db.writer import workshop
from amqtt_db.writer.erase import erase
from amqtt_db.writer.insert_target import TargetRows, merge_rows
from amqtt_db.writer.retyping import equal_records
from amqtt_db.writer.views_due import NO_JOURNAL
from amqtt_db.writer.workshop import RewriteError, Workshop, batches, records_in_each

TOPICS_AT_ONCE: Final = 100
"""How many topics are looked up together; also as many as can share a transaction."""

_id_and_part = attrgetter("id", "part")
"""A function that returns what identifies a record."""


@attrs.frozen
class Move:
    """A topic's records in a past assignment, its ``sequence``-th; those up to id ``moved`` have been moved.

    ``is_done`` is true if all have been moved, and only their old rows are left.
    """

    past: Assignment
    sequence: int
    moved: int
    current: Assignment
    is_done: bool

    @property
    def topic(self) -> str:
        """The topic whose records are moved."""
        return self.past.topic

    @property
    def place(self) -> Mapping[str, Any]:
        """The parameters of :func:`match_past` that find the past assignment in the catalogue."""
        return {"of": key_hash(self.topic), "nth": self.sequence}


@attrs.frozen
class MoveProgress:
    """The state of some moves: what is being done, for how many records so far, and how many topics are finished."""

    step: str
    records: int
    topics: int = 0


@attrs.frozen
class _Target:
    """What has to be known of the tables to which a topic's records move.

    ``shared`` are those that have the records' rows already; ``stale`` are those with rows of records moved earlier.
    """

    shared: frozenset[str]
    stale: Sequence[tuple[BoundTable, str]]


@attrs.frozen
class _Portion:
    """Some records of moves, the moves whose last records these are, and the moves that are left."""

    records: Sequence[tuple[Move, Sequence[Record]]]
    ended: Sequence[Move]
    left: Sequence[Move]


class Mover:
    """Moves the records of topics with the tools of a workshop; ``clock`` returns seconds since 1970."""

    def __init__(self, shop: Workshop, clock: Callable[[], float]) -> None:
        self._shop = shop
        self._clock = clock
        self._table = shop.catalog.assignment
        here = match_past(self._table)
        is_untouched = sa.func.coalesce(self._table.c.moved, 0) == sa.bindparam("before")
        self._note_moved = self._table.update().where(here & is_untouched).values(moved=sa.bindparam("after"))
        self._note_done = self._table.update().where(here).values(state=MOVED)

    def move(self, moves: Sequence[Move]) -> Iterator[MoveProgress]:
        """Rewrite, then compare, each topic's records as soon as all of them are rewritten.

        No topic may occur twice.  Raises RewriteError if a record reads back differently.
        """
        left, targets = moves, self._find_targets(moves)
        rewritten = compared = 0
        while left:
            portion = self._read_portion(left)
            self._store(portion, targets)
            rewritten += sum(len(records) for _, records in portion.records)
            yield MoveProgress("rewritten", rewritten, len(moves) - len(left))
            for count in self._compare(portion.ended):
                compared += count
                yield MoveProgress("compared", compared, len(moves) - len(left))
            self._finish(portion.ended)
            left = portion.left
        yield MoveProgress("compared", compared, len(moves))

    def _find_targets(self, moves: Sequence[Move]) -> Mapping[str, _Target]:
        """Return what has to be known of the tables of the current assignments, by topic.

        One that does not exist yet is made with its columns when the first records need it.
        """
        current = self._shop.tables_of([move.current for move in moves])
        past = self._shop.tables_of([move.past for move in moves])
        left_behind = self._left_behind(moves)
        return {
            move.topic: _make_target(new, old, left_behind.get(move.topic, set()))
            for move, new, old in zip(moves, current, past, strict=True)
        }

    def _left_behind(self, moves: Sequence[Move]) -> Mapping[str, set[str]]:
        """Return the names of the tables that still have old rows of topics' moved records, by topic."""
        hashes = [key_hash(move.topic) for move in moves]
        here = self._table.c.hash.in_(hashes) & (self._table.c.state == MOVED)
        with self._shop.database.begin() as connection:
            rows = connection.execute(sa.select(self._table).where(here)).all()
        names: dict[str, set[str]] = {}
        for row in rows:
            with suppress(RewriteError):  # its model can no longer be loaded, and wrote to no table of this one
                gone = self._shop.tables(Assignment(row.topic, row.key, row.route, row.model))
                names.setdefault(row.topic, set()).update(name for _, name in gone.values())
        return names

    def _read_portion(self, left: Sequence[Move]) -> _Portion:
        """Read a few thousand records of the next topics.

        The snapshot is closed afterwards: a table that one topic leaves may need a new column for another.
        """
        found: list[tuple[Move, Sequence[Record]]] = []
        ended: list[Move] = []
        with self._shop.snapshots.take() as snapshot:
            places = [(move.past, move.moved) for move in left]
            for move, records in zip(left, records_in_each(snapshot, places), strict=True):
                some = next(batches(records), [])
                found += [(move, some)] if some else []
                if len({record.id for record in some}) == workshop.BATCH:
                    goes_on = attrs.evolve(move, moved=some[-1].id)
                    return _Portion(found, ended, [goes_on, *left[len(ended) + 1 :]])
                ended.append(move)
                if sum(len(records) for _, records in found) >= workshop.BATCH:
                    break
        return _Portion(found, ended, left[len(ended) :])

    def _store(self, portion: _Portion, targets: Mapping[str, _Target]) -> None:
        """Write records to where their topics are now, and note how far each topic has got, in one transaction."""
        rows = merge_rows(self._plan_rows(portion, targets))
        with self._shop.database.begin() as connection:
            self._advance(connection, portion)
            for move, records in portion.records:
                stale = targets[move.topic].stale
                if stale:
                    erase(connection, self._shop.engine, stale, list(map(self._shop.identify, records)))
            self._shop.engine.insert(connection, rows)

    def _plan_rows(self, portion: _Portion, targets: Mapping[str, _Target]) -> Iterator[TargetRows]:
        """Return the rows of records, except for those that are in a shared table already."""
        by_shared: dict[frozenset[str], list[Record]] = {}
        for move, records in portion.records:
            by_shared.setdefault(targets[move.topic].shared, []).extend(records)
        for shared, some in by_shared.items():
            yield from (rows for rows in self._shop.plan_rows(some) if rows[0].table not in shared)

    def _advance(self, connection: sa.Connection, portion: _Portion) -> None:
        """Note how far topics have got, unless another process has moved some of their records."""
        steps = [{**move.place, "before": move.moved, "after": records[-1].id} for move, records in portion.records]
        steps.sort(key=itemgetter("of"))
        if steps and connection.execute(self._note_moved, steps).rowcount != len(steps):
            topics = f"topic {portion.records[0][0].topic}" + (f" or {len(steps) - 1} others" if len(steps) > 1 else "")
            raise RewriteError(f"{topics}: another remodel is working on it; wait until it ends")

    def _compare(self, moves: Sequence[Move]) -> Iterator[int]:
        """Raise RewriteError unless every record of past assignments is in the current ones, unchanged.

        Yield how many more have been compared.
        """
        with self._shop.snapshots.take() as snapshot:
            past = records_in_each(snapshot, [(move.past, 0) for move in moves])
            current = records_in_each(snapshot, [(move.current, 0) for move in moves])
            for move, old, new in zip(moves, past, current, strict=True):
                yield from self._compare_topic(move, side_by_side(old, new))

    def _compare_topic(self, move: Move, pairs: Iterable[tuple[Record, Record | None]]) -> Iterator[int]:
        """Compare one topic's records; one that is too old to be kept may be missing.

        The two places delete it at different times.
        """
        done, too_old = 0, self._too_old(move)
        for old, new in pairs:
            if new is None and old.time_us < too_old:
                continue
            if not equal_records(old, new):
                raise RewriteError(
                    f"topic {move.topic}: message {old.id} does not read back unchanged from its new tables; "
                    "the old rows are kept"
                )
            done += 1
            if done == workshop.BATCH:
                yield done
                done = 0
        yield done

    def _finish(self, moves: Sequence[Move]) -> None:
        """Note that readers need no longer look for the records in their old places, and which views are due."""
        if not moves:
            return
        views = self._shop.views
        views.note_moved({self._shop.handler(move.topic).destination for move in moves})
        with self._shop.database.begin() as connection:
            connection.execute(self._note_done, sorted((move.place for move in moves), key=itemgetter("of")))
            due = views.leave_due(connection, NO_JOURNAL)
        views.note_committed(due)

    def _too_old(self, move: Move) -> float:
        """Return the time in microseconds since 1970 before which the topic's records are not kept."""
        keep = self._shop.handler(move.topic).builder.route.keep
        return float("-inf") if keep is None else (self._clock() - keep.total_seconds()) * 1_000_000


def group_moves(moves: Iterable[Move]) -> Iterator[Sequence[Move]]:
    """Yield the moves, in order, that may be done together: up to a hundred of different topics."""
    some: dict[str, Move] = {}
    for move in moves:
        if len(some) == TOPICS_AT_ONCE or move.topic in some:
            yield list(some.values())
            some = {}
        some[move.topic] = move
    if some:
        yield list(some.values())


def side_by_side(old: Iterable[Record], new: Iterator[Record]) -> Iterator[tuple[Record, Record | None]]:
    """Yield each old record with the new one of the same identity, or None; both inputs are in that order."""
    candidate = next(new, None)
    for one in old:
        while candidate is not None and _id_and_part(candidate) < _id_and_part(one):
            candidate = next(new, None)
        yield one, candidate if candidate is not None and _id_and_part(candidate) == _id_and_part(one) else None


def match_past(assignments: sa.Table) -> sa.ColumnElement[bool]:
    """Return the condition for a past assignment, whose parameters are a move's ``place``."""
    return (assignments.c.hash == sa.bindparam("of")) & (assignments.c.sequence == sa.bindparam("nth"))


def _make_target(
    current: Mapping[str, tuple[BoundTable, str]], past: Mapping[str, Any], left_behind: set[str]
) -> _Target:
    """Return what has to be known of the current tables, by key, given the past ones and those with moved rows."""
    shared = frozenset(name for key, (_, name) in current.items() if key in past)
    stale = [(table, name) for table, name in current.values() if name in left_behind - shared]
    return _Target(shared, stale)
