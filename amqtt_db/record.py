"""Typed messages: kinds, shapes and records.

A *property* is named by its path: the keys that lead to it, joined by dots.  What would make that ambiguous or what
some database cannot hold is escaped (see :func:`escape`), so a path is always printable text and always invertible.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import lru_cache
from itertools import chain, repeat
from numbers import Integral, Rational, Real
from operator import attrgetter, itemgetter
from typing import Any, Final, Literal, get_args, overload
from uuid import UUID

import attrs

Kind = Literal[
    "bool", "number", "int64", "bigint", "text", "bytes", "datetime", "date", "time", "decimal", "uuid", "json",
    "tagged", "timestamp",
]  # fmt: skip
"""The types of the project.

Two of them never belong to a declared property: ``tagged`` keeps a value that its own kind's column would not return
identically, and ``timestamp`` is a time given as microseconds since 1970 (UTC), as envelopes carry it.
"""

Pair = tuple[str, Kind]
"""A property's path and the kind of its value: what a column can be for."""

KINDS: Final[tuple[Kind, ...]] = get_args(Kind)

EXACT: Final = 2**53  # beyond it not every integer is a double
MAX_DIGITS: Final = 4300  # of an integer: Python writes no longer one as text
_TOO_LONG: Final = 10**MAX_DIGITS
LEVELS: Final = 16  # deeper objects stay JSON: a path of hundreds of keys serves nobody

KIND_OF_TYPE: Final[Mapping[type, Kind]] = {
    bool: "bool",
    int: "number",
    float: "number",
    str: "text",
    bytes: "bytes",
    datetime: "datetime",
    date: "date",
    time: "time",
    Decimal: "decimal",
    UUID: "uuid",
    list: "json",
    tuple: "json",
    dict: "json",
}

_RESEMBLANCES: Final[Sequence[tuple[Any, Callable[[Any], Any]]]] = (
    (str, str.__str__),
    (bytes, bytes),
    ((bytearray, memoryview), bytes),
    (datetime, lambda value: datetime.combine(value.date(), value.timetz())),
    (date, lambda value: date(value.year, value.month, value.day)),
    (Decimal, Decimal),
    (UUID, lambda value: UUID(int=value.int)),
    (Integral, int),
    (Rational, lambda value: value),
    (Real, float),
)
"""Types, and how an instance of something like them becomes one of the project's."""

ENVELOPE_NAMES: Final = ("id", "part", "time", "topic", "session", "qos", "retain")
"""The columns of what a record has beside its properties, in the order of its fields."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=timezone.utc)
MICROSECOND: Final = timedelta(microseconds=1)

_SPECIAL = re.compile("[\\\\.\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]|^[{]")
_ESCAPED = re.compile(r"\\u([0-9a-f]{4})|\\(.)")
_DOT = re.compile(r"(?<!\\)((?:\\\\)*)\.")


def kind_of(value: object) -> Kind | None:
    """Return the kind of an undeclared value, None for None; integers beyond ±2⁵³ are ``int64`` or ``bigint``.

    Raises TypeError for a value of another type than the project's, ValueError for an integer of too many digits.
    """
    if value is None:
        return None
    kind = KIND_OF_TYPE.get(type(value))
    if kind is None:
        raise TypeError(f"a {type(value).__name__} cannot be stored")
    if type(value) is int and not -EXACT <= value <= EXACT:
        return "int64" if -(2**63) <= value < 2**63 else _bigint(value)
    return kind


def _bigint(value: int) -> Kind:
    if abs(value) >= _TOO_LONG:
        raise ValueError(f"an integer has more than {MAX_DIGITS} digits")
    return "bigint"


def as_plain(value: Any) -> Any:
    """Return a value whose type only resembles one of the project's as what it is, with all that it contains.

    That is an instance of a subclass, such as an ``IntEnum`` or an ``OrderedDict``, any other mapping, and a number of
    numpy.  What resembles nothing is returned as it is.
    """
    if isinstance(value, Mapping):
        return {str.__str__(key) if isinstance(key, str) else key: as_plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [as_plain(inner) for inner in value]
    if type(value) in KIND_OF_TYPE:
        return value
    return next((make(value) for base, make in _RESEMBLANCES if isinstance(value, base)), value)


def natural_kind(value: Any) -> tuple[Kind, Any]:
    """Return the kind that a value shows by itself, and the value as a column of that kind returns it."""
    kind = kind_of(value) or "json"
    return kind, float(value) if kind == "number" else value


@attrs.frozen
class TaggedValue:
    """A value whose kind the value alone does not tell: a declared ``int64`` of 5, say."""

    kind: Kind
    value: Any


def tag(kind: Kind, value: Any) -> Any:
    """Return ``value``, wrapped only if its kind would not be read off it again.

    A ``tagged`` value has no other kind than its own, nor has an integer whose kind is still ``number``.
    """
    is_natural = kind == "tagged" or (kind == "number" and type(value) is int) or kind_of(value) == kind
    return value if is_natural else TaggedValue(kind, value)


def restored(path: str, value: Any) -> tuple[Pair, Any]:
    """Return the pair and the value of a property that :func:`tag` made fit for JSON."""
    if isinstance(value, TaggedValue):
        return (path, value.kind), value.value
    kind, value = natural_kind(value)
    return (path, kind), value


@attrs.frozen(cache_hash=True)
class Shape:
    """The (property path, kind) pairs of a record, in the order of its values."""

    properties: tuple[Pair, ...]

    @property
    def paths(self) -> tuple[str, ...]:
        """The property paths alone."""
        return tuple(path for path, _ in self.properties)

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """The kinds alone."""
        return tuple(kind for _, kind in self.properties)


@attrs.frozen
class Record:
    """One typed message, or one part of it.

    ``id`` is unique in the database, ``part`` counts the records of one message from 0.  ``time_us`` is the event's
    time in microseconds since 1970 (UTC).  ``session`` is the id of the connection's row, or None.  ``values`` align
    with ``shape``; None means that the property is absent.
    """

    id: int
    part: int
    time_us: int
    topic: str
    session: int | None
    qos: int
    retain: bool
    values: tuple[Any, ...]
    shape: Shape

    @property
    def time(self) -> datetime:
        """The event's time as an aware datetime in UTC."""
        return EPOCH + timedelta(microseconds=self.time_us)

    def get(self, name: str, default: Any = None) -> Any:
        """Return the value of a property by its path, or of a topic's named level as ``{room}``; else ``default``."""
        for path, value in zip(self.shape.paths, self.values, strict=True):
            if path == name and value is not None:
                return value
        return default

    def __getitem__(self, name: str) -> Any:
        """Return the value of a property by its path: ``record["pos.lat"]``.  Raises KeyError if it is absent."""
        value = self.get(name)
        if value is None:
            raise KeyError(name)
        return value

    def envelope(self) -> dict[str, Any]:
        """Return what the record has beside its properties, by column name; ``time`` is in microseconds since 1970."""
        return dict(zip(ENVELOPE_NAMES, _envelope(self), strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Return the envelope (``time`` as a datetime), ``levels`` and ``data`` as plain nested objects."""
        return {**self.envelope(), "time": self.time, "levels": self.levels(), "data": self.data()}

    def data(self) -> dict[str, Any]:
        """Return the properties as the nested objects they came in; the topic's named levels are apart."""
        named = zip(self.shape.paths, self.values, strict=True)
        return unflatten((path, value) for path, value in named if not path.startswith("{"))

    def levels(self) -> dict[str, Any]:
        """Return the topic's named levels: ``{"room": "kitchen"}`` if the route is ``home/{room}/climate``."""
        named = zip(self.shape.paths, self.values, strict=True)
        return {path[1:-1]: value for path, value in named if path.startswith("{") and value is not None}

    def properties(self) -> dict[str, tuple[Kind, Any]]:
        """Path → (kind, value) of the properties that are present: what two equal records agree on."""
        pairs = zip(self.shape.properties, self.values, strict=True)
        return {path: (kind, value) for (path, kind), value in pairs if value is not None}

    def to_json(self) -> dict[str, Any]:
        """Return the properties by path, fit for a column of kind ``json``; :meth:`with_json` is the way back."""
        return {path: tag(kind, value) for path, (kind, value) in self.properties().items()}

    def with_json(self, properties: Mapping[str, Any]) -> Record:
        """Return the record with the properties that :meth:`to_json` gave."""
        return self.with_values(dict(restored(path, value) for path, value in properties.items()))

    def with_values(self, values: Mapping[Pair, Any]) -> Record:
        """Return the record with other properties, given by (path, kind); they get the order of their paths."""
        shape, pick = in_order(tuple(values))
        found = pick(tuple(values.values()))
        return Record(self.id, self.part, self.time_us, self.topic, self.session, self.qos, self.retain, found, shape)


_SETTERS: Final = [getattr(Record, field.name).__set__ for field in attrs.fields(Record)]


def records_of(ids: Sequence[int], *others: Iterable[Any]) -> list[Record]:
    """Records given by their fields, column by column in a record's order.

    The slots are set one column at a time: the initialiser of a frozen class takes twice as long.
    """
    records = list(map(Record.__new__, repeat(Record, len(ids))))
    for fill, column in zip(_SETTERS, (ids, *others), strict=True):
        deque(map(fill, records, column), maxlen=0)
    return records


_envelope = attrgetter("id", "part", "time_us", "topic", "session", "qos", "retain")
_record_fields = attrgetter("id", "part", "time_us", "topic", "session", "qos", "retain", "values")


@attrs.frozen(eq=False)
class RecordBatch(Sequence[Record]):
    """Records of one shape, column by column: a record is made only when somebody asks for one.

    All sequences have the same length; ``columns`` hold the values, one for each of the shape's properties.
    """

    shape: Shape
    ids: Sequence[int]
    parts: Sequence[int]
    times: Sequence[int]
    topics: Sequence[str]
    sessions: Sequence[int | None]
    qos: Sequence[int]
    retains: Sequence[bool]
    columns: Sequence[Sequence[Any]]

    @classmethod
    def of(cls, shape: Shape, records: Sequence[Record]) -> RecordBatch:
        """Records of ``shape`` as a block; a block is one already."""
        if isinstance(records, RecordBatch):
            return records
        if isinstance(records, RecordSlice):
            return records.whole.at(records.indexes)
        *envelope, values = zip(*map(_record_fields, records), strict=True) if records else ((),) * 8
        columns = list(zip(*values, strict=True)) if values else [()] * len(shape.properties)
        ids, parts, times, topics, sessions, qos, retains = envelope
        return cls(shape, ids, parts, times, topics, sessions, qos, retains, columns)

    @classmethod
    def joined(cls, blocks: Sequence[RecordBatch]) -> RecordBatch:
        """Return the records of several batches of the same shape as one batch."""
        if len(blocks) == 1:
            return blocks[0]
        columns = [[*chain.from_iterable(some)] for some in zip(*(block.columns for block in blocks), strict=True)]
        envelope = ([*chain.from_iterable(some)] for some in zip(*(block.envelope for block in blocks), strict=True))
        ids, parts, times, topics, sessions, qos, retains = envelope
        return cls(blocks[0].shape, ids, parts, times, topics, sessions, qos, retains, columns)

    def at(self, indexes: Sequence[int]) -> RecordBatch:
        """Return the records at some indexes."""
        if len(indexes) == len(self):
            return self
        pick = picker(indexes)
        ids, parts, times, topics, sessions, qos, retains = map(pick, self.envelope)
        return RecordBatch(self.shape, ids, parts, times, topics, sessions, qos, retains, list(map(pick, self.columns)))

    @property
    def first(self) -> tuple[int, int]:
        """The id and the part of the first record."""
        return self.ids[0], self.parts[0]

    @property
    def envelope(self) -> tuple[Sequence[Any], ...]:
        """The columns of the envelope, in the order of a record's fields."""
        return self.ids, self.parts, self.times, self.topics, self.sessions, self.qos, self.retains

    @property
    def values(self) -> Sequence[tuple[Any, ...]]:
        """The records' values, row by row."""
        return list(zip(*self.columns, strict=True)) if self.columns else [()] * len(self)

    def __len__(self) -> int:
        return len(self.ids)

    def __iter__(self) -> Iterator[Record]:
        return map(Record, *self.envelope, self.values, repeat(self.shape))

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        return list(self)[index]


@attrs.frozen(eq=False)
class RecordSlice(Sequence[Record]):
    """The records of a block at some indexes, which rise: what becomes of the block may be shared out by them."""

    whole: RecordBatch
    indexes: Sequence[int]

    @property
    def shape(self) -> Shape:
        """The shape of all records of the block."""
        return self.whole.shape

    @property
    def first(self) -> tuple[int, int]:
        """The id and the part of the first record."""
        return self.whole.ids[self.indexes[0]], self.whole.parts[self.indexes[0]]

    def __len__(self) -> int:
        return len(self.indexes)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Record]: ...
    def __getitem__(self, index: int | slice) -> Record | Sequence[Record]:
        return self.whole.at(self.indexes)[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.whole.at(self.indexes))


def picker(indexes: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Return a function that picks the values at ``indexes``, always as a tuple."""
    if len(indexes) > 1:
        return itemgetter(*indexes)
    return lambda values: tuple(values[index] for index in indexes)


@lru_cache(4096)
def in_order(pairs: tuple[Pair, ...]) -> tuple[Shape, Callable[[Sequence[Any]], tuple[Any, ...]]]:
    """Return the shape of ``pairs`` in the order of their paths, and a function that reorders their values alike."""
    order = sorted(range(len(pairs)), key=pairs.__getitem__)
    return Shape(tuple(pairs[index] for index in order)), picker(order)


def to_micros(moment: datetime) -> int:
    """Microseconds since 1970 of an aware datetime."""
    return (moment - EPOCH) // MICROSECOND


@lru_cache(4096)
def escape(key: str) -> str:
    r"""Make one key of an object a safe part of a path.

    A dot, a backslash, a leading brace, control characters and lone surrogates become ``\.``, ``\\``, ``\{`` or
    ``\uXXXX``.
    """
    return _SPECIAL.sub(_escape_one, key)


def _escape_one(found: re.Match[str]) -> str:
    character = found[0]
    return "\\" + character if character in "\\.{" else f"\\u{ord(character):04x}"


def unescape(part: str) -> str:
    """Undo :func:`escape`."""
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[2], part)


def level_path(name: str) -> str:
    """Return the path of a named topic level; no key of a payload has it, for a leading brace is escaped there."""
    return f"{{{name}}}"


def flatten(data: Mapping[str, Any], whole: Container[str] = ()) -> dict[str, Any]:
    """Nested objects as path → value.

    An empty object stays, as the value ``{}``; so do objects below 16 levels, and those at the paths ``whole``.  Raises
    TypeError for a key that is not text.
    """
    flat: dict[str, Any] = {}
    _flatten(data, "", flat, whole, LEVELS)
    return flat


def _flatten(data: Mapping[str, Any], prefix: str, flat: dict[str, Any], whole: Container[str], levels: int) -> None:
    for key, value in data.items():
        if not isinstance(key, str):
            raise TypeError(f"a key of an object is a {type(key).__name__}, not text")
        path = prefix + escape(key)
        if isinstance(value, dict) and value and levels > 1 and path not in whole:
            _flatten(value, path + ".", flat, whole, levels - 1)
        else:
            flat[path] = value


def split_path(path: str) -> tuple[str, ...]:
    """Return the keys that lead to a property: the inverse of joining escaped keys by dots."""
    return tuple(unescape(part) for part in _DOT.sub("\\1\x00", path).split("\x00"))


def unflatten(properties: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    """Undo :func:`flatten` for (path, value) pairs; None values are left out."""
    return nested((split_path(path), value) for path, value in properties if value is not None)


def nested(values: Iterable[tuple[Sequence[str], Any]]) -> dict[str, Any]:
    """Nested objects of values and the keys that lead to each; None values are left out."""
    data: dict[str, Any] = {}
    for keys, value in values:
        if value is not None:
            level = data
            for key in keys[:-1]:
                level = level.setdefault(key, {})
            level[keys[-1]] = value
    return data
