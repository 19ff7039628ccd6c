"""Decoders that need more than a payload: the topic, its levels, the time of arrival, and what they remember.

What such a decoder remembers is text under names of its choice.  The writer keeps it in the target database and commits
it together with the records and the checkpoint, so it is there again after a restart, and never ahead of the records.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, MutableMapping, Sequence
from types import GeneratorType
from typing import Any, Final

import attrs

from amqtt_db.decode.checks import Decoder
from amqtt_db.decode.json_text import EMPTY
from amqtt_db.errors import DecodeError
from amqtt_db.tagged import is_clean

LONGEST_MEMORY: Final = 4 * 2**20
"""The most characters that a decoder may remember under one name: a statement to any database has room for them."""

Memory = MutableMapping[str, str]
"""What a decoder remembers: text by name."""


@attrs.frozen
class Arrival:
    """A message as a decoder gets it.

    ``levels`` are the named levels of its topic; ``time_us`` is when it arrived, in microseconds since 1970 (UTC).
    ``payload`` is bytes, or what the decoder before this one in a pipeline returned.
    """

    topic: str
    payload: Any
    levels: Mapping[str, str] = attrs.field(factory=dict)
    time_us: int = 0


@attrs.frozen
class Recollection:
    """The result of decoding a message: the data, and what the decoder remembers from now on, by name in the database.

    The data may be a DecodeError: the reason why the message cannot be stored.
    """

    data: Any
    changes: Mapping[str, str]


@attrs.frozen(eq=False)
class RememberingDecoder:
    """A pipeline with a stage that remembers, as the writer runs it.

    ``remembers`` returns the names under which the stage remembers something for messages of a topic; topics may share
    them.  ``stage`` returns plain data, given a message and what is remembered under those names; it assigns to a name
    to remember something else, which is forgotten if it raises an error, and counts if it returns a DecodeError.  Both
    must depend on nothing else, because a message may be decoded more than once.
    ``owner`` is the stage's name, which begins the names of what it remembers in the database.  ``before`` and
    ``after`` are the stages around it.
    """

    owner: str
    remembers: Callable[[str], Sequence[str]]
    stage: Callable[[Arrival, Memory], Any]
    before: Decoder | None = None
    after: Decoder | None = None

    def names(self, topic: str) -> dict[str, str]:
        """Return the stage's own names for a topic's memory, each with its name in the database."""
        return {name: f"{self.owner}:{name}" for name in self.remembers(topic)}

    def decode(self, arrival: Arrival, names: Mapping[str, str], memory: Mapping[str, str]) -> Recollection:
        """Decode a message; ``memory`` has what is remembered, by its name in the database.

        Raises DecodeError.
        """
        if self.before is not None:
            payload = self.before(arrival.payload)
            if payload is EMPTY:
                return Recollection(EMPTY, {})
            arrival = attrs.evolve(arrival, payload=payload)
        own = {name: memory[stored] for name, stored in names.items() if stored in memory}
        known = dict(own)
        data = self.stage(arrival, own)
        if type(data) is GeneratorType:
            data = _repeat([*data])  # it may remember something while it runs
        changes = {name: text for name, text in own.items() if known.get(name) is not text}
        if changes:
            self._check(names, changes)
            changes = {names[name]: text for name, text in changes.items()}
        return Recollection(data if self.after is None else apply_stage(self.after, data), changes)

    def _check(self, names: Mapping[str, str], changes: Mapping[Any, Any]) -> None:
        """Raise DecodeError for what cannot be remembered."""
        for name, text in changes.items():
            if name not in names:
                raise DecodeError(f"{self.owner} remembers something under a name that its `remembers` does not return")
            if not isinstance(text, str) or not is_clean(text):
                raise DecodeError(f"{self.owner} remembers something that is not text or has U+0000 or a surrogate")
            if len(text) > LONGEST_MEMORY:
                raise DecodeError(f"{self.owner} remembers more than {LONGEST_MEMORY} characters under one name")


def apply_stage(decode: Decoder, data: Any) -> Any:
    """Return what the next stage of a pipeline makes of the data of the one before: of each part, if it has several."""
    if data is EMPTY or isinstance(data, DecodeError):
        return data
    return _apply_to_each(decode, data) if type(data) is GeneratorType else decode(data)


def _apply_to_each(decode: Decoder, parts: Iterator[Any]) -> Iterator[Any]:
    for part in parts:
        data = decode(part)
        if type(data) is GeneratorType:
            yield from data
        else:
            yield data


def _repeat(parts: Sequence[Any]) -> Iterator[Any]:
    yield from parts
