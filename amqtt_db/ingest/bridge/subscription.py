"""What a session is subscribed to: remembered in the journal, so that only changes are requested."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final

import orjson

from amqtt_db.config.broker import BrokerSettings
from amqtt_db.errors import format_count
from amqtt_db.ingest.bridge import packets
from amqtt_db.ingest.bridge.link_state import LinkState, current_second
from amqtt_db.ingest.bridge.packets import V5, Publish, Suback, Version
from amqtt_db.ingest.bridge.session import Received
from amqtt_db.ingest.bridge.software import ignores_window
from amqtt_db.ingest.group_commit import GroupCommit
from amqtt_db.ingest.refusals import RepeatLimit

logger = logging.getLogger(__name__)

_FILTERS: Final = "filters"
_FAILURE: Final = 0x80
# Some brokers continue message ids from the SUBSCRIBE's, and a session checks whether those begin at 1.
_SUBSCRIBE_ID: Final = 1
_UNSUBSCRIBE_ID: Final = 2


class Subscription:
    """The filters of one session.  Notes with ``scope`` are this session's."""

    def __init__(self, settings: BrokerSettings, filters: Sequence[str], group_commit: GroupCommit) -> None:
        self.scope = f"bridge {settings.host}:{settings.port} {settings.client_id}"
        self.recognized = 0
        self.unproven = 0
        self.codes: dict[str, int] = {}
        self.lost_at: datetime | None = None
        self.lost_since: datetime | None = None
        self.ended_at: datetime | None = None
        """When the last connection ended, if that is known."""
        self.software = ""
        """What the broker calls itself, if that is known."""
        self._settings = settings
        self._qos = settings.qos  # what is asked for
        share = "" if settings.group is None else f"$share/{settings.group}/"
        self._filters = [f"{share}{one}" for one in filters]
        self._group_commit = group_commit
        self._asked: list[str] = []
        self._limit = RepeatLimit()

    def recall(self, before: LinkState) -> None:
        """Take over what was known when the bridge's process ended."""
        self.codes, self.software = dict(before.codes), before.software
        self.lost_at, self.lost_since = before.lost_at, before.lost_since
        self.ended_at = None if before.is_connected else before.since

    @property
    def granted(self) -> dict[str, int]:
        """The requested QoS of each filter that the broker has granted, in this or an earlier process."""
        note = self._group_commit.notes(self.scope).get(_FILTERS)
        return {} if note is None else orjson.loads(note)

    def needs_other_qos(self, version: Version) -> bool:
        """Return True if the broker has answered, and has been found to need another QoS than it was asked for.

        It is not asked again for a filter that it refused.
        """
        return not self._asked and self._wanted_qos(version) != self._qos

    def requests(self, version: Version, resumed: bool) -> list[bytes]:
        """Return the packets to send on a new connection, or on one whose broker has been found to need another QoS.

        ``resumed``: the broker has surely kept the session.
        """
        granted, qos = self.granted, self._adopt_qos(version)
        known = granted if resumed else {}
        # A Mosquitto that restarts keeps the session of a group's member, but not its subscription.
        may_miss = self._settings.group is not None
        self._asked = [one for one in self._filters if may_miss or known.get(one) != qos]
        gone = [one for one in known if one not in self._filters]
        self._remember({one: qos for one in known if one not in gone and one not in self._asked})
        handling = 2 if self._settings.retained == "ignore" else 1
        sent = []
        if self._asked:
            sent.append(packets.subscribe(version, _SUBSCRIBE_ID, self._asked, qos, handling))
        if gone:
            logger.info("%s: no longer subscribed to %s", self._settings.url, ", ".join(gone))
            sent.append(packets.unsubscribe(version, _UNSUBSCRIBE_ID, gone))
        return sent

    def _wanted_qos(self, version: Version) -> int:
        is_limited = version == V5 and ignores_window(self.software)
        return min(self._settings.qos, 1) if is_limited else self._settings.qos

    def _adopt_qos(self, version: Version) -> int:
        """Return the QoS to ask for; log if it is lower than the settings say, once in a row."""
        before, self._qos = self._qos, self._wanted_qos(version)
        if self._qos < self._settings.qos and before != self._qos:
            logger.warning(
                "%s: %s ignores `window`, so messages of QoS 2 could be stored twice: subscribing with QoS 1;"
                " update Mosquitto to 2.0.13 or later", self._settings.url, self.software,
            )  # fmt: skip
        return self._qos

    def suspect(self) -> None:
        """Log that the broker may have lost the session, and forget what it has granted."""
        if self.granted:
            logger.warning(
                "%s: the broker left a CONNECT without an answer, and may have lost the session of client id %s: if so,"
                " messages are missing; subscribing again", self._settings.url, self._settings.client_id,
            )  # fmt: skip
            self._remember({})

    def lose(self) -> None:
        """Log that the broker has lost the session, if it had one, and forget what it has granted.

        This is committed with the end of the old session; otherwise the bridge might never subscribe in the new one.
        """
        if self.granted:
            self._remember({})
            self.lost_at, self.lost_since = current_second(), self.ended_at
            away = "" if self.ended_at is None else f", which ended {self.lost_at - self.ended_at} ago"
            logger.error(
                "%s: the broker has lost the session of client id %s: messages may be missing since the last"
                " connection%s; subscribing again", self._settings.url, self._settings.client_id, away,
            )  # fmt: skip

    def answered(self, suback: Suback) -> None:
        """Remember what is granted, and log what is not."""
        granted, url = self.granted, self._settings.url
        answers = dict(zip(self._asked, suback.codes, strict=False))
        self._asked = []
        known = {one: code for one, code in self.codes.items() if one in self._filters}
        self.codes = {one: code for one, code in (known | answers).items() if code != self._qos}
        for topic_filter, code in answers.items():
            if code >= _FAILURE:
                logger.error("%s: the broker refuses the filter %s with code 0x%02x; check what this user may read",
                             url, topic_filter, code)  # fmt: skip
                continue
            if code < self._qos:
                logger.warning("%s: the broker grants QoS %d for %s, not %d", url, code, topic_filter, self._qos)
            granted[topic_filter] = self._qos
        self._remember(granted)
        logger.info("%s: subscribed to %s", url, ", ".join(granted) or "nothing")

    def refuse(self, messages: Iterable[Publish]) -> None:
        """Count messages whose payloads are too large, and log that once a minute at most."""
        for message in messages:
            self._group_commit.refuse()
            more = self._limit.admit(message.topic)
            if more is not None:
                logger.warning(
                    "%s: a message to %r has a payload of %d bytes, more than `journal: {max_payload: …}` allows: it is"
                    " not stored but counted as refused%s", self._settings.url, message.topic.decode(errors="replace"),
                    message.left_out, f" ({more} more since the last such line)" if more else "",
                )  # fmt: skip

    def count(self, received: Received) -> None:
        """Count redelivered messages, and log once that some may be stored twice."""
        self.recognized += received.recognized
        if received.unproven and not self.unproven:
            logger.warning(
                "%s: %s redelivered that cannot be told from new ones and may be stored twice: packet ids have not been"
                " in sequence for long enough, or start again with each connection",
                self._settings.url, format_count(received.unproven, "message was", "messages were"),
            )  # fmt: skip
        self.unproven += received.unproven

    def _remember(self, filters: dict[str, int]) -> None:
        self._group_commit.remember(self.scope, _FILTERS, orjson.dumps(filters))
