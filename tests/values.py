"""Hypothesis strategies for what arrives over MQTT and is not nice."""

from __future__ import annotations

from datetime import timezone
from typing import Any

from hypothesis import strategies as st

NASTY_TEXT = [
    "",
    " ",
    "\x00",
    "\ud800",
    "a\x00b",
    "select",
    "id",
    "time",
    "Topic",
    "a.b",
    "a\\.b",
    "{x}",
    "$int",
    "Ä",
    "🙂",
]
NASTY_NUMBERS: list[Any] = [0, -0.0, 0.0, 2**53, 2**53 + 1, -(2**53) - 1, 2**63 - 1, -(2**63), 2**64 - 1, 10**30]
NASTY_NUMBERS += [1e308, 1e-320, -1e-320, float("inf"), float("-inf"), float("nan"), 1e300, 21, 21.5]

texts = st.sampled_from(NASTY_TEXT) | st.text(
    alphabet=st.one_of(st.sampled_from(".\\{}$\x00\ud800 aA"), st.characters()), max_size=6
)
numbers = st.sampled_from(NASTY_NUMBERS) | st.integers() | st.floats()
moments = st.datetimes(timezones=st.just(timezone.utc))
scalars = (
    st.booleans()
    | numbers
    | texts
    | st.binary(max_size=8)
    | moments
    | st.dates()
    | st.times()
    | st.decimals(allow_nan=False)
    | st.uuids()
)
json_values = st.recursive(
    st.none() | st.booleans() | numbers | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
values = scalars | json_values
payloads = st.dictionaries(texts, values, max_size=5)


def same(left: Any, right: Any) -> bool:
    """Return True if equal; distinguishes 1, 1.0 and True, 0.0 and −0.0; NaN equals NaN; also inside lists."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float):
        return repr(left) == repr(right)
    return bool(left == right)
