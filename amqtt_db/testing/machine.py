"""The life of a database: events of writers and payloads in any order, compared with plain lists."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import attrs
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from amqtt_db.models.base import Model
from amqtt_db.testing import strategies
from amqtt_db.testing.bench import Bench, Feed
from amqtt_db.testing.databases import Database
from amqtt_db.testing.history import Data, Sent, Setting

TOPICS = ("home/a", "home/b", "HOME/A")
JOURNALS = st.sampled_from("ab")


class Life(RuleBasedStateMachine):
    """Two journals with a writer each, one database, one model.

    The feeds keep published messages in plain lists; after every step that touches the database, it must hold exactly
    the committed part of them.
    """

    def __init__(self, database: Database, model: Model, *, timed: bool = False) -> None:
        super().__init__()
        self.setting = Setting("{site}/#")
        self._open = ExitStack()
        self.bench = self._open.enter_context(Bench.of(database, model, self.setting, timed=timed))

    @property
    def published(self) -> list[Sent]:
        """All messages published so far."""
        return [sent for token in "ab" for sent in self.bench.feed(token).sent]

    @rule(token=JOURNALS, sent=strategies.messages(Setting(), st.sampled_from(TOPICS)))
    def publish(self, token: str, sent: Sent) -> None:
        """A message arrives."""
        self.bench.feed(token).sent.append(sent)

    @precondition(lambda self: self.published)
    @rule(token=JOURNALS, data=st.data(), name=strategies.names(), value=strategies.values())
    def new_property(self, token: str, data: st.DataObject, name: str, value: Any) -> None:
        """A message like an earlier one has one more property."""
        self._again(token, data, lambda earlier: {**earlier, name: value})

    @precondition(lambda self: self.published)
    @rule(token=JOURNALS, data=st.data(), value=strategies.values())
    def type_clash(self, token: str, data: st.DataObject, value: Any) -> None:
        """The properties of an earlier message get values of other kinds."""
        self._again(token, data, lambda earlier: dict.fromkeys(earlier, value))

    @rule(token=JOURNALS, count=st.integers(1, 5))
    def flush(self, token: str, count: int) -> None:
        """A writer stores some or all waiting messages."""
        self.bench.feed(token).flush(count)
        self._check()

    @rule(token=JOURNALS, count=st.integers(1, 5), commits=st.integers(0, 3))
    def crash(self, token: str, count: int, commits: int) -> None:
        """A writer dies while it works, and a new one starts."""
        self.bench.feed(token).crash(count, commits)
        self._check()

    @rule(token=JOURNALS, data=st.data())
    def replay(self, token: str, data: st.DataObject) -> None:
        """Stored messages are offered again."""
        feed = self.bench.feed(token)
        feed.replay(data.draw(st.integers(0, feed.stored)))
        self._check()

    @rule(token=JOURNALS)
    def restart(self, token: str) -> None:
        """A writer stops, and a new one starts."""
        self.bench.feed(token).close()
        self.bench.feed(token).start()

    def teardown(self) -> None:
        """At the end store everything, compare, and drop the database."""
        with self._open:
            for token in "ab":
                feed: Feed = self.bench.feed(token)
                feed.flush(len(feed.sent))
            self._check()

    def _again(self, token: str, data: st.DataObject, change: Any) -> None:
        earlier = data.draw(st.sampled_from(self.published))
        parts: tuple[Data, ...] = tuple(change(part) for part in earlier.parts)
        self.bench.feed(token).sent.append(attrs.evolve(earlier, parts=parts))

    def _check(self) -> None:
        self.bench.check(self.setting)
