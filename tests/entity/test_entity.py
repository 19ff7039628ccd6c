"""Plain data → values of declared types."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timezone
from decimal import Decimal
from enum import Enum, IntEnum
from pathlib import Path
from typing import Annotated, Any, Literal, NewType
from uuid import UUID

import attrs
import pytest
import yaml
from attrs import validators
from cattrs.gen import make_dict_structure_fn, override
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.entity import Entity, converter
from amqtt_db.errors import EntityError
from amqtt_db.record import flatten, unflatten
from amqtt_db.registry import SpecError
from tests.values import texts

ME = "tests.entity.test_entity"
NOON = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)
UNTOLD = "kept-dark"


def problems(spec: Any) -> list[str]:
    with pytest.raises(SpecError) as error:
        Entity.inline(spec, "entity")
    return [str(problem) for problem in error.value.problems]


def refusal(entity: Entity, data: dict[str, Any]) -> str:
    with pytest.raises(EntityError) as error:
        entity.structure(data)
    return str(error.value)


# --- inline entities

CLIMATE = Entity.inline(
    {
        "temp": "float",
        "count": "int",
        "on": "bool",
        "label": "str?",
        "current time": {"type": "datetime", "format": "epoch_s"},
        "pos": {"lat": "float", "lon": {"type": "float", "optional": True}},
        "tags": "list",
        "a.b": "any",
    }
)


def test_the_shape_has_declared_kinds_in_their_order() -> None:
    """Objects are flattened, and a dot in a name does not mean an object."""
    assert CLIMATE.shape.properties == (
        ("temp", "number"),
        ("count", "int64"),
        ("on", "bool"),
        ("label", "text"),
        ("current time", "datetime"),
        ("pos.lat", "number"),
        ("pos.lon", "number"),
        ("tags", "json"),
        ("a\\.b", "json"),
    )
    assert CLIMATE.declared == set(CLIMATE.shape.paths)


def test_every_type_has_its_kind() -> None:
    """One name for each type of the project."""
    same = ["bool", "bytes", "date", "datetime", "decimal", "time", "uuid"]
    kinds = dict(zip(same, same, strict=True)) | {"int": "int64", "float": "number", "str": "text"}
    kinds |= {"any": "json", "dict": "json", "list": "json"}
    assert dict(Entity.inline({name: name for name in kinds}).shape.properties) == kinds


def test_declared_values_get_their_types() -> None:
    """Values that fit are converted; absent ones and nulls are None."""
    data = {"temp": 21, "count": 762162.0, "on": False, "label": None, "current time": 1700000000.123456}
    values, mismatched, unknown = CLIMATE.structure({**data, "pos": {"lat": 1.5}, "tags": [1, "a"], "a.b": {"c": 1}})
    moment = datetime(2023, 11, 14, 22, 13, 20, 123456, tzinfo=timezone.utc)
    assert values == (21.0, 762162, False, None, moment, 1.5, None, [1, "a"], {"c": 1})
    assert [type(value) for value in values[:2]] == [float, int]
    assert (mismatched, unknown) == ({}, {})
    assert CLIMATE.structure({}) == ((None,) * 9, {}, {})


def test_deviations_are_told_apart_by_path() -> None:
    """Wrong types and undeclared names, nested and not; null is neither."""
    data = {"temp": "warm", "count": 1.9, "on": 1, "new": {"x": {"y": 1}, "z": None}, "nil": None}
    values, mismatched, unknown = CLIMATE.structure({**data, "pos": {"lat": "5", "lon": 2.0, "alt": 3, "a.b": 4}})
    assert values == (None, None, None, None, None, None, 2.0, None, None)
    assert mismatched == {"temp": "warm", "count": 1.9, "on": 1, "pos.lat": "5"}
    assert {path: value for path, value in unknown.items() if value is not None} == {
        "new.x.y": 1,
        "pos.alt": 3,
        "pos.a\\.b": 4,
    }
    assert "nil" not in unknown


def test_a_mismatch_names_both_types() -> None:
    """The message names the declared type and the one that came, but never the value."""
    _, mismatched, _ = CLIMATE.structure({"temp": "warm", "current time": "late", "pos": {"lat": [7]}})
    told = "'temp' is not float but str, 'current time' is not datetime but str, 'pos.lat' is not float but list"
    assert CLIMATE.mismatches(mismatched) == told
    assert CLIMATE.mismatches({"pos": 5}) == "'pos' is not an object but int"
    assert CLIMATE.mismatches({"count": 2**64}) == "'count' is int, but does not fit"


@pytest.mark.parametrize("raw", [5, "x", [1], True])
def test_something_else_than_a_declared_object_is_a_mismatch(raw: Any) -> None:
    """The object's own path is what does not fit."""
    values, mismatched, unknown = CLIMATE.structure({"pos": raw, "temp": 1.5})
    assert (values[0], values[5:7]) == (1.5, (None, None))
    assert (mismatched, unknown) == ({"pos": raw}, {})
    assert CLIMATE.structure({"pos": None})[1] == {}


def test_a_declared_int_has_64_bits() -> None:
    """A larger integer is a mismatch and is never truncated."""
    assert CLIMATE.structure({"count": 2**63 - 1})[0][1] == 2**63 - 1
    assert CLIMATE.structure({"count": 2**63})[1] == {"count": 2**63}


def test_lists_may_have_typed_items() -> None:
    """Items are converted, objects in a list stay objects, and one wrong item is a mismatch of the list."""
    spec = {"a": {"type": "list", "items": "float"}, "b": {"type": "list", "items": {"at": "datetime", "n": "int"}}}
    entity = Entity.inline({**spec, "c": {"type": "list", "items": {"p": {"q": "int"}}}})
    data = {
        "a": [1, None, 2.5],
        "b": [{"at": "2026-01-31T12:00:00Z", "more": 1}, {"n": None}],
        "c": [{"p": {"q": 2.0}}],
    }
    values, mismatched, _ = entity.structure(data)
    assert values == ([1.0, None, 2.5], [{"at": NOON, "more": 1}, {"n": None}], [{"p": {"q": 2}}])
    assert mismatched == {}
    assert entity.structure({"a": [1, "x"], "b": [5]})[1] == {"a": [1, "x"], "b": [5]}


def test_a_key_that_is_no_text_is_refused() -> None:
    """A decoder of the user's may give any dict."""
    assert "not text" in refusal(CLIMATE, {5: 1})  # type: ignore[dict-item]


def test_data_is_left_as_it_came() -> None:
    """Taking deviations out does not change the caller's data."""
    data = {"temp": "x", "pos": {"lat": "y", "alt": 1}}
    CLIMATE.structure(data)
    assert data == {"temp": "x", "pos": {"lat": "y", "alt": 1}}


names = texts | st.sampled_from(["it's", 'say "x"', "a\\", "{x}", "\n", "'] or 1/0 #", "class", "p0", "self", "type"])
raws: st.SearchStrategy[Any] = st.sampled_from([None, True, 1, 1.0, 1.5, "x", [1], {}, 2**64])
trees = st.recursive(raws, lambda inner: st.dictionaries(names, inner, min_size=1, max_size=4), max_leaves=6).filter(
    lambda tree: isinstance(tree, dict)
)
KINDS = {"float": (1, 1.0, 1.5), "int": (1, 1.0), "str": ("x",), "bool": (True,), "list": ([1],), "any": raws}
specs = st.recursive(
    st.sampled_from(["float", "int", "str", "bool", "list", "any"]),
    lambda inner: st.dictionaries(names.filter(lambda name: name != "type"), inner, min_size=1, max_size=4),
    max_leaves=6,
).filter(lambda tree: isinstance(tree, dict))


@given(specs, trees)
def test_nothing_is_lost_whatever_is_declared(spec: dict[str, Any], data: dict[str, Any]) -> None:
    """Every value of the data is found again, equal, in one of the three results, under its path."""
    entity = Entity.inline(spec)
    values, mismatched, unknown = entity.structure(data)
    typed = {path: value for path, value in zip(entity.shape.paths, values, strict=True) if value is not None}
    everything = {**typed, **unknown, **mismatched}
    assert flatten(_pruned(unflatten(everything.items()))) == flatten(_pruned(data))
    assert not typed.keys() & mismatched.keys()
    assert all(path not in entity.declared for path in unknown)


def _pruned(data: Any) -> Any:
    """Without nulls, and without objects that thereby hold nothing."""
    if not isinstance(data, dict):
        return data
    inner = {key: _pruned(value) for key, value in data.items() if value is not None}
    return {key: value for key, value in inner.items() if value != {}}


@given(st.dictionaries(names, st.just("int"), min_size=1, max_size=5))
def test_any_name_can_be_declared(spec: dict[str, Any]) -> None:
    """Quotes, backslashes, control characters and lone surrogates in names are only names."""
    data = {name: index for index, name in enumerate(spec)}
    assert Entity.inline(spec).structure(data) == (tuple(data.values()), {}, {})


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({}, ["entity: declares no properties"]),
        ({"a": "flaot"}, ["entity.a: 'flaot' is not a type; did you mean 'float'?"]),
        ({"a": "number"}, ["entity.a: 'number' is not a type; did you mean 'float'?"]),
        ({"a": "xyz"}, ["entity.a: 'xyz' is not a type; valid: any, bool, bytes, date, datetime"]),
        (
            {"a": {"b": {"c": "sting"}, "d": 5}},
            ["entity.a.b.c: 'sting'", "entity.a.d: expected a type's name or a map"],
        ),
        ({"a": {}}, ["entity.a: expected a type's name or a mapping, got dict {}"]),
        ({1: "int"}, ["entity: a property's name must be text; quote 1, which YAML reads as int"]),
        (
            yaml.safe_load("{on: int}"),
            ["entity: a property's name must be text; quote on (or yes, or true), which YAML"],
        ),
        (yaml.safe_load("{off: int}"), ["entity: a property's name must be text; quote off (or no, or false), which"]),
        (yaml.safe_load("{~: int}"), ["entity: a property's name must be text; quote null (or ~), which YAML reads"]),
        (
            {"t": {"type": "datetime", "format": "epoch"}},
            ["entity.t.format: 'epoch' is neither a known format nor a strptime format; did you mean"],
        ),
        ({"t": {"type": "datetime", "format": "%Q"}}, ["entity.t.format: format: '%Q' is not a strptime format"]),
        ({"t": {"type": "datetime", "format": 5}}, ["entity.t.format: 5 is neither a known format"]),
        ({"t": {"type": "int", "format": "epoch_s"}}, ["entity.t.format: is for the type 'datetime', not for 'int'"]),
        ({"t": {"type": "str", "items": "int"}}, ["entity.t.items: is for the type 'list', not for 'str'"]),
        ({"t": {"type": "list", "items": "itn"}}, ["entity.t.items: 'itn' is not a type; did you mean 'int'?"]),
        ({"t": {"type": "int", "optional": False}}, ["entity.t.optional: expected true"]),
        (
            {"t": {"type": "datetime", "fromat": "epoch_s"}},
            ["entity.t.fromat: is not an option of a property; an object needs"],
        ),
        ({"a": "x1", "b": "x2"}, ["entity.a: 'x1'", "entity.b: 'x2'"]),
    ],
)
def test_every_mistake_in_an_inline_entity_is_told(spec: Any, told: list[str]) -> None:
    """Each with its path and the nearest valid name."""
    found = problems(spec)
    assert len(found) == len(told)
    for part, problem in zip(told, found, strict=True):
        assert problem.startswith(part)


def test_a_property_called_type_is_declared_in_the_long_form() -> None:
    """A mapping whose type is a name describes one property; one with a longer type is an object."""
    entity = Entity.inline({"event": {"type": {"type": "str"}, "n": "int"}})
    assert entity.shape.paths == ("event.type", "event.n")


# --- classes


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Level(IntEnum):
    LOW = 1
    HIGH = 2


class Celsius(float):
    pass


@attrs.frozen
class Money:
    cents: int


@converter.register_structure_hook
def _read_money(value: Any, _: type) -> Money:
    whole, _point, cents = value.partition(".")
    return Money(int(whole) * 100 + int(cents))


@converter.register_unstructure_hook
def _write_money(value: Money) -> str:
    return f"{value.cents // 100}.{value.cents % 100:02}"


@attrs.frozen
class Position:
    lat: float
    lon: float = 0.0


Meters = NewType("Meters", float)


@attrs.define
class Climate:
    temp: float
    rh: float = 50.0
    colour: Colour = Colour.RED
    level: Level | None = None
    at: datetime | None = None
    price: Money | None = None
    pos: Position | None = None
    height: Meters | None = None
    ratio: int | float | None = None
    mode: Literal["auto", "off"] = "off"
    readings: list[float] = attrs.field(factory=list)
    members: set[UUID] = attrs.field(factory=set)
    extra: dict[str, Any] = attrs.field(factory=dict)
    skin: Celsius = attrs.field(factory=lambda: Celsius(30))
    folder: Path = Path("/")
    dew: float = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.dew = self.temp - (100 - self.rh) / 5


def test_a_class_has_a_shape() -> None:
    """Enumerations have their values' kind, a user's type what its hook says it becomes."""
    assert dict(Entity.from_class(Climate).shape.properties) == {
        "temp": "number",
        "rh": "number",
        "colour": "text",
        "level": "int64",
        "at": "datetime",
        "price": "text",
        "pos.lat": "number",
        "pos.lon": "number",
        "height": "number",
        "ratio": "number",
        "mode": "text",
        "readings": "json",
        "members": "json",
        "extra": "json",
        "skin": "number",
        "folder": "text",
        "dew": "number",
    }


def _stored(entity: Entity, data: dict[str, Any]) -> dict[str, Any]:
    values, mismatched, unknown = entity.structure(data)
    assert (mismatched, unknown) == ({}, {})
    return dict(zip(entity.shape.paths, values, strict=True))


def test_what_is_stored_are_the_attributes_of_the_instance() -> None:
    """Defaults apply, computed attributes are there, and all of them are plain values of their kind."""
    stored = _stored(Entity.from_class(f"{ME}.Climate"), {"temp": 20})
    assert {path: value for path, value in stored.items() if value is not None} == {
        "temp": 20.0,
        "rh": 50.0,
        "colour": "red",
        "mode": "off",
        "readings": [],
        "members": [],
        "extra": {},
        "skin": 30.0,
        "folder": "/",
        "dew": 10.0,
    }
    assert type(stored["skin"]) is float


def test_everything_a_class_can_declare_is_filled() -> None:
    """Nested classes, hooks, enumerations, collections."""
    one = UUID(int=1)
    data = {"temp": 20.0, "colour": "blue", "level": 2, "at": "2026-01-31T12:00:00Z", "price": "12.05", "height": 3}
    data |= {"pos": {"lat": 1.5}, "ratio": 7, "mode": "auto", "readings": [1, 2.5], "members": [str(one)], "skin": 31}
    stored = _stored(Entity.from_class(Climate), data)
    assert (stored["colour"], stored["level"], type(stored["level"])) == ("blue", 2, int)
    assert (stored["at"], stored["price"], stored["height"]) == (NOON, "12.05", 3.0)
    assert (stored["pos.lat"], stored["pos.lon"], stored["ratio"], stored["mode"]) == (1.5, 0.0, 7.0, "auto")
    assert (stored["readings"], stored["members"]) == ([1.0, 2.5], [one])
    assert type(stored["ratio"]) is float


@pytest.mark.parametrize(
    ("path", "raw"),
    [
        ("rh", "50"),
        ("rh", True),
        ("colour", "green"),
        ("colour", 1),
        ("level", True),
        ("level", 3),
        ("mode", "on"),
        ("at", 5),
        ("price", 5),
        ("pos", 5),
        ("pos", [1]),
        ("readings", "abc"),
        ("readings", [1, "x"]),
        ("readings", {"a": 1}),
        ("members", "abc"),
        ("extra", [["a", 1]]),
        ("ratio", "x"),
        ("folder", 5),
    ],
)
def test_a_wrong_attribute_with_a_default_is_a_mismatch(path: str, raw: Any) -> None:
    """The instance is made with the default, but the property itself is absent: nothing is made up for it."""
    entity = Entity.from_class(Climate)
    values, mismatched, unknown = entity.structure({"temp": 20.0, path: raw})
    stored = dict(zip(entity.shape.paths, values, strict=True))
    assert (mismatched, unknown) == ({path: raw}, {})
    assert stored["temp"] == 20.0
    assert all(value is None for name, value in stored.items() if name == path or name.startswith(path + "."))


def test_null_is_absence() -> None:
    """An attribute that is not optional gets its default, one without a default is missing."""
    entity = Entity.from_class(Climate)
    assert _stored(entity, {"temp": 20.0, "rh": None})["rh"] == 50.0
    assert refusal(entity, {"temp": None}) == "property 'temp' is missing, and the entity cannot be created without it"


def test_a_required_attribute_must_be_there_and_right() -> None:
    """Without it no instance is created; the reason names it and reveals no value."""
    entity = Entity.from_class(Climate)
    assert "property 'temp' is missing" in refusal(entity, {"rh": 1.0})
    told = refusal(entity, {"temp": UNTOLD})
    assert told == "property 'temp' is not float but str, and the entity cannot be created without it"
    assert "property 'pos.lat' is missing" in refusal(entity, {"temp": 1.0, "pos": {}})


def test_what_a_class_does_not_declare_is_unknown() -> None:
    """Nested, too."""
    unknown = Entity.from_class(Climate).structure({"temp": 1.0, "new": 1, "pos": {"lat": 1.0, "alt": 2}})[2]
    assert unknown == {"new": 1, "pos.alt": 2}


def _stripped(text: str) -> str:
    return text.strip()


@attrs.frozen
class Checked:
    temp: float = attrs.field(validator=validators.and_(validators.ge(-50), validators.le(50)))
    name: str = attrs.field(default="", converter=_stripped)

    @name.validator
    def _no_digits(self, _attribute: Any, value: str) -> None:
        if any(letter.isdigit() for letter in value):
            raise ValueError(f"digits in {value}")


def test_validators_are_heard() -> None:
    """The reason names the property, never the value that the validator's own words repeat."""
    entity = Entity.from_class(Checked)
    assert _stored(entity, {"temp": 20.0, "name": " x "}) == {"temp": 20.0, "name": "x"}
    assert refusal(entity, {"temp": 51.0}) == "Checked rejects property 'temp', a float, with ValueError"
    told = refusal(entity, {"temp": 1.0, "name": UNTOLD + "1"})
    assert "property 'name', a str" in told
    assert UNTOLD not in told


@dataclasses.dataclass
class Sensor:
    value: float
    unit: str = "C"
    note: str | None = None
    scaled: float = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        if self.value < 0:
            raise ValueError(f"{self.value} is negative")
        if self.unit == "own":
            raise EntityError("in the class's own words")
        self.scaled = self.value * 10


def test_a_dataclass_is_an_entity() -> None:
    """With computed fields, and with its own reason if it gives one."""
    entity = Entity.from_class(Sensor)
    assert entity.declared >= {"value", "unit", "note", "scaled"}
    assert _stored(entity, {"value": 2.5})["scaled"] == 25.0
    assert refusal(entity, {"value": -1.0}) == "Sensor rejects the values with ValueError in __post_init__"
    assert refusal(entity, {"value": 1.0, "unit": "own"}) == "in the class's own words"


@attrs.frozen
class Renamed:
    current_time: Annotated[datetime, override(rename="current time")]
    temp: float = 0.0


@attrs.frozen
class Hooked:
    temp: float = 0.0


converter.register_structure_hook(Hooked, make_dict_structure_fn(Hooked, converter, temp=override(rename="t")))


def test_a_renamed_attribute_is_stored_under_its_own_name() -> None:
    """The payload's name is known, the attribute's name is the property."""
    entity = Entity.from_class(Renamed)
    data = {"current time": "2026-01-31T12:00:00Z", "temp": "x"}
    assert entity.structure(data) == ((NOON, None), {"temp": "x"}, {})
    assert Entity.from_class(Hooked).structure({"t": "x", "temp": 1}) == ((None,), {"temp": "x"}, {"temp": 1})


@attrs.frozen
class Packed:
    first: int
    second: int


@converter.register_structure_hook
def _read_packed(value: Any, _: type) -> Packed:
    first, second = value["both"].split("-")
    return Packed(int(first), int(second))


def test_a_class_with_a_hook_of_its_own_is_made_by_it_alone() -> None:
    """If the hook refuses anything, the whole is refused."""
    entity = Entity.from_class(Packed)
    assert entity.structure({"both": "1-2"}) == ((1, 2), {}, {"both": "1-2"})
    assert refusal(entity, {"both": UNTOLD}) == "Packed rejects the values with ValueError in _read_packed"


@attrs.frozen
class Node:
    name: str
    child: Node | None = None


def test_a_class_that_holds_itself_is_stored_as_json_below_the_first() -> None:
    """Properties cannot go on forever."""
    entity = Entity.from_class(Node)
    assert entity.shape.properties == (("name", "text"), ("child", "json"))
    stored = _stored(entity, {"name": "a", "child": {"name": "b", "child": {"name": "c"}}})
    assert stored["child"] == {"name": "b", "child": {"name": "c", "child": None}}


def test_computed_values_are_of_their_kind() -> None:
    """A value that an instance computes is converted, or the instance is refused."""

    @attrs.define
    class Computed:
        a: int
        total: Decimal = attrs.field(init=False)
        at: datetime = attrs.field(init=False)

        def __attrs_post_init__(self) -> None:
            self.total = self.a  # type: ignore[assignment]
            self.at = datetime(2026, 1, 31, 12) if self.a else "x"  # type: ignore[assignment]  # noqa: DTZ001

    entity = Entity.from_class(Computed)
    assert _stored(entity, {"a": 1}) == {"a": 1, "total": Decimal(1), "at": NOON}
    assert "Computed rejects the values with ValueError" in refusal(entity, {"a": 0})


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("pathlib.Path", "Path is neither an attrs class nor a dataclass"),
        (f"{ME}.Climat", "did you mean 'Climate'"),
        (f"{ME}.NOON", "is neither an attrs class nor a dataclass"),
        (f"{ME}.Hollow", "Hollow declares no attribute"),
        (f"{ME}.Lost", "Lost cannot be created"),
    ],
)
def test_a_class_that_cannot_be_used_is_explained(path: str, says: str) -> None:
    """When it is configured, not with every message."""
    with pytest.raises(ValueError, match=r"neither|did you mean|declares no|cannot be created") as error:
        Entity.from_class(path)
    assert says in str(error.value)


@attrs.frozen
class Hollow:
    pass


@attrs.frozen
class Lost:
    what: NoSuchType  # type: ignore[name-defined]  # noqa: F821


# --- topic levels

LEVELS = Entity.inline(
    {
        "n": "int",
        "x": "float",
        "on": "bool",
        "s": "str",
        "d": "decimal",
        "day": "date",
        "at": {"type": "datetime", "format": "epoch_s"},
        "u": "uuid",
        "l": "list",
        "o": {"p": "int"},
    }
)


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("n", "123", 123),
        ("n", "-5", -5),
        ("x", "21.5", 21.5),
        ("x", "21", 21.0),
        ("on", "true", True),
        ("on", "false", False),
        ("s", "123", "123"),
        ("d", "1.50", Decimal("1.50")),
        ("day", "2026-01-31", NOON.date()),
        ("at", "1769860800", NOON),
        ("u", str(UUID(int=5)), UUID(int=5)),
    ],
)
def test_a_level_gets_the_declared_type(name: str, text: str, value: Any) -> None:
    """Levels are text, and are read as what the entity declares."""
    made = LEVELS.level(name, text)
    assert made == value
    assert type(made) is type(value)
    assert LEVELS.structure({name: made})[1] == {}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        *(("n", text) for text in ("1.5", " 12 ", "0xff", "9" * 19, "٣", "")),
        *(("x", text) for text in ("nan", "", "1,5")),
        *(("on", text) for text in ("1", "True", "")),
        *(("day", "today"), ("at", "now"), ("u", "x"), ("l", "[]"), ("d", "1_0")),
    ],
)
def test_a_level_that_is_not_of_the_type_is_refused(name: str, text: str) -> None:
    """The reason names the level and the type."""
    with pytest.raises(EntityError, match=f"topic level '{name}' is not "):
        LEVELS.level(name, text)


def test_a_level_that_is_not_declared_is_a_mistake_of_the_caller() -> None:
    """So is one that is an object."""
    for name in ("nothing", "o"):
        with pytest.raises(KeyError):
            LEVELS.level(name, "x")


def test_levels_of_a_class_become_plain_values() -> None:
    """Enumerations and a user's types, too."""
    entity = Entity.from_class(Climate)
    assert entity.level("colour", "blue") == "blue"
    assert entity.level("level", "2") == 2
    assert entity.level("price", "1.05") == "1.05"
    with pytest.raises(EntityError, match="topic level 'colour' is not Colour"):
        entity.level("colour", "green")
