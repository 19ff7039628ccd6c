"""What a broker says of itself while the bridge is connected: how many messages it has dropped.  Mosquitto does."""

from __future__ import annotations

from typing import Final

import attrs

from amqtt_db.config.broker import BrokerSettings
from amqtt_db.ingest.bridge.probe import DROPPED, Grant, ask_broker


@attrs.frozen
class Drops:
    """How many messages the broker has dropped for all its clients since the bridge first looked.

    ``counter`` is what the broker said last, None if it has not said anything yet; it starts again with the broker.
    """

    total: int = 0
    counter: int | None = None

    def seen(self, counter: int) -> Drops:
        """Return the drops after another look."""
        before = counter if self.counter is None else self.counter
        return Drops(self.total + (counter - before if counter >= before else counter), counter)


_SUFFIX: Final = " counters"


async def ask_counter(settings: BrokerSettings) -> Grant | None:
    """Return the broker's answer with its name and the number of messages that it has dropped; None without an answer.

    A client of its own asks: some brokers disconnect a client for that.
    """
    asking = attrs.evolve(settings, client_id=f"{settings.client_id}{_SUFFIX}", group=None)
    answer = await ask_broker(asking, [DROPPED])
    return answer if isinstance(answer, Grant) else None
