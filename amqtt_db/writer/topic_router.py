"""Which way a topic's messages go: learnt once for each topic, then a dictionary look-up."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import attrs
import orjson

from amqtt_db.database.catalog import Assignment
from amqtt_db.errors import Rejected, StructureError
from amqtt_db.models.base import Destination, Model
from amqtt_db.models.spec import model_of
from amqtt_db.record import Shape
from amqtt_db.routing.records import RecordBuilder, TopicHandler
from amqtt_db.routing.route import Route
from amqtt_db.routing.topics import first_match

MAX_LANES: Final = 100_000  # more topics are forgotten and learnt again

Way = TopicHandler | Rejected | None
"""A lane; or why no message of the topic can be stored; or None, because no route covers it."""


class TopicRouter:
    """The topics met so far and their ways."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._filters = [route.filter for route in routes]
        self._typists = [RecordBuilder(route) for route in routes]
        self._destinations: dict[str, Destination] = {}
        self._ways: dict[bytes, Way] = {}
        self.get = self._ways.__getitem__
        """The way of a topic that has been learnt; a plain dictionary look-up, for it is done for every message."""

    @property
    def builders(self) -> Sequence[RecordBuilder]:
        """One per route, in their order."""
        return self._typists

    def unknown(self, topics: Iterable[bytes]) -> dict[str, int]:
        """Topics that need a placement, with the index of their route; others without a way are settled here."""
        new: dict[str, int] = {}
        if len(self._ways) > MAX_LANES:
            self._ways.clear()
            self._destinations.clear()
        for raw in dict.fromkeys(topics):
            if raw in self._ways:
                continue
            topic = _text(raw)
            match = None if topic is None else first_match(self._filters, topic)
            if topic is None:
                self._ways[raw] = StructureError("the topic is empty or not UTF-8 text without U+0000 [MQTT-1.5.3-2]")
            elif match is None:
                self._ways[raw] = None
            else:
                new[topic] = match[0]
        return new

    def assign(
        self, topics: Mapping[str, int], known: Mapping[str, Assignment], tables: Mapping[str, int]
    ) -> list[Assignment]:
        """Where the records of topics go; topics are mapped to their routes' indexes.

        ``known`` are the placements that the catalogue has, ``tables`` the number of tables that each route has.
        """
        made = dict(tables)
        assignments = []
        for topic, index in topics.items():
            route = self._typists[index].route
            assignment = known.get(topic)
            is_current = assignment is not None and _is_current(assignment, route)
            assignments.append(assignment if assignment and is_current else _assign(topic, route, made))
        return assignments

    def learn(self, topics: Mapping[str, int], assignments: Iterable[Assignment]) -> None:
        """Open the lanes of topics whose placements are in the catalogue."""
        for assignment in assignments:
            topic = assignment.topic
            self._ways[topic.encode()] = self._lane(topic, topics[topic], assignment.key)

    def _lane(self, topic: str, index: int, key: str) -> TopicHandler:
        builder = self._typists[index]
        route = builder.route
        declared = None if route.entity is None else route.entity.declared
        destination = self._destinations.setdefault(key, Destination(key, route.filter.text, declared, route.unknown))
        return TopicHandler(topic, builder, destination, route.filter.match(topic) or {})


def _assign(topic: str, route: Route, made: dict[str, int]) -> Assignment:
    """Where a new topic's records go: to tables of its own as long as the route may have more of them."""
    text = route.filter.text
    key = f"$route/{text}"
    if route.model.per_topic:
        has_room = made.get(text, 0) < route.max_tables
        key = topic if has_room else f"$more/{text}"
        made[text] = made.get(text, 0) + 1
    return Assignment(topic, key, text, spec(route.model))


def _is_current(assignment: Assignment, route: Route) -> bool:
    return assignment.route == route.filter.text and _means(assignment.model, route.model)


def _means(text: str, model: Model) -> bool:
    """Whether a model as text is this one; options that it did not have yet were at their defaults."""
    try:
        return text == spec(model) or model_of(text) == model
    except ValueError:
        return False


def spec(model: Model) -> str:
    """A model's class and options as text, by which it can be made again."""
    options: dict[str, Any] = attrs.asdict(model)  # type: ignore[arg-type]
    name = f"{type(model).__module__}.{type(model).__qualname__}"
    return orjson.dumps({name: options}, option=orjson.OPT_SORT_KEYS, default=str).decode()


def _text(raw: bytes) -> str | None:
    try:
        topic = raw.decode()
    except UnicodeDecodeError:
        return None
    return None if not topic or "\x00" in topic else topic


def reserved(routes: Iterable[Route]) -> list[str]:
    """The names that routes ask for with ``table:``."""
    tables = [table for route in routes for table in route.model.tables(Destination(""), Shape(()))]
    return [table.name for table in tables if table.exact]
