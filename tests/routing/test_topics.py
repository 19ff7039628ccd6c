"""Topic filters with named levels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.routing.topics import TopicFilter, first_match

words = st.sampled_from(["", "a", "b", "sport", "$SYS", "$", "a b", "東京", "line\nbreak"])
topics = st.lists(words, min_size=1, max_size=4).map("/".join)
levels = st.one_of(words, st.just("+"))


@pytest.mark.parametrize(
    ("text", "topic", "found"),
    [
        ("home/{room}/climate", "home/kitchen/climate", {"room": "kitchen"}),
        ("home/{room}/climate", "home/kitchen", None),
        ("home/{room}/climate", "home/kitchen/climate/x", None),
        ("{source}/{device}/{kind}", "telegraf/123/test", {"source": "telegraf", "device": "123", "kind": "test"}),
        ("/{a}", "/x", {"a": "x"}),
        ("{a}/x", "/x", {"a": ""}),
        ("a/{b}/c", "a//c", {"b": ""}),
        ("a/+/c", "a//c", {}),
        ("a/c", "a//c", None),
        ("+", "/x", None),
        ("sport/#", "sport", {}),
        ("sport/#", "sport/", {}),
        ("sport/#", "sport/tennis/x", {}),
        ("sport/#", "sports", None),
        ("{game}/#", "sport/x/y", {"game": "sport"}),
        ("#", "/", {}),
        ("a.b", "axb", None),
        ("{raum_ä}", "küche", {"raum_ä": "küche"}),
        ("#", "$SYS/x", None),
        ("+/x", "$SYS/x", None),
        ("{a}/x", "$SYS/x", None),
        ("$SYS/#", "$SYS/x", {}),
        ("$SYS/{what}", "$SYS/x", {"what": "x"}),
        ("a/#", "a/$x", {}),
        ("A/b", "a/b", None),
    ],
)
def test_a_filter_covers_what_mqtt_says_and_names_its_levels(
    text: str, topic: str, found: dict[str, str] | None
) -> None:
    """Empty levels count, '#' includes its parent, a wildcard in front leaves topics with '$' alone."""
    assert TopicFilter.parse(text).match(topic) == found


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "it is empty"),
        ("a/#/b", "must be the last level"),
        ("a/b#", "'#' must be a whole level"),
        ("a/b+/c", "'+' must be a whole level"),
        ("a/{}", "is not a named level"),
        ("a/{1st}", "is not a named level"),
        ("a/{b c}", "is not a named level"),
        ("a/x{b}", "is not a named level"),
        ("a/{b", "is not a named level"),
        ("{a}/x/{a}", "'a' is used more than once"),
        ("a\0b", "U+0000"),
        ("a\ud800b", "an unpaired surrogate"),
        ("a" * 65536, "longer than 65535 bytes"),
    ],
)
def test_what_is_no_filter_is_explained(text: str, says: str) -> None:
    """The error says what is wrong with the filter."""
    with pytest.raises(ValueError, match="is not a topic filter") as error:
        TopicFilter.parse(text)
    assert says in str(error.value)


def test_all_mistakes_of_a_filter_are_named_at_once() -> None:
    """Nobody has to correct a filter twice."""
    with pytest.raises(ValueError, match=r"'#' must be a whole level.*'\+' must be a whole level.*not a named level"):
        TopicFilter.parse("a#/b+/{")


def test_a_filter_remembers_how_it_was_written() -> None:
    """Its text, its form for MQTT and its names; equal texts are equal filters."""
    parsed = TopicFilter.parse("/{room}/+/{thing}/#")
    assert (parsed.text, parsed.mqtt, parsed.names) == ("/{room}/+/{thing}/#", "/+/+/+/#", ("room", "thing"))
    assert parsed == TopicFilter.parse(parsed.text)
    assert len({parsed, TopicFilter.parse(parsed.text)}) == 1


@given(st.lists(levels, min_size=1, max_size=4), st.booleans(), topics)
def test_filters_agree_with_a_level_by_level_reading(parts: list[str], is_open: bool, topic: str) -> None:
    """The compiled filter covers exactly what the rules say, read one level at a time."""
    parts = [*parts, "#"] if is_open else parts
    assert (TopicFilter.parse("/".join(parts) or "#").match(topic) is not None) == _covers(
        parts if any(parts) or len(parts) > 1 else ["#"], topic.split("/")
    )


def _covers(parts: list[str], topic: list[str]) -> bool:
    if parts[0] in {"+", "#"} and topic[0].startswith("$"):
        return False
    if parts[-1] == "#":
        parts = parts[:-1]
        topic = topic[: len(parts)]
    return len(parts) == len(topic) and all(part in {"+", level} for part, level in zip(parts, topic, strict=True))


@given(st.lists(words, min_size=1, max_size=5))
def test_named_levels_find_what_stands_there(values: list[str]) -> None:
    """Every level keeps its exact text, whatever it is."""
    names = [f"n{index}" for index in range(len(values))]
    found = TopicFilter.parse("x/" + "/".join(f"{{{name}}}" for name in names)).match("x/" + "/".join(values))
    assert found == dict(zip(names, values, strict=True))


def test_the_first_filter_that_covers_a_topic_wins() -> None:
    """Routes are tried in order; a topic that none covers has none."""
    filters = [TopicFilter.parse(text) for text in ("a/{x}", "a/#", "b")]
    assert first_match(filters, "a/1") == (0, {"x": "1"})
    assert first_match(filters, "a/1/2") == (1, {})
    assert first_match(filters, "b") == (2, {})
    assert first_match(filters, "c") is None
    assert first_match([], "c") is None
