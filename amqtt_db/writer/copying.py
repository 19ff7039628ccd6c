"""Copy a database into another one, of any engine and with any models, while messages arrive.

First the new database gets the old one's checkpoints.  What lies before them is copied, each record once by its id and
part; what lies behind them a writer may store in the new database meanwhile, from the same journal.  So the copy may be
stopped and started again, before and after the writer has changed over, and in the end each record is there once.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from heapq import merge
from itertools import groupby, islice
from operator import attrgetter, itemgetter
from typing import Any, Final

import attrs
import orjson
import sqlalchemy as sa

from amqtt_db import tagged
from amqtt_db.database.catalog import COUNTS, MOVED, Assignment, Catalog
from amqtt_db.database.dead_letters import add_rest, payload_of
from amqtt_db.database.decoder_memory import read_all_memory, replace_memory
from amqtt_db.database.snapshot import Snapshot, Snapshots, require_tables
from amqtt_db.message import POSITION_BITS, message_id
from amqtt_db.record import Record
from amqtt_db.routing.route import Route
from amqtt_db.writer.remodel import side_by_side
from amqtt_db.writer.retyping import equal_records
from amqtt_db.writer.taking_in import RecordTaker, TakenIn, require_routes
from amqtt_db.writer.transaction import TransactionWriter
from amqtt_db.writer.workshop import BATCH, RewriteError, Workshop, create_database, records_in

_POSITION_BITS_SET: Final = (1 << POSITION_BITS) - 1
_COPIED: Final = "copied/"  # begins the names of notes in mqtt_meta
_IDS_AT_ONCE: Final = 500
_identify = attrgetter("id", "part")


@attrs.frozen
class JournalPoint:
    """A generation of a journal, and the position up to which a database has its messages."""

    token: str
    position: int


@attrs.frozen
class CopiedTopic:
    """What has been copied of a topic: new records, those that were there, and the checksum of both together."""

    topic: str
    new: int
    same: int
    checksum: str

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

    def close(self) -> None:
        """Refresh the views that are due, and give the connections back."""
        self._shop.close()
        self._source.close()

    @property
    def topics(self) -> list[str]:
        """The topics with records in the old database."""
        return sorted(self._places)

    def copy(self) -> Generator[CopiedTopic | TakenIn]:
        """Copy all that the old database has; yield each step's records, and each topic when it is done and verified.

        Raises RewriteError if the new database has other records under the same ids, or one of a topic without a route.
        """
        with self._shop.maintenance():
            taker = RecordTaker(self._shop, self._places)
            self._take_points()
            taker.assign()
            for topic in self.topics:
                yield from self._copy_topic(taker, topic)
            self._copy_the_rest()
            self._note_done()

    def _take_points(self) -> None:
        """Give the new database the checkpoints of the old one, if they are farther, and what decoders remember there.

        If a writer has gone on in the new database, its decoders know better.
        """
        table = self._shop.catalog.journal
        with self._shop.database.begin() as connection:
            self._shop.engine.lock_schema(connection)
            there = _read_points(connection, self._shop.catalog)
            self._done = _read_done(connection, self._shop.catalog)
            by_token = {point.token: number for number, point in there.items()}
            if all(
                number in self._points and there[number].position <= self._points[number].position for number in there
            ):
                replace_memory(connection, self._shop.catalog, self._memory)
            for number, point in self._points.items():
                if by_token.get(point.token, number) != number or there.get(number, point).token != point.token:
                    raise RewriteError(
                        "the new database already has records of its own, under the same ids; copy to an empty one, or "
                        "use `amqtt-db export` and `amqtt-db import --source`"
                    )
                if number not in there:
                    row = {"number": number, "token": point.token, "position": point.position, "routing_version": 0}
                    connection.execute(table.insert(), row)
                elif there[number].position < point.position:
                    here = (table.c.number == number) & (table.c.position == there[number].position)
                    connection.execute(table.update().where(here).values(position=point.position))

    def _is_wanted(self, id_: int) -> bool:
        """Return True if a message lies before the old checkpoint, and an earlier copy was not done with it."""
        number, position = id_ >> POSITION_BITS, id_ & _POSITION_BITS_SET
        point = self._points.get(number)
        return point is not None and self._done.get(number, 0) <= position < point.position

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
        yield CopiedTopic(topic, told.new, told.same, self._verify(topic))

    def _batches(self, topic: str) -> Iterator[list[Record]]:
        with self._source.take() as snapshot:
            records = self._read_wanted(snapshot, self._places[topic])
            while batch := list(islice(records, BATCH)):
                yield batch

    def _read_wanted(self, snapshot: Snapshot, places: Sequence[Assignment]) -> Iterator[Record]:
        """Yield the wanted records of a topic in the order of their ids, each once wherever it is."""
        if self._first_wanted is None:
            return
        after = self._first_wanted - 1
        found = merge(*(records_in(snapshot, place, after) for place in places), key=_identify)
        for _, same in groupby((record for record in found if self._is_wanted(record.id)), key=_identify):
            yield max(same, key=lambda record: len(record.values))

    def _verify(self, topic: str) -> str:
        """Return the checksum of a topic's records in both databases.  Raises RewriteError if they differ.

        A record that is too old to be kept may be missing.
        """
        old_sum, new_sum, too_old = _new_digest(), _new_digest(), self._too_old(topic)
        with self._source.take() as old_snapshot, self._shop.snapshots.take() as new_snapshot:
            old = self._read_wanted(old_snapshot, self._places[topic])
            new = self._read_wanted(new_snapshot, self._shop.in_use(topic))
            for one, other in side_by_side(old, new):
                if other is None and one.time_us < too_old:
                    continue
                if other is None or not equal_records(one, other):
                    raise RewriteError(f"topic {topic!r}: message {one.id} does not read back as it was")
                old_sum.update(_canonical(one))
                new_sum.update(_canonical(other))
        if old_sum.digest() != new_sum.digest():
            raise RewriteError(f"topic {topic!r}: the checksums differ")
        return new_sum.hexdigest()

    def _too_old(self, topic: str) -> float:
        """Return the time in microseconds since 1970 before which the topic's records are not kept."""
        keep = self._shop.handler(topic).builder.route.keep
        return float("-inf") if keep is None else (time.time() - keep.total_seconds()) * 1_000_000

    def _copy_the_rest(self) -> None:
        """Copy sessions, dead letters, payloads and counters."""
        with self._source.take() as snapshot:
            self._copy_rows(snapshot, "session", _as_it_is)
            self._copy_rows(snapshot, "dead_letter", _without_segments)
            self._copy_rows(snapshot, "raw", _in_segments)
            self._add_counts(snapshot)

    def _copy_rows(self, snapshot: Snapshot, name: str, convert: _Convert) -> None:
        """Copy those of a system table's wanted rows that the new database does not have."""
        old, new, first = getattr(snapshot.catalog, name), getattr(self._shop.catalog, name), self._first_wanted
        while first is not None:
            ids = snapshot.connection.scalars(
                sa.select(old.c.id).distinct().where(old.c.id >= first).order_by(old.c.id).limit(_IDS_AT_ONCE)
            ).all()
            wanted = [id_ for id_ in ids if self._is_wanted(id_)]
            with self._shop.database.begin() as connection:
                there = set(connection.scalars(sa.select(new.c.id).where(new.c.id.in_(wanted))))
                size = self._shop.engine.segment_size(connection)
                for id_ in wanted:
                    if id_ not in there:
                        rows = snapshot.connection.execute(sa.select(old).where(old.c.id == id_)).mappings().all()
                        convert(snapshot, connection, new, [dict(row) for row in rows], size)
            first = ids[-1] + 1 if ids else None

    def _add_counts(self, snapshot: Snapshot) -> None:
        """Add what the old database has counted since the last copy."""
        counter = snapshot.catalog.counter
        target, meta = TransactionWriter(self._shop.engine, self._shop.catalog), self._shop.catalog.meta
        with self._shop.database.begin() as connection:
            for row in snapshot.connection.execute(sa.select(counter)).mappings():
                name = f"{_COPIED}{row['journal']}/{row['hash']}"
                known = connection.scalar(sa.select(meta.c.value).where(meta.c.name == name))
                before = dict(zip(COUNTS, orjson.loads(known), strict=True)) if known else {}
                added = Counter({count: row[count] - before.get(count, 0) for count in COUNTS})
                target.add_counts(connection, row["journal"], {row["filter"]: added})
                _write_note(connection, meta, name, orjson.dumps([row[count] for count in COUNTS]).decode())

    def _note_done(self) -> None:
        """Note how far this copy is done: the next one need not look at that again."""
        with self._shop.database.begin() as connection:
            for number, point in self._points.items():
                _write_note(connection, self._shop.catalog.meta, f"{_COPIED}{number}", str(point.position))


_Convert = Callable[[Snapshot, sa.Connection, sa.Table, list[dict[str, Any]], int], None]
"""Writes the rows of one id, with payloads in segments of a size that the new database takes."""


def _as_it_is(_: Snapshot, connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]], size: int) -> None:
    connection.execute(table.insert(), rows)


def _without_segments(
    snapshot: Snapshot, connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]], size: int
) -> None:
    for row in rows:
        payload = payload_of(snapshot.connection, snapshot.catalog, row["id"])
        connection.execute(table.insert(), {**row, "payload": payload[:size]})
        add_rest(connection, snapshot.catalog, row["id"], payload, size)


def _in_segments(
    _: Snapshot, connection: sa.Connection, table: sa.Table, rows: list[dict[str, Any]], size: int
) -> None:
    rows.sort(key=itemgetter("number"))
    payload, first = b"".join(row["payload"] for row in rows), {**rows[0], "properties": None}
    starts = enumerate(range(0, max(1, len(payload)), size))
    segments = [{**first, "number": number, "payload": payload[start : start + size]} for number, start in starts]
    segments[0]["properties"] = rows[0]["properties"]
    connection.execute(table.insert(), segments)


def _write_note(connection: sa.Connection, meta: sa.Table, name: str, value: str) -> None:
    connection.execute(meta.delete().where(meta.c.name == name))
    connection.execute(meta.insert(), {"name": name, "value": value})


def _read_done(connection: sa.Connection, catalog: Catalog) -> dict[int, int]:
    """Return up to which position of each journal's number earlier copies are done."""
    rows = connection.execute(sa.select(catalog.meta).where(catalog.meta.c.name.startswith(_COPIED)))
    names = ((row.name.removeprefix(_COPIED), row.value) for row in rows)
    return {int(name): int(value) for name, value in names if name.isdecimal()}


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


def _new_digest() -> hashlib.blake2b:
    return hashlib.blake2b(digest_size=8)


def _canonical(record: Record) -> bytes:
    """Return a record as text that is the same from every engine and model."""
    envelope = [*record.envelope().values()]
    values = [[path, kind, value] for path, (kind, value) in record.properties().items()]
    return tagged.dumps([envelope, values]).encode()
