"""Hypothesis generators for MQTT messages, with a preference for difficult ones."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import zip_longest
from typing import Any, Final
from uuid import UUID

from hypothesis import strategies as st

from amqtt_db.models.base import Destination
from amqtt_db.record import Kind, Pair, Record, Shape, escape, level_path
from amqtt_db.testing.answer import KIND_OF_DECLARED, leaves
from amqtt_db.testing.history import Data, History, Sent, Setting

Strategy = st.SearchStrategy

NASTY_NAMES: Final = (
    *("", " ", "x" * 300, "x" * 299 + "y", "select", "ORDER", "null", "rowid", "AaA", "aaa", "ä", "Ä", "🙂"),
    *(
        "id",
        "part",
        "time",
        "Topic",
        "session",
        "qos",
        "retain",
        "extra",
        "data",
        "kinds",
        "levels",
        "value",
        "text",
        "temp",
    ),
    *("a", "b", "a.b", "a\\.b", "a\\", ".", "..", "\\", "{x}", "{site}", "{", "$x", "$int", "$$", "$typed"),
    *("\x00", "a\x00b", "\ud800", "\udfff", "\u2028", "?!", "!?", "%", "'", '"', ";", "a__text", "__proto__"),
)
"""Property names that have broken something before."""

NASTY_TOPICS: Final = (
    *("a/b", "a_b", "A/B", "a", "/", "//", "/a", "a/", "a//b", "x" * 199 + "a", "x" * 199 + "b"),
    *("家/温度", "🏠/🌡", "بيت/حرارة", "living room/tv 'big'", 'x"; DROP TABLE mqtt_journal; --', "50%/a;b", "a\nb"),
    *("mqtt_message", "mqtt/journal", "id", "sqlite_x", "{site}", "site/{x}", "trailing "),
)
"""Topics that have broken something before."""

NASTY_TEXTS: Final = (
    "",
    " ",
    "\x00",
    "a\x00b",
    "\ud800",
    "\udfff\ud800",
    "\\u0000",
    "null",
    "1",
    "'",
    "🙂",
    "x" * 3000,
)

NASTY_INTEGERS: Final = (
    *(0, 1, -1, 2**53 - 1, 2**53, 2**53 + 1, -(2**53), -(2**53) - 1),
    *(2**63 - 1, 2**63, -(2**63), -(2**63) - 1, 2**64 - 1, 2**64, 10**30, -(10**30)),
)
NASTY_FLOATS: Final = (
    *(0.0, -0.0, 1.0, 21.5, float(2**53), float(2**63), 1e300, 1e308, 1.7976931348623157e308),
    *(5e-324, -5e-324, 1e-320, 1e-300, 0.1, float("nan"), float("inf"), float("-inf")),
)
NASTY_DECIMALS: Final = tuple(map(Decimal, ("0", "-0", "1.10", "1.1", "1E+30", "1E-30", "0.000", "9" * 40)))
NASTY_MOMENTS: Final = (
    datetime.min.replace(tzinfo=timezone.utc),
    datetime.max.replace(tzinfo=timezone.utc),
    datetime(1970, 1, 1, tzinfo=timezone.utc),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=timezone.utc),
)
NASTY_ODD_MOMENTS: Final = (
    datetime.max.replace(microsecond=1),
    datetime.min,
    datetime.min.replace(tzinfo=timezone(timedelta(hours=14))),
    datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))),
    datetime(2026, 1, 31, tzinfo=timezone(timedelta(hours=5, minutes=30))),
)
"""Datetimes without a zone, and some that UTC cannot represent: a user's decoder may return them."""

_NASTY_REST: Final[tuple[Any, ...]] = (
    *(*NASTY_ODD_MOMENTS, None, True, bytes(range(256)), date.min, time.max, time(12, tzinfo=timezone.utc)),
    *(UUID(int=0), [], {}, [None, {"$x": float("nan")}, [[]], {"": {}}]),
)

EARLIEST: Final = -62_135_596_800_000_000
LATEST: Final = 253_402_300_799_999_999
"""The earliest and latest time of a record, in microseconds since 1970."""


def _zones() -> Strategy[Any]:
    return st.just(timezone.utc)


_TEXT: Final = st.sampled_from(NASTY_TEXTS) | st.text(
    alphabet=st.one_of(st.sampled_from(".\\{}$\x00\ud800 aA"), st.characters()), max_size=6
)
_FLOAT: Final = st.sampled_from(NASTY_FLOATS) | st.floats()
_JSON: Final = st.recursive(
    st.none() | st.booleans() | _FLOAT | st.sampled_from(NASTY_INTEGERS) | st.integers() | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)
_OF_KIND: Final[Mapping[Kind, Strategy[Any]]] = {
    "bool": st.booleans(),
    "number": _FLOAT,
    "int64": st.sampled_from([n for n in NASTY_INTEGERS if -(2**63) <= n < 2**63]) | st.integers(-(2**63), 2**63 - 1),
    "bigint": st.sampled_from(NASTY_INTEGERS) | st.integers(),
    "text": _TEXT,
    "bytes": st.sampled_from([b"", bytes(range(256))]) | st.binary(max_size=8),
    "datetime": st.sampled_from(NASTY_MOMENTS) | st.datetimes(timezones=_zones()),
    "date": st.sampled_from([date.min, date.max]) | st.dates(),
    "time": st.sampled_from([time.min, time.max]) | st.times(),
    "decimal": st.sampled_from(NASTY_DECIMALS) | st.decimals(allow_nan=False, allow_infinity=False),
    "uuid": st.uuids(),
    "json": _JSON.filter(lambda value: value is not None),
}
_DECLARED: Final[Mapping[str, Strategy[Any]]] = {
    **{name: _OF_KIND[kind] for name, kind in KIND_OF_DECLARED.items()},  # type: ignore[index]
    "list": st.lists(_JSON, max_size=3),
    "dict": st.dictionaries(_TEXT, _JSON, max_size=3),
}


def kinds() -> Strategy[Kind]:
    """Generate kinds that a property can be declared with."""
    return st.sampled_from(sorted(_OF_KIND))


def names() -> Strategy[str]:
    """Generate property names: keys of an object."""
    return st.sampled_from(NASTY_NAMES) | _TEXT


def topics() -> Strategy[str]:
    """Generate valid topics that match the route ``#``."""
    made = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\x00+#/"), max_size=4))
    return st.sampled_from(NASTY_TOPICS) | made.map("/".join).filter(lambda topic: topic and not topic.startswith("$"))


def values(kind: Kind | None = None) -> Strategy[Any]:
    """Generate values of a kind; without one, any value that a decoder may return, including None."""
    if kind is not None:
        return _OF_KIND[kind]
    odd: Strategy[Any] = st.sampled_from(NASTY_ODD_MOMENTS) | st.just(time(12, tzinfo=timezone.utc)) | st.just({})
    return st.none() | st.sampled_from(NASTY_INTEGERS) | odd | st.one_of(*_OF_KIND.values())


def payloads() -> Strategy[Data]:
    """Generate decoded payloads: nested objects, sometimes nested far too deeply."""
    inner = st.dictionaries(names(), values(), max_size=3)
    plain = st.dictionaries(names(), values() | inner | st.dictionaries(names(), inner, max_size=2), max_size=6)
    deep = st.builds(_nested, st.integers(14, 40), names(), values())
    return plain | plain | st.builds(lambda data, below: {**data, "deep": below}, plain, deep)


def _nested(depth: int, name: str, value: Any) -> Data:
    data = {name: value}
    for _ in range(depth):
        data = {name: data}
    return data


def times() -> Strategy[int]:
    """Generate microseconds since 1970, for the years 1 to 9999."""
    now = 1_700_000_000_000_000
    return st.sampled_from([EARLIEST, LATEST, -1, 0, now]) | st.integers(now, now + 10) | st.integers(EARLIEST, LATEST)


@st.composite
def shapes(draw: st.DrawFn) -> Shape:
    """Generate shapes: pairs whose paths can occur together in one payload.

    Some pairs have the kind ``tagged``, which the writer uses for values that a column would not return exactly.
    """
    kind: Strategy[Kind] = kinds() | st.just("tagged")
    data = draw(st.dictionaries(names(), kind | st.dictionaries(names(), kind, min_size=1, max_size=3), max_size=5))
    pairs: list[Pair] = [(".".join(map(escape, keys)), leaf) for keys, leaf in leaves(data)]
    if draw(st.booleans()):
        pairs.append((level_path("site"), "text"))
    return Shape(tuple(pairs))


@st.composite
def records(draw: st.DrawFn, of: Strategy[Shape] | None = None) -> Record:
    """Generate typed records with a shape drawn from ``of``; None means an absent property."""
    shape = draw(shapes() if of is None else of)
    return Record(
        id=draw(st.sampled_from([1, 2**40 + 1, 2**63 - 1]) | st.integers(1, 2**63 - 1)),
        part=draw(st.integers(0, 3)),
        time_us=draw(times()),
        topic=draw(topics()),
        session=draw(st.none() | st.integers(1, 2**63 - 1)),
        qos=draw(st.integers(0, 2)),
        retain=draw(st.booleans()),
        values=tuple(draw(st.none() | _in_record(kind)) for kind in shape.kinds),
        shape=shape,
    )


def _in_record(kind: Kind) -> Strategy[Any]:
    if kind == "tagged":
        return values().filter(lambda value: not isinstance(value, dict) or not value)
    return values(kind) | st.integers(-9, 9) if kind == "number" else values(kind)


@st.composite
def places(draw: st.DrawFn) -> Destination:
    """Generate destinations with and without declared properties, under every policy."""
    route = draw(st.sampled_from(["#", "{site}/#"]))
    declared = draw(st.none() | st.frozensets(names().map(escape), max_size=5))
    return Destination(draw(topics()), route, declared, draw(st.sampled_from(["add", "extra", "ignore", "reject"])))


@st.composite
def settings(draw: st.DrawFn) -> Setting:
    """Generate settings with and without an entity, a named level, or few columns."""
    entity = draw(st.just({}) | st.dictionaries(names(), st.sampled_from(sorted(KIND_OF_DECLARED)), max_size=4))
    return Setting(
        filter=draw(st.sampled_from(["#", "{site}/#"])),
        entity=entity,
        unknown=draw(st.sampled_from(["add", "extra"])),
        max_columns=draw(st.sampled_from([None, None, 3])),
    )


@st.composite
def data_for(draw: st.DrawFn, setting: Setting) -> Data:
    """Generate payloads for a setting, with declared properties, some of the wrong type."""
    other = draw(payloads())
    data = {name: value for name, value in other.items() if name not in setting.entity}
    for name, declared in setting.entity.items():
        wrong = "no bool" if declared == "bool" else True
        data[name] = draw(st.none() | _DECLARED[declared] | _DECLARED[declared] | st.just(wrong))
    return data


@st.composite
def messages(draw: st.DrawFn, setting: Setting, among: Strategy[str] | None = None) -> Sent:
    """Generate messages under a setting, with topics drawn from ``among``; a few have no part, or several."""
    count = draw(st.sampled_from([1, 1, 1, 0, 3]))
    return Sent(
        topic=draw(topics() if among is None else among),
        parts=tuple(draw(data_for(setting)) for _ in range(count)),
        time=draw(times()),
        session=draw(st.integers(0, 3)),
        qos=draw(st.integers(0, 2)),
        retain=draw(st.booleans()),
    )


@st.composite
def histories(draw: st.DrawFn, of: Strategy[Setting] | None = None) -> History:
    """Generate histories: batches of messages of a few topics, with properties that appear, vanish and change kinds."""
    setting = draw(settings() if of is None else of)
    few = st.sampled_from(draw(st.lists(topics(), min_size=1, max_size=3, unique=True)))
    known = draw(st.lists(messages(setting, few), min_size=1, max_size=4))
    again = st.builds(drifted, st.just(setting), st.sampled_from(known), values())
    batch = st.lists(messages(setting, few) | again, min_size=1, max_size=4).map(tuple)
    return History(setting, (tuple(known), *draw(st.lists(batch, max_size=2))))


def drifted(setting: Setting, sent: Sent, value: Any) -> Sent:
    """Return the message with its last undeclared property changed to another kind, or with a new one."""
    return Sent(sent.topic, tuple(_changed(setting, data, value) for data in sent.parts), sent.time)


def _changed(setting: Setting, data: Data, value: Any) -> Data:
    free = [name for name in (*data, "a new one") if name not in setting.entity]
    return {**data, free[-2 if len(free) > 1 else -1]: value} if free else data


def nasty_histories() -> list[History]:
    """Return histories with every name, topic and value of this module, and one of empty payloads."""
    declared = {f"my {name}": name for name in KIND_OF_DECLARED}
    roomy, tight = Setting("{site}/#", declared, "extra"), Setting("{site}/#", declared, "add", max_columns=3)
    empty = History(Setting(), ((Sent("t", ({},)), Sent("t", ())),))
    return [_undeclared(), empty, *(History(setting, (_declared(),)) for setting in (roomy, tight))]


def _undeclared() -> History:
    values_of_all_kinds = [*NASTY_INTEGERS, *NASTY_FLOATS, *NASTY_TEXTS, *NASTY_DECIMALS, *NASTY_MOMENTS, *_NASTY_REST]
    numbered: dict[str, Any] = {name: index for index, name in enumerate(NASTY_NAMES)}
    nested = {**numbered, "a": {"b": "nested", "": {"": -0.0}}, "deep": _nested(30, "d", 2**64)}
    parts = tuple({"v": value} for value in (1.5, float("nan"), None, 2**60, -0.0, "x"))
    return History(
        Setting(),
        (
            (Sent("t", (numbered,)), Sent("t", (nested,), time=0), Sent("t", ()), Sent("parts", parts)),
            tuple(Sent(topic, ({"v": 1.5}, {}), session=1, qos=2, retain=True) for topic in NASTY_TOPICS),
            tuple(Sent("drift", ({"v": value, "l": [value]},)) for value in values_of_all_kinds),
            (Sent("t", ({"a": {}},), EARLIEST), Sent("t", ({},), LATEST), Sent("t", (nested,), EARLIEST)),
        ),
    )


def _declared() -> tuple[Sent, ...]:
    """Yield every declared property with all values of its type, then with values of other types."""
    columns: dict[str, tuple[Any, ...]] = {
        "any": (*NASTY_INTEGERS, *NASTY_FLOATS, *NASTY_TEXTS, True, [], {}, {"a": {"b": None}}, [[None]]),
        "bool": (True, False, "no bool"),
        "bytes": (b"", bytes(range(256)), True),
        "date": (date.min, date.max, True),
        "datetime": (*NASTY_MOMENTS, True),
        "decimal": (*NASTY_DECIMALS, True),
        "dict": ({}, {"a": {"b": [2**64, -0.0]}}, {"$x": 1, "\x00": "\ud800"}, True),
        "float": (*NASTY_FLOATS, True),
        "int": (*(number for number in NASTY_INTEGERS if -(2**63) <= number < 2**63), True),
        "list": ([], [None, {"": {}}], [2**64, float("nan")], True),
        "str": (*NASTY_TEXTS, True),
        "time": (time.min, time.max, True),
        "uuid": (UUID(int=0), UUID(int=2**128 - 1), True),
    }
    rows = zip_longest(*columns.values())
    return tuple(Sent("a/b", (dict(zip((f"my {name}" for name in columns), row, strict=True)),)) for row in rows)
