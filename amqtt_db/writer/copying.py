"""Copy a database into another one, of any engine and with any models, while messages arrive.

First the new database gets the old one's checkpoints.  What lies before them is copied, each record once by its id and
part; what lies behind them a writer stores in the new database, from the same journal, once all of that is there.  So
the copy may be stopped and started again, before and after the writer has changed over, and in the end each record is
there once.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Generator, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

import attrs
import orjson
import sqlalchemy as sa

from amqtt_db.database.catalog import COUNTS, MOVED, Assignment, Catalog
from amqtt_db.database.copies import note_copied, note_unfinished, read_copied, read_done
from amqtt_db.database.decoder_memory import read_all_memory, take_memory
from amqtt_db.database.engines.base import batched
from amqtt_db.database.snapshot import Snapshot, Snapshots, require_tables
from amqtt_db.message import POSITION_BITS, message_id
from amqtt_db.record import Record
from amqtt_db.routing.route import Route
from amqtt_db.writer.catching_up import (
    LAST_POSITION,
    ChangedTopic,
    Changes,
    compute_checksum,
    first_kept,
    format_checksum,
    read_messages,
)
from amqtt_db.writer.copied_rows import copy_rows
from amqtt_db.writer.deletion import count_of_topic
from amqtt_db.writer.moving import side_by_side
from amqtt_db.writer.rollup_copying import bring_expired_sums, read_expired_sums
from amqtt_db.writer.taking_in import RecordTaker, TakenIn, require_routes
from amqtt_db.writer.transaction import TransactionWriter
from amqtt_db.writer.workshop import BATCH, RewriteError, Workshop, create_database

_IDS_AT_ONCE: Final = 500
_SUMMED_TOPICS_AT_ONCE: Final = 500


@attrs.frozen
class JournalPoint:
    """A generation of a journal, and the position up to which a database has its messages."""

    token: str
    position: int


@attrs.frozen
class CopiedTopic:
    """What has been copied of a topic: new records, those that were there, and the checksum of both together.

    ``total`` is how many records the new database has of the topic, also from earlier copies, which are not read again.
    ``changed`` counts the messages of earlier copies that were changed in the old database since.
    """

    topic: str
    new: int
    same: int
    checksum: str
    total: int
    changed: int = 0

    @property
    def records(self) -> int:
        """How many records were read back and compared."""
        return self.new + self.same


class Copier:
    """Copies the database at one URL to that at another, as ``routes`` say.  Close it at the end."""

    def __init__(self, source: str, target: str, routes: Sequence[Route]) -> None:
        """Raise DatabaseError if a database cannot be used."""
        self._source = Snapshots(source)
        try:
            with self._source.take() as snapshot:
                require_tables(snapshot)
                self._points = _read_points(snapshot.connection, snapshot.catalog)
                self._places = _read_assignments_by_topic(snapshot)
                self._memory = read_all_memory(snapshot.connection, snapshot.catalog)
            require_routes(routes, self._places)
            create_database(target)
            self._shop = Workshop(target, routes)
        except BaseException:
            self._source.close()
            raise
        self._done: Mapping[int, int] = {}
        self._sums: dict[str, int] = {}
        self._is_behind = True  # the new database, which has no message that the old one lacks

    def close(self) -> None:
        """Refresh the views that are due, and give the connections back."""
        self._shop.close()
        self._source.close()

    @property
    def topics(self) -> list[str]:
        """The topics with records in the old database."""
        return sorted(self._places)

    def copy(self) -> Generator[CopiedTopic | ChangedTopic | TakenIn]:
        """Copy all that the old database has; yield each step's records, and each topic when it is done and verified.

        At last yield the topics with messages that were changed in the old database since an earlier copy.

        Raises RewriteError if the new database has other records under the same ids, or one of a topic without a route.
        """
        with self._shop.maintenance():
            taker = RecordTaker(self._shop, self._places)
            self._take_points()
            taker.assign()
            for topic in self.topics:
                yield from self._copy_topic(taker, topic)
            self._bring_sums()
            self._copy_the_rest()
            self._note_done()
            yield from self._catch_up()

    def _take_points(self) -> None:
        """Give the new database the checkpoints of the old one, if they are farther, and what decoders remember there.

        From then on its writer waits until the copy is done.
        """
        table = self._shop.catalog.journal
        with self._shop.database.begin() as connection:
            self._shop.engine.lock_schema(connection)
            there = _read_points(connection, self._shop.catalog)
            self._done = read_done(connection, self._shop.catalog)
            self._is_behind = not any(
                number in self._points and self._points[number].position < point.position
                for number, point in there.items()
            )
            by_token = {point.token: number for number, point in there.items()}
            take_memory(connection, self._shop.catalog, self._memory)
            for number, point in self._points.items():
                if by_token.get(point.token, number) != number or there.get(number, point).token != point.token:
                    raise RewriteError(
                        "the new database already has records of its own, under the same ids; copy to an empty one, or "
                        "use `amqtt-db export` and `amqtt-db import --source`"
                    )
                if number not in there or there[number].position < point.position:
                    note_unfinished(connection, self._shop.catalog, unfinished=True)
                if number not in there:
                    row = {"number": number, "token": point.token, "position": point.position, "routing_version": 0}
                    connection.execute(table.insert(), row)
                elif there[number].position < point.position:
                    here = (table.c.number == number) & (table.c.position == there[number].position)
                    connection.execute(table.update().where(here).values(position=point.position))

    def _is_covered(self, id_: int) -> bool:
        """Return True if a message lies before the old checkpoint."""
        point = self._points.get(id_ >> POSITION_BITS)
        return point is not None and id_ & LAST_POSITION < point.position

    def _is_wanted(self, id_: int) -> bool:
        """Return True if a message lies before the old checkpoint, and an earlier copy was not done with it."""
        return self._is_covered(id_) and self._done.get(id_ >> POSITION_BITS, 0) <= id_ & LAST_POSITION

    @property
    def _first_wanted(self) -> int | None:
        """The id from which on there is anything to copy, None if there is nothing."""
        starts = [
            message_id(number, self._done.get(number, 0))
            for number, point in self._points.items()
            if self._done.get(number, 0) < point.position
        ]
        return min(starts, default=None)

    def _copy_topic(self, taker: RecordTaker, topic: str) -> Iterator[CopiedTopic | TakenIn]:
        told = TakenIn()
        for batch in self._batches(topic):
            step = taker.take(batch)
            _require_same(topic, step)
            told += step
            yield step
        self._sums[topic] = self._verify(topic)
        checksum, total = format_checksum(self._sums[topic]), count_of_topic(self._shop, topic)
        yield CopiedTopic(topic, told.new, told.same, checksum, total)

    def _bring_sums(self) -> None:
        """Bring what expired records amount to, unless the new database's writer has already gone on."""
        for topics in batched(self.topics, _SUMMED_TOPICS_AT_ONCE) if self._is_behind else ():
            with self._source.take() as snapshot:
                for sums in read_expired_sums(snapshot, topics, self._is_covered):
                    bring_expired_sums(self._shop, sums)

    def _batches(self, topic: str) -> Iterator[list[Record]]:
        with self._source.take() as snapshot:
            records = self._read_wanted(snapshot, self._places[topic])
            while batch := list(islice(records, BATCH)):
                yield batch

    def _read_wanted(self, snapshot: Snapshot, places: Sequence[Assignment]) -> Iterator[Record]:
        """Yield the wanted records of a topic in the order of their ids, each once wherever it is."""
        if self._first_wanted is not None:
            yield from read_messages(snapshot, places, self._first_wanted, self._is_wanted)

    def _verify(self, topic: str) -> int:
        """Return the checksum of a topic's records in both databases.  Raises RewriteError if they differ.

        A record that is too old to be kept may be missing.
        """
        total, too_old = 0, first_kept(self._shop, topic)
        with self._source.take() as old_snapshot, self._shop.snapshots.take() as new_snapshot:
            old = self._read_wanted(old_snapshot, self._places[topic])
            new = self._read_wanted(new_snapshot, self._shop.in_use(topic))
            for one, other in side_by_side(old, new):
                checksum = compute_checksum(one)
                total += checksum
                if other is None and one.time_us < too_old:
                    continue
                if other is None or compute_checksum(other) != checksum:
                    raise RewriteError(f"topic {topic!r}: message {one.id} does not read back as it was")
        return total

    def _copy_the_rest(self) -> None:
        """Copy sessions, dead letters, payloads and counters."""
        with self._source.take() as snapshot:
            for name in ("session", "dead_letter", "raw"):
                self._copy_rows(snapshot, name)
            self._add_counts(snapshot)

    def _copy_rows(self, snapshot: Snapshot, name: str) -> None:
        """Copy those of a system table's wanted rows that the new database does not have."""
        old, first = getattr(snapshot.catalog, name), self._first_wanted
        while first is not None:
            ids = snapshot.connection.scalars(
                sa.select(old.c.id).distinct().where(old.c.id >= first).order_by(old.c.id).limit(_IDS_AT_ONCE)
            ).all()
            wanted = [id_ for id_ in ids if self._is_wanted(id_)]
            with self._shop.database.begin() as connection:
                copy_rows(snapshot, self._shop, connection, name, wanted)
            first = ids[-1] + 1 if ids else None

    def _add_counts(self, snapshot: Snapshot) -> None:
        """Add what the old database has counted since the last copy."""
        counter = snapshot.catalog.counter
        target = TransactionWriter(self._shop.engine, self._shop.catalog)
        with self._shop.database.begin() as connection:
            for row in snapshot.connection.execute(sa.select(counter)).mappings():
                known = read_copied(connection, self._shop.catalog, f"{row['journal']}/").get(row["hash"])
                before = dict(zip(COUNTS, orjson.loads(known), strict=True)) if known else {}
                added = Counter({count: row[count] - before.get(count, 0) for count in COUNTS})
                target.add_counts(connection, row["journal"], {row["filter"]: added})
                now = orjson.dumps([row[count] for count in COUNTS]).decode()
                note_copied(connection, self._shop.catalog, f"{row['journal']}/{row['hash']}", now)

    def _note_done(self) -> None:
        """Note how far this copy is done, from where the new database's writer may go on, and the next copy begins."""
        with self._shop.database.begin() as connection:
            for number, point in self._points.items():
                note_copied(connection, self._shop.catalog, str(number), str(point.position))
            note_unfinished(connection, self._shop.catalog, unfinished=False)

    def _catch_up(self) -> Iterator[ChangedTopic]:
        """Bring what the old database has changed since earlier copies of what these were done with."""
        changes = Changes(self._shop, self._source, self._places, self._done)
        if self._done:
            moved = [number for number, point in self._points.items() if self._done.get(number) != point.position]
            changes.end_sessions(moved)
            changes.drop_dead_letters()
        yield from changes.bring(self._sums)


def _read_points(connection: sa.Connection, catalog: Catalog) -> dict[int, JournalPoint]:
    rows = connection.execute(sa.select(catalog.journal))
    return {row.number: JournalPoint(row.token, row.position) for row in rows}


def _read_assignments_by_topic(snapshot: Snapshot) -> dict[str, list[Assignment]]:
    """Return where the records of each topic may be."""
    table, found = snapshot.catalog.assignment, defaultdict(list)
    for row in snapshot.connection.execute(sa.select(table).where(table.c.state != MOVED)):
        found[row.topic].append(Assignment(row.topic, row.key, row.route, row.model))
    return dict(found)


def _require_same(topic: str, told: TakenIn) -> None:
    if told.different:
        raise RewriteError(
            f"topic {topic!r}: the new database has another record of message {told.different[0].id}; it was changed "
            "there, or comes from elsewhere; copy to an empty database"
        )
