"""Histories of messages, as plain data from the generators, before anything is stored."""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import attrs

from amqtt_db.entity import Entity
from amqtt_db.models.base import Model
from amqtt_db.routing.route import Route
from amqtt_db.routing.topics import TopicFilter

Data = Mapping[str, Any]
"""A decoded payload: nested objects of plain values."""


@attrs.frozen
class Sent:
    """A message as it arrives; ``parts`` are the objects that its decoder returns, usually one.

    ``time`` is in microseconds since 1970 (UTC); ``session`` is a position in the journal, 0 for none.
    """

    topic: str
    parts: tuple[Data, ...]
    time: int = 1_700_000_000_000_000
    session: int = 0
    qos: int = 0
    retain: bool = False

    def payload(self) -> bytes:
        """The bytes that :func:`decode` reads; parts may hold any Python value."""
        return pickle.dumps(self.parts)


@attrs.frozen
class Setting:
    """A route's settings without its model; ``entity`` maps declared properties to names of their types."""

    filter: str = "#"
    entity: Mapping[str, str] = attrs.field(factory=dict)
    unknown: Literal["add", "extra"] = "add"
    max_columns: int | None = None

    def route(self, model: Model, *, timed: bool = False) -> Route:
        """Return the route, with a decoder for payloads of :class:`Sent`."""
        return Route(
            filter=TopicFilter.parse(self.filter),
            model=model,
            decode=decode_sent,
            entity=Entity.inline(self.entity) if self.entity else None,
            unknown=self.unknown,
            max_columns=self.max_columns,
            timed=timed,
        )


@attrs.frozen
class History:
    """Messages in order of arrival, in batches, under one setting."""

    setting: Setting
    batches: tuple[tuple[Sent, ...], ...]

    @property
    def messages(self) -> Sequence[Sent]:
        """All messages in order."""
        return [sent for batch in self.batches for sent in batch]


def decode_sent(payload: bytes) -> Iterator[Data]:
    """Return the parts of a message."""
    yield from pickle.loads(payload)  # noqa: S301 - made by the same process a moment ago
