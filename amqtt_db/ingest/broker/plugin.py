"""The plugin for an amqtt broker: journals what clients publish before it is acknowledged.

Nothing here parses a payload or touches the target database; a separate process does, which the plugin supervises.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import asdict, dataclass
from functools import partial
from time import monotonic, time_ns
from typing import Any, ClassVar, Final

from amqtt.adapters import ReaderAdapter, StreamWriterAdapter, WriterAdapter
from amqtt.broker import Broker, BrokerContext
from amqtt.contexts import Action
from amqtt.plugins.base import BasePlugin
from amqtt.session import Session

from amqtt_db.config import Settings, load_section, masked
from amqtt_db.errors import AmqttDbError
from amqtt_db.ingest.broker import compat
from amqtt_db.ingest.broker.delivery import JournalQueue, Permission, is_topic
from amqtt_db.ingest.broker.greeting import Unwelcome, read_connect
from amqtt_db.ingest.broker.qos2 import forget_abandoned
from amqtt_db.ingest.broker.quiet import RepeatFilter
from amqtt_db.ingest.broker.sessions import Connections
from amqtt_db.ingest.broker.shortcut import Acknowledger, Shortcut
from amqtt_db.ingest.broker.streams import CoalescingWriter, GatedReader
from amqtt_db.ingest.broker.websocket import WebSocketReader
from amqtt_db.ingest.farewell import log_end
from amqtt_db.ingest.garbage import calm_collector
from amqtt_db.ingest.gate import MemoryBudget
from amqtt_db.ingest.group_commit import GroupCommit
from amqtt_db.ingest.logs import PROJECT
from amqtt_db.ingest.monitor.intake import Intake
from amqtt_db.ingest.monitor.server import Monitor
from amqtt_db.ingest.refusals import Refusals
from amqtt_db.ingest.supervisor import WORKER, Supervisor, encode_job, supervise_page
from amqtt_db.journal import Journal
from amqtt_db.message import flags

logger = logging.getLogger(__name__)

WHERE: Final = "plugins.amqtt_db.Plugin"

_NICENESS: Final = 5  # of the writer: with few processors, clients and broker come first, because the journal can wait
_TICK: Final = 1.0
_TICK_BLOCKED: Final = 0.1
_UNFINISHED_BYTES: Final = 256 * 2**20  # bytes of large packets that are still arriving, over all connections
_ILL_FORMED_CONNECT: Final = (
    "has a client id, user name or will topic that is not well-formed UTF-8 [MQTT-1.5.3-1] and is disconnected"
)
_RESERVED_WILL: Final = "has a will for a topic that clients may not publish to"
_PACKET_EVENTS: Final = ("on_mqtt_packet_received", "on_mqtt_packet_sent")
_CLEAN_SECONDS: Final = 24 * 3600.0


class Plugin(BasePlugin[BrokerContext]):
    """Stores what clients publish to the broker in a relational database.

    Raises ConfigError or JournalError after logging it, because amqtt passes on only its name.
    """

    command: ClassVar[tuple[str, ...]] = WORKER
    """The command that runs the writer's process."""

    @dataclass
    class Config:
        """The keys of the plugin's section in the broker's YAML; :mod:`amqtt_db.config` reads them."""

        database: Any = None
        journal: Any = None
        writer: Any = None
        metrics: Any = None
        web: Any = None
        log: Any = None
        keep: Any = None
        routes: Any = None
        timezone: Any = None

    def __init__(self, context: BrokerContext) -> None:
        super().__init__(context)
        config = {key: value for key, value in asdict(self.config).items() if value is not None}
        try:
            compat.require_amqtt(context)
            settings = load_section(config, WHERE)
            if settings.log.level is not None and PROJECT.level == logging.NOTSET:  # else the program has decided
                PROJECT.setLevel(settings.log.level)
            self._group_commit = GroupCommit(_open(settings), context.loop)
            self._journal = settings.journal.path
            self._max_payload = settings.journal.max_payload
            self._database = masked(settings.database)
        except AmqttDbError as error:
            logger.error("%s", error)
            raise
        self._broker: Broker = compat.broker_of(context)
        self._repeats = RepeatFilter()
        self._budget = MemoryBudget(_UNFINISHED_BYTES)
        self._refusals = Refusals(self._group_commit)
        self._connections = Connections(self._group_commit, _keep_alive_grace(self._broker))
        self._supervisor = Supervisor(encode_job(WHERE, config, niceness=_NICENESS), self.command)
        self._group_commit.add_listener(lambda _: self._supervisor.tell_news(self._group_commit.began))
        self._page = None if settings.web is None else supervise_page(WHERE, config)
        self._monitor = Monitor(settings.metrics, settings.journal.path, self._intake)
        self._ticker: asyncio.Task[None] | None = None
        self._filters = self._has_watchers = False
        self._acknowledger = Acknowledger(self._group_commit)
        self._cleaned_at = monotonic()
        compat.intercept_wills(self._broker, self._store_will)
        compat.intercept_ends(self._broker)
        compat.intercept_websockets(self._broker)
        compat.intercept_greetings(self._broker, self._greet)
        compat.intercept_logins(self._broker, self._refuse_login)

    async def on_broker_pre_start(self) -> None:
        """Check amqtt, look for topic plugins, and start the writer."""
        await compat.check_order(asyncio.get_running_loop())
        manager = self._broker.plugins_manager
        has_filter = any(hasattr(plugin, "topic_filtering") for plugin in manager.plugins)
        self._filters = has_filter and manager.is_topic_filtering_enabled()
        self._has_watchers = any(hasattr(plugin, event) for plugin in manager.plugins for event in _PACKET_EVENTS)
        calm_collector()
        self._repeats.install()
        forget_abandoned(self._group_commit)
        self._ticker = asyncio.create_task(self._tick_forever(), name="amqtt_db ticker")
        self._supervisor.start()
        await self._monitor.start()
        if self._page is not None:
            self._page.start()
        logger.info("amqtt_db stores what is published in %s, via journal %s", self._database, self._journal)

    async def on_broker_client_connected(self, client_id: str, client_session: Session) -> None:
        """Step between the client and the broker, before the client's first packet is read."""
        queue = client_session.delivered_message_queue
        if not isinstance(queue, JournalQueue):
            queue = self._replace_queue(client_id, client_session)
        session, handler = self._broker.sessions.get(client_id, (None, None))
        if session is not client_session or handler is None:
            return
        compat.intercept_qos_2(handler, queue.take, queue.release)
        queue.connection = self._connections.opened(client_session, handler)
        shortcut = None
        if isinstance(handler.writer, StreamWriterAdapter):
            handler.writer = CoalescingWriter(handler.writer, self._group_commit.coalescer)
            shortcut = self._shortcut(queue, handler.writer)
        if handler.reader is not None:
            refuse = partial(self._refusals.add, client_id)
            if isinstance(handler.reader, WebSocketReader):
                handler.reader.refuse = refuse
            handler.reader = reader = GatedReader(
                handler.reader, self._group_commit.gate, self._budget, self._max_payload, refuse, shortcut
            )
            texts = (client_id, client_session.username, client_session.will_topic)
            if any(map(compat.is_ill_formed, texts)):
                client_session.will_flag = False
                reader.end(_ILL_FORMED_CONNECT)

    async def on_broker_client_disconnected(self, client_id: str, client_session: Session) -> None:
        """Journal the ends of connections."""
        self._connections.close_ended()

    async def close(self) -> None:
        """Commit what was received, let the writer store it within its deadline, and close everything."""
        if self._ticker is not None:
            self._ticker.cancel()
        self._monitor.close()
        if self._page is not None:
            await self._page.stop()
        self._repeats.remove()
        self._connections.close_all()
        self._refusals.note()
        await self._group_commit.flush()
        await self._supervisor.stop()
        self._group_commit.tick()
        await self._group_commit.close()
        log_end(self._journal, self._group_commit.received)

    def _replace_queue(self, client_id: str, session: Session) -> JournalQueue:
        """Give a session a queue that journals; it takes over the old one's acknowledged messages."""
        old = session.delivered_message_queue
        permission = self._permission(session) if self._filters else None
        new = JournalQueue(self._group_commit, self._refusals, client_id, permission)
        while not old.empty():
            new.adopt(old.get_nowait())
        session.delivered_message_queue = new
        return new

    def _shortcut(self, queue: JournalQueue, writer: CoalescingWriter) -> Shortcut | None:
        """Return what takes messages past amqtt; None if other plugins want to see each packet or permit each topic."""
        if self._filters or self._has_watchers:
            return None
        return Shortcut(
            self._group_commit, self._acknowledger, queue, writer.write, self._max_payload,
            count_connections=lambda: self._connections.count,
        )  # fmt: skip

    def _permission(self, session: Session) -> Permission:
        async def permitted(topic: str) -> bool:
            is_permitted = await self._ask_plugins(session, topic)
            if not is_permitted:
                self._refusals.deny(session.client_id, topic)
            return is_permitted

        return permitted

    async def _ask_plugins(self, session: Session, topic: str) -> bool:
        """Return True if the broker's topic plugins let a session publish to a topic."""
        try:
            results = await self._broker.plugins_manager.map_plugin_topic(
                session=session, topic=topic, action=Action.PUBLISH
            )
        except Exception:
            logger.exception("a topic plugin failed, so the message is not stored")
            return False
        return all(results.values())

    async def _greet(self, reader: ReaderAdapter, writer: WriterAdapter) -> bytes:
        try:
            connect = await read_connect(reader, writer)
        except Unwelcome:
            self._refusals.logins_failed += 1
            raise
        await compat.log_in(self._broker, connect, writer)
        return connect

    def _refuse_login(self, session: Session) -> None:
        self._refusals.refuse_login(session.client_id, session.username, session.remote_address)

    async def _store_will(self, session: Session, will: dict[str, Any]) -> None:
        topic, payload = will["topic"], will["data"] or b""
        if not is_topic(topic or ""):
            self._refusals.add(session.client_id, _RESERVED_WILL)
            return
        if self._filters and not await self._permission(session)(topic):
            return
        if self._group_commit.blocked:
            self._group_commit.refuse()
            return
        queue = session.delivered_message_queue
        connection = queue.connection if isinstance(queue, JournalQueue) else 0
        sent = flags(0, will["qos"] or 0, bool(session.will_retain))
        self._group_commit.append(sent, time_ns() // 1000, connection, topic.encode(), bytes(payload))

    def _intake(self) -> Intake:
        commit, refusals = self._group_commit, self._refusals
        return Intake(
            commit.received, commit.refused, self._supervisor.restarts, commit.size, commit.blocked,
            refusals.denied, refusals.repeated, refusals.logins_failed, self._connections.count,
            delays=commit.delays,
        )  # fmt: skip

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(_TICK_BLOCKED if self._group_commit.blocked else _TICK)
            self._connections.close_ended()
            self._refusals.note()
            if monotonic() - self._cleaned_at > _CLEAN_SECONDS:
                self._cleaned_at = monotonic()
                forget_abandoned(self._group_commit)
            self._group_commit.tick()


def _open(settings: Settings) -> Journal:
    journal = settings.journal
    return Journal.open(journal.path, max_size=journal.max_size, sync=journal.sync)


def _keep_alive_grace(broker: Broker) -> int:
    grace = broker.config.get("timeout-disconnect-delay", 0)
    return grace if isinstance(grace, int) else 0
