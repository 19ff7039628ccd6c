"""`hypertable:` and `keep:` in the configuration: lengths of time, columns, and what makes no sense together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db import config
from amqtt_db.config.yaml_checks import duration
from amqtt_db.models.base import Column, Model, Row, Table, TableName
from amqtt_db.models.document import Document
from amqtt_db.models.eav import Eav
from amqtt_db.models.narrow import Narrow
from amqtt_db.models.wide import Wide
from amqtt_db.record import Record, Shape
from amqtt_db.routing.route import Hypertable, Ordering, Route
from tests.config.test_config import problems

POSTGRESQL = "postgresql://h/d"


def _routes(*entries: dict[str, Any]) -> tuple[Route, ...]:
    return config.load_section({"database": POSTGRESQL, "routes": list(entries)}).routes


def _problems(**route: Any) -> dict[str, str]:
    found = problems({"database": POSTGRESQL, "routes": [{"topic": "plant/{line}", **route}]})
    return {path.removeprefix("routes[0]."): message for path, message in found.items()}


@attrs.frozen
class Plain(Model):
    """A model of a user's own that knows nothing of time."""

    table: str = "plain"

    def tables(self, shape: Shape) -> Iterable[Table]:
        """Two tables, without a word about times."""
        yield Table(self.table, [Column("body", "json")])
        yield Table(f"{self.table}_part", [Column("n", "int64")], key=["n"])

    def write(self, record: Record) -> Any:
        """None."""
        return iter(())

    def read(self, envelope: Record, rows: Mapping[TableName, Sequence[Row]]) -> Record:
        """Nothing."""
        return envelope


@attrs.frozen
class Mine(Wide):
    """A model derived from a built-in one."""


def test_everything_arrives() -> None:
    """The route holds what the YAML says; columns are named as in the catalogue."""
    (route,) = _routes(
        {
            "topic": "plant/{line}",
            "hypertable": {
                "chunk": "1 day", "compress_after": "2 weeks", "segment_by": ["line", "topic"],
                "order_by": ["time DESC", "temp", "qos asc"],
            },
            "keep": "90 days",
        }
    )  # fmt: skip
    assert route.keep == timedelta(days=90)
    assert route.hypertable == Hypertable(
        chunk=timedelta(days=1),
        compress_after=timedelta(days=14),
        segment_by=("{line}", "topic"),
        order_by=(Ordering("time", descending=True), Ordering("temp"), Ordering("qos")),
    )
    assert route.hypertable.path == "plugins.amqtt_db.Plugin.routes[0].hypertable"


@pytest.mark.parametrize("value", [True, {}])
def test_a_hypertable_needs_no_settings(value: Any) -> None:
    """Chunks of a week, never compressed."""
    (route,) = _routes({"topic": "#", "hypertable": value})
    assert route.hypertable == Hypertable(timedelta(days=7), None, (), ())


def test_no_hypertable() -> None:
    """`false` means the same as no key."""
    (route,) = _routes({"topic": "#", "hypertable": False})
    assert (route.hypertable, route.model) == (None, Wide())


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90 days", timedelta(days=90)), ("12 h", timedelta(hours=12)), ("2 weeks", timedelta(days=14)),
        ("1 day", timedelta(days=1)), ("1d", timedelta(days=1)), ("1.5 h", timedelta(minutes=90)),
        ("30 min", timedelta(minutes=30)), ("10 s", timedelta(seconds=10)), (" 3 Days ", timedelta(days=3)),
    ],
)  # fmt: skip
def test_lengths_of_time(text: str, expected: timedelta) -> None:
    """As people write them."""
    assert duration(text) == expected


@pytest.mark.parametrize(
    ("value", "part"),
    [
        (90, "with its unit, such as 90 s or 90 days"),
        ("90", "expected a length of time"),
        ("", "expected a length of time"),
        ("-1 day", "expected a length of time"),
        ("1 day 12 h", "expected a length of time"),
        ("3 months", "vary in length; write days"),
        ("1 y", "vary in length; write days"),
        ("5 moons", "unknown unit 'moons'; use s, min, h, days, weeks"),
        ("5 x", "unknown unit 'x'"),
        ("0 days", "from 1 s to 36600 days"),
        ("999999999 weeks", "from 1 s to 36600 days"),
    ],
)
def test_lengths_of_time_that_are_none(value: Any, part: str) -> None:
    """Each with what would be right."""
    assert part in _problems(keep=value)["keep"]


@given(st.text(max_size=20) | st.floats() | st.integers())
def test_any_value_is_a_length_of_time_or_a_mistake(value: Any) -> None:
    """Never another exception than ValueError."""
    with suppress(ValueError):
        assert duration(value) >= timedelta(seconds=1)


def test_every_mistake_is_reported_at_once() -> None:
    """With its path, what was found, and what to write."""
    found = _problems(
        model="eav",
        hypertable={"chunks": 1, "chunk": 3, "compress_after": "x", "segment_by": ["time", "temp", 5]},
        keep="1 year",
    )
    assert found == {
        "keep": "months and years vary in length; write days or weeks, such as 365 days",
        "hypertable.chunks": "unknown key; did you mean 'chunk'?",
        "hypertable.chunk": "expected a length of time with its unit, such as 3 s or 90 days",
        "hypertable.compress_after": "expected a length of time such as 90 days, 24h or 5 min, found text",
        "hypertable.segment_by[0]": (
            "chunks are already split by time; choose a column that separates series, such as topic"
        ),
        "hypertable.segment_by[1]": found["hypertable.segment_by[1]"],
        "hypertable.segment_by[2]": "expected text, found a whole number",
        "hypertable.segment_by": (
            "has no effect without `compress_after`: it applies to compressed chunks only"
        ),
    }  # fmt: skip
    assert found["hypertable.segment_by[1]"].startswith("the tables of the route have no column 'temp'; valid: ")


@pytest.mark.parametrize(
    ("route", "path", "part"),
    [
        ({"hypertable": 5}, "hypertable", "expected true or a mapping such as {chunk: 1 day}, found a whole number"),
        ({"hypertable": {"order_by": "time"}}, "hypertable.order_by", "has no effect without `compress_after`"),
        (
            {"hypertable": {"compress_after": "1 h", "segment_by": "topic", "order_by": "topic"}},
            "hypertable.order_by",
            "topic is in `segment_by` too",
        ),
        (
            {"hypertable": {"chunk": "1 h", "compress_after": "7 days"}, "keep": "7 days"},
            "hypertable.compress_after",
            "`keep` deletes records before that",
        ),
        ({"hypertable": True, "keep": "2 days"}, "hypertable.chunk", "shorten it, for example `chunk: 4 h`"),
        ({"hypertable": True, "keep": "10 min"}, "hypertable.chunk", "for example `chunk: 60 s`"),
        (
            {"entity": {"temp": "float"}, "hypertable": {"compress_after": "1 h", "segment_by": "tempp"}},
            "hypertable.segment_by",
            "no column 'tempp'; did you mean 'temp'?",
        ),
        ({"rollup": [{"every": "5 min"}, {"every": "7 min"}]}, "rollup", "7 min is not a multiple of 5 min"),
        ({"rollup": [{"every": "5 min"}, {"every": "300 s"}]}, "rollup", "two steps with `every: 5 min`"),
        ({"rollup": [{"every": "1 day", "keep": "1 h"}]}, "rollup[0].keep", "is shorter than `every`"),
        ({"rollup": [{"every": "1 h", "keep": "1 day"}], "keep": "2 days"}, "rollup[0].keep", "is not longer than"),
        (
            {"rollup": {"every": "5 min"}},
            "rollup",
            "such as `rollup: [{every: 5 min}]`, found a mapping",
        ),
        ({"rollup": [{"every": "1.5 s"}]}, "rollup[0].every", "expected whole seconds"),
        ({"rollup": [{"every": "400 days"}]}, "rollup[0].every", "from 1 s to 366 days"),
        ({"rollup": [{"every": "99999 days"}]}, "rollup[0].every", "from 1 s to 366 days"),
    ],
)
def test_what_makes_no_sense(route: dict[str, Any], path: str, part: str) -> None:
    """Settings that are right alone."""
    assert part in _problems(**route)[path]


def test_chunks_may_be_compressed_as_soon_as_they_end() -> None:
    """`compress_after` counts from the end of a chunk, so it may be shorter than one."""
    (route,) = _routes({"topic": "#", "hypertable": {"chunk": "1 day", "compress_after": "1 h"}, "keep": "1 day"})
    assert route.hypertable is not None
    assert route.hypertable.compress_after == timedelta(hours=1)


@pytest.mark.parametrize(
    ("url", "name"), [("sqlite:///x.db", "SQLite"), ("mysql://h/d", "MySQL"), ("mariadb://h/d", "MariaDB")]
)
def test_other_databases_have_no_hypertables(url: str, name: str) -> None:
    """The path and the database are named; `keep` alone is fine everywhere."""
    routes = [{"topic": "a", "hypertable": True}, {"topic": "b", "keep": "1 day"}]
    ((path, message),) = problems({"database": url, "routes": routes}).items()
    assert path == "routes[0].hypertable"
    assert message.startswith(f"{name} has no hypertables: they need PostgreSQL with TimescaleDB")


def test_a_database_that_is_none_is_one_mistake() -> None:
    """Nothing is reported about hypertables, because that cannot be known."""
    assert problems({"database": "postgres://h/d", "routes": [{"topic": "a", "hypertable": True}]}).keys() == {
        "database"
    }


@pytest.mark.parametrize(
    ("topic", "prefix"),
    [
        ("meters/{meter}/power", "meters_meter_power"), ("#", "all"), ("Halle 3/+", "halle_3"), ("7/#", "_7"),
        ("mqtt", "mqtt_cd81d7"), ("pg/x", "_pg_x"),
    ],
)  # fmt: skip
def test_tables_of_its_own(topic: str, prefix: str) -> None:
    """A route with `keep` does not share the tables of other routes; their names come from its filter."""
    (route,) = _routes({"topic": topic, "model": "eav", "keep": "1 day"})
    assert route.model == Eav(prefix=prefix)


def test_each_route_has_its_own() -> None:
    """Similar filters get different prefixes; a given prefix is kept, and long filters get short names."""
    entries: list[dict[str, Any]] = [
        {"topic": "a/b", "model": "document", "keep": "1 day"},
        {"topic": "a/{b}", "model": "narrow", "hypertable": True},
        {"topic": "c", "model": {"eav": {"prefix": "mine"}}, "keep": "1 day"},
        {"topic": "d", "model": "eav"},
        {"topic": "x" * 100, "model": "document", "hypertable": True},
    ]
    first, second, third, fourth, fifth = (route.model for route in _routes(*entries))
    assert first == Document(prefix="a_b")
    assert isinstance(second, Narrow)
    assert second.prefix.startswith("a_b_")
    assert (third, fourth) == (Eav(prefix="mine"), Eav())
    assert isinstance(fifth, Document)
    assert len(fifth.prefix) == 40


def test_a_hypertable_has_the_time_in_its_keys() -> None:
    """Whatever the model: derived from a built-in one, or from scratch without a thought of time."""
    for name in ("Mine", "Plain"):
        (route,) = _routes({"topic": "#", "model": {f"{__name__}.{name}": {"table": "x"}}, "hypertable": True})
        assert route.bound().tables()[0].primary_key == ("id", "part", "time")
        assert all("time" in table.primary_key for table in route.bound().tables())


@pytest.mark.parametrize(
    ("more", "key"), [({"keep": "2 days"}, "keep"), ({"keep": "9 days", "hypertable": True}, "hypertable")]
)
def test_routes_that_share_a_table_must_agree(more: dict[str, Any], key: str) -> None:
    """Deleting and compressing concern a whole table, not one route's part of it."""
    model = {"wide": {"table": "x"}}
    entries = [{"topic": "a", "model": model, "keep": "9 days"}, {"topic": "b", "model": model, **more}]
    found = problems({"database": POSTGRESQL, "routes": entries})
    assert found == {
        f"routes[1].{key}": f"shares the table x with P.routes[0], but their `{key}` differs; "
        "make them agree or choose another table"
    }
