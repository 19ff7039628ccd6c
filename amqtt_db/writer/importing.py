"""Import records from a file, each once by its id; where the ids of another database would clash, they get others.

The file is read twice: first to find whatever is in the way, so that nothing is stored of a file that cannot be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Final

import attrs
import sqlalchemy as sa

from amqtt_db.database.catalog import key_hash
from amqtt_db.database.engines.base import batched
from amqtt_db.database.snapshot import Snapshot
from amqtt_db.message import POSITION_BITS, message_id
from amqtt_db.reader.keys import LookupCache
from amqtt_db.record import Record
from amqtt_db.routing.route import Route
from amqtt_db.writer.places import Places, RecordPlace
from amqtt_db.writer.taking_in import RecordTaker, TakenIn, require_routes
from amqtt_db.writer.workshop import BATCH, RewriteError, Workshop

_IMPORTED: Final = "imported/"  # begins the token of a number that no journal has
_LOW_BITS: Final = (1 << POSITION_BITS) - 1
_TOO_HIGH: Final = 1 << 22  # of the numbers of journals: half of those that ids have room for


@attrs.define
class Survey:
    """What is in a file: how many records, the topic of each message, and how far each journal's ids go."""

    records: int = 0
    topics: dict[int, str] = attrs.field(factory=dict)
    ends: dict[int, int] = attrs.field(factory=dict)

    def _add(self, record: Record) -> None:
        """Add a record.  Raises RewriteError if the file has a message under two topics."""
        self.records += 1
        if self.topics.setdefault(record.id, record.topic) != record.topic:
            other = self.topics[record.id]
            raise _clash(f"the file has message {record.id} under topic {other!r} and under {record.topic!r}")
        for id_ in (record.id, record.session or 0):
            number, position = id_ >> POSITION_BITS, id_ & _LOW_BITS
            if id_:
                self.ends[number] = max(self.ends.get(number, 0), position + 1)

    @classmethod
    def of(cls, records: Iterable[Record], routes: Sequence[Route], source: str | None) -> Survey:
        """Look through records, which have ids of their own with a ``source``; no database is needed for that.

        Raises RewriteError if no database can take them.
        """
        survey = cls()
        for record in records:
            survey._add(record)
        require_routes(routes, set(survey.topics.values()))
        if source is None and max(survey.ends, default=0) >= _TOO_HIGH:
            raise _clash("the file has ids so high that the journals of this database would find none above them")
        return survey


class Importer:
    """Stores the records that ``read`` yields, the same each time, with the tools of a workshop.

    ``survey`` is what they are; it was made for the same ``source``.  With the name of one, the records get ids of
    their own: the same ones whenever they are imported again.
    """

    def __init__(
        self, shop: Workshop, read: Callable[[], Iterator[Record]], survey: Survey, source: str | None = None
    ) -> None:
        self._shop = shop
        self._read = read
        self._source = source
        self._numbers: Mapping[int, int] = {}
        self._survey = survey

    def check(self) -> TakenIn:
        """Return what an import would do.  Raises RewriteError if it is impossible; nothing is changed."""
        survey = self._survey
        with self._shop.database.connect() as connection:
            self._numbers = self._number(connection, survey)
            connection.rollback()
        taker = RecordTaker(self._shop, set(survey.topics.values()))
        topics = {self._renumber(id_): topic for id_, topic in survey.topics.items()}
        self._require_free_ids(topics)
        self._require_no_other_owner(topics)
        total = TakenIn()
        for batch in self._batches():
            new, told = taker.compare(batch)
            if told.different:
                one = told.different[0]
                raise _clash(f"message {one.id} of topic {one.topic!r} is another one in the database")
            total += told + TakenIn(len(new))
        return total

    def store(self) -> Iterator[TakenIn]:
        """Store the records, after :meth:`check`; yield each step."""
        with self._shop.maintenance():
            survey = self._survey
            with self._shop.database.begin() as connection:
                self._shop.engine.lock_schema(connection)
                self._numbers = self._number(connection, survey)
            taker = RecordTaker(self._shop, set(survey.topics.values()))
            taker.assign()
            for batch in self._batches():
                yield taker.take(batch)

    def _batches(self) -> Iterator[list[Record]]:
        records = map(self._with_own_ids, self._read())
        while batch := list(islice(records, BATCH)):
            yield batch

    def _with_own_ids(self, record: Record) -> Record:
        if self._source is None:
            return record
        session = None if record.session is None else self._renumber(record.session)
        return attrs.evolve(record, id=self._renumber(record.id), session=session)

    def _renumber(self, id_: int) -> int:
        return message_id(self._numbers[id_ >> POSITION_BITS], id_ & _LOW_BITS) if id_ else id_

    def _number(self, connection: sa.Connection, survey: Survey) -> dict[int, int]:
        """Reserve a number in the database for each in the file, so that no journal gets it.

        Raises RewriteError if a journal has such a number, and has not come that far.
        """
        table, numbers = self._shop.catalog.journal, {}
        for number, end in sorted(survey.ends.items()):
            token = f"{_IMPORTED}{number}" if self._source is None else f"{_IMPORTED}{self._source}/{number}"
            here = (table.c.number == number) if self._source is None else (table.c.token == token)
            row = connection.execute(sa.select(table).where(here)).one_or_none()
            if row is None:
                last = connection.scalar(sa.select(sa.func.max(table.c.number))) or 0
                numbers[number] = number if self._source is None else last + 1
                new = {"number": numbers[number], "token": token, "position": end, "routing_version": 0}
                connection.execute(table.insert(), new)
                continue
            numbers[number] = row.number
            if row.position < end:
                if not row.token.startswith(_IMPORTED):
                    raise _clash("the file has ids that a journal of this database is still to give")
                connection.execute(table.update().where(table.c.number == row.number).values(position=end))
        return numbers

    def _require_free_ids(self, topics: Mapping[int, str]) -> None:
        """Raise RewriteError if another topic has a message with one of these ids."""
        table = self._shop.catalog.assignment
        with self._shop.database.begin() as connection:
            stored = set(connection.scalars(sa.select(table.c.topic)))
        with self._shop.snapshots.take() as snapshot:
            for place in Places(self._shop, stored).all if topics else ():
                for id_, topic in self._messages_at(snapshot, place, min(topics), max(topics)):
                    if topics.get(id_, topic) != topic:
                        raise _clash(f"message {id_} has topic {topic!r} in the database")

    def _require_no_other_owner(self, topics: Mapping[int, str]) -> None:
        """Raise RewriteError if one of these ids belongs to a dead letter, a session, or another topic's payload."""
        with self._shop.snapshots.take() as snapshot:
            for id_ in _taken_ids(snapshot, snapshot.catalog.dead_letter, topics):
                raise RewriteError(
                    f"message {id_} is a dead letter of the database; run `amqtt-db dead replay` or `amqtt-db dead "
                    "purge` first, or, if the file comes from another database, give that a name: --source NAME"
                )
            for id_ in _taken_ids(snapshot, snapshot.catalog.session, topics):
                raise _clash(f"{id_} is the id of a session in the database")
            raw = snapshot.catalog.raw
            for some in batched(topics):
                for row in snapshot.connection.execute(sa.select(raw.c.id, raw.c.hash).where(raw.c.id.in_(some))):
                    if row.hash != key_hash(topics[row.id]):
                        raise _clash(f"the database keeps the payload of message {row.id} under another topic")

    def _messages_at(self, snapshot: Snapshot, place: RecordPlace, low: int, high: int) -> Iterator[tuple[int, str]]:
        """Yield the ids and topics of the records in the tables of a place."""
        main, name = next(iter(self._shop.tables(place.assignment).values()), (None, ""))
        if main is None:
            return
        target = sa.table(name, sa.column("id"), sa.column("topic"))
        query = sa.select(target.c.id, target.c.topic).where(target.c.id.between(low, high))
        lookup = next((column.lookup for column in main.columns if column.name == "topic"), None)
        rows = snapshot.connection.execute(query).all()
        known = {} if lookup is None else LookupCache(snapshot).get_keys(lookup, {row.topic for row in rows})
        yield from ((row.id, known.get(row.topic, row.topic)) for row in rows)


def _taken_ids(snapshot: Snapshot, table: sa.Table, ids: Iterable[int]) -> Iterator[int]:
    """Yield those of some ids that a table has."""
    for some in batched(ids):
        yield from snapshot.connection.scalars(sa.select(table.c.id).where(table.c.id.in_(some)))


def _clash(text: str) -> RewriteError:
    return RewriteError(f"{text}; if the file comes from another database, give that a name: --source NAME")
