"""Arrow columns by PostgreSQL's COPY: the same values as record by record, also where the server has odd ones."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
import sqlalchemy as sa

import amqtt_db
from amqtt_db.database.snapshot import open_snapshot
from amqtt_db.errors import DatabaseError
from amqtt_db.reader import arrow_columns, arrow_rows
from amqtt_db.reader.arrow_copy import copy_columns
from tests.database.engines.servers import Site
from tests.reader.test_arrow import require_equal
from tests.workbench import Workbench

ENTITY = {"at": "datetime", "day": "date", "clock": "time", "price": "decimal", "key": "uuid", "raw": "bytes"}
ENTITY |= {"n": "int", "x": "float", "ok": "bool"}
MOMENT: dict[str, Any] = {
    "at": "0001-01-01T00:00:00Z", "day": "9999-12-31", "clock": "23:59:59.999999", "raw": "AP8=", "n": -(2**63),
    "x": -1.5, "ok": False, "price": "0.00000001", "key": "12345678-1234-5678-1234-567812345678", "note": "Käse",
    "list": [1, {"b": 2}], "big": 2**70, "empty": "",
}  # fmt: skip


@pytest.fixture
def bench(postgresql: Site) -> Workbench:
    """Two records with values of all kinds, and two without any."""
    made = Workbench(postgresql, {"topic": "#", "entity": ENTITY, "model": {"wide": {"table": "t"}}})
    made.send(("a", {}), ("a", MOMENT), ("b", {}), ("b", {**MOMENT, "note": None, "at": "9999-12-31T23:59:59.999999Z"}))
    return made


def test_each_kind_is_copied(bench: Workbench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Values and NULLs of all kinds; no row is made a Python object."""
    wanted = list(amqtt_db.read(bench.url))
    monkeypatch.setattr(arrow_rows, "_pack_rows", None)
    monkeypatch.setattr(arrow_columns, "walk", None)
    require_equal(amqtt_db.read(bench.url).to_arrow(), wanted)


def test_names_with_percent_signs(postgresql: Site) -> None:
    """In a table and a column, with and without a parameter in the query."""
    bench = Workbench(postgresql, {"topic": "#", "model": {"wide": {"table": "100 %"}}, "entity": {"hum%": "float"}})
    bench.send(("a", {"hum%": 1.5}), ("b", {"hum%": None}))
    for since in (None, "1d"):
        require_equal(amqtt_db.read(bench.url, since=since).to_arrow(), amqtt_db.read(bench.url, since=since))


def test_what_somebody_has_changed_is_read_as_elsewhere(bench: Workbench) -> None:
    """A column of another type; a time that Python does not have."""
    bench.sql("DROP VIEW t_view; ALTER TABLE t ALTER x TYPE real")
    require_equal(amqtt_db.read(bench.url, "b").to_arrow(), amqtt_db.read(bench.url, "b"))
    for column, value in (("at", "infinity"), ("day", "-infinity"), ("clock", "24:00")):
        bench.sql(f"UPDATE t SET {column} = '{value}'")
        with pytest.raises(DatabaseError, match=f"column {column} of table t holds a value that cannot be read"):
            amqtt_db.read(bench.url).to_arrow()
        bench.sql(f"UPDATE t SET {column} = NULL")
    require_equal(amqtt_db.read(bench.url).to_arrow(), amqtt_db.read(bench.url))


def test_what_ends_a_copy_is_reported(bench: Workbench) -> None:
    """Not before the first rows have come; and the session still works."""
    rows = sa.text("generate_series(1, 100000) AS n")
    query: sa.Select[Any] = sa.select(sa.literal_column("CAST(1 / (90000 - n) AS bigint)").label("x")).select_from(rows)
    with open_snapshot(bench.url) as snapshot:
        assert copy_columns(snapshot.connection, query, {}, ["number"]) is None  # a type of the same width
        with pytest.raises(psycopg.errors.DivisionByZero):
            copy_columns(snapshot.connection, query, {}, ["int64"])
        snapshot.connection.exec_driver_sql("ROLLBACK TO SAVEPOINT amqtt_db")
        assert snapshot.connection.scalar(sa.text("SELECT 1")) == 1
