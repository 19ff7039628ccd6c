"""Listening to a broker for a while, with a client id and a session of its own, without keeping anything there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import attrs

from amqtt_db.config.broker import BrokerSettings
from amqtt_db.ingest.bridge.packets import Publish, Version
from amqtt_db.ingest.bridge.peer import Ending
from amqtt_db.ingest.bridge.probe import Grant, Probe, ask_with
from amqtt_db.ingest.waiting import wait_within

_NO_PINGS: Final = 65_535  # seconds; pings are not needed before


async def listen(
    settings: BrokerSettings, topic_filter: str, seconds: float, take: Callable[[Publish], None], stop: asyncio.Event
) -> Grant | Ending:
    """Give ``take`` the messages of a broker, retained ones included, for some seconds or until ``stop``.

    Return what the broker granted, or why there was no connection.
    """
    mine = attrs.evolve(settings, qos=0, session=0, keep_alive=_NO_PINGS)

    def make(version: Version) -> Listener:
        return Listener(mine, version, topic_filter, seconds, take, stop)

    return await ask_with(make, mine)


class Listener(Probe):
    """A probe that stays for some seconds."""

    asks_for_retained = True

    def __init__(
        self,
        settings: BrokerSettings,
        version: Version,
        topic_filter: str,
        seconds: float,
        take: Callable[[Publish], None],
        stop: asyncio.Event,
    ) -> None:
        super().__init__(settings, version, [topic_filter])
        self.patience = Probe.patience + seconds
        self._seconds = seconds
        self._take = take
        self._stop = stop
        self._listening: asyncio.Task[None] | None = None

    def take_grant(self, grant: Grant) -> None:
        """Stay for a while."""
        self._listening = asyncio.ensure_future(self._stay(grant))

    def take_message(self, message: Publish) -> None:
        """Pass on what arrives."""
        self._take(message)

    async def _stay(self, grant: Grant) -> None:
        with suppress(asyncio.TimeoutError):
            await wait_within(self._stop.wait(), self._seconds)
        self.leave(grant)
