"""Replay dead letters: once the route or the decoder has been corrected, store those that can be stored now."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress

import attrs

from amqtt_db.config import Settings
from amqtt_db.database.dead_letters import ALL_LETTERS, LetterChoice, letter, letters
from amqtt_db.routing.route import Route
from amqtt_db.writer.one_off import open_writer
from amqtt_db.writer.preview import preview
from amqtt_db.writer.transaction import COLLISIONS, AssignmentsMoved, CheckpointMoved
from amqtt_db.writer.writer import Writer


@attrs.frozen
class Replayed:
    """The outcome for one dead letter: ``reason`` says why it stays one, or is None if it is now stored."""

    id: int
    reason: str | None


def replay(database: str, routes: Sequence[Route], choice: LetterChoice = ALL_LETTERS) -> Iterator[Replayed]:
    """Try the chosen dead letters, oldest first, each in its own transaction.

    ``database`` is its URL, ``routes`` are those of the current configuration.
    A letter that is now stored keeps its message's id, and moves from dead to stored in the counters.  Raises
    DatabaseError if the database cannot be used; what was stored before that stays stored.
    """
    with open_writer(database, routes) as writer:
        for id_ in writer.dead_letters(choice):
            with suppress(CheckpointMoved):  # another replay was faster
                yield Replayed(id_, _replay_one(writer, id_))


def rehearse(settings: Settings, choice: LetterChoice = ALL_LETTERS) -> Iterator[Replayed]:
    """Yield what a replay of the chosen dead letters would come to, oldest first; nothing is changed.

    What only the database would refuse, such as a constraint of the user's own, is not foreseen.
    """
    for one in reversed(letters(settings.database, choice=choice)):
        found = letter(settings.database, one.id)
        if found is not None:
            result = preview(settings, found.topic.decode(errors="replace"), found.payload or b"")
            yield Replayed(one.id, result.refusal)


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
