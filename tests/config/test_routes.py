"""Routes in the configuration: models and their options, tables that are shared, routes that never match."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db import config
from amqtt_db.config import model as config_model
from amqtt_db.config.idle_keys import covers
from amqtt_db.models.base import Model, Table
from amqtt_db.models.wide import Wide
from amqtt_db.record import Shape
from amqtt_db.routing.topics import TopicFilter
from tests.config.test_config import problems, route_problems


@attrs.frozen
class Picky(Wide):
    """A model of a user's own, with options of several types."""

    depth: int = attrs.field(default=1, validator=attrs.validators.ge(1))
    names: tuple[str, ...] = ()


@attrs.frozen
class Needy(Wide):
    """A model with an option that has no default."""

    owner: str = attrs.field(kw_only=True)


_told = threading.Event()


@attrs.frozen
class Slow(Wide):
    """A model that takes until a warning is logged to create its tables."""

    def tables(self, shape: Shape) -> Iterable[Table]:
        """Wait for the warning."""
        assert _told.wait(30)
        return super().tables(shape)


def test_a_slow_model_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """While a model is still creating its tables, a warning says which one delays the start."""

    told: list[str] = []

    class Telling(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.append(record.getMessage())
            _told.set()

    monkeypatch.setattr(config_model, "_SLOW_SECONDS", 0.01)
    handler = Telling()
    config_model.logger.addHandler(handler)
    try:
        config.load_section({"routes": [{"topic": "t", "model": f"{__name__}.Slow"}]})
    finally:
        config_model.logger.removeHandler(handler)
    assert told[0] == "plugins.amqtt_db.Plugin.routes[0].model: Slow has been creating its tables for 0.01 s"


def test_a_model_of_ones_own() -> None:
    """A dotted path names a model; its options are its fields, structured into their types."""
    model = f"{__name__}.Picky"
    (route,) = config.load_section(
        {"routes": [{"topic": "t", "model": {model: {"depth": 3, "names": ["a", "b"]}}}]}
    ).routes
    assert route.model == Picky(depth=3, names=("a", "b"))


MISTAKES: dict[str, tuple[Any, str]] = {
    "topic": ("a/#/b", "topic"),
    "model": ({"wide": {"tabel": "x"}}, "model.wide.tabel"),
    "decode": ("jsn", "decode"),
    "entity": ({"a": "flot"}, "entity.a"),
    "time": (5, "time"),
    "each": (5, "each"),
    "unknown": ("keep", "unknown"),
    "mismatch": ("keep", "mismatch"),
    "max_columns": (0, "max_columns"),
    "max_tables": ("many", "max_tables"),
    "hypertable": ({"chunk": "1 month", "segment_by": "time"}, "hypertable.chunk"),
    "keep": ("forever", "keep"),
    "table": ("x", "table"),
}


def test_mistakes_in_all_keys_of_a_route_are_shown_at_once() -> None:
    """No key hides what is wrong with another one."""
    found = route_problems(**{key: value for key, (value, _) in MISTAKES.items()})
    paths = {path for _, path in MISTAKES.values()}
    assert found.keys() == paths | {"hypertable.segment_by"}
    for key in ("topic", "model", "decode"):
        route = {"topic": "t", "keep": "forever", "hypertable": {"chunk": "1 month"}, key: MISTAKES[key][0]}
        assert route_problems(**route).keys() == {MISTAKES[key][1], "keep", "hypertable.chunk"}


def test_a_mistake_makes_no_others() -> None:
    """Checks that need a wrong part of a route are skipped."""
    storage = {"compress_after": "1 day", "segment_by": ["room", "property"], "order_by": "speed desc"}
    for key in ("topic", "model", "decode", "entity", "unknown"):
        route = {"topic": "{room}", "hypertable": storage, "entity": {"speed": "float"}, key: MISTAKES[key][0]}
        found = problems({"database": "postgresql://somebody@server/iot", "routes": [route]})
        assert found.keys() == {f"routes[0].{MISTAKES[key][1]}"}
    shared = {"model": {"wide": {"table": "x"}}, "entity": {"a": "float"}}
    other = {**shared, "entity": MISTAKES["entity"][0]}
    assert problems({"routes": [{"topic": "s", **shared}, {"topic": "t", **other}]}).keys() == {"routes[1].entity.a"}


@pytest.mark.parametrize(
    ("model", "path", "part"),
    [
        ({f"{__name__}.Picky": {"depth": "3"}}, "depth", "expected a whole number, found text"),
        ({f"{__name__}.Picky": {"depth": True}}, "depth", "expected a whole number, found true or false"),
        ({f"{__name__}.Picky": {"depth": 0}}, "", "must be >= 1"),
        ({f"{__name__}.Picky": {"detph": 1}}, "detph", "did you mean 'depth'?"),
        ({f"{__name__}.Needy": {}}, "owner", "missing; the model needs it"),
        ({f"{__name__}.Needy": None}, "owner", "missing; the model needs it"),
        ({"wide": {"table": 3}}, "table", "expected text, found a whole number"),
        ({"wide": {"tabel": "x"}}, "tabel", "did you mean 'table'?"),
        ({"wide": ["table"]}, "", "expected a mapping, found a list"),
    ],
)
def test_options_of_a_model(model: dict[str, Any], path: str, part: str) -> None:
    """Options have the types of the model's fields, and only the names that it has."""
    ((where, message),) = route_problems(model=model).items()
    (name,) = model
    assert where == ".".join(filter(None, ("model", name, path)))
    assert part in message


@pytest.mark.parametrize(
    ("model", "part"),
    [
        (5, "expected text, found a whole number"),
        ({"wide": {}, "narrow": {}}, "expected one model"),
        ("pathlib.Path", "is not a model"),
        ("no.such.Model", "the module 'no' does not exist"),
    ],
)
def test_what_is_no_model(model: Any, part: str) -> None:
    """Anything else in place of a model is explained."""
    assert part in route_problems(model=model)["model"]


@pytest.mark.parametrize(
    ("table", "part"),
    [
        ("mqtt_topic", "one of amqtt_db's own tables"),
        ("MQTT_Journal", "one of amqtt_db's own tables"),
        ("sqlite_x", "belong to the database"),
        ("pg_x", "belong to the database"),
        ("ä" * 31 + "xx", "64 bytes; a table name may have at most 63"),
        ("a\x00b", "control characters"),
        ("", "empty"),
        ("mqtt_message", "one of amqtt_db's own tables"),
    ],
)
def test_reserved_tables(table: str, part: str) -> None:
    """No route may take the tables of the project or of the database."""
    assert part in route_problems(model={"wide": {"table": table}})["model.wide.table"]


@pytest.mark.parametrize("prefix", ["sqlite", "MQTT", "a\nb"])
def test_reserved_prefixes(prefix: str) -> None:
    """A prefix may not lead to a reserved name either."""
    assert route_problems(model={"eav": {"prefix": prefix}}).keys() == {"model.eav.prefix"}


def test_routes_that_share_a_table_must_agree() -> None:
    """Different entities in one table are a mistake that names both routes."""
    shared = {"wide": {"table": "climate"}}
    found = problems(
        {
            "routes": [
                {"topic": "a", "model": shared, "entity": {"temp": "float"}},
                {"topic": "b", "model": {"wide": {"table": "Climate"}}, "entity": {"temp": "float"}},
                {"topic": "c", "model": shared, "entity": {"temp": "int"}},
                {"topic": "d", "model": shared, "entity": {"temp": "float"}},
            ]
        }
    )
    assert found.keys() == {"routes[1].model", "routes[2].entity"}
    assert all("shares the table" in message and "P.routes[0]" in message for message in found.values())


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"wide": {"table": "house_message"}}, {"eav": {"prefix": "house"}}),
        ({"document": {"prefix": "a"}}, {"wide": {"table": "A_document"}}),
    ],
)
def test_tables_of_different_models_must_not_meet(first: Any, second: Any) -> None:
    """Wherever a table's name comes from, two models share it only if they mean the same table."""
    found = problems({"routes": [{"topic": "a", "model": first}, {"topic": "b", "model": second}]})
    assert "their models or options differ" in found["routes[1].model"]


def test_models_that_share_on_purpose() -> None:
    """``eav`` and ``narrow`` share the table of messages, and routes of one model all its tables."""
    entries = [("a", "eav"), ("b", "narrow"), ("c", "eav"), ("d", "document"), ("e", "document")]
    routes = [{"topic": topic, "model": model, "entity": {topic: "int"}} for topic, model in entries]
    assert len(config.load_section({"routes": routes}).routes) == 5


def test_time_must_be_declared() -> None:
    """If a route has an entity, ``time`` must be one of its properties."""
    found = route_problems(entity={"measured": "datetime"}, time="mesured")
    assert found == {"time": "the entity declares no property 'mesured'; did you mean 'measured'?"}


def test_routes_that_never_match_are_remarked_on() -> None:
    """A route after one that covers all its topics is allowed, with a note."""
    settings = config.load_section({"routes": [{"topic": "a/{b}"}, {"topic": "a/x"}, {"topic": "#"}, {"topic": "c"}]})
    assert [note.path for note in settings.notes] == [
        "plugins.amqtt_db.Plugin.routes[1].topic",
        "plugins.amqtt_db.Plugin.routes[3].topic",
    ]


_levels = st.sampled_from(["a", "b", "+"])
_filters = st.builds(
    lambda levels, rest: "/".join([*levels, *rest]),
    st.lists(_levels, max_size=3),
    st.sampled_from([["#"], ["a"]]),
)
_topics = st.builds("/".join, st.lists(st.sampled_from(["a", "b", "c", ""]), min_size=1, max_size=5))


@given(_filters, _filters, st.lists(_topics, min_size=1, max_size=20))
def test_a_covered_filter_matches_nothing_more(general: str, special: str, topics: list[str]) -> None:
    """If one filter covers another, every topic of the other is its topic too."""
    if covers(general, special):
        first, second = TopicFilter.parse(general), TopicFilter.parse(special)
        assert all(first.match(topic) is not None for topic in topics if second.match(topic) is not None)


@pytest.mark.parametrize(
    ("general", "special", "expected"),
    [
        ("#", "a/b", True), ("#", "#", True), ("a/#", "a", True), ("a/#", "a/+/c", True), ("a/+", "a/b", True),
        ("a/+", "a/#", False), ("a/b", "a/+", False), ("a", "a/b", False), ("+", "a/b", False), ("#", "$SYS/#", False),
    ],
)  # fmt: skip
def test_covers(general: str, special: str, expected: bool) -> None:
    """The cases that people write."""
    assert covers(general, special) is expected


def test_models_are_what_the_registry_says() -> None:
    """The built-in name means the built-in class."""
    (route,) = config.load_section({"routes": [{"topic": "t", "model": "wide"}]}).routes
    assert isinstance(route.model, Model)
    assert type(route.model) is Wide
