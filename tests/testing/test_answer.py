"""What a history must read back as, on cases that are written down."""

from __future__ import annotations

from datetime import datetime, time, timezone
from decimal import Decimal
from typing import Any

import attrs
import pytest

from amqtt_db.record import Record, Shape
from amqtt_db.testing.answer import Told, differences, expected, leaves, require_same, same, told
from amqtt_db.testing.history import Sent, Setting

TOLD = Told(2**40 + 1, 0, 5, "a/b", None, 1, True, {("v",): ("number", 1.0)})


@pytest.mark.parametrize(
    ("left", "right"),
    [
        (1, 1.0),
        (1, True),
        (0.0, -0.0),
        (Decimal("1.0"), Decimal("1.00")),
        ([1.0], [1]),
        ({"a": 0.0}, {"a": -0.0}),
        ({"a": 1}, {"a": 1, "b": None}),
        ([1], [1, 1]),
        ("1", 1),
        (time(12), time(12, tzinfo=timezone.utc)),
        (datetime.min, datetime.min.replace(tzinfo=timezone.utc)),
        (b"a", "a"),
    ],
)
def test_what_differs_is_not_the_same(left: Any, right: Any) -> None:
    """Types, signs of zero and scales are distinguished, also inside lists and objects."""
    assert not same(left, right)
    assert not same(right, left)
    assert same(left, left)


def test_nan_is_the_same_as_nan() -> None:
    """Unlike Python's own equality, also inside a list."""
    assert same([float("nan")], [float("nan")])


def test_what_is_expected_of_a_message() -> None:
    """Paths, kinds, levels, envelope: as a reader of the documentation would expect them."""
    sent = Sent("attic/x", ({"n": 21, "big": 2**53 + 1, "o": {"p": None, "e": {}}, "l": [1]}, {}), 7, 3, 2, True)
    first, second = expected(sent, 2, 9, Setting("{site}/#"))
    assert (first.id, first.part, first.time, first.session) == (2 * 2**40 + 9, 0, 7, 2 * 2**40 + 3)
    assert (first.topic, first.qos, first.retain) == ("attic/x", 2, True)
    assert first.values == {
        ("n",): ("number", 21.0),
        ("big",): ("int64", 2**53 + 1),
        ("o", "e"): ("json", {}),
        ("l",): ("json", [1]),
        (None, "site"): ("text", "attic"),
    }
    assert (second.part, second.values) == (1, {(None, "site"): ("text", "attic")})


def test_what_is_expected_of_declared_properties() -> None:
    """A value of the declared type has the declared kind, another one its own."""
    setting = Setting(entity={"n": "int", "any": "any", "gone": "str", "wrong": "int"})
    (one,) = expected(Sent("t", ({"n": 5, "any": 5, "gone": None, "wrong": True},)), 1, 1, setting)
    assert one.values == {("n",): ("int64", 5), ("any",): ("json", 5), ("wrong",): ("bool", True)}


def test_objects_below_sixteen_levels_are_values() -> None:
    """The sixteenth key is the last of a path."""
    data: Any = {"k": 1}
    for _ in range(17):
        data = {"k": data}
    assert list(leaves(data)) == [(("k",) * 16, {"k": {"k": 1}})]


def test_every_difference_is_a_sentence() -> None:
    """Lost, doubled, made up, changed: each says which record, and what."""
    changed = attrs.evolve(TOLD, qos=0, values={("v",): ("number", 2.0)})
    assert differences([TOLD], []) == ["record 1.0 of 'a/b' is lost"]
    assert differences([TOLD], [TOLD, TOLD]) == ["record 1.0 of 'a/b' was read twice"]
    assert differences([], [TOLD]) == ["record 1.0 of 'a/b' was never sent"]
    assert differences([TOLD], [changed]) == [
        "record 1.0 of 'a/b': qos was 1, is 0",
        "record 1.0 of 'a/b': property ('v',) was ('number', 1.0), is ('number', 2.0)",
    ]


def test_many_differences_are_summed_up() -> None:
    """A reader wants to see the first few, and why."""
    many = [attrs.evolve(TOLD, part=part) for part in range(9)]
    with pytest.raises(AssertionError, match=r"(?s)1\.4 of 'a/b' is lost\nand 4 more\nbecause"):
        require_same(many, [], ["because"])


def test_a_record_with_a_property_twice_is_an_error() -> None:
    """Two kinds of one property cannot both be set; a mapping would hide it."""
    shape = Shape((("v", "number"), ("v", "text")))
    assert told(Record(1, 0, 5, "t", None, 0, False, (1.0, None), shape)).values == {("v",): ("number", 1.0)}
    with pytest.raises(AssertionError, match="twice"):
        told(Record(1, 0, 5, "t", None, 0, False, (1.0, "x"), shape))
