"""Filters of a subscription: they cover those of the routes, and no two match one topic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.ingest.bridge.filters import cover, overlap
from amqtt_db.routing.topics import TopicFilter

LEVELS = st.sampled_from(["a", "b", "$s", ""])
TOPICS = st.lists(LEVELS, min_size=1, max_size=4).map("/".join).filter(bool)


@st.composite
def filters(draw: st.DrawFn) -> str:
    """A topic filter of a few levels."""
    levels = draw(st.lists(st.sampled_from(["a", "b", "$s", "+", ""]), max_size=3))
    end = ["#"] if draw(st.booleans()) or not any(levels) else []
    return "/".join([*levels, *end])


@given(st.lists(filters(), min_size=1, max_size=5), TOPICS)
def test_a_topic_that_a_route_covers_is_delivered_once(wanted: list[str], topic: str) -> None:
    """Exactly one filter of the cover matches it."""
    matching = [one for one in cover(wanted) if TopicFilter.parse(one).match(topic) is not None]
    is_wanted = any(TopicFilter.parse(one).match(topic) is not None for one in wanted)
    assert len(matching) <= 1
    assert len(matching) == 1 or not is_wanted


@given(filters(), filters(), TOPICS)
def test_filters_that_match_one_topic_overlap(one: str, other: str, topic: str) -> None:
    """In both orders."""
    both = all(TopicFilter.parse(each).match(topic) is not None for each in (one, other))
    assert overlap(one, other) == overlap(other, one)
    assert overlap(one, other) or not both


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (["home/+/c", "#"], ["#"]),
        (["o/x", "o/#"], ["o/#"]),
        (["a/+", "+/b"], ["+/+"]),
        (["home/a", "home/b"], ["home/a", "home/b"]),
        (["#", "$SYS/#"], ["#", "$SYS/#"]),
        (["a", "a", "a/b"], ["a", "a/b"]),
        (["a/+", "+/b", "c/c"], ["+/+"]),
    ],
)
def test_covers_are_small(wanted: list[str], found: list[str]) -> None:
    """A filter that covers another one replaces it; others are joined only if they overlap."""
    assert cover(wanted) == found
