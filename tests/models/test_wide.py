"""The `wide` model on SQLite: topics, properties, types and policies, as a user of the database sees them."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqtt_db.models.base import Destination, Row
from amqtt_db.models.binding import bind
from amqtt_db.models.wide import Wide
from amqtt_db.record import Record, Shape
from tests.database.engines.servers import Site
from tests.values import NASTY_TEXT, same
from tests.workbench import ARRIVAL, Sent, Workbench

CLIMATE: dict[str, Any] = {"topic": "home/{room}/climate", "model": {"wide": {"table": "climate"}}}


def test_a_message_becomes_a_typed_row(tmp_path: Path) -> None:
    """The main job: publish JSON, find it typed in a table named after the topic."""
    bench = Workbench(tmp_path)
    bench.send(Sent("home/kitchen", {"temp": 21, "on": True, "unit": "C"}, qos=1, retain=True))
    (row,) = bench.sql("SELECT time, topic, qos, retain, temp, on_, unit, typeof(temp) FROM home_kitchen")
    assert row == ("2023-11-14 22:13:20.000000", "home/kitchen", 1, 1, 21.0, 1, "C", "real")


def test_named_levels_become_columns(site: Site) -> None:
    """`{room}` is a column, and rooms share the table."""
    bench = Workbench(site, CLIMATE)
    bench.send(("home/kitchen/climate", {"temp": 21.5}), ("home/attic/climate", {"temp": 18}))
    assert bench.sql("SELECT room, temp FROM climate ORDER BY id") == [("kitchen", 21.5), ("attic", 18.0)]


def test_a_level_is_text_unless_declared(tmp_path: Path) -> None:
    """`telegraf/123/test`: the device is the text 123, or the int 123 where the entity says so."""
    template = "{source}/{device}/{kind}"
    bench = Workbench(tmp_path, {"topic": template, "model": {"wide": {"table": "t"}}})
    bench.send(("telegraf/123/test", {"v": 1}))
    assert bench.sql("SELECT device, typeof(device) FROM t") == [("123", "text")]

    (tmp_path / "declared").mkdir()
    entity = {"device": "int", "v": "float"}
    bench = Workbench(tmp_path / "declared", {"topic": template, "model": {"wide": {"table": "t"}}, "entity": entity})
    bench.send(("telegraf/123/test", {"v": 1}), ("telegraf/x/test", {"v": 2}))
    assert bench.sql("SELECT device, v FROM t ORDER BY id") == [(123, 1.0), (None, 2.0)]
    assert bench.data()[1]["{device}"] == "x"


def test_empty_levels_align(site: Site) -> None:
    """A leading slash is an empty first level; `a//b` keeps its empty level."""
    bench = Workbench(site, {"topic": "{a}/{b}/{c}", "model": {"wide": {"table": "t"}}})
    bench.send(("/x/y", {"v": 1}), ("x//y", {"v": 2}))
    assert bench.sql("SELECT a, b, c FROM t ORDER BY id") == [("", "x", "y"), ("x", "", "y")]


def test_topics_without_a_route_are_counted_as_ignored(site: Site) -> None:
    """Shorter or longer than every template: the next route, or none, and then it is counted."""
    bench = Workbench(site, CLIMATE, {"topic": "home/+"})
    bench.send(("home/kitchen", {"v": 1}), ("home/a/b/climate", {"v": 1}), ("x", {"v": 1}))
    assert bench.counts() == {"home/+": {"stored": 1, "records": 1}, "": {"ignored": 2}}


def test_topics_that_clean_to_the_same_name_get_their_own_tables(site: Site) -> None:
    """`a/b`, `a_b` and `A/B` are three topics and three tables, the same ones after a restart."""
    bench = Workbench(site)
    topics = ["a/b", "a_b", "A/B"]
    bench.send(*((topic, {"n": index}) for index, topic in enumerate(topics)))
    tables = dict(bench.sql("SELECT mqtt_table.key, name FROM mqtt_table"))
    assert len({name.lower() for name in tables.values()}) == 3
    bench.restart()
    bench.send(*((topic, {"n": index}) for index, topic in enumerate(topics)))
    assert dict(bench.sql("SELECT mqtt_table.key, name FROM mqtt_table")) == tables
    for index, topic in enumerate(topics):
        assert [data["n"] for data in bench.data(topic)] == [index, index]


def test_long_topics_that_differ_in_the_last_character(site: Site) -> None:
    """Two stable tables, the same after a restart."""
    bench = Workbench(site)
    bench.send(("x" * 199 + "a", {"n": 1}), ("x" * 199 + "b", {"n": 2}))
    tables = bench.sql("SELECT name FROM mqtt_table ORDER BY name")
    bench.restart()
    bench.send(("x" * 199 + "a", {"n": 3}))
    assert bench.sql("SELECT name FROM mqtt_table ORDER BY name") == tables
    assert [data["n"] for data in bench.data("x" * 199 + "a")] == [1, 3]


@pytest.mark.parametrize(
    "topic",
    ["家/温度", "🏠/🌡", "بيت/حرارة", "living room/tv 'big'", 'x"; DROP TABLE mqtt_journal; --', "50%/a;b", "/", "a\nb"],
)
def test_topics_of_any_kind_are_exact_on_read(topic: str, site: Site) -> None:
    """Whatever the topic is made of, it is stored and found again."""
    bench = Workbench(site)
    bench.send((topic, {"v": 1}))
    assert [record.topic for record in bench.records()] == [topic]


def test_a_topic_with_nul_is_a_dead_letter(site: Site) -> None:
    """MQTT forbids U+0000 in topics, and no database holds it: the message is kept as a dead letter."""
    bench = Workbench(site)
    bench.send(("a\x00b", {"v": 1}), ("ok", {"v": 1}))
    assert [letter.topic for letter in bench.dead()] == [b"a\x00b"]
    assert len(bench.records()) == 1


def test_new_properties_add_columns(tmp_path: Path) -> None:
    """Two columns come, old rows stay untouched, the key is intact."""
    bench = Workbench(tmp_path)
    bench.send(("books", {"author": "A", "title": "T"}))
    before = bench.sql("SELECT * FROM books")
    bench.send(("books", {"author": "B", "title": "U", "year": 1999, "review": "good"}))
    assert bench.columns("books")[-4:] == ["author", "title", "year", "review"]
    assert bench.sql("SELECT * FROM books ORDER BY id")[0] == (*before[0], None, None)
    keys = [row[1] for row in bench.sql("PRAGMA table_info(books)") if row[5]]
    assert keys == ["id", "part"]


def test_a_property_that_stops_coming_is_null_without_ddl(site: Site) -> None:
    """Absent means NULL."""
    bench = Workbench(site)
    bench.send(("t", {"a": 1, "b": 2}))
    columns = bench.columns("t")
    bench.send(("t", {"a": 3}), ("t", {"a": 4, "b": None}))
    assert bench.columns("t") == columns
    assert bench.sql("SELECT a, b FROM t ORDER BY id") == [(1.0, 2.0), (3.0, None), (4.0, None)]


def test_properties_that_differ_in_case_are_two(site: Site) -> None:
    """`AaA` and `aaa` keep apart although SQLite's column names ignore case."""
    bench = Workbench(site)
    bench.send(("t", {"AaA": 1, "aaa": 2}))
    assert bench.data() == [{"AaA": 1.0, "aaa": 2.0}]


def test_property_names_of_any_kind_are_distinct_and_exact(site: Site) -> None:
    """Empty, 300 bytes, SQL words, envelope names, dots next to nesting, NUL, surrogates, punctuation."""
    names = [*NASTY_TEXT, "x" * 300, "x" * 299 + "y", "?!", "!?", "rowid", "part", "qos", "retain", "session", "extra"]
    payload: dict[str, Any] = {name: index for index, name in enumerate(names)}
    payload["a"] = {"b": "nested"}
    bench = Workbench(site)
    bench.send(("t", payload))
    (data,) = bench.data()
    assert same(data, {key: float(v) if isinstance(v, int) else v for key, v in payload.items()})


@pytest.mark.parametrize("value", ["\x00", "a\x00b", "\ud800", "x\udfff"])
def test_text_that_databases_refuse_is_restored(value: str, site: Site) -> None:
    """U+0000 and lone surrogates in values come back; their neighbours are not disturbed."""
    bench = Workbench(site)
    bench.send(("t", {"v": "before"}), ("t", {"v": value, "list": [value]}), ("t", {"v": "after"}))
    assert [data["v"] for data in bench.data()] == ["before", value, "after"]
    assert bench.data()[1]["list"] == [value]


def test_bytes_are_verbatim(site: Site) -> None:
    """All 256 byte values under `decode: bytes`."""
    bench = Workbench(site, {"topic": "#", "decode": "bytes"})
    bench.send(("t", bytes(range(256))))
    assert bench.sql("SELECT value FROM t") == [(bytes(range(256)),)]
    assert bench.data() == [{"value": bytes(range(256))}]


@pytest.mark.parametrize(
    ("literal", "expected"),
    [
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 2**64),
        ("1" + "0" * 30, 10**30),
        ("9007199254740993", 2**53 + 1),
        ("1e308", 1e308),
        ("1e-320", 1e-320),
        ("-0.0", -0.0),
        ("NaN", float("nan")),
        ("Infinity", float("inf")),
        ("-Infinity", float("-inf")),
        ("21", 21.0),
    ],
)
def test_numbers_are_exact(literal: str, expected: float, site: Site) -> None:
    """Exact, in a variant column where the plain one cannot hold it; never truncated. Also inside a list."""
    bench = Workbench(site)
    bench.send(("t", {"v": 1.5}), ("t", f'{{"v": {literal}, "l": [{literal}]}}'.encode()))
    data = bench.data()[1]
    assert same(data["v"], expected)
    assert same(float(data["l"][0]), float(expected))
    assert data["l"][0] == expected or expected != expected  # noqa: PLR0124


def test_a_clash_of_types_goes_to_a_variant_column(site: Site) -> None:
    """`id: 1`, then text: the first column is NULL, the variant holds the text; the next number goes to the first."""
    bench = Workbench(site)
    bench.send(("t", {"nr": 1}), ("t", {"nr": "idx-nr-456"}), ("t", {"nr": 2}))
    assert bench.sql("SELECT nr, nr__text FROM t ORDER BY id") == [(1.0, None), (None, "idx-nr-456"), (2.0, None)]


def test_booleans_stay_apart_from_numbers(site: Site) -> None:
    """true and 1 are different kinds."""
    bench = Workbench(site)
    bench.send(("t", {"v": True}), ("t", {"v": 1}), ("t", {"v": False}), ("t", {"v": 0}))
    assert same([data["v"] for data in bench.data()], [True, 1.0, False, 0.0])


def test_nesting_is_restored(site: Site) -> None:
    """A nested property is a column named by its path; empty objects and lists come back."""
    bench = Workbench(site)
    payload = {"f!3": {"f4": "a"}, "o": {}, "l": [], "deep": {"er": {"x": [1, {"y": None}]}}}
    bench.send(("t", payload))
    assert bench.sql("SELECT f_3_f4 FROM t") == [("a",)]
    assert bench.data() == [payload]


def test_each_makes_a_record_of_every_item(site: Site) -> None:
    """The items of a list become parts of one message; an empty list is counted as stored; outer properties stay."""
    bench = Workbench(site, {"topic": "#", "each": "readings"})
    bench.send(
        ("t", {"device": "d", "readings": [{"v": 1}, {"v": 2}]}),
        ("t", {"device": "e", "readings": []}),
        ("t", {"x": 1}),
    )
    assert bench.sql("SELECT part, device, readings_v FROM t ORDER BY id, part") == [
        (0, "d", 1.0),
        (1, "d", 2.0),
        (0, None, None),
    ]
    assert bench.counts() == {"#": {"stored": 3, "records": 3}}


def test_each_of_a_list_payload(site: Site) -> None:
    """A payload that is a list itself."""
    bench = Workbench(site, {"topic": "#", "each": ""})
    bench.send(("t", [{"v": 1}, {"v": 2}, 3]))
    assert bench.data() == [{"v": 1.0}, {"v": 2.0}, {"value": 3.0}]


@pytest.mark.parametrize(
    "payload",
    [
        b"{not json",
        b'{"a": 1',
        b"",
        b"[" * 10_000 + b"]" * 10_000,
        b'{"a":' * 10_000 + b"1" + b"}" * 10_000,
        b"\xff\xfe\x00",
    ],
)
def test_what_is_not_json_is_a_dead_letter_and_the_neighbours_are_stored(payload: bytes, site: Site) -> None:
    """The writer lives, and the dead letter has topic, payload, step and reason."""
    bench = Workbench(site, {"topic": "#", "decode": "json"})
    bench.send(("t", {"v": 1}), ("t", payload), ("t", {"v": 2}))
    assert [data["v"] for data in bench.data()] == [1.0, 2.0]
    (letter,) = bench.dead()
    assert (letter.topic, letter.payload, letter.filter) == (b"t", payload, "#")
    assert letter.step in {"decode", "structure"}
    assert letter.reason
    assert bench.counts() == {"#": {"stored": 2, "records": 2, "dead": 1}}


@pytest.mark.parametrize(
    "payload",
    [
        json.dumps({"v": "x" * 10_000_000}).encode(),
        b'{"v": 1, "v": 2}',
        b'\xef\xbb\xbf{"v": 2}',
        '{"v": 2}'.encode("utf-16"),
    ],
)
def test_odd_json_is_stored(payload: bytes, site: Site) -> None:
    """A 10 MB string, duplicate keys, a byte order mark, UTF-16."""
    bench = Workbench(site)
    bench.send(("t", payload))
    assert len(bench.records()) == 1
    assert not bench.dead()


@pytest.mark.parametrize("payload", [b"23.4", b"ON", b"true", b""])
def test_bare_text_is_the_property_value(payload: bytes, site: Site) -> None:
    """Scalars under `decode: text`."""
    bench = Workbench(site, {"topic": "#", "decode": "text"})
    bench.send(("t", payload))
    assert bench.data() == [{"value": payload.decode()}]


def test_bare_json_scalars_are_the_property_value(site: Site) -> None:
    """A number, a bool or a list alone; null has no property at all."""
    bench = Workbench(site)
    bench.send(("t", 23.5), ("t", True), ("t", [1]), ("t", None))
    assert same([data.get("value") for data in bench.data()], [23.5, True, [1], None])


@pytest.mark.parametrize(
    ("value", "stored"),
    [(762162.0, 762162), (7, 7)],
)
def test_whole_numbers_pass_as_int(value: float, stored: int, tmp_path: Path) -> None:
    """A float that is a whole number is an int where one is declared."""
    bench = Workbench(tmp_path, {"topic": "#", "entity": {"n": "int"}})
    bench.send(("t", {"n": value}))
    assert bench.sql("SELECT n, typeof(n) FROM t") == [(stored, "integer")]


@pytest.mark.parametrize("value", [762162.1, "0xff", " 12 ", "now", True])
def test_what_is_no_int_takes_the_mismatch_policy(value: Any, site: Site) -> None:
    """Not guessed and not converted: the variant column by default, the declared one NULL."""
    bench = Workbench(site, {"topic": "#", "entity": {"n": "int"}})
    bench.send(("t", {"n": 1}), ("t", {"n": value}))
    assert same(bench.data()[1]["n"], value)
    assert bench.sql("SELECT n FROM t ORDER BY id") == [(1,), (None,)]


def test_unknown_add(site: Site) -> None:
    """An undeclared property gets a column."""
    bench = Workbench(site, {"topic": "#", "entity": {"a": "float"}, "unknown": "add"})
    bench.send(("t", {"a": 1, "b": 2}))
    assert bench.sql("SELECT a, b, extra FROM t") == [(1.0, 2.0, None)]


def test_unknown_extra_is_the_default_with_an_entity(tmp_path: Path) -> None:
    """An undeclared property goes into the JSON column, and reads back under its name."""
    bench = Workbench(tmp_path, {"topic": "#", "entity": {"a": "float"}})
    bench.send(("t", {"a": 1, "b": 2, "c": {"d": "x"}}), ("t", {"a": 2}))
    assert "b" not in bench.columns("t")
    assert bench.sql("SELECT a, json_extract(extra, '$.b') FROM t ORDER BY id") == [(1.0, 2), (2.0, None)]
    assert bench.data() == [{"a": 1.0, "b": 2, "c": {"d": "x"}}, {"a": 2.0}]


def test_unknown_ignore_counts_what_it_drops(site: Site) -> None:
    """An undeclared property is dropped, and counted."""
    bench = Workbench(site, {"topic": "#", "entity": {"a": "float"}, "unknown": "ignore"})
    bench.send(("t", {"a": 1, "b": 2, "c": 3}))
    assert bench.data() == [{"a": 1.0}]
    assert bench.counts() == {"#": {"stored": 1, "records": 1, "dropped": 2}}


def test_unknown_reject_names_route_table_property_and_policy(site: Site) -> None:
    """With a strict contract, a new key makes a dead letter that names everything."""
    entry = {"topic": "#", "model": {"wide": {"table": "frozen"}}, "entity": {"a": "float"}, "unknown": "reject"}
    bench = Workbench(site, entry)
    bench.send(("t", {"a": 1}), ("t", {"a": 1, "surprise": 2}))
    assert len(bench.records()) == 1
    (letter,) = bench.dead()
    for word in ("route #", "table frozen", "'surprise'", "unknown: reject"):
        assert word in letter.reason


def test_a_topic_with_a_table_of_its_own_is_named_itself(site: Site) -> None:
    """Its table may have no name yet, and has another one."""
    bench = Workbench(site, {"topic": "#", "entity": {"a": "float"}, "unknown": "reject"})
    bench.send(("home/attic", {"surprise": 2}))
    (letter,) = bench.dead()
    assert letter.reason.startswith("route #: topic home/attic: ")


def test_mismatch_null_counts_what_it_nulls(site: Site) -> None:
    """A wrong value becomes NULL, and is counted."""
    bench = Workbench(site, {"topic": "#", "entity": {"a": "float"}, "mismatch": "null"})
    bench.send(("t", {"a": "hot"}))
    assert bench.sql("SELECT a FROM t") == [(None,)]
    assert bench.counts() == {"#": {"stored": 1, "records": 1, "nulled": 1}}


def test_mismatch_reject(site: Site) -> None:
    """A wrong value makes a dead letter that names the property."""
    bench = Workbench(site, {"topic": "#", "entity": {"a": "float"}, "mismatch": "reject"})
    bench.send(("t", {"a": "hot"}))
    (letter,) = bench.dead()
    assert "'a'" in letter.reason
    assert "hot" not in letter.reason


def test_a_missing_declared_property_is_null(site: Site) -> None:
    """Never a made-up 0 or empty text."""
    bench = Workbench(site, {"topic": "#", "entity": {"a": "float", "b": "str"}})
    bench.send(("t", {}))
    assert bench.sql("SELECT a, b FROM t") == [(None, None)]


def test_declared_types_are_columns_of_their_kind(tmp_path: Path) -> None:
    """Decimal, date, time, datetime, uuid, bytes and list come back as what they were declared."""
    entity = {
        "amount": "decimal",
        "day": "date",
        "at": "time",
        "seen": {"type": "datetime", "format": "epoch_s"},
        "key": "uuid",
        "tags": "list",
    }
    bench = Workbench(tmp_path, {"topic": "#", "entity": entity})
    key = "12345678-1234-5678-1234-567812345678"
    payload = {
        "amount": "1.10",
        "day": "2026-01-31",
        "at": "12:30:00",
        "seen": 1_700_000_000,
        "key": key,
        "tags": ["a"],
    }
    bench.send(("t", payload))
    assert bench.sql("SELECT amount, day, at, seen, key_, tags FROM t") == [
        ("1.10", "2026-01-31", "12:30:00.000000", "2023-11-14 22:13:20.000000", key, '["a"]')
    ]
    kinds = {path: kind for path, (kind, _) in bench.records()[0].properties().items()}
    assert kinds == {
        "amount": "decimal",
        "day": "date",
        "at": "time",
        "seen": "datetime",
        "key": "uuid",
        "tags": "json",
    }


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1_600_000_000, "2020-09-13 12:26:40.000000"),
        (1_600_000_000.25, "2020-09-13 12:26:40.250000"),
        (1_600_000_000_123, "2020-09-13 12:26:40.123000"),
        ("2020-09-13T14:26:40+02:00", "2020-09-13 12:26:40.000000"),
        ("2020-09-13T12:26:40Z", "2020-09-13 12:26:40.000000"),
        ("0001-01-01T00:00:00Z", "0001-01-01 00:00:00.000000"),
        ("9999-12-31T23:59:59.999999Z", "9999-12-31 23:59:59.999999"),
        ("not a time", "2023-11-14 22:13:20.000000"),
        (None, "2023-11-14 22:13:20.000000"),
        (1e300, "2023-11-14 22:13:20.000000"),
        (True, "2023-11-14 22:13:20.000000"),
    ],
)
def test_the_time_of_the_event(value: Any, expected: str, tmp_path: Path) -> None:
    """`time:` names the property that is the event's time; arrival where it is missing or absurd."""
    bench = Workbench(tmp_path, {"topic": "#", "time": "at"})
    bench.send(("t", {"at": value, "v": 1}))
    assert bench.sql("SELECT time FROM t") == [(expected,)]
    assert same(bench.data()[0].get("at"), float(value) if type(value) in (int, float) else value)


def test_the_events_time_from_a_declared_datetime(tmp_path: Path) -> None:
    """It still reads back under its own name."""
    entity = {"current time": {"type": "datetime", "format": "epoch_s"}}
    bench = Workbench(tmp_path, {"topic": "#", "time": "current time", "entity": entity})
    bench.send(("t", {"current time": 1_600_000_000.5}))
    assert bench.sql("SELECT time, current_time_ FROM t") == [
        ("2020-09-13 12:26:40.500000", "2020-09-13 12:26:40.500000")
    ]
    assert bench.data() == [{"current time": datetime(2020, 9, 13, 12, 26, 40, 500000, tzinfo=timezone.utc)}]


def test_columns_beyond_the_limit_spill(site: Site) -> None:
    """More properties than `max_columns`: the rest goes into `extra`, neighbours are unharmed, all read back."""
    bench = Workbench(site, {"topic": "#", "max_columns": 5})
    payload = {f"p{index}": index for index in range(12)}
    bench.send(("t", payload), ("t", {"p0": 1}), ("t", {"p11": "text now"}))
    assert len(bench.columns("t")) == 8 + 5
    assert bench.data() == [{key: float(value) for key, value in payload.items()}, {"p0": 1.0}, {"p11": "text now"}]


def test_more_properties_than_sqlite_has_columns(site: Site) -> None:
    """2,500 properties under the default limit: stored, exact on read, and the next message is fine."""
    bench = Workbench(site)
    payload = {f"p{index}": index for index in range(2500)}
    bench.send(("t", payload), ("t", {"p7": 1}))
    assert bench.data() == [payload, {"p7": 1}]


def test_further_topics_share_a_table(site: Site) -> None:
    """Beyond `max_tables` topics have one table together, also after a restart."""
    bench = Workbench(site, {"topic": "x/+", "max_tables": 2})
    for _ in range(2):
        bench.send(*((f"x/{index}", {"n": index}) for index in range(5)))
        bench.restart()
    assert [name for (name,) in bench.sql("SELECT name FROM mqtt_table ORDER BY name")] == ["more_x", "x_0", "x_1"]
    assert [data["n"] for data in bench.data("x/4")] == [4.0, 4.0]


def test_arrival_is_the_time_without_a_time_property(site: Site) -> None:
    """Microseconds since 1970, as the broker saw it."""
    bench = Workbench(site)
    bench.send(("t", {"v": 1}), ("t", {"v": 1}))
    assert [record.time_us for record in bench.records()] == [ARRIVAL, ARRIVAL + 1_000_000]


def test_a_route_that_changes_its_model_keeps_old_records(site: Site) -> None:
    """A topic's placement ends where the next begins; both are found."""
    bench = Workbench(site)
    bench.send(("t", {"v": 1}))
    bench.restart({"topic": "#", "model": {"wide": {"table": "all_of_it"}}})
    bench.send(("t", {"v": 2}))
    assert bench.data("t") == [{"v": 1.0}, {"v": 2.0}]
    assert bench.sql("SELECT v FROM all_of_it") == [(2.0,)]


shapes = st.lists(st.sampled_from([("a", "number"), ("b", "text"), ("c", "bool"), ("a", "text")]), unique=True)


@given(shapes, shapes, st.data())
def test_the_fast_row_maker_agrees_with_the_plain_rows(known: Any, present: Any, data: st.DataObject) -> None:
    """Whatever columns there are, and whatever a record has: the same tuples, overflow included."""
    shape = Shape(tuple(present))
    values = {"number": st.floats(allow_nan=False), "text": st.text(), "bool": st.booleans()}
    row = tuple(data.draw(st.none() | values[kind]) for _, kind in present)
    record = Record(1, 0, 5, "t", 7, 1, True, row, shape)
    model = bind(Wide(), Destination("t"), timed=False)
    overflows = any(pair not in known for pair in present)
    envelope = ("id", "part", "time", "topic", "session", "qos", "retain")
    cells = {"t": (*envelope, *(("extra",) if overflows else ()), *known)}
    assert list(model.maker(shape, cells)([record])["t"]) == model.plain_maker(shape, cells)([record])["t"]


class Doubled(Wide):
    """A user's model that overrides write but not the maker."""

    def write(self, record: Record) -> Any:
        """The same rows under another topic."""
        for name, row in super().write(record):
            changed: Row = {**row, "topic": "changed"}
            yield name, changed


def test_a_subclass_with_rows_of_its_own_gets_them() -> None:
    """The fast maker steps aside."""
    record = Record(1, 0, 5, "t", 7, 1, True, (), Shape(()))
    make = bind(Doubled(), Destination("t"), timed=False).maker(Shape(()), {"t": ("id", "topic")})
    assert make([record]) == {"t": [(1, "changed")]}
