"""``indexes``: what a route asks for is there as soon as its columns are, on every engine, and never in the way."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import sqlalchemy as sa

from amqtt_db.config import load_section
from amqtt_db.database.engines import engine_for
from amqtt_db.errors import ConfigError
from tests.database.engines.servers import Site
from tests.workbench import Workbench

WIDE = {"wide": {"table": "climate"}}


def indexes(bench: Workbench, table: str) -> list[list[str]]:
    """The first columns of a table's indexes; SQLite adds those of the key."""
    database = engine_for(bench.url).open(write=True)
    try:
        found = sa.inspect(database).get_indexes(table)
        return sorted([str(name) for name in index["column_names"] if name not in {"id", "part"}] for index in found)
    finally:
        database.dispose()


@pytest.mark.parametrize(("model", "table"), [(WIDE, "climate"), ("wide", "home_a_climate")], ids=["table", "topic"])
def test_an_index_comes_with_its_columns(model: Any, table: str, site: Site) -> None:
    """Levels, properties and columns of the envelope; one that lacks a column waits for it."""
    route = {"topic": "home/{room}/climate", "model": model, "indexes": ["session", ["room", "time"], ["temp", "rh"]]}
    bench = Workbench(site, route)
    bench.send(("home/a/climate", {"temp": 1.5}))
    before = indexes(bench, table)
    assert ["session"] in before
    assert ["room", "time"] in before
    assert ["temp", "rh"] not in before
    bench.send(("home/a/climate", {"temp": "x", "rh": 2}))
    assert indexes(bench, table) == sorted([*before, ["temp", "rh"]])
    bench.restart()
    bench.send(("home/a/climate", {"temp": 2, "rh": 3, "more": 1}))
    assert indexes(bench, table) == sorted([*before, ["temp", "rh"]])


def test_an_index_is_added_to_a_table_with_rows(site: Site) -> None:
    """It comes with the first message after the next start."""
    bench = Workbench(site, {"topic": "t/+", "model": WIDE})
    bench.send(*((f"t/{n % 5}", {"v": n, "s": "x" * n}) for n in range(100)))
    bench.restart({"topic": "t/+", "model": WIDE, "indexes": ["v", "s"]})
    assert ["v"] not in indexes(bench, "climate")
    bench.send(("t/0", {"v": 1}))
    assert ["v"] in indexes(bench, "climate")
    assert ["s"] in indexes(bench, "climate")
    assert not bench.dead()


def test_an_index_is_used(site: Site) -> None:
    """By a query for a property, and by one for a level and a time."""
    route = {"topic": "home/{room}", "model": WIDE, "indexes": [["v", "time"], ["room", "time"]]}
    bench = Workbench(site, route)
    bench.send(*((f"home/{n % 50}", {"v": n % 200, "w": n}) for n in range(4000)))
    bench.analyze()
    explain = "EXPLAIN QUERY PLAN" if bench.url.startswith("sqlite") else "EXPLAIN"
    for condition, index in (("v = 3", "ix_climate_v_time"), ("room = '7'", "ix_climate_room_time")):
        query = f"SELECT w FROM climate WHERE {condition} AND time > '2023-11-14 22:30:00' ORDER BY time"
        assert index in str(bench.sql(f"{explain} {query}"))


@pytest.mark.parametrize("first", [True, False], ids=["before the index", "after it"])
def test_text_too_long_for_an_index_is_stored(first: bool, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """If the index cannot be made, that is logged; if it is there, the text goes where there is no index."""
    plain: dict[str, Any] = {"topic": "t", "model": WIDE}
    chars = "".join(chr(33 + (n * n + n // 7) % 90) for n in range(9000))
    bench = Workbench(site, plain if first else {**plain, "indexes": ["s"]})
    with caplog.at_level(logging.WARNING):
        bench.send(("t", {"s": chars}))
        bench.restart({**plain, "indexes": ["s"]})
        bench.send(("t", {"s": chars}), ("t", {"s": "short"}))
    assert [data["s"] for data in bench.data()] == [chars, chars, "short"]
    assert not bench.dead()


@pytest.mark.parametrize(
    ("route", "message"),
    [
        ({"model": "eav", "indexes": ["temp"]}, r"indexes\[0\].*have no column 'temp'"),
        ({"entity": {"temp": "float"}, "indexes": [["room", "tmp"]]}, r"indexes\[0\]\[1\].*did you mean 'temp'"),
        ({"model": "eav", "indexes": ["room"]}, r"indexes\[0\].*have no column 'room'; valid: id, part"),
        ({"indexes": [None]}, r"indexes\[0\]: expected the name of a column"),
        ({"indexes": [[]]}, r"indexes\[0\]: expected the name of a column"),
        ({"indexes": [["temp", "temp"]]}, r"indexes\[0\]: names a column twice"),
        ({"indexes": "temp"}, "indexes: expected a list, found text"),
        ({"indexes": [3]}, r"indexes\[0\]: expected a list, found a whole number"),
    ],
    ids=str,
)
def test_an_index_on_what_is_no_column_is_a_mistake(route: dict[str, Any], message: str) -> None:
    """It says which, and what there is."""
    with pytest.raises(ConfigError, match=message):
        load_section({"routes": [{"topic": "home/{room}", **route}]})
