"""Kinds, paths and records."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.record import (
    Kind,
    Record,
    Shape,
    escape,
    flatten,
    kind_of,
    split_path,
    to_micros,
    unescape,
    unflatten,
)
from amqtt_db.tagged import is_clean
from tests.values import json_values, same, texts


@given(texts)
def test_escaping_is_undone_and_leaves_clean_text(key: str) -> None:
    """A key comes back from its escaped form, which any database can hold and which no dot splits."""
    assert unescape(escape(key)) == key
    assert is_clean(escape(key))
    assert split_path(escape(key)) == (key,)


@given(st.lists(texts, min_size=1, max_size=4))
def test_a_path_leads_back_to_its_keys(keys: list[str]) -> None:
    """Joined escaped keys split into the same keys."""
    assert split_path(".".join(map(escape, keys))) == tuple(keys)


@given(st.dictionaries(texts, json_values, max_size=4))
def test_flattening_is_invertible(data: dict[str, Any]) -> None:
    """Objects come back from their paths with the same nesting; empty objects and lists are restored."""
    flat = flatten(data)
    assert same(unflatten(flat.items()), _unflattened(data))


def _unflattened(data: dict[str, Any]) -> dict[str, Any]:
    """What is expected: as given, but properties that are null, and objects of nothing but nulls, are absent."""
    kept: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict) and value:
            inner = _unflattened(value)
            if inner:
                kept[key] = inner
        elif value is not None:
            kept[key] = value
    return kept


def test_a_dot_in_a_key_and_nesting_stay_apart() -> None:
    """``a.b`` beside nested ``a: {b}`` gives two properties."""
    assert flatten({"a.b": 1, "a": {"b": 2}}) == {"a\\.b": 1, "a.b": 2}


def test_objects_below_sixteen_levels_stay_whole() -> None:
    """A very deep object ends in a JSON value instead of an endless path."""
    data: dict[str, Any] = {}
    for _ in range(40):
        data = {"d": data}
    ((path, value),) = flatten(data).items()
    assert path.count(".") == 15
    assert unflatten([(path, value)]) == data


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (True, "bool"),
        (1, "number"),
        (2**53, "number"),
        (2**53 + 1, "int64"),
        (-(2**63), "int64"),
        (2**63, "bigint"),
        (1.5, "number"),
        ("x", "text"),
        (None, None),
        ([], "json"),
        ({}, "json"),
    ],
)
def test_kinds_of_undeclared_values(value: Any, kind: Kind | None) -> None:
    """true stays apart from 1, and integers that no double holds from other numbers."""
    assert kind_of(value) == kind


def test_a_foreign_type_has_no_kind() -> None:
    """The error names the type."""
    with pytest.raises(TypeError, match="complex"):
        kind_of(1j)


def test_a_records_time_is_exact_from_year_1_to_9999() -> None:
    """Microseconds lead to the datetime and back at both ends."""
    for moment in (datetime.min, datetime.max):
        aware = moment.replace(tzinfo=timezone.utc)
        record = Record(1, 0, to_micros(aware), "t", None, 0, False, (), Shape(()))
        assert record.time == aware


def test_absent_properties_are_not_among_a_records_properties() -> None:
    """None means absent."""
    record = Record(1, 0, 0, "t", None, 0, False, (1, None), Shape((("a", "number"), ("b", "text"))))
    assert record.properties() == {"a": ("number", 1)}
