"""Arrow tables have what the records have, from every model, on every engine."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import attrs
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as effort

import amqtt_db
from amqtt_db.errors import DatabaseError
from amqtt_db.models.base import Cell, Model, TableName
from amqtt_db.models.document import Document
from amqtt_db.models.eav import Eav
from amqtt_db.models.fast import BatchMaker, BatchReader
from amqtt_db.models.narrow import Narrow
from amqtt_db.models.wide import Wide
from amqtt_db.reader import arrow_columns
from amqtt_db.reader.arrow import pair_of, table_of
from amqtt_db.reader.arrow_columns import columns_of_records
from amqtt_db.reader.arrow_types import read_array
from amqtt_db.record import EPOCH, Pair, Record, Shape, to_micros
from amqtt_db.testing import strategies
from amqtt_db.testing.bench import Bench
from amqtt_db.testing.contract import LONG, tries
from amqtt_db.testing.databases import DATABASES, SQLITE, Database
from amqtt_db.testing.history import History
from amqtt_db.testing.servers import needed
from tests.database.engines.servers import Site
from tests.values import same
from tests.workbench import ARRIVAL, Workbench

MODELS: Mapping[str, Model] = {
    "wide": Wide(), "one table": Wide("everything"), "eav": Eav(), "narrow": Narrow(), "document": Document()
}  # fmt: skip
HISTORY: list[tuple[str, Any]] = [
    ("home/attic", {"temp": 21.5, "door": {"open": True}}),
    ("home/cellar", {"temp": "cold", "time": "noon"}),
    ("home/attic", {"temp": 18, "big": 2**70, "list": [1, {"a": None}]}),
    ("home/attic", {}),
    ("home/attic", {"temp": -0.0, "text": "\x00"}),
]


@attrs.frozen
class Doubled(Wide):
    """Stores twice the numbers that it gets, and halves them when they are read."""

    def maker(self, shape: Shape, cells: Mapping[TableName, Sequence[Cell]]) -> BatchMaker | None:
        """Double all numbers."""
        make = super().maker(shape, cells)
        return make and (
            lambda batch: make(attrs.evolve(batch, columns=[_times(2, column) for column in batch.columns]))
        )

    def reader(self, cells: Sequence[Cell]) -> BatchReader | None:
        """Halve all numbers."""
        read = super().reader(cells)
        return read and (
            lambda columns: [attrs.evolve(one, values=tuple(_times(0.5, one.values))) for one in read(columns)]
        )


def _times(factor: float, values: Iterable[Any]) -> list[Any]:
    return [value * factor if type(value) in {int, float} else value for value in values]


Told = tuple[tuple[Any, ...], dict[Pair, Any]]
"""A record's envelope, and its values by path and kind."""


def told(records: Iterable[Record]) -> list[Told]:
    """What records say."""
    return [
        (
            tuple(record.envelope().values()),
            {(path, kind): value for path, (kind, value) in record.properties().items()},
        )
        for record in records
    ]


def read_back(table: pa.Table) -> list[Told]:
    """What a table says."""
    envelope = [table[name].to_pylist() for name in ("id", "part", "time", "topic", "session", "qos", "retain")]
    envelope[2] = [to_micros(time) for time in envelope[2]]
    found: list[Told] = [(row, {}) for row in zip(*envelope, strict=True)]
    for field in table.schema:
        pair = pair_of(field)
        if pair is not None:
            for (_, values), one in zip(found, read_array(pair, table[field.name]), strict=True):
                values.update([] if one is None else [one])
    return found


def require_equal(table: pa.Table, records: Iterable[Record]) -> None:
    """The table has the records, in their order, with their kinds, types, −0.0 and NaN."""
    for got, wanted in zip(read_back(table), told(records), strict=True):
        assert got[0] == wanted[0], table.to_pydict()
        assert got[1].keys() == wanted[1].keys()
        assert all(_equal(got[1][pair], value) for pair, value in wanted[1].items()), (got, wanted)


def _equal(one: Any, other: Any) -> bool:
    return one == other if isinstance(one, datetime) else same(one, other)


@pytest.mark.slow
@pytest.mark.parametrize("database", DATABASES, ids=str)
@pytest.mark.parametrize("model", MODELS)
def test_a_table_has_what_the_records_have(model: str, database: Database) -> None:
    """Whatever is stored; the servers' turn comes with a thorough profile of hypothesis."""
    if database is not SQLITE and effort().max_examples < LONG:
        pytest.skip("hypothesis has a short profile")

    @given(strategies.histories())
    @tries(7, database)
    def law(history: History) -> None:
        with Bench.of(database, MODELS[model], history.setting) as bench:
            for batch in history.batches:
                bench.feed().store(*batch)
            require_equal(amqtt_db.read(bench.url).to_arrow(), amqtt_db.read(bench.url))

    with needed(database.name):
        database.prepare()
        law()


@pytest.mark.parametrize("model", ["wide", {"wide": {"table": "everything"}}, "eav", "narrow"], ids=str)
def test_columns_come_straight_from_the_tables(model: Any, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """No record is made, with any selection, and odd values are where they belong."""
    bench = Workbench(site, {"topic": "home/{room}", "model": model})
    bench.send(*HISTORY)
    begin = EPOCH + timedelta(microseconds=ARRIVAL)
    selections: list[dict[str, Any]] = [{}, {"topic": "home/attic"}, {"newest": True}, {"topic": "home/+"}]
    selections += [{"since": begin + timedelta(seconds=1)}, {"until": begin + timedelta(seconds=2)}]
    wanted = [list(amqtt_db.read(bench.url, **selection)) for selection in selections]
    monkeypatch.setattr(arrow_columns, "walk", None)
    for selection, records in zip(selections, wanted, strict=True):
        require_equal(amqtt_db.read(bench.url, **selection).to_arrow(), records)


@pytest.mark.parametrize("model", ["wide", "narrow", "eav"])
def test_parts_of_a_column_differ(model: str, tmp_path: Path) -> None:
    """Of rows fetched together, some have all values of a column, some none, and some a few."""
    entity = {"n": "int", "x": "float", "ok": "bool", "at": "datetime", "note": "str"}
    bench = Workbench(tmp_path, {"topic": "#", "model": model, "entity": entity})
    full = {"n": 1, "x": 1.5, "ok": True, "at": "2024-01-31T12:00:00Z", "note": "a"}
    kinds = [full, {}, {**full, "n": 2**60, "x": 2}, {"ok": False, "note": ""}]
    chosen = [0] * 600 + [1] * 600 + [0, 2] * 300 + [0, 1, 2, 3] * 150
    bench.send(*(("a", kinds[number]) for number in chosen))
    require_equal(amqtt_db.read(bench.url).to_arrow(), amqtt_db.read(bench.url))


def test_a_model_from_elsewhere_is_asked_what_its_columns_mean(tmp_path: Path) -> None:
    """A table has what the model reads, not what is in its columns."""
    bench = Workbench(tmp_path, {"topic": "#", "model": f"{__name__}.Doubled"})
    bench.send(("a", {"n": 21}))
    assert bench.sql("SELECT n FROM a") == [(42,)]
    assert amqtt_db.read(bench.url).to_arrow()["n"].to_pylist() == [21]
    require_equal(amqtt_db.read(bench.url).to_arrow(), amqtt_db.read(bench.url))


def test_a_table_is_of_plain_types(tmp_path: Path) -> None:
    """Each kind has a type, the most frequent kind of a property has the plain name, and the envelope is not hidden."""
    entity = {"at": "datetime", "day": "date", "clock": "time", "price": "decimal", "key": "uuid", "raw": "bytes"}
    entity |= {"n": "int", "ok": "bool"}
    bench = Workbench(tmp_path, {"topic": "{room}", "entity": entity})
    moment = {"at": "2024-01-31T12:00:00Z", "day": "2024-01-31", "clock": "12:00:00", "raw": "AP8=", "n": 5, "ok": True}
    moment |= {"price": "1.50", "key": "12345678-1234-5678-1234-567812345678", "list": [1]}
    bench.send(("a", moment), ("a", {"time": "noon", "temp": "x"}), ("a", {"temp": 1}), ("a", {"temp": 2}))
    table = amqtt_db.read(bench.url).to_arrow()
    assert {field.name: str(field.type) for field in table.schema} == {
        "id": "int64", "part": "int64", "time": "timestamp[us, tz=UTC]", "session": "int64", "qos": "int64",
        "topic": "dictionary<values=string, indices=int32, ordered=0>", "retain": "bool", "at": "timestamp[us, tz=UTC]",
        "clock": "time64[us]", "day": "date32[day]", "key": "string", "list": "string", "n": "int64", "ok": "bool",
        "price": "string", "raw": "binary", "temp": "double", "temp (text)": "string", "data.time": "string",
        "{room}": "string",
    }  # fmt: skip
    assert table["temp"].to_pylist() == [None, None, 1.0, 2.0]


def test_other_libraries(tmp_path: Path) -> None:
    """pandas and Polars get the same values and types."""
    bench = Workbench(tmp_path, {"topic": "#"})
    bench.send(("a", {"temp": 21.5, "n": 2**60}), ("a", {"note": "x"}))
    frame, polars = amqtt_db.read(bench.url).to_pandas(), amqtt_db.read(bench.url).to_polars()
    assert frame["temp"].mean() == polars["temp"].mean() == 21.5
    assert list(frame["n"].dropna()) == polars["n"].drop_nulls().to_list() == [2**60]
    assert list(frame["topic"]) == polars["topic"].to_list() == ["a", "a"]
    assert polars["time"].dtype.time_zone == "UTC"


@pytest.mark.parametrize("model", ["wide", "eav"])
def test_a_value_edited_by_hand(model: str, tmp_path: Path) -> None:
    """SQLite takes a value of another type: it is returned as reading returns it, or the error names its column."""
    bench = Workbench(tmp_path, {"topic": "t", "model": model, "entity": {"at": "datetime", "n": "float"}})
    bench.send(("t", {"at": "2024-01-31T12:00:00Z", "n": 1}), ("t", {"n": 2}))
    table, at = ("t", "at") if model == "wide" else ("mqtt_value", "datetime_value")
    bench.sql(f"UPDATE {table} SET {at} = '2024-01-31 12:00:00+02:00' WHERE {at} IS NOT NULL")
    require_equal(amqtt_db.read(bench.url).to_arrow(), amqtt_db.read(bench.url))
    bench.sql(f"UPDATE {table} SET {at} = 'noon' WHERE {at} IS NOT NULL")
    with pytest.raises(DatabaseError, match=f"column {at} of table {table} holds a value that cannot be read"):
        amqtt_db.read(bench.url).to_arrow()


def test_while_topics_move_each_record_is_there_once(tmp_path: Path) -> None:
    """Two models have records of a topic: the table has all of them."""
    bench = Workbench(tmp_path, {"topic": "#"})
    bench.send(("a", {"n": 1}))
    bench.restart({"topic": "#", "model": "eav"})
    bench.send(("a", {"n": 2}))
    require_equal(amqtt_db.read(bench.url).to_arrow(), amqtt_db.read(bench.url))
    require_equal(amqtt_db.read(bench.url, limit=1, newest=True).to_arrow(), bench.records()[1:])


def test_nothing_is_a_table_too(tmp_path: Path) -> None:
    """No record, no property, but all columns of the envelope."""
    bench = Workbench(tmp_path, {"topic": "#"})
    bench.send(("a", {"n": 1}))
    table = amqtt_db.read(bench.url, "b").to_arrow()
    assert (table.num_rows, table.num_columns) == (0, 7)


def test_a_column_of_every_kind_keeps_every_value() -> None:
    """What Arrow's types cannot hold is tagged."""

    stored = strategies.shapes().filter(lambda shape: "tagged" not in shape.kinds)  # which only tables have

    @given(strategies.records(stored))
    def law(record: Record) -> None:
        table = table_of([columns_of_records([record])])
        ((_, values),) = read_back(table)
        assert table.num_rows == 1
        assert values.keys() == told([record])[0][1].keys()

    law()


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what to install."""
    bench = Workbench(tmp_path, {"topic": "#"})
    bench.send(("a", {"n": 1}))
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ValueError, match=r"needs the library pyarrow: .* -m pip install"):
        amqtt_db.read(bench.url).to_arrow()
