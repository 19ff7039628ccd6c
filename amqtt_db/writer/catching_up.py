"""Bring what an old database has changed of the messages that earlier copies of it were done with.

They may have been imported, replayed, stored again, renamed or typed again since.  Each copy notes a checksum of each
topic; only topics for which that differs are compared, message by message.  What the old database has no more stays in
the new one, except dead letters.
"""

from __future__ import annotations

import hashlib
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from heapq import merge
from itertools import groupby
from operator import attrgetter
from typing import Final

import attrs
import sqlalchemy as sa

from amqtt_db import tagged
from amqtt_db.database.catalog import Assignment, key_hash
from amqtt_db.database.copies import note_copied, read_copied
from amqtt_db.database.dead_letters import delete_letters
from amqtt_db.database.engines.base import batched
from amqtt_db.database.snapshot import Snapshot, Snapshots
from amqtt_db.message import POSITION_BITS
from amqtt_db.record import Record
from amqtt_db.writer.copied_rows import copy_rows
from amqtt_db.writer.places import FoundRecords, Places
from amqtt_db.writer.replacement import Replacer
from amqtt_db.writer.retyping import equal_records, sort_keys
from amqtt_db.writer.taking_in import plan_records
from amqtt_db.writer.workshop import Workshop, batches, records_in

_CHECKSUM_BITS: Final = 64
LAST_POSITION: Final = (1 << POSITION_BITS) - 1
_TOPICS: Final = "topic/"  # the kind of notes that hold checksums
_identify = attrgetter("id", "part")


@attrs.frozen
class ChangedTopic:
    """A topic, and how many of its messages were changed in the old database, and are in the new one as there now."""

    topic: str
    messages: int


class Changes:
    """What an old database has changed; ``done`` says up to which position of each journal's number a copy was done.

    ``places`` are where the old database has the records of each topic.  Hold the maintenance lock of the new one.
    """

    def __init__(
        self,
        shop: Workshop,
        source: Snapshots,
        places: Mapping[str, Sequence[Assignment]],
        done: Mapping[int, int],
    ) -> None:
        self._shop = shop
        self._source = source
        self._places = places
        self._done = done
        self._replacer = Replacer(shop)

    def bring(self, sums: Mapping[str, int]) -> Iterator[ChangedTopic]:
        """Bring all changes by topic; ``sums`` are the checksums of the topics' records that were not done yet."""
        with self._shop.database.begin() as connection:
            known = read_copied(connection, self._shop.catalog, _TOPICS)
        now = {topic: self._sum(topic) for topic in sums}
        if self._done:
            changed = [topic for topic in now if known.get(key_hash(topic)) != format_checksum(now[topic])]
            among = Places(self._shop, self._topics_to_search(changed))
            for topic in changed:
                messages = sum(self._bring_topic(topic, among), 0)
                if messages:
                    yield ChangedTopic(topic, messages)
        with self._shop.database.begin() as connection:
            for topic, checksum in now.items():
                text = format_checksum(checksum + sums[topic])
                note_copied(connection, self._shop.catalog, f"{_TOPICS}{key_hash(topic)}", text)

    def drop_dead_letters(self) -> None:
        """Delete the dead letters that the old database has no more: they were replayed or purged there."""
        new = self._shop.catalog.dead_letter
        with self._shop.database.begin() as connection:
            ids = [id_ for id_ in connection.scalars(sa.select(new.c.id)) if self._is_done(id_)]
        for some in batched(ids):
            with self._source.take() as snapshot:
                old = snapshot.catalog.dead_letter
                kept = set(snapshot.connection.scalars(sa.select(old.c.id).where(old.c.id.in_(some))))
            with self._shop.database.begin() as connection:
                delete_letters(connection, self._shop.catalog, [id_ for id_ in some if id_ not in kept])

    def end_sessions(self, journals: Iterable[int]) -> None:
        """Note when sessions of some journals, by their numbers, have ended since they were copied."""
        for number in journals:
            with self._source.take() as snapshot:
                ended = _read_ends(snapshot.connection, snapshot.catalog.session, number)
            table = self._shop.catalog.session
            with self._shop.database.begin() as connection:
                known = _read_ends(connection, table, number)
                for id_, moment in ended.items():
                    if moment is not None and id_ in known and known[id_] != moment:
                        connection.execute(table.update().where(table.c.id == id_).values(disconnected=moment))

    def _is_done(self, id_: int) -> bool:
        return id_ & LAST_POSITION < self._done.get(id_ >> POSITION_BITS, 0)

    def _read(self, snapshot: Snapshot, topic: str) -> Iterator[Record]:
        return read_messages(snapshot, self._places[topic], 1, self._is_done)

    def _sum(self, topic: str) -> int:
        """Return the checksum of the old records of a topic that earlier copies were done with."""
        if not self._done:
            return 0
        with self._source.take() as snapshot:
            return sum(map(compute_checksum, self._read(snapshot, topic)))

    def _topics_to_search(self, changed: Sequence[str]) -> set[str]:
        """Return the topics under which the new database may have the messages of changed topics, perhaps renamed."""
        table = self._shop.catalog.assignment
        with self._shop.database.begin() as connection:
            there = set(connection.scalars(sa.select(table.c.topic)))
        return (there - self._places.keys()).union(changed)

    def _bring_topic(self, topic: str, among: Places) -> Iterator[int]:
        """Make a topic's messages what they are in the old database; yield how many each step has changed."""
        kept_from = first_kept(self._shop, topic)
        with self._source.take() as snapshot:
            for batch in batches(record for record in self._read(snapshot, topic) if record.time_us >= kept_from):
                yield self._shop.attempt(partial(self._bring, snapshot, batch, among))

    def _bring(self, snapshot: Snapshot, batch: Sequence[Record], among: Places) -> int:
        topics = frozenset(topic for place in among.all for topic in place.topics)
        found = among.find(topics, {record.id for record in batch})
        ids = _find_changed(batch, found)
        if ids:
            new = [record for record in batch if record.id in ids]
            rows = plan_records(self._shop, new)
            confirm = partial(self._copy_payloads, snapshot, ids)
            self._replacer.replace(among.tables(topics), found.of(ids).everything, rows, confirm, new)
        return len(ids)

    def _copy_payloads(self, snapshot: Snapshot, ids: frozenset[int], connection: sa.Connection) -> None:
        """Replace the payloads of messages by those that the old database keeps."""
        table = self._shop.catalog.raw
        for some in batched(ids):
            connection.execute(table.delete().where(table.c.id.in_(some)))
            copy_rows(snapshot, self._shop, connection, "raw", some)


def read_messages(
    snapshot: Snapshot, places: Sequence[Assignment], first: int, is_wanted: Callable[[int], bool]
) -> Iterator[Record]:
    """Yield the wanted records of a topic from an id on, in the order of their ids, each once wherever it is."""
    found = merge(*(records_in(snapshot, place, first - 1) for place in places), key=_identify)
    for _, same in groupby((record for record in found if is_wanted(record.id)), key=_identify):
        yield max(same, key=lambda record: len(record.values))


def first_kept(shop: Workshop, topic: str) -> float:
    """Return the time in microseconds since 1970 before which a topic's records are not kept."""
    keep = shop.handler(topic).builder.route.keep
    return float("-inf") if keep is None else (time.time() - keep.total_seconds()) * 1_000_000


def compute_checksum(record: Record) -> int:
    """Return the checksum of a record, whatever the engine and the model; that of several records is their sum."""
    values = [[path, kind, sort_keys(value)] for path, (kind, value) in sorted(record.properties().items())]
    text = tagged.dumps([[*record.envelope().values()], values]).encode()
    digest = hashlib.blake2b(text, digest_size=_CHECKSUM_BITS // 8).digest()
    return int.from_bytes(digest, "big")


def format_checksum(total: int) -> str:
    """Return a checksum as hexadecimal digits."""
    return f"{total % (1 << _CHECKSUM_BITS):016x}"


def _find_changed(batch: Sequence[Record], found: FoundRecords) -> frozenset[int]:
    """Return the ids of the messages whose records are not the same as those that were found."""
    there: dict[int, list[Record]] = defaultdict(list)
    for _, record in found.live:
        there[record.id].append(record)
    changed = set()
    for id_, some in groupby(batch, key=attrgetter("id")):
        old, new = list(some), sorted(there[id_], key=_identify)
        if len(old) != len(new) or not all(map(equal_records, old, new)):
            changed.add(id_)
    return frozenset(changed)


def _read_ends(connection: sa.Connection, table: sa.Table, journal: int) -> dict[int, int | None]:
    """Return when the sessions of a journal ended, None for those that go on."""
    query = sa.select(table.c.id, table.c.disconnected).where(table.c.journal == journal)
    return {row.id: row.disconnected for row in connection.execute(query)}
