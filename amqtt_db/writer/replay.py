"""Replay dead letters: once the route or the decoder has been corrected, store those that can be stored now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import attrs

from amqtt_db.routing.route import Route
from amqtt_db.routing.topics import TopicFilter
from amqtt_db.writer.one_off import open_writer
from amqtt_db.writer.transaction import COLLISIONS, AssignmentsMoved, CheckpointMoved
from amqtt_db.writer.writer import Writer


@attrs.frozen
class Replayed:
    """The outcome for one dead letter: ``reason`` says why it stays one, or is None if it is now stored."""

    id: int
    reason: str | None


def replay(database: str, routes: Sequence[Route], topic: str = "#") -> Iterator[Replayed]:
    """Try the dead letters of all topics that a filter covers, oldest first, each in its own transaction.

    ``database`` is its URL, ``routes`` are those of the current configuration.
    A letter that is now stored keeps its message's id, and moves from dead to stored in the counters.  Raises
    DatabaseError if the database cannot be used; what was stored before that stays stored.
    """
    wanted = TopicFilter.parse(topic)
    with open_writer(database, routes) as writer:
        for id_, name in writer.dead_letters():
            if _covers(wanted, name):
                with suppress(CheckpointMoved):  # another replay was faster
                    yield Replayed(id_, _replay_one(writer, id_))


def _replay_one(writer: Writer, id_: int) -> str | None:
    for _ in range(COLLISIONS):
        try:
            return writer.replay_one(id_)
        except AssignmentsMoved:
            writer.reset()
        except Exception as error:
            if not writer.is_collision(error):
                raise
    return writer.replay_one(id_)


def _covers(wanted: TopicFilter, topic: bytes) -> bool:
    return wanted.text == "#" or wanted.match(topic.decode(errors="replace")) is not None
