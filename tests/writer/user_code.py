"""Decoders and models as a user may write them on a bad day: they raise, return nonsense, recurse, hang or exit."""

from __future__ import annotations

import csv
import io
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, tzinfo
from enum import Enum, IntEnum
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Final

import attrs
import orjson
import sqlalchemy as sa

from amqtt_db.decode import Arrival, Memory
from amqtt_db.errors import DatabaseError
from amqtt_db.models.base import Column
from amqtt_db.models.wide import Wide
from amqtt_db.record import Record, Shape
from amqtt_db.writer.transaction import CheckpointMoved


class Level(IntEnum):
    """A number with a name."""

    LOW = 1


class Letter(str, Enum):
    """A text with a name."""

    A = "a"


class Single(float):
    """As numpy's ``float64`` is one."""


class MuteError(Exception):
    """An error that cannot even say what it is."""

    def __str__(self) -> str:
        raise RuntimeError("no words")


class Zone(tzinfo):
    """A time zone that does not know where it is."""

    def utcoffset(self, _: datetime | None) -> timedelta:
        """Fail."""
        raise MuteError

    dst = tzname = utcoffset  # type: ignore[assignment]


class Touchy(str):
    """A text that does not want to be compared."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise MuteError


def recurse() -> Any:
    """Return never, and not for lack of time."""
    return recurse()


def fail(error: Exception) -> Any:
    """Raise an error where an expression is wanted."""
    raise error


def _endless() -> dict[str, Any]:
    data: dict[str, Any] = {}
    data["a"] = data
    return data


def _deep() -> Any:
    data: Any = 1
    for _ in range(5000):
        data = {"a": data}
    return data


def _midway() -> Iterator[Any]:
    yield {"a": 1}
    raise MuteError


TANTRUMS: Final[Mapping[str, Callable[[], Any]]] = {
    "value error": lambda: fail(ValueError("no")),
    "key error": lambda: fail(KeyError("no")),
    "mute error": lambda: fail(MuteError()),
    "database's error": lambda: fail(DatabaseError("pretended")),
    "driver's error": lambda: fail(sa.exc.OperationalError("pretended", None, Exception())),
    "writer's error": lambda: fail(CheckpointMoved()),
    "recursion": recurse,
}
"""Ways not to return."""

NONSENSE: Final[Mapping[str, Callable[[], Any]]] = {
    "nothing": lambda: None,
    "number": lambda: 17,
    "text": lambda: "text",
    "object": object,
    "list of objects": lambda: [object()],
    "type": lambda: int,
    "function": lambda: recurse,
}
"""What no model may return."""

ODD_DATA: Final[Mapping[str, Callable[[], Any]]] = {
    **NONSENSE,
    "a key that is no text": lambda: {"a": 1, None: ["surplus"]},
    "keys of all types": lambda: {1: 1, b"b": 2, (3,): 3, "a": 4},
    "a key that is no text below": lambda: {"a": {None: 1}},
    "a set": lambda: {"a": {1, 2}},
    "an odd number": lambda: {"a": Fraction(1, 3)},
    "a touchy text": lambda: {"a": Touchy("x")},
    "a touchy key": lambda: {Touchy("a"): 1},
    "a lost time": lambda: {"a": datetime(2026, 1, 1, tzinfo=Zone()), "time": datetime(2026, 1, 1, tzinfo=Zone())},
    "itself": _endless,
    "too deep": _deep,
    "failing parts": _midway,
    "half a pair of surrogates": lambda: {"\ud800": "\udfff"},
    "U+0000": lambda: {"\x00": "\x00"},
    "a huge integer": lambda: {"a": 10**400},
    "a long name": lambda: {"a" * 70_000: 1},
    "objects in a list": lambda: {"a": [object()]},
}
"""Values that no decoder should return; some can still be stored."""

LOOKALIKES: Final[Mapping[str, tuple[Callable[[], Any], Any]]] = {
    "OrderedDict": (lambda: OrderedDict(a=1), {"a": 1.0}),
    "mapping": (lambda: MappingProxyType({"a": MappingProxyType({"b": 1})}), {"a": {"b": 1.0}}),
    "OrderedDict below": (lambda: {"a": OrderedDict(b=OrderedDict(c="x"))}, {"a": {"b": {"c": "x"}}}),
    "IntEnum": (lambda: {"a": Level.LOW}, {"a": 1.0}),
    "text Enum": (lambda: {Letter.A: Letter.A}, {"a": "a"}),
    "float of numpy": (lambda: {"a": {"b": Single(0.5)}}, {"a": {"b": 0.5}}),
    "a list of such": (lambda: {"a": [Level.LOW, OrderedDict(b=Single(0.5))]}, {"a": [1, {"b": 0.5}]}),
    "a tuple": (lambda: {"a": (1, [bytearray(b"x")])}, {"a": [1, [b"x"]]}),
    "bytearray": (lambda: {"a": bytearray(b"x")}, {"a": b"x"}),
}
"""Data of types that resemble the project's, and as what it is stored."""


def decode(payload: bytes) -> Any:
    """Return or raise what the payload names; JSON otherwise."""
    name = payload.decode(errors="replace")
    made = {**TANTRUMS, **ODD_DATA, **{name: make for name, (make, _) in LOOKALIKES.items()}}
    return made[name]() if name in made else orjson.loads(payload)


def read_csv(payload: bytes) -> Any:
    """Return the first line below the head; fields beyond the head's are under the key None."""
    return next(csv.DictReader(io.StringIO(payload.decode())))


def misbehave(mood: str) -> Any:
    """Do what a mood says, or nothing."""
    return MOODS[mood]() if mood in MOODS else mood


@attrs.frozen
class MoodyEntity:
    """An entity whose converter, validator and initialization behave as the payload says."""

    converted: Any = attrs.field(default="", converter=misbehave)
    validated: str = attrs.field(default="", validator=lambda *given: misbehave(given[-1]) and None)
    begun: str = ""

    def __attrs_post_init__(self) -> None:
        misbehave(self.begun)


class MoodyMemory:
    """A decoder that remembers, and whose methods behave as the topic's last level or the payload says."""

    def remembers(self, topic: str) -> Any:
        """Return a name, or misbehave."""
        mood = topic.rpartition("/")[2]
        return misbehave(mood) if mood in MOODS else ["name"]

    def __call__(self, arrival: Arrival, memory: Memory) -> Any:
        """Remember something, and return the payload's data."""
        data = orjson.loads(arrival.payload)
        memory["name"] = misbehave(data.get("memory", "a text"))
        return data


awake = False


@attrs.frozen
class Moody(Wide):
    """A model with one method that behaves as its ``mood`` says.

    Where the method is given a shape, it does so only for a property named ``bad``; with ``always`` in any case, but
    not before ``awake`` is true, because a mistake that shows at the start is a mistake in the configuration.
    """

    method: str = ""
    mood: str = ""
    always: bool = False

    def _do(self, method: str, normal: Callable[..., Any], *arguments: Any) -> Any:
        shapes = [one if isinstance(one, Shape) else one.shape for one in arguments if isinstance(one, (Shape, Record))]
        is_meant = awake if self.always else not shapes or any("bad" in shape.paths for shape in shapes)
        if method == self.method and is_meant:
            return MOODS[self.mood]()
        return normal(*arguments)

    def tables(self, *arguments: Any) -> Any:
        """Misbehave, perhaps."""
        return self._do("tables", super().tables, *arguments)

    def layout(self) -> Any:
        """Misbehave, perhaps."""
        return self._do("layout", super().layout)

    def maker(self, *arguments: Any) -> Any:
        """Misbehave, perhaps."""
        return self._do("maker", super().maker, *arguments)

    def extra_columns(self) -> Any:
        """Misbehave, perhaps."""
        return self._do("extra_columns", super().extra_columns)

    def extra_indexes(self) -> Any:
        """Misbehave, perhaps."""
        return self._do("extra_indexes", super().extra_indexes)

    def read(self, *arguments: Any) -> Any:
        """Misbehave, perhaps."""
        read = super().read
        return self._do("read", lambda: read(*arguments))


@attrs.frozen
class MoodyWriter(Moody):
    """The same for a model that writes its rows one by one and has its own column."""

    def maker(self, *_: Any) -> Any:
        """Leave the work to ``write``."""

    def write(self, record: Record) -> Any:
        """Misbehave, perhaps."""
        return self._do("write", super().write, record)

    def extra_columns(self) -> Any:
        """Add a column."""
        return [Column("doubled", "number")]

    def extra_values(self, record: Record) -> Any:
        """Misbehave, perhaps."""
        return self._do("extra_values", lambda _: {"doubled": 2.0}, record)


MOODS: Final[Mapping[str, Callable[[], Any]]] = {
    **TANTRUMS,
    **NONSENSE,
    "a function that fails": lambda: lambda *_: fail(MuteError()),
    "a function that returns nonsense": lambda: lambda *_: 17,
    "hang": lambda: time.sleep(60),
    "exit": lambda: os._exit(7),
    "polite exit": lambda: fail_hard(SystemExit(7)),
}
"""How a method of a model may behave."""


def fail_hard(error: BaseException) -> Any:
    """Raise what no ``except Exception`` catches."""
    raise error
