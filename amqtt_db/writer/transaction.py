"""One transaction: rows, dead letters, sessions, counters and the checkpoint, all of a batch or nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Final

import orjson
import sqlalchemy as sa

from amqtt_db.database.catalog import COUNTS, Catalog, key_hash
from amqtt_db.database.dead_letters import add_rest, delete_letters, payload_of
from amqtt_db.database.engines.base import Engine, RowBatch
from amqtt_db.errors import format_count
from amqtt_db.message import CONNECT, DISCONNECT, POSITION_BITS, PUBLISH, START, Message, flags, message_id
from amqtt_db.tagged import is_clean
from amqtt_db.writer.harvest import Dead, Harvest
from amqtt_db.writer.insert_plan import InsertTarget

logger = logging.getLogger(__name__)

COLLISIONS: Final = 3  # attempts that go wrong because another writer was in the way, until that is unusual

_POSITION: Final = (1 << POSITION_BITS) - 1  # the bits of a message's id that are its position


class CheckpointMoved(Exception):  # noqa: N818 - it reads as what happened
    """Somebody else stored this already: roll back and look again."""


class AssignmentsMoved(CheckpointMoved):
    """A topic has got another place than this process knows: begin anew, with nothing that was learnt."""


class TransactionWriter:
    """The target database, as the writer writes it."""

    def __init__(self, engine: Engine, catalog: Catalog) -> None:
        self._engine = engine
        self._catalog = catalog
        self._epochs: dict[int, int] = {}
        self._clients: dict[int, bytes | None] = {}
        self._move = _moving(catalog.journal)
        self._add = _adding(catalog.counter)

    def register(self, connection: sa.Connection, token: str, first: int) -> tuple[int, int]:
        """The number under which a journal's opening is known here, and its checkpoint.

        Raises PlacesMoved if a topic has got another place.
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
            self.renew(connection)
            return number, first
        self.renew(connection)
        return int(row.number), int(row.position)

    def require_known_assignments(self, connection: sa.Connection, *, lock: bool = False) -> None:
        """Raise PlacesMoved if a topic has got another place since the epoch was learnt.

        Unless the schema is locked, ``lock`` keeps it so until the transaction ends.
        """
        now = self._read_epochs(connection, lock=lock)
        if any(now.get(number) != routing_version for number, routing_version in self._epochs.items()):
            raise AssignmentsMoved

    def forget_assignments(self) -> None:
        """Forget the epoch: nothing is known of places any more."""
        self._epochs.clear()

    def renew(self, connection: sa.Connection) -> None:
        """Learn the epoch: the placements of topics that are known to this process are those of now."""
        self._epochs = self._read_epochs(connection, lock=False)

    def _read_epochs(self, connection: sa.Connection, *, lock: bool) -> dict[int, int]:
        journal = self._catalog.journal
        query = sa.select(journal.c.number, journal.c.routing_version)
        return {row[0]: row[1] for row in connection.execute(query.with_for_update() if lock else query)}

    def checkpoint(self, connection: sa.Connection, number: int) -> int:
        """The position up to which the journal is stored."""
        journal = self._catalog.journal
        query = sa.select(journal.c.position).where(journal.c.number == number)
        return int(connection.scalars(query).one())

    def write(self, connection: sa.Connection, harvest: Harvest, previous: int | None) -> None:
        """Everything of a batch, in the connection's transaction; ``previous`` is the number of the opening before.

        Raises CheckpointMoved if the checkpoint is not where the batch starts, or a topic has got another place.
        """
        self._advance(connection, harvest)
        self._engine.insert(connection, merged(harvest.rows))
        self._write_sessions(connection, harvest, previous)
        self._write_dead(connection, harvest)
        self._write_counts(connection, harvest)

    def dead_letters(self, connection: sa.Connection) -> list[tuple[int, bytes]]:
        """The ids and topics of all dead letters, oldest first."""
        table = self._catalog.dead_letter
        query = sa.select(table.c.id, table.c.topic).order_by(table.c.id)
        return [(row.id, row.topic) for row in connection.execute(query)]

    def dead_letter(self, connection: sa.Connection, id_: int) -> tuple[Message, str]:
        """A dead letter's message and its topic filter.  Raises CheckpointMoved if there is no such letter any more."""
        table = self._catalog.dead_letter
        names = ("time", "filter", "topic", "session", "qos", "retain")
        query = sa.select(*(table.c[name] for name in names)).where(table.c.id == id_)
        row = connection.execute(query.with_for_update()).one_or_none()  # another replay must not delete it meanwhile
        if row is None:
            raise CheckpointMoved
        sent = flags(PUBLISH, row.qos, bool(row.retain))
        payload = payload_of(connection, self._catalog, id_)
        return Message(id_ & _POSITION, row.time, sent, (row.session or 0) & _POSITION, row.topic, payload), row.filter

    def revive(self, connection: sa.Connection, harvest: Harvest, message: int) -> None:
        """Store what a dead letter has become, in its stead.

        Raises CheckpointMoved if it is one no longer, PlacesMoved if a topic has got another place.
        """
        self.require_known_assignments(connection, lock=True)
        if delete_letters(connection, self._catalog, [message]) != 1:
            raise CheckpointMoved
        self._engine.insert(connection, merged(harvest.rows))
        self._write_counts(connection, harvest)

    def _advance(self, connection: sa.Connection, harvest: Harvest) -> None:
        known = {"of": harvest.number, "start": harvest.start, "known": self._epochs[harvest.number]}
        if connection.execute(self._move, {**known, "end": harvest.end}).rowcount != 1:
            raise CheckpointMoved

    def _write_sessions(self, connection: sa.Connection, harvest: Harvest, previous: int | None) -> None:
        by_kind: dict[int, list[Message]] = {CONNECT: [], DISCONNECT: [], START: []}
        for message in harvest.sessions:
            by_kind[message.kind].append(message)
        session = self._catalog.session
        if by_kind[START] and previous is not None:
            left_open = (session.c.journal == previous) & session.c.disconnected.is_(None)
            connection.execute(session.update().where(left_open).values(disconnected=by_kind[START][0].time))
        if by_kind[CONNECT]:
            connection.execute(session.insert(), [_session(harvest.number, message) for message in by_kind[CONNECT]])
        if by_kind[DISCONNECT]:
            ended = session.update().where(session.c.id == sa.bindparam("session"))
            rows = [
                {"session": message_id(harvest.number, message.session), "disconnected": message.time}
                for message in by_kind[DISCONNECT]
            ]
            connection.execute(ended.values(disconnected=sa.bindparam("disconnected")), rows)

    def _write_dead(self, connection: sa.Connection, harvest: Harvest) -> None:
        if harvest.dead:
            rows = [self._dead_row(connection, harvest.number, dead) for dead in harvest.dead]
            size = self._engine.segment_size(connection)
            firsts = [{**row, "payload": row["payload"][:size]} for row in rows]
            connection.execute(self._catalog.dead_letter.insert(), firsts)
            for row in rows:
                add_rest(connection, self._catalog, row["id"], row["payload"], size)
            filters = ", ".join(sorted({dead.filter or "no route" for dead in harvest.dead}))
            logger.warning(
                "%s put among the dead letters (%s): see `amqtt-db dead list`",
                format_count(len(rows), "message"),
                filters,
            )

    def _dead_row(self, connection: sa.Connection, number: int, dead: Dead) -> dict[str, Any]:
        message = dead.message
        session = message_id(number, message.session) if message.session else None
        return {
            "id": message_id(number, message.position),
            "time": message.time,
            "filter": dead.filter,
            "step": dead.step,
            "reason": clean_text(dead.reason)[:1000],
            "topic": message.topic,
            "client": self._client(connection, session),
            "session": session,
            "qos": message.qos,
            "retain": message.retain,
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

    def _write_counts(self, connection: sa.Connection, harvest: Harvest) -> None:
        """In the order of their filters: a writer and a replay never wait for each other crosswise."""
        for text, counts in sorted(harvest.counts.items()):
            hash_ = key_hash(text)
            added = {"of": harvest.number, "hashed": hash_, **{f"new_{name}": counts[name] for name in COUNTS}}
            if any(counts.values()) and connection.execute(self._add, added).rowcount == 0:
                row = {"journal": harvest.number, "hash": hash_, "filter": text, **dict.fromkeys(COUNTS, 0)}
                with suppress(sa.exc.IntegrityError), connection.begin_nested():  # another one may be faster
                    connection.execute(self._catalog.counter.insert(), row)
                connection.execute(self._add, added)


def _moving(journal: sa.Table) -> sa.Update:
    """A checkpoint's compare-and-set, made once: to build a statement takes longer than to execute it."""
    here = (journal.c.number == sa.bindparam("of")) & (journal.c.position == sa.bindparam("start"))
    here &= journal.c.routing_version == sa.bindparam("known")
    return journal.update().where(here).values(position=sa.bindparam("end"))


def _adding(counter: sa.Table) -> sa.Update:
    here = (counter.c.journal == sa.bindparam("of")) & (counter.c.hash == sa.bindparam("hashed"))
    return counter.update().where(here).values({name: counter.c[name] + sa.bindparam(f"new_{name}") for name in COUNTS})


def merged(rows: Sequence[tuple[InsertTarget, Sequence[Any]]]) -> Sequence[RowBatch]:
    """One load per target, in the order of the tables' names: two writers never wait for each other crosswise."""
    merged: dict[InsertTarget, list[Any]] = {}
    for target, some in rows:
        if some:
            merged.setdefault(target, []).extend(some)
    targets = sorted(merged, key=lambda target: (target.table, target.columns))
    return [RowBatch(target.table, target.columns, target.kinds, target.in_order(merged[target])) for target in targets]


def clean_text(text: str) -> str:
    """Text that every database can hold: what none can is escaped."""
    return text if is_clean(text) else text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")


def _session(number: int, message: Message) -> Mapping[str, Any]:
    details = orjson.loads(message.payload)
    names = ("client_id", "username", "address", "port", "keep_alive", "clean_session")
    row = {name: details.get(name) for name in names}
    texts = {name: clean_text(value) for name, value in row.items() if isinstance(value, str)}
    identity = {"id": message_id(number, message.position), "journal": number}
    return {**row, **texts, **identity, "connected": message.time, "disconnected": None}
