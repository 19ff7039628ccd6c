"""Decoders that remember: what they get, what they may remember, and where they may stand."""

from __future__ import annotations

import gzip
from collections.abc import Iterator, Sequence
from typing import Any

import orjson
import pytest

from amqtt_db.decode import EMPTY, Arrival, Memory, RememberingDecoder, resolve
from amqtt_db.decode.remembering import LONGEST_MEMORY
from amqtt_db.errors import DecodeError
from tests.decode.vectors import mistakes

HERE = __name__


class Counter:
    """Counts the messages of each topic, from ``first``."""

    def __init__(self, first: int = 1) -> None:
        self._first = first

    def remembers(self, topic: str) -> Sequence[str]:
        """Return the topic."""
        return (topic,)

    def __call__(self, arrival: Arrival, memory: Memory) -> Any:
        """Return the count beside what the decoder before this one has returned."""
        count = int(memory.get(arrival.topic, self._first - 1)) + 1
        memory[arrival.topic] = str(count)
        return {"count": count, "from": arrival.payload, "level": dict(arrival.levels), "at": arrival.time_us}


class Naughty(Counter):
    """Remembers what the payload says, which may be what it must not."""

    def __call__(self, arrival: Arrival, memory: Memory) -> Any:
        """Remember it."""
        memory.update(orjson.loads(arrival.payload))
        return {}


class Parts(Counter):
    """Makes several records, and remembers how many while it does."""

    def __call__(self, arrival: Arrival, memory: Memory) -> Iterator[Any]:
        """Yield a record per byte."""
        for byte in arrival.payload:
            memory[arrival.topic] = str(byte)
            yield {"byte": byte}


def remembering(spec: Any) -> RememberingDecoder:
    decoder = resolve(spec, where="decode")
    assert isinstance(decoder, RememberingDecoder)
    return decoder


def decode(spec: Any, payload: bytes, memory: dict[str, str] | None = None) -> tuple[Any, dict[str, str]]:
    """Return what a decoder makes of a payload on the topic ``a/b``, and what it remembers then."""
    decoder = remembering(spec)
    arrival = Arrival("a/b", payload, {"x": "b"}, 17)
    found = decoder.decode(arrival, decoder.names("a/b"), memory or {})
    return found.data, dict(found.changes)


def test_it_gets_the_topic_its_levels_the_time_and_what_it_remembers() -> None:
    """What it assigns to a name is remembered under the decoder's name and that."""
    name = f"{HERE}.Counter:a/b"
    expected = {"from": b"p", "level": {"x": "b"}, "at": 17}
    assert decode(f"{HERE}.Counter", b"p") == ({"count": 1, **expected}, {name: "1"})
    assert decode(f"{HERE}.Counter", b"p", {name: "7", "other": "x"}) == ({"count": 8, **expected}, {name: "8"})
    assert decode({f"{HERE}.Counter": {"first": 5}}, b"p")[0]["count"] == 5


def test_it_may_stand_anywhere_in_a_pipeline() -> None:
    """Its payload is what the decoder before it returned, and the one behind it gets its data."""
    data, _ = decode(["gzip", "json", f"{HERE}.Counter"], gzip.compress(b"[1]"))
    assert data["from"] == [1]
    data, changes = decode([f"{HERE}.Parts", f"{HERE}.double"], b"\x01\x02")
    assert (list(data), changes) == ([{"byte": 2}, {"byte": 4}], {f"{HERE}.Parts:a/b": "2"})


def double(data: Any) -> Any:
    """Return a record with twice the number."""
    return {"byte": 2 * data["byte"]}


def test_an_empty_payload_reaches_it_only_as_bytes() -> None:
    """A decoder before it that finds no record in a payload is believed."""
    assert decode(["auto", f"{HERE}.Counter"], b"") == (EMPTY, {})
    assert decode(f"{HERE}.Counter", b"")[0]["from"] == b""


def test_what_it_remembers_while_it_yields_counts() -> None:
    """All parts are made before anything is remembered."""
    data, changes = decode(f"{HERE}.Parts", b"\x01\x02")
    assert changes == {f"{HERE}.Parts:a/b": "2"}
    assert list(data) == [{"byte": 1}, {"byte": 2}]


@pytest.mark.parametrize(
    ("memory", "reason"),
    [
        ({"a/c": "x"}, "under a name that its `remembers` does not return"),
        ({"a/b": 1}, "something that is not text"),
        ({"a/b": "\0"}, "something that is not text"),
        ({"a/b": "x" * (LONGEST_MEMORY + 1)}, "more than 4194304 characters"),
    ],
)
def test_what_cannot_be_kept_is_refused(memory: dict[str, Any], reason: str) -> None:
    """The reason says what is wrong, and names the decoder."""
    with pytest.raises(DecodeError, match=reason) as error:
        decode(f"{HERE}.Naughty", orjson.dumps(memory))
    assert f"{HERE}.Naughty" in str(error.value)


def test_whatever_it_raises_blames_the_message() -> None:
    """As from any decoder of the user's."""
    with pytest.raises(DecodeError, match="Naughty fails with JSONDecodeError"):
        decode(f"{HERE}.Naughty", b"{")


def test_two_that_remember_are_a_mistake() -> None:
    """The second one's path is named."""
    assert mistakes([f"{HERE}.Counter", f"{HERE}.Parts"]) == [
        f"decode[1]: only one decoder of a pipeline may remember messages, and {HERE}.Counter does too"
    ]
