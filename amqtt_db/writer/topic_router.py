"""Which handler a topic's messages go to: decided once for each topic, then a dictionary lookup."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import attrs

from amqtt_db.database.catalog import Assignment
from amqtt_db.decode import is_remembering
from amqtt_db.errors import Rejected, StructureError
from amqtt_db.models.base import Destination
from amqtt_db.models.spec import from_spec, to_spec
from amqtt_db.routing.records import RecordBuilder, TopicHandler
from amqtt_db.routing.retype import typing_of
from amqtt_db.routing.route import Route
from amqtt_db.routing.topics import first_match

MAX_TOPICS: Final = 100_000  # if there are more, all are forgotten and learnt again

NO_ROUTE: Final = ""
"""The topic filter under which messages without a route are counted."""


@attrs.frozen
class RefusedTopic:
    """A topic whose messages cannot be stored, the topic filter that they are counted under, and why."""

    filter: str
    error: Rejected


@attrs.frozen
class IgnoredTopic:
    """A topic whose messages are not stored, and the topic filter that they are counted under."""

    filter: str

    @property
    def reason(self) -> str:
        """Why they are not stored."""
        return "its route has `store: false`" if self.filter else "no route covers its topic"


Handling = TopicHandler | RefusedTopic | IgnoredTopic
"""What to do with a topic's messages."""


class TopicRouter:
    """The known topics and their handlers; ``builders`` has one per route, in order."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._routes = routes
        self._filters = [route.filter for route in routes]
        self.keeps_raw = any(route.raw for route in routes)
        self.remembers = any(is_remembering(route.decode) for route in routes)
        self.builders: Sequence[RecordBuilder] = [RecordBuilder(route) for route in routes]
        self._destinations: dict[tuple[str, str], Destination] = {}
        self._handlers: dict[bytes, Handling] = {}

    def handlers(self, topics: Iterable[bytes]) -> list[Handling]:
        """Return the handlers of some topics, in order; all topics must be known."""
        return list(
            map(self._handlers.__getitem__, topics)
        )  # runs for every message, so without Python code per message

    def memory_names(self, topics: Iterable[bytes]) -> set[str]:
        """Return the names in the database of what the decoders of some topics remember; all topics must be known.

        Raises whatever a decoder raises.
        """
        if not self.remembers:
            return set()
        memories = [handler.memory for handler in self.handlers(set(topics)) if isinstance(handler, TopicHandler)]
        return {name for memory in memories if memory is not None for name in memory.names.values()}

    def unassigned(self, topics: Iterable[bytes]) -> dict[str, int]:
        """Return the topics that need an assignment, with the indexes of their routes; learn all others."""
        new: dict[str, int] = {}
        if len(self._handlers) > MAX_TOPICS:
            self._handlers.clear()
            self._destinations.clear()
        for raw in dict.fromkeys(topics):
            if raw in self._handlers:
                continue
            topic = _decode_topic(raw)
            match = None if topic is None else first_match(self._filters, topic)
            if topic is None:
                reason = "the topic is empty or not UTF-8 text without U+0000 [MQTT-1.5.3-2]"
                self._handlers[raw] = RefusedTopic(NO_ROUTE, StructureError(reason))
            elif match is None:
                self._handlers[raw] = IgnoredTopic(NO_ROUTE)
            elif not self._routes[match[0]].stores:
                self._handlers[raw] = IgnoredTopic(self._filters[match[0]].text)
            else:
                new[topic] = match[0]
        return new

    def assign(
        self, topics: Mapping[str, int], known: Mapping[str, Assignment], tables: Mapping[str, int]
    ) -> list[Assignment]:
        """Return where the records of topics go; topics are mapped to their routes' indexes.

        ``known`` are the assignments that the catalogue has, ``tables`` the number of tables that each route has.
        """
        made, keys = dict(tables), {one.key for one in known.values()}
        assignments = []
        for topic, index in topics.items():
            route, assignment = self.builders[index].route, known.get(topic)
            if assignment is None or not _is_current(assignment, route):
                assignment = _assign(topic, route, made.get(route.filter.text, 0))
                if assignment.key not in keys:
                    made[route.filter.text] = made.get(route.filter.text, 0) + 1
                    keys.add(assignment.key)
            assignments.append(assignment)
        return assignments

    def learn(self, topics: Mapping[str, int], assignments: Iterable[Assignment]) -> None:
        """Learn topics whose assignments are in the catalogue."""
        for assignment in assignments:
            topic, builder = assignment.topic, self.builders[topics[assignment.topic]]
            destination = self._destination(assignment.key, builder.route)
            levels = builder.route.filter.match(topic) or {}
            self._handlers[topic.encode()] = TopicHandler(topic, builder, destination, levels)

    def typings(self, new: Iterable[str], topics: Mapping[str, int]) -> dict[str, str]:
        """Return what the routes of ``new`` topics declare, as text; ``topics`` are mapped to their routes' indexes."""
        texts = {topic: typing_of(self.builders[topics[topic]]) for topic in new}
        return {topic: text for topic, text in texts.items() if text}

    def filter_of(self, raw: bytes) -> str:
        """Return the topic filter under which messages of a topic are counted."""
        topic = _decode_topic(raw)
        match = None if topic is None else first_match(self._filters, topic)
        return NO_ROUTE if match is None else self._filters[match[0]].text

    def refuse(self, topic: str, index: int, error: Rejected) -> None:
        """Learn that no message of a topic can be stored."""
        self._handlers[topic.encode()] = RefusedTopic(self._filters[index].text, error)

    def _destination(self, key: str, route: Route) -> Destination:
        return self._destinations.setdefault((key, route.filter.text), route.destination(key))


def _assign(topic: str, route: Route, tables: int) -> Assignment:
    """Return where a new topic's records go: to its own tables as long as the route may have more of them."""
    text = route.filter.text
    key = f"$route/{text}"
    if route.is_per_topic:
        key = _group_of(topic, route) if tables < route.max_tables else f"$more/{text}"
    return Assignment(topic, key, text, to_spec(route.model, timed=route.timed))


def _group_of(topic: str, route: Route) -> str:
    """Return the key of a topic's table: the topic, without the levels that name a property and so share a table."""
    device = route.without_property(topic)
    return topic if device == topic else f"$/{device}"


def _is_current(assignment: Assignment, route: Route) -> bool:
    return assignment.route == route.filter.text and _means(assignment.model, route)


def _means(text: str, route: Route) -> bool:
    """Return True if a model given as text is the route's; options that did not exist yet had their defaults."""
    try:
        return text == to_spec(route.model, timed=route.timed) or from_spec(text) == (route.model, route.timed)
    except Exception:  # its class no longer exists, or raises any error
        return False


def can_be_published(text: str) -> bool:
    """Return True if messages may have this topic."""
    return _decode_topic(text.encode("utf-8", "surrogatepass")) is not None and not {"+", "#"} & set(text)


def _decode_topic(raw: bytes) -> str | None:
    try:
        topic = raw.decode()
    except UnicodeDecodeError:
        return None
    return None if not topic or "\x00" in topic else topic
