"""The bridge: keeps connections to brokers alive, writes into one journal, and supervises one writer."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping, Sequence
from itertools import chain, repeat
from time import monotonic
from typing import Final

import attrs

from amqtt_db.config.broker import BrokerSettings
from amqtt_db.config.operation import MetricsSettings
from amqtt_db.errors import Backoff, OncePerCause, format_count
from amqtt_db.ingest.bridge.connection import VERSION_NOTE, BrokerConnection
from amqtt_db.ingest.bridge.drops import Drops, ask_counter
from amqtt_db.ingest.bridge.link_state import LINK_SCOPE, LinkState, current_second, decode_state, next_state
from amqtt_db.ingest.bridge.packets import V5, V311, Version
from amqtt_db.ingest.bridge.peer import Ending, mqtt_name, suspect_rival
from amqtt_db.ingest.bridge.probe import Grant
from amqtt_db.ingest.bridge.rebirth import RebirthFinder, make_rebirth_command
from amqtt_db.ingest.bridge.session import Keeping, Session
from amqtt_db.ingest.bridge.subscription import Subscription
from amqtt_db.ingest.bridge.transport import open_transport
from amqtt_db.ingest.farewell import log_end
from amqtt_db.ingest.garbage import calm_collector
from amqtt_db.ingest.group_commit import GroupCommit
from amqtt_db.ingest.monitor.intake import Intake
from amqtt_db.ingest.monitor.server import Monitor
from amqtt_db.ingest.supervisor import Supervisor
from amqtt_db.journal import Journal

logger = logging.getLogger(__name__)

_KEEP_ALL_PAYLOADS: Final = Keeping()
_FIRST_PAUSE: Final = 0.5
_LONGEST_WAIT: Final = 30.0
_FIRST_LOOKS: Final = 0.2, 1.8, 15.0  # the last when Mosquitto, which counts every 10 s, has counted again
_LOOK_PAUSE: Final = 300.0
_STEADY_CONNECTION: Final = 10.0
_SUSPICIOUS: Final = 3
_TICK_SECONDS: Final = 0.25
_JOURNAL_TICKS: Final = 4


class Link:
    """Keeps one broker connected.  Its session outlives its connections."""

    def __init__(
        self,
        settings: BrokerSettings,
        filters: Sequence[str],
        group_commit: GroupCommit,
        keeping: Keeping = _KEEP_ALL_PAYLOADS,
    ) -> None:
        self.settings = settings
        self.subscription = Subscription(settings, filters, group_commit)
        self._group_commit = group_commit
        notes = group_commit.notes(self.subscription.scope)
        self._session = Session(
            notes, settings.window, drop=settings.duplicates == "drop", keeps_properties=keeping.properties
        )
        self._max_payload = keeping.max_payload
        self._version = _first_version(settings, notes)
        self._has_worked = False
        self._cut_short = 0  # consecutive connections that the broker has closed soon after they were made
        self._worked = 0  # connections that worked and have ended
        self._state: LinkState | None = None
        note = group_commit.notes(LINK_SCOPE).get(self.subscription.scope)
        before = LinkState(settings.url, False, current_second()) if note is None else decode_state(note)
        self.subscription.recall(before)
        self._drops = Drops(before.dropped, before.drop_counter)
        self._was_rising = False
        self._connection: BrokerConnection | None = None
        self._connected = asyncio.Event()
        self._backoff = Backoff(_FIRST_PAUSE, _LONGEST_WAIT)
        self._causes = OncePerCause()

    async def run(self) -> None:
        """Connect, and reconnect after each end, until cancelled; then disconnect cleanly."""
        try:
            while True:
                pause = await self._serve()
                await asyncio.sleep(pause)
        finally:
            if self._connection is not None:
                await self._connection.close()

    async def watch(self) -> None:
        """Look after each connection what the broker is and how many messages it has dropped, until cancelled."""
        while True:
            await self._connected.wait()
            self._connected.clear()
            if self._connection is not None:
                await self._watch(self._connection)

    async def _watch(self, connection: BrokerConnection) -> None:
        """Look from time to time while a connection lasts, as long as the broker says something.

        Another one may be to a broker that was updated, or that could not be asked before.
        """
        for number, pause in enumerate(chain(_FIRST_LOOKS, repeat(_LOOK_PAUSE))):
            await asyncio.wait([connection.ended], timeout=pause)
            if connection.ended.done():
                return
            if connection.is_working:
                answer = await ask_counter(self.settings)
                self._heed(answer)
                if answer is not None and answer.dropped is not None:
                    self._note_drops(answer.dropped)
                elif number >= len(_FIRST_LOOKS) - 1:
                    return

    def _note_drops(self, counter: int) -> None:
        """Log a rise, once in a row."""
        before, self._drops = self._drops, self._drops.seen(counter)
        is_rising = self._drops.total > before.total
        if is_rising and not self._was_rising:
            self._warn_of_drops(self._drops.total - before.total)
        self._was_rising = is_rising

    def _heed(self, answer: Grant | None) -> None:
        """Note what the broker is; that may ask for another QoS."""
        if answer is not None and answer.software:
            self.subscription.software = answer.software
            if self._connection is not None:
                self._connection.subscribe_again()

    def _warn_of_drops(self, count: int) -> None:
        logger.warning(
            "%s: the broker has dropped %s for its clients, perhaps for this one: raise the limit on its queues (with"
            " Mosquitto max_queued_messages)", self.settings.url, format_count(count, "message"),
        )  # fmt: skip

    def tick(self) -> None:
        """Do the periodic work of the connection."""
        if self._connection is not None:
            self._connection.tick()

    def ask_for_birth(self, topic: str, command: bytes) -> None:
        """Publish a command that asks an edge node for its births, if this broker's settings say so."""
        if self.settings.rebirth and self._connection is not None:
            logger.info("%s: asking for births with %s", self.settings.url, topic)
            self._connection.publish(topic, command)

    def state(self) -> LinkState:
        """Return the state of the connection."""
        now = self._connection is not None and self._connection.is_working
        counts = (self._worked + now, self.subscription.recognized, self.subscription.unproven)
        state = next_state(self._state, self.settings.url, now, counts)
        drops, subscription = self._drops, self.subscription
        return attrs.evolve(
            state, dropped=drops.total, drop_counter=drops.counter, codes=subscription.codes,
            lost_at=subscription.lost_at, lost_since=subscription.lost_since, software=subscription.software,
        )  # fmt: skip

    def note_state(self) -> None:
        """Leave a note in the journal if the state of the connection has changed."""
        state = self.state()
        if state != self._state:
            self._state = state
            self._group_commit.remember(LINK_SCOPE, self.subscription.scope, state.encode())

    async def _serve(self) -> float:
        """Serve one connection until it ends; return the seconds to wait before the next one."""
        connection = BrokerConnection(
            self.settings, self._version, self._session, self.subscription, self._group_commit, self._max_payload
        )
        unreachable = await open_transport(self.settings, connection)
        return self._pause_after(unreachable or await self._stay(connection))

    async def _stay(self, connection: BrokerConnection) -> Ending:
        """Wait for the end of a connection; return its meaning, which depends on earlier ends."""
        self._connection, started = connection, monotonic()
        self._connected.set()
        ending = await asyncio.shield(connection.ended)
        self._connection = None
        if not connection.is_streaming:
            return ending
        self.subscription.ended_at = current_second()
        self._has_worked = True
        self._worked += 1
        is_steady = monotonic() - started > _STEADY_CONNECTION
        self._cut_short = self._cut_short + 1 if ending.is_unexplained and not is_steady else 0
        if self._cut_short >= _SUSPICIOUS:
            return suspect_rival(self.settings.client_id)
        if is_steady and not ending.is_rival:
            self._backoff.reset()
            self._causes.resolve()
        return ending

    def _pause_after(self, ending: Ending) -> float:
        if ending.is_older and self.settings.protocol == "auto" and not self._has_worked:
            self._version = V311 if self._version == V5 else V5
            logger.warning("%s: the broker %s; trying MQTT %s", self.settings.url, ending.reason,
                           mqtt_name(self._version))  # fmt: skip
            if self._version == V311:
                return 0.0
        elif self._causes.is_new(ending.reason):
            logger.error("%s: the broker %s; reconnecting until it works", self.settings.url, ending.reason)
        pause = _LONGEST_WAIT if ending.is_rival else self._backoff.next_pause()
        return pause * random.uniform(0.5, 1.0)  # noqa: S311 - so that clients do not all reconnect at once


def _first_version(settings: BrokerSettings, notes: Mapping[str, bytes]) -> Version:
    """Return the version of MQTT to try first: the only one allowed, or the one that has worked before."""
    if settings.protocol == "auto":
        return V311 if notes.get(VERSION_NOTE) == bytes((V311,)) else V5
    return V311 if settings.protocol == "3.1.1" else V5


class Bridge:
    """Connections to brokers, a journal, and a writer."""

    def __init__(
        self,
        brokers: Sequence[BrokerSettings],
        filters: Sequence[str],
        journal: Journal,
        writer: Supervisor | None,
        metrics: MetricsSettings | None = None,
        keeping: Keeping = _KEEP_ALL_PAYLOADS,
    ) -> None:
        """``metrics`` says where to serve metrics and health, if anywhere."""
        self._journal = journal.path
        self._group_commit = GroupCommit(journal)
        self.links = [Link(broker, filters, self._group_commit, keeping) for broker in brokers]
        self._writer = writer
        self._committed_end = self._group_commit.position
        self._group_commit.add_listener(self._tell_writer)
        self._monitor = Monitor(metrics, journal.path, self._intake)
        self._rebirths = RebirthFinder(journal.path) if any(broker.rebirth for broker in brokers) else None
        kept = {link.subscription.scope for link in self.links}
        for gone in set(self._group_commit.notes(LINK_SCOPE)) - kept:
            self._group_commit.remember(LINK_SCOPE, gone, None)

    async def run(self, stop: asyncio.Event) -> None:
        """Run until ``stop`` is set; then disconnect, let the writer store what is left, and close."""
        calm_collector()
        if self._writer is not None:
            self._writer.start()
        await self._monitor.start()
        tasks = [asyncio.create_task(link.run(), name=f"amqtt_db {link.settings.url}") for link in self.links]
        tasks.append(asyncio.create_task(self._tick_forever(), name="amqtt_db ticker"))
        watchers = [
            asyncio.create_task(link.watch(), name=f"amqtt_db {link.settings.url} drops") for link in self.links
        ]
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._monitor.close()
            for task in (*tasks, *watchers, stopping):
                task.cancel()
            results = await asyncio.gather(*tasks, *watchers, return_exceptions=True)
            for link in self.links:
                link.note_state()
            await self._group_commit.flush()
            if self._writer is not None:
                await self._writer.stop()
            self._group_commit.tick()
            await self._group_commit.close()
            log_end(self._journal, self._group_commit.received)
        for result in results:
            if isinstance(result, Exception):
                raise result

    def _tell_writer(self, end: int) -> None:
        """Tell the writer of a commit; one that only trims the journal brings nothing for a batch."""
        if self._writer is not None and end > self._committed_end:
            self._writer.tell_gathered(self._group_commit.began)
        self._committed_end = end

    def _intake(self) -> Intake:
        commit = self._group_commit
        restarts = 0 if self._writer is None else self._writer.restarts
        links = tuple(link.state() for link in self.links)
        return Intake(
            commit.received, commit.refused, restarts, commit.size, commit.blocked, links=links, delays=commit.delays
        )

    def _ask_for_births(self) -> None:
        for topic in () if self._rebirths is None else self._rebirths.find_new():
            command = make_rebirth_command()
            for link in self.links:
                link.ask_for_birth(topic, command)

    async def _tick_forever(self) -> None:
        ticks = 0
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            ticks += 1
            if ticks % _JOURNAL_TICKS == 0:
                for link in self.links:
                    link.note_state()
                self._ask_for_births()
            if self._group_commit.blocked or ticks % _JOURNAL_TICKS == 0:
                self._group_commit.tick()
            for link in self.links:
                link.tick()
