"""One transaction: rows, dead letters, sessions, counters and the checkpoint; all of a batch or nothing.

Committing is the third and last step of a batch in the writer.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import MappingProxyType
from typing import Any, Final

import orjson
import sqlalchemy as sa

from amqtt_db.database.catalog import COUNTS, Catalog, key_hash
from amqtt_db.database.dead_letters import LetterChoice, add_rest, delete_letters, payload_of
from amqtt_db.database.engines.base import Engine
from amqtt_db.database.raw_payloads import add_raw, fit_properties
from amqtt_db.errors import format_count
from amqtt_db.message import CONNECT, DISCONNECT, POSITION_BITS, PUBLISH, START, Message, flags, message_id
from amqtt_db.tagged import is_clean
from amqtt_db.writer.blame import blame_data
from amqtt_db.writer.decoded import DecodedBatch, Rejection
from amqtt_db.writer.insert_target import TargetRows, merge_rows
from amqtt_db.writer.rollup_notes import RollupRules, note_new_records

logger = logging.getLogger(__name__)

COLLISIONS: Final = 3  # attempts that may fail because another writer was in the way before that is unusual

_POSITION: Final = (1 << POSITION_BITS) - 1  # the bits of a message's id that hold its position


class CheckpointMoved(Exception):  # noqa: N818 - it reads as what happened
    """Another process has already stored this: roll back, and read the checkpoint again."""


class AssignmentsMoved(CheckpointMoved):
    """Another process has reassigned a topic: forget what was learnt, and try again."""


class TransactionWriter:
    """Reads and writes the project's own tables in the target database, in the caller's transactions."""

    def __init__(self, engine: Engine, catalog: Catalog, rules: RollupRules = MappingProxyType({})) -> None:
        """New records of the routes in ``rules`` are noted, so that they are summed up later."""
        self._engine = engine
        self._catalog = catalog
        self._rules = rules
        self._routing_versions: dict[int, int] = {}
        self._clients: dict[int, bytes | None] = {}
        self._move = _moving(catalog.journal)
        self._add = _adding(catalog.counter)

    def register(self, connection: sa.Connection, token: str, first: int) -> tuple[int, int]:
        """Return the number of a journal's generation in this database, and its checkpoint.

        Raises AssignmentsMoved if a topic has been reassigned.
        """
        journal = self._catalog.journal
        self._engine.lock_schema(connection)
        self.require_known_assignments(connection)
        query = sa.select(journal.c.number, journal.c.position).where(journal.c.token == token)
        row = connection.execute(query).one_or_none()
        if row is None:
            number = (connection.scalar(sa.select(sa.func.max(journal.c.number))) or 0) + 1
            new = {"number": number, "token": token, "position": first, "routing_version": 0}
            connection.execute(journal.insert(), new)
            self.learn_assignments(connection)
            return number, first
        self.learn_assignments(connection)
        return int(row.number), int(row.position)

    def require_known_assignments(self, connection: sa.Connection, *, lock: bool = False) -> None:
        """Raise AssignmentsMoved if a topic has been reassigned since the routing versions were learnt.

        Unless the schema is locked, ``lock`` keeps them unchanged until the transaction ends.
        """
        now = self._read_routing_versions(connection, lock=lock)
        if any(now.get(number) != routing_version for number, routing_version in self._routing_versions.items()):
            raise AssignmentsMoved

    def forget_assignments(self) -> None:
        """Forget the routing versions, and with them all assignments."""
        self._routing_versions.clear()

    def learn_assignments(self, connection: sa.Connection) -> None:
        """Learn the routing versions: the assignments that this process knows are current."""
        self._routing_versions = self._read_routing_versions(connection, lock=False)

    def _read_routing_versions(self, connection: sa.Connection, *, lock: bool) -> dict[int, int]:
        journal = self._catalog.journal
        query = sa.select(journal.c.number, journal.c.routing_version)
        return {row[0]: row[1] for row in connection.execute(query.with_for_update() if lock else query)}

    def checkpoint(self, connection: sa.Connection, number: int) -> int:
        """Return the position up to which the journal is stored."""
        journal = self._catalog.journal
        query = sa.select(journal.c.position).where(journal.c.number == number)
        return int(connection.scalars(query).one())

    def write(
        self,
        connection: sa.Connection,
        decoded: DecodedBatch,
        rows: Sequence[TargetRows],
        start: int,
        previous: int | None,
    ) -> None:
        """Write a whole batch in the connection's transaction, and move the checkpoint from ``start`` to its end.

        ``previous`` is the number of the journal's previous generation.  Raises CheckpointMoved if the checkpoint is
        not at ``start``, or a topic has been reassigned.
        """
        self._advance(connection, decoded, start)
        self._insert(connection, rows)
        note_new_records(connection, self._catalog, self._rules, decoded.groups)
        add_raw(connection, self._engine, self._catalog, decoded.number, decoded.raw)
        self._write_sessions(connection, decoded, previous)
        self._write_dead_letters(connection, decoded)
        self.add_counts(connection, decoded.number, decoded.counts)

    def dead_letters(self, connection: sa.Connection, choice: LetterChoice) -> list[int]:
        """Return the ids of the chosen dead letters, oldest first."""
        return choice.find(connection, self._catalog)

    def dead_letter(self, connection: sa.Connection, id_: int) -> tuple[Message, str]:
        """Return a dead letter's message and its topic filter.  Raises CheckpointMoved if there is none."""
        table = self._catalog.dead_letter
        names = ("time", "filter", "topic", "session", "qos", "retain", "properties")
        query = sa.select(*(table.c[name] for name in names)).where(table.c.id == id_)
        row = connection.execute(
            query.with_for_update()
        ).one_or_none()  # another replay must not delete it in the meantime
        if row is None:
            raise CheckpointMoved
        sent = flags(PUBLISH, row.qos, bool(row.retain))
        payload = payload_of(connection, self._catalog, id_)
        session, kept = (row.session or 0) & _POSITION, row.properties or b""
        return Message(id_ & _POSITION, row.time, sent, session, row.topic, payload, kept), row.filter

    def replace_dead_letter(
        self, connection: sa.Connection, decoded: DecodedBatch, rows: Sequence[TargetRows], message: int
    ) -> None:
        """Replace a dead letter with what it has become.

        Raises CheckpointMoved if it is no longer a dead letter, AssignmentsMoved if a topic has been reassigned.
        """
        self.require_known_assignments(connection, lock=True)
        if delete_letters(connection, self._catalog, [message]) != 1:
            raise CheckpointMoved
        self._insert(connection, rows)
        note_new_records(connection, self._catalog, self._rules, decoded.groups)
        add_raw(connection, self._engine, self._catalog, decoded.number, decoded.raw)
        self.add_counts(connection, decoded.number, decoded.counts)

    def _insert(self, connection: sa.Connection, rows: Sequence[TargetRows]) -> None:
        with blame_data(connection.engine):
            self._engine.insert(connection, merge_rows(rows))

    def _advance(self, connection: sa.Connection, decoded: DecodedBatch, start: int) -> None:
        known = {"of": decoded.number, "start": start, "known": self._routing_versions[decoded.number]}
        if self._engine.update(connection, self._move, {**known, "end": decoded.end}) != 1:
            raise CheckpointMoved

    def _write_sessions(self, connection: sa.Connection, decoded: DecodedBatch, previous: int | None) -> None:
        by_kind: dict[int, list[Message]] = {CONNECT: [], DISCONNECT: [], START: []}
        for message in decoded.connections:
            by_kind[message.kind].append(message)
        session = self._catalog.session
        if by_kind[START] and previous is not None:
            left_open = (session.c.journal == previous) & session.c.disconnected.is_(None)
            connection.execute(session.update().where(left_open).values(disconnected=by_kind[START][0].time))
        if by_kind[CONNECT]:
            connection.execute(session.insert(), [_session(decoded.number, message) for message in by_kind[CONNECT]])
        if by_kind[DISCONNECT]:
            ended = session.update().where(session.c.id == sa.bindparam("session"))
            rows = [
                {"session": message_id(decoded.number, message.session), "disconnected": message.time}
                for message in by_kind[DISCONNECT]
            ]
            connection.execute(ended.values(disconnected=sa.bindparam("disconnected")), rows)

    def _write_dead_letters(self, connection: sa.Connection, decoded: DecodedBatch) -> None:
        if decoded.rejected:
            rows = [self._dead_row(connection, decoded.number, rejection) for rejection in decoded.rejected]
            size = self._engine.segment_size(connection)
            firsts = [
                {**row, "payload": row["payload"][:size], "properties": fit_properties(row["properties"], size)}
                for row in rows
            ]
            connection.execute(self._catalog.dead_letter.insert(), firsts)
            for row in rows:
                add_rest(connection, self._catalog, row["id"], row["payload"], size)
            filters = ", ".join(sorted({rejection.filter or "no route" for rejection in decoded.rejected}))
            logger.warning(
                "%s stored (%s): see `amqtt-db dead list`",
                format_count(len(rows), "dead letter"),
                filters,
            )

    def _dead_row(self, connection: sa.Connection, number: int, rejection: Rejection) -> dict[str, Any]:
        message = rejection.message
        session = message_id(number, message.session) if message.session else None
        return {
            "id": message_id(number, message.position),
            "time": message.time,
            "filter": rejection.filter,
            "step": rejection.step,
            "reason": clean_text(rejection.reason)[:1000],
            "topic": message.topic,
            "client": self._client(connection, session),
            "session": session,
            "qos": message.qos,
            "retain": message.retain,
            "properties": message.properties,
            "payload": message.payload,
        }

    def _client(self, connection: sa.Connection, session: int | None) -> bytes | None:
        if session is None:
            return None
        if session not in self._clients:
            table = self._catalog.session
            client = connection.scalar(sa.select(table.c.client_id).where(table.c.id == session))
            if len(self._clients) > 10_000:
                self._clients.clear()
            self._clients[session] = None if client is None else str(client).encode()
        return self._clients[session]

    def add_counts(self, connection: sa.Connection, number: int, added_counts: Mapping[str, Counter[str]]) -> None:
        """Add to a journal's counters in the order of filters, so that a writer and a replay cannot deadlock."""
        for text, counts in sorted(added_counts.items()):
            hash_ = key_hash(text)
            added = {"of": number, "hashed": hash_, **{f"new_{name}": counts[name] for name in COUNTS}}
            if any(counts.values()) and self._engine.update(connection, self._add, added) == 0:
                row = {"journal": number, "hash": hash_, "filter": text, **dict.fromkeys(COUNTS, 0)}
                with suppress(sa.exc.IntegrityError), connection.begin_nested():  # another one may be faster
                    connection.execute(self._catalog.counter.insert(), row)
                self._engine.update(connection, self._add, added)


def _moving(journal: sa.Table) -> sa.Update:
    """Return a checkpoint's compare-and-set, built once: building a statement takes longer than executing it."""
    here = (journal.c.number == sa.bindparam("of")) & (journal.c.position == sa.bindparam("start"))
    here &= journal.c.routing_version == sa.bindparam("known")
    return journal.update().where(here).values(position=sa.bindparam("end"))


def _adding(counter: sa.Table) -> sa.Update:
    here = (counter.c.journal == sa.bindparam("of")) & (counter.c.hash == sa.bindparam("hashed"))
    return counter.update().where(here).values({name: counter.c[name] + sa.bindparam(f"new_{name}") for name in COUNTS})


def clean_text(text: str) -> str:
    """Return text that every database can hold, escaping what some cannot."""
    return text if is_clean(text) else text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def _session(number: int, message: Message) -> Mapping[str, Any]:
    details = orjson.loads(message.payload)
    names = ("client_id", "username", "address", "port", "keep_alive", "clean_session")
    row = {name: details.get(name) for name in names}
    texts = {name: clean_text(value) for name, value in row.items() if isinstance(value, str)}
    identity = {"id": message_id(number, message.position), "journal": number}
    return {**row, **texts, **identity, "connected": message.time, "disconnected": None}
