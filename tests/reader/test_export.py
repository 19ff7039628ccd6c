"""Records as files, and the list of what is stored."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Iterator
from contextlib import suppress
from datetime import date, datetime, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import attrs
import orjson
import pytest
from hypothesis import assume, given

import amqtt_db
from amqtt_db import tagged
from amqtt_db.errors import DatabaseError, UnreadableRecords
from amqtt_db.reader.export import Format, csv_lines, export, json_lines
from amqtt_db.reader.topics import StoredTopic, list_topics
from amqtt_db.record import EXACT, Record, Shape
from amqtt_db.testing import strategies
from amqtt_db.testing.answer import same
from tests.database.engines.servers import Site
from tests.reader.test_read import HISTORY, MODELS, second
from tests.workbench import Sent, Workbench

ENTITY = {
    "when": "datetime",
    "day": "date",
    "price": "decimal",
    "raw": "bytes",
    "id": "uuid",
    "count": "int",
}
DECLARED = {
    "when": "2026-01-31T13:00:00+01:00",
    "day": "2026-01-31",
    "price": "1.50",
    "raw": "AP8=",
    "id": "12345678-1234-5678-1234-567812345678",
    "count": 5,
}


def exported(url: str, form: Format = "jsonl", **options: Any) -> str:
    """Return what an export writes."""
    file = io.BytesIO()
    export(url, file.write, form, **options)
    return file.getvalue().decode()


def test_a_line_of_json(tmp_path: Path) -> None:
    """The envelope, the topic's levels and the nested data, and nothing else."""
    bench = Workbench(tmp_path, {"topic": "home/{room}/climate"})
    bench.send(Sent("home/attic/climate", {"temp": 21, "door": {"open": True}}, qos=1, retain=True))
    assert exported(bench.url) == (
        '{"id":1099511627777,"part":0,"time":"2023-11-14T22:13:20.000000+00:00","topic":"home/attic/climate",'
        '"session":null,"qos":1,"retain":true,"levels":{"room":"attic"},"data":{"door":{"open":true},"temp":21.0}}\n'
    )


def test_types_of_json_lines(tmp_path: Path) -> None:
    """Values that JSON has no type for are tagged, readable, and come back as they were."""
    bench = Workbench(tmp_path, {"topic": "#", "entity": ENTITY})
    bench.send(("t", DECLARED))
    (line,) = exported(bench.url).splitlines()
    assert json.loads(line)["data"] == {
        "when": {"$datetime": "2026-01-31T12:00:00+00:00"},
        "day": {"$date": "2026-01-31"},
        "price": {"$decimal": "1.50"},
        "raw": {"$bytes": "AP8="},
        "id": {"$uuid": "12345678-1234-5678-1234-567812345678"},
        "count": 5,
    }
    assert tagged.loads(line)["data"] == {
        "when": datetime(2026, 1, 31, 12, tzinfo=timezone.utc),
        "day": date(2026, 1, 31),
        "price": Decimal("1.50"),
        "raw": b"\x00\xff",
        "id": UUID("12345678-1234-5678-1234-567812345678"),
        "count": 5,
    }


@given(strategies.records())
def test_json_lines_lose_nothing(record: Record) -> None:
    """Any record is one printable line, from which its data can be read again."""
    (line,) = json_lines([record])
    assert line.endswith("\n")
    assert line[:-1].isprintable()
    orjson.loads(line)
    read = tagged.loads(line)
    assert same(read["data"], record.data())
    assert same(read["levels"], record.levels())
    assert (read["id"], read["part"], read["topic"]) == (record.id, record.part, record.topic)
    assert datetime.fromisoformat(read["time"]) == record.time


def test_csv(tmp_path: Path) -> None:
    """A column for each property of any record; what is absent is empty, an empty text is not."""
    bench = Workbench(tmp_path, {"topic": "home/{room}"})
    bench.send(
        ("home/attic", {"a": 'say "hi"', "b": {"c": 1.5}}), ("home/hall", {"a": "", "time": True, "l": [1, "x"]})
    )
    assert exported(bench.url, "csv").split("\r\n") == [
        "id,part,time,topic,session,qos,retain,a,b.c,l,data.time,{room}",
        '1099511627777,0,2023-11-14T22:13:20.000000+00:00,home/attic,,0,false,"say ""hi""",1.5,,,attic',
        '1099511627778,0,2023-11-14T22:13:21.000000+00:00,home/hall,,0,false,"",,"[1,""x""]",true,hall',
        "",
    ]


def test_types_of_csv(tmp_path: Path) -> None:
    """Every type is exact text."""
    bench = Workbench(tmp_path, {"topic": "#", "entity": ENTITY})
    bench.send(("t", DECLARED))
    (row,) = csv.DictReader(io.StringIO(exported(bench.url, "csv"), newline=""))
    assert (row["count"], row["day"], row["price"]) == ("5", "2026-01-31", "1.50")
    assert (row["data.id"], row["raw"], row["when"]) == (DECLARED["id"], "AP8=", "2026-01-31T12:00:00+00:00")


NAMES = ("time", "data.time", "data", "data.data.time", "x", "data.x", "id", "data.id")


def test_no_two_columns_of_csv_have_the_same_name() -> None:
    """Properties that are named like the envelope, or like the names these get, stay apart."""
    shape = Shape(tuple((name, "text") for name in NAMES))
    record = Record(1, 0, 0, "t", None, 0, False, NAMES, shape)
    header, row = csv.reader(csv_lines(lambda: [record]))
    assert len(set(header)) == len(header) == 7 + len(NAMES)
    assert sorted(row[7:]) == sorted(NAMES)


@given(strategies.records().filter(lambda record: "tagged" not in record.shape.kinds))
def test_csv_keeps_every_text(record: Record) -> None:
    """Any text comes back unchanged through a CSV reader; Python 3.10's does not read U+0000."""
    assume(sys.version_info >= (3, 11) or not any("\0" in str(value) for value in record.values))
    header, row = csv.reader(csv_lines(lambda: [record]), strict=True)
    assert len(header) == len(row)
    texts = sorted(value for kind, value in record.properties().values() if kind == "text")
    assert [text for text in texts if text in row] == texts


def test_lone_surrogates_can_be_written(tmp_path: Path) -> None:
    """A CSV file is UTF-8, which has none: they become escapes."""
    bench = Workbench(tmp_path)
    bench.send(("t", b'{"a": "\\udc80"}'))
    assert exported(bench.url, "csv").split("\r\n")[1].endswith(",\\udc80")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_all_models_export_the_same(form: Format, tmp_path: Path) -> None:
    """Byte by byte, whatever the model."""
    found = set()
    for model in MODELS:
        (tmp_path / model).mkdir()
        bench = Workbench(
            tmp_path / model, {"topic": "home/{room}/climate", "model": model}, {"topic": "#", "model": model}
        )
        bench.send(*HISTORY)
        found.add(exported(bench.url, form))
    assert len(found) == 1


def test_what_is_exported_can_be_chosen(tmp_path: Path) -> None:
    """By topic, time and number, from either end; the number of records is returned."""
    bench = Workbench(tmp_path)
    bench.send(*((f"t/{number % 2}", {"n": number}) for number in range(10)))
    options: dict[str, Any] = {"topic": "t/1", "since": second(2), "until": second(8), "limit": 2, "newest": True}
    lines = exported(bench.url, **options).splitlines()
    assert [json.loads(line)["data"]["n"] for line in lines] == [7, 5]
    for form in ("jsonl", "csv"):
        assert export(bench.url, lambda _: None, form, **options) == 2


def test_an_export_of_nothing(tmp_path: Path) -> None:
    """No lines of JSON, or the envelope's header."""
    bench = Workbench(tmp_path)
    bench.send(("t", {"n": 1}))
    assert exported(bench.url, topic="other") == ""
    assert exported(bench.url, "csv", topic="other") == "id,part,time,topic,session,qos,retain\r\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "tables"),
    [
        ("wide", ("a_b",)),
        ("eav", ("mqtt_message", "mqtt_value")),
        ("narrow", ("mqtt_message", "mqtt_point")),
        ("document", ("mqtt_document",)),
    ],
)
def test_what_is_stored(model: str, tables: tuple[str, ...], site: Site) -> None:
    """Each topic with its model, tables, number of records, first and last time."""
    bench = Workbench(site, {"topic": "a/#", "model": model}, {"topic": "#", "model": "document"})
    bench.send(("a/b", {"n": 0, "m": 0}), ("c", {"n": 1}), ("a/b", {"n": 2}), ("a/x", b"{dead"))
    wide = model == "wide"
    assert list_topics(bench.url) == [
        StoredTopic("a/b", "a/#", (model,), tables, 2, second(0), second(2), ("a_b_view" if wide else "a_view",)),
        StoredTopic("a/x", "a/#", (model,), () if wide else tables, 0, None, None, () if wide else ("a_view",)),
        StoredTopic("c", "#", ("document",), ("mqtt_document",), 1, second(1), second(1), ("all_view",)),
    ]
    assert [one.topic for one in list_topics(bench.url, "a/+")] == ["a/b", "a/x"]
    assert [one.rows for one in list_topics(bench.url, "a/b")] == [2]


def test_what_is_stored_of_a_topic_that_moved(tmp_path: Path) -> None:
    """Its present model first; records in tables that both models share are counted once."""
    bench = Workbench(tmp_path, {"topic": "#", "model": "eav"})
    bench.send(("t", {"n": 0}))
    for model in ("narrow", "wide"):
        bench.restart({"topic": "#", "model": model})
        bench.send(("t", {"n": 1}))
    (found,) = list_topics(bench.url)
    assert found.models == ("wide", "eav", "narrow")
    assert found.tables == ("t", "mqtt_message", "mqtt_value", "mqtt_point")
    assert (found.rows, found.first, found.last) == (3, second(0), second(2))


def test_what_is_stored_of_many_topics(tmp_path: Path) -> None:
    """More topics than a statement may name, in one table, among others."""
    bench = Workbench(tmp_path, {"topic": "#", "model": {"wide": {"table": "all"}}})
    bench.send(*((f"{number % 2}/{number // 2}", {"n": 1}) for number in range(1500)), ("1/7", {}))
    found = list_topics(bench.url, "1/#")
    assert len(found) == 750
    assert {one.topic: one.rows for one in found if one.rows > 1} == {"1/7": 2}
    assert min(one.first for one in found if one.first) == second(1)


def test_nothing_is_stored(tmp_path: Path) -> None:
    """Listing the topics of a database that does not exist is an error."""
    with pytest.raises(DatabaseError, match="does not exist yet"):
        list_topics(f"sqlite:///{tmp_path}/mqtt.db")
    bench = Workbench(tmp_path)
    assert list_topics(bench.url) == []
    assert list(amqtt_db.read(bench.url)) == []
    assert attrs.asdict(StoredTopic("t", "#", (), (), 0, None, None))["rows"] == 0


def test_ids_are_exact_for_every_reader_of_json() -> None:
    """Above 2**53 an id is tagged, like any integer that many programs would round; up to there it is a number."""
    for number in (2**53 - 1, 2**53, 2**53 + 1, 2**63 - 1):
        (line,) = json_lines([Record(number, 0, 0, "t", number, 0, False, (), Shape(()))])
        for name in ("id", "session"):
            assert json.loads(line)[name] == (number if number <= EXACT else {"$int": str(number)})
            assert tagged.loads(line)[name] == number


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_what_can_be_read_is_exported(model: str, form: Format, tmp_path: Path) -> None:
    """A record that cannot be read is named by table and column at the end; all others are written before that."""
    bench = Workbench(tmp_path, {"topic": "#", "model": model})
    bench.send(*(("t", {"n": number, "m": "x"}) for number in range(40)), *(("u", {"k": 0}) for _ in range(3)))
    table = {"wide": "t", "document": "mqtt_document"}.get(model, "mqtt_message")
    (id_,) = [one.id for one in bench.records("t") if one["n"] == 7]
    bench.sql(f"UPDATE {table} SET time = 'one day' WHERE id = {id_}")
    written: list[bytes] = []
    with pytest.raises(UnreadableRecords, match=f"column time of table {table} holds a value"):
        export(bench.url, written.append, form)
    assert len(b"".join(written).splitlines()) == 42 + (form == "csv")
    assert sorted(record["n"] for record in _before_error(bench.url, "t")) == [n for n in range(40) if n != 7]


def _before_error(url: str, topic: str) -> Iterator[Record]:
    with suppress(UnreadableRecords):
        yield from amqtt_db.read(url, topic)


@pytest.mark.parametrize("time", ["infinity", "-infinity", "12345-01-01 00:00:00+00", "0044-03-15 00:00:00+00 BC"])
@pytest.mark.parametrize("newest", [False, True])
def test_times_of_postgresql_that_python_does_not_have(time: str, newest: bool, site: Site) -> None:
    """The error names table and column; all other records are exported, page by page, in either order."""
    if not site.url.startswith("postgresql"):
        pytest.skip("only PostgreSQL has such times")
    bench = Workbench(site, {"topic": "#", "model": {"wide": {"table": "plain"}}})
    bench.send(*(("t", {"n": number}) for number in range(100)))
    (id_,) = [one.id for one in bench.records("t") if one["n"] == 7]
    bench.sql(f"UPDATE plain SET time = '{time}' WHERE id = {id_}")
    found: list[float] = []
    with pytest.raises(UnreadableRecords, match="column time of table plain holds a value"):
        found.extend(record["n"] for record in amqtt_db.read(bench.url, newest=newest))
    assert sorted(found) == [n for n in range(100) if n != 7]
    with pytest.raises(DatabaseError, match="column time of table plain"):
        list_topics(bench.url)
