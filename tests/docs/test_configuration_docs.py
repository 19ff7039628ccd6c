"""The reference is right about times, `any`, `unknown`, `timed` and tagged values."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
import yaml

from amqtt_db import tagged
from amqtt_db.models import BUILTIN
from amqtt_db.record import EPOCH, Kind
from tests.docs.test_docs import REFERENCE, ROOT
from tests.workbench import ARRIVAL, Sent, Workbench, routes

MODELS = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
TABLE = {"wide": {"table": "t"}}
_TIMES = REFERENCE.partition("| `time: ts`, and a payload of |")[2].partition("\n\n")[0]


def _times() -> list[tuple[str, str]]:
    """Return each payload of the table with its expected time; rows without one continue the row above."""
    found: list[tuple[str, str]] = []
    for payloads, meaning in re.findall(r"^\| (`\{.*\}`) \| (.*) \|$", _TIMES, re.MULTILINE):
        said = re.match(r"[\d: -]{19}", meaning)
        time = said[0] if said else "arrival" if meaning.startswith("the arrival") else found[-1][1]
        found += [(payload, time) for payload in re.findall(r"`(\{[^`]*\})`", payloads)]
    return found


def test_every_time_of_the_table(tmp_path: Path) -> None:
    """Stored without an entity, each payload gets the time in the table."""
    bench = Workbench(tmp_path, {"topic": "#", "time": "ts", "model": TABLE})
    payloads, times = zip(*_times(), strict=True)
    bench.send(*(Sent("a", payload.encode()) for payload in payloads))
    arrivals = [f"{EPOCH + timedelta(microseconds=ARRIVAL, seconds=number):%Y-%m-%d %H:%M:%S}" for number in range(20)]
    expected = [arrival if time == "arrival" else time for time, arrival in zip(times, arrivals, strict=False)]
    assert len(expected) == 9
    assert [time.partition(".")[0] for (time,) in bench.sql("SELECT time FROM t ORDER BY id")] == expected


@pytest.mark.slow
@pytest.mark.parametrize(
    ("value", "time"),
    [
        (1700000000.5, "2023-11-14 22:13:20.500000"),
        (10**11 - 1, "5138-11-16 09:46:39.000000"),
        (10**11, "1973-03-03 09:46:40.000000"),
        (10**14, "1973-03-03 09:46:40.000000"),
        (10**17, "1973-03-03 09:46:40.000000"),
        ("2023-11-14T22:13:20+02:00", "2023-11-14 20:13:20.000000"),
        ("2023-11-14T22:13:20", "2023-11-14 22:13:20.000000"),
    ],
)
def test_where_a_unit_ends(value: Any, time: str, tmp_path: Path) -> None:
    """Fractions, zones, and the sizes that distinguish seconds from milliseconds and so on."""
    bench = Workbench(tmp_path, {"topic": "#", "time": "ts", "model": TABLE})
    bench.send(("a", {"ts": value}))
    assert bench.sql("SELECT time FROM t") == [(time,)]


def test_with_an_entity_only_the_declared_type_is_a_time(tmp_path: Path) -> None:
    """A value of another type is a mismatch, and the arrival is the record's time."""
    bench = Workbench(tmp_path, {"topic": "#", "time": "ts", "entity": {"ts": "int"}, "model": TABLE})
    bench.send(("a", {"ts": 20}), ("a", {"ts": "2026-01-31T12:00:00Z"}))
    times = [time for (time,) in bench.sql("SELECT time FROM t ORDER BY id")]
    assert times == ["1970-01-01 00:00:20.000000", "2023-11-14 22:13:21.000000"]


def test_a_decoder_that_remembers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page's class and route, through a restart."""
    (code,) = re.findall(r"```python\n# my_meters.py\n(.*?)```", REFERENCE, re.DOTALL)
    (route,) = re.findall(r"```yaml\nroutes:\n  - (.*my_meters.*)\n```", REFERENCE)
    (tmp_path / "my_meters.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    bench = Workbench(tmp_path, yaml.safe_load(route))
    bench.send(Sent("meters/a/counter", b"10"), Sent("meters/b/counter", b"5"), Sent("meters/a/counter", b"12.5"))
    bench.restart()
    bench.send(Sent("meters/a/counter", b"20"))
    found = bench.sql("SELECT meter, reading, used FROM meters ORDER BY id")
    assert found == [("a", 10, 0), ("b", 5, 0), ("a", 12.5, 2.5), ("a", 20, 7.5)]


def test_any_is_json(tmp_path: Path) -> None:
    """Text is stored with its quotes."""
    bench = Workbench(tmp_path, {"topic": "#", "entity": {"meter": "any"}, "model": TABLE})
    bench.send(("a", {"meter": "m1"}), ("a", {"meter": 5}), ("a", {"meter": {"no": 1}}))
    assert bench.sql("SELECT meter FROM t ORDER BY id") == [('"m1"',), ("5",), ('{"no":1}',)]


def test_any_beside_a_column_of_another_type(tmp_path: Path) -> None:
    """Values stored before the declaration stay in their column."""
    bench = Workbench(tmp_path, {"topic": "#", "model": TABLE})
    bench.send(("a", {"meter": "m1"}))
    bench.restart({"topic": "#", "entity": {"meter": "any"}, "model": TABLE})
    bench.send(("a", {"meter": "m1"}))
    assert bench.sql("SELECT meter, meter__json FROM t ORDER BY id") == [("m1", None), (None, '"m1"')]


@pytest.mark.parametrize("setting", [{"unknown": "reject"}, {"unknown": "ignore"}, {"mismatch": "reject"}])
def test_without_an_entity_nothing_is_unknown(setting: dict[str, str], tmp_path: Path) -> None:
    """New properties, and old ones with new types, are stored as usual."""
    bench = Workbench(tmp_path, {"topic": "#", "model": TABLE, **setting})
    bench.send(("a", {"x": 1}), ("a", {"x": "b", "y": True}))
    assert bench.data() == [{"x": 1.0}, {"x": "b", "y": True}]
    assert bench.counts()["#"] == {"stored": 2, "records": 2}


@pytest.mark.parametrize("model", BUILTIN)
def test_a_hypertable_has_the_time_in_its_keys(model: str) -> None:
    """Every table of every built-in model has it."""
    url = "postgresql://user@localhost/mqtt"
    (route,) = routes({"topic": "a/#", "model": model, "hypertable": True}, url=url)
    assert all("time" in table.primary_key for table in route.bound().tables())


TAGGED: dict[str, tuple[Kind | None, Any]] = {
    '{"$decimal":"1.50"}': ("decimal", "1.50"),
    '{"$typed":["int64",3]}': ("int64", 3),
    '{"$typed":["json","m1"]}': ("json", "m1"),
    '{"$int":"1152921504606846976"}': (None, 2**60),
    '{"$number":"-0.0"}': (None, -0.0),
    '{"$text":"a\\\\u0000b"}': (None, "a\x00b"),
    '{"$$key":1}': ("json", {"$key": 1}),
}
"""Examples of the table of tags → (declared kind, published value)."""

_DECLARED = {"decimal": "decimal", "int64": "int", "json": "any"}


@pytest.mark.slow
@pytest.mark.parametrize("text", TAGGED)
def test_what_sql_finds_tagged(text: str, tmp_path: Path) -> None:
    """`narrow` stores each published value so in `text`, and the page shows it."""
    kind, value = TAGGED[text]
    entity = {"entity": {"p": _DECLARED[kind]}} if kind else {}
    bench = Workbench(tmp_path, {"topic": "#", "model": "narrow", **entity})
    bench.send(("a", {"p": value}))
    assert bench.sql("SELECT text FROM mqtt_point") == [(text,)]
    shown = text if "typed" not in text or "int64" in text else '["json","m1"]'
    assert f"`{shown}`" in MODELS


def test_bytes_are_tagged(tmp_path: Path) -> None:
    """They are base64."""
    bench = Workbench(tmp_path, {"topic": "#", "model": "narrow", "decode": "bytes"})
    bench.send(Sent("a", b"\x00\xff"))
    assert bench.sql("SELECT text FROM mqtt_point") == [('{"$bytes":"AP8="}',)]
    assert '`{"$bytes":"AP8="}`' in MODELS


def test_a_document_keeps_declared_types_beside_its_data(tmp_path: Path) -> None:
    """They are in `kinds`."""
    entity = {"kwh": "decimal", "n": "int"}
    bench = Workbench(tmp_path, {"topic": "#", "model": "document", "entity": entity})
    bench.send(("a", {"kwh": "1.50", "n": 3}))
    ((data, kinds),) = bench.sql("SELECT data, kinds FROM mqtt_document")
    assert orjson.loads(data) == {"kwh": "1.50", "n": 3}
    assert orjson.loads(kinds) == {"kwh": "decimal", "n": "int64"}


@pytest.mark.parametrize("model", BUILTIN)
def test_views_have_no_tags(model: str, tmp_path: Path) -> None:
    """Views have declared types in every model."""
    entity = {"kwh": "decimal", "n": "int", "at": {"type": "datetime", "format": "epoch_s"}}
    bench = Workbench(tmp_path, {"topic": "home/#", "model": model, "entity": entity})
    bench.send(("home", {"kwh": "1.50", "n": 3, "at": 1700000000}))
    rows = bench.sql("SELECT kwh, n, at FROM home_view")
    assert [(kwh, n) for kwh, n, _ in rows] == [("1.50", 3)]
    assert rows[0][2].startswith("2023-11-14 22:13:20")
    assert tagged.loads('{"$decimal":"1.50"}') == bench.records()[0].properties()["kwh"][1]
