"""Names of tables and columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.database.naming import SYSTEM_TABLES, clean, column_name, fold, table_name
from tests.values import texts


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("home/kitchen/climate", "home_kitchen_climate"),
        ("current time", "current_time"),
        ("Home/Living Room", "home_living_room"),
        ("température", "température"),
        ("1st", "_1st"),
        ("", "_"),
        ("?!", "_"),
        ('"; DROP TABLE x', "drop_table_x"),
    ],
)
def test_names_are_what_people_want_to_type(text: str, name: str) -> None:
    """Lower case, words joined by underscores, letters of any language."""
    assert clean(text) == name


@given(st.lists(texts, unique=True, max_size=20), st.sampled_from([20, 63]))
def test_columns_of_a_table_never_meet(paths: list[str], limit: int) -> None:
    """Any properties get columns that differ even where case and accents are ignored, within the engine's limit."""
    taken = {"id", "time", "topic"}
    for path in paths:
        name = column_name(path, "text", plain=True, taken=taken, limit=limit)
        assert fold(name) not in taken
        assert 0 < len(name.encode()) <= limit
        taken.add(fold(name))


def test_the_envelopes_names_never_move() -> None:
    """A property named like an envelope column gets another name."""
    assert column_name("time", "text", plain=True, taken={"time"}, limit=63) == "time_"
    assert column_name("Topic", "text", plain=True, taken={"topic"}, limit=63) == "topic_"


def test_only_the_first_kind_owns_the_plain_name() -> None:
    """A clash of types is seen in the column's name."""
    assert column_name("temp", "number", plain=True, taken=set(), limit=63) == "temp"
    assert column_name("temp", "text", plain=False, taken={"temp"}, limit=63) == "temp__text"


def test_long_topics_that_differ_at_the_end_get_different_stable_names() -> None:
    """The hash comes from the whole topic, so it is the same at every start."""
    names = [table_name("t" * 200 + end, is_taken=lambda _: False, limit=63) for end in "ab"]
    assert names[0] != names[1]
    assert names == [table_name("t" * 200 + end, is_taken=lambda _: False, limit=63) for end in "ab"]


@pytest.mark.parametrize("topic", [*sorted(SYSTEM_TABLES), "mqtt/session", "sqlite/master", "pg_catalog"])
def test_no_topic_takes_the_name_of_a_house_or_system_table(topic: str) -> None:
    """The project's own tables and the engines' are out of reach."""
    name = table_name(topic, is_taken=lambda _: False, limit=63)
    assert name not in SYSTEM_TABLES
    assert not fold(name).startswith(("sqlite_", "pg_"))
