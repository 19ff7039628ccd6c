"""Property paths lead back to the keys they came from."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.record import escape, flatten, split_path, unescape, unflatten
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
    """Return the data that is expected: properties that are null, and objects of nothing but nulls, are absent."""
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
    """``a.b`` and nested ``a: {b}`` are two properties."""
    assert flatten({"a.b": 1, "a": {"b": 2}}) == {"a\\.b": 1, "a.b": 2}


def test_objects_below_sixteen_levels_stay_whole() -> None:
    """A very deep object ends in a JSON value instead of an endless path."""
    data: dict[str, Any] = {}
    for _ in range(40):
        data = {"d": data}
    ((path, value),) = flatten(data).items()
    assert path.count(".") == 15
    assert unflatten([(path, value)]) == data
