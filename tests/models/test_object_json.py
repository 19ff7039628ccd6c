"""JSON of many objects, written column by column."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db import tagged
from amqtt_db.models.object_json import object_writer
from amqtt_db.record import nested
from tests.values import values

keys = st.text(max_size=3) | st.sampled_from(["$", "$a", '"', "%s", "{}"])
paths = st.lists(st.tuples(keys) | st.tuples(st.just("deep"), keys), min_size=1, max_size=4, unique=True)
columns = (
    st.lists(st.floats() | st.integers(), min_size=3, max_size=3)
    | st.lists(st.booleans(), min_size=3, max_size=3)
    | st.lists(st.text() | st.sampled_from(['",', ",", "\\", "\\n", "$", "\n"]), min_size=3, max_size=3)
    | st.lists(values, min_size=3, max_size=3)
)


@given(st.data(), paths)
def test_the_texts_are_those_that_each_object_has_alone(data: st.DataObject, under: list[tuple[str, ...]]) -> None:
    """Objects written together read as if each had been written alone."""
    if ("deep",) in under:
        return
    drawn = [data.draw(columns) for _ in under]
    written = object_writer(under)(drawn)
    if written is not None:
        objects = [nested(zip(under, row, strict=True)) for row in zip(*drawn, strict=True)]
        assert list(written) == list(map(tagged.dumps, objects))


def test_objects_of_plain_values_are_written_together() -> None:
    """Numbers, truth and text, at whatever depth."""
    write = object_writer([("a", "x"), ("b",), ("a", "y")])
    assert write([[1, 2.5], ["hall", 'a "b"'], [True, False]]) == [
        '{"a":{"x":1,"y":true},"b":"hall"}',
        '{"a":{"x":2.5,"y":false},"b":"a \\"b\\""}',
    ]


@pytest.mark.parametrize(
    "column",
    [
        [-0.0],
        [float("nan")],
        [2**53 + 1],
        [1e300],
        [None],
        ["$a"],
        ["a\x00b"],
        ["\ud800"],
        [b"a"],
        [[1]],
        [True, 1],
        [],
    ],
    ids=repr,
)
def test_what_is_not_certain_at_a_glance_is_left_to_others(column: list[Any]) -> None:
    """Values that need a tag, are absent or of several types."""
    assert object_writer([("a",)])([column]) is None


def test_a_property_that_is_a_value_here_and_an_object_there_is_left_to_others() -> None:
    """An entity's attribute may have the name of an undeclared object; a message has one of them."""
    for under in ([("a",), ("a", "b")], [("a", "b"), ("a",)]):
        assert object_writer(under)([[1], [2]]) is None
