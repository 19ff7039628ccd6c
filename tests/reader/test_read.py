"""The way back: which records come, in which order, from where, and at what cost."""

from __future__ import annotations

import asyncio
import re
import threading
import time
import tracemalloc
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta, timezone
from itertools import islice
from pathlib import Path
from typing import Any

import attrs
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

import amqtt_db
from amqtt_db.config import load_section
from amqtt_db.database.snapshot import Snapshot, open_snapshot
from amqtt_db.errors import DatabaseError
from amqtt_db.models.base import ENVELOPE, Cell, Column, Destination, Model, Row, Table, TableName
from amqtt_db.models.binding import bind
from amqtt_db.models.wide import Wide
from amqtt_db.reader import follow
from amqtt_db.reader.follow import Follower
from amqtt_db.reader.keys import LookupCache
from amqtt_db.reader.path import plan_paths
from amqtt_db.reader.records import read_records
from amqtt_db.reader.selection import BY_TIME, NEWEST, Selection
from amqtt_db.reader.sources import find_sources
from amqtt_db.reader.topics import list_topics
from amqtt_db.reader.walk import walk
from amqtt_db.record import EPOCH, Record, Shape, TaggedValue, tag
from tests.database.engines.servers import Site
from tests.workbench import ARRIVAL, Workbench

MODELS = ("wide", "eav", "narrow", "document")
BASE = EPOCH + timedelta(microseconds=ARRIVAL)
"""When the first message of a workbench arrives; the others follow a second apart."""

HISTORY: list[tuple[str, dict[str, Any]]] = [
    ("home/attic/climate", {"temp": 21.5, "door": {"open": True, "by": "Ann"}}),
    ("home/cellar/climate", {"temp": "cold"}),
    ("home/attic/climate", {}),
    ("home/attic/climate", {"temp": -0.0, "list": [1, {"a": None}], "big": 2**80}),
    ("garden", {"rain": None, "empty": {}, "a.b": "\x00"}),
    ("home/cellar/climate", {"door": {"open": 0}, "temp": 21}),
    ("home/attic/climate", {"temp": 2**60, "id": "seven", "time": "noon"}),
]


def second(number: int) -> datetime:
    """When message ``number`` of a workbench arrives, from 0."""
    return BASE + timedelta(seconds=number)


def tell(records: Iterable[Record]) -> list[int]:
    """The numbers of messages, from 0, in the order in which their records come."""
    return [record.id % 2**40 - 1 for record in records]


def filled(where: Path | Site, model: Any, count: int, topics: int = 4) -> Workbench:
    """A workbench with messages ``{"n": 0}``, ``{"n": 1}``, … on the topics ``t/0``, ``t/1``, … in turn."""
    bench = Workbench(where, {"topic": "t/+", "model": model})
    bench.send(*((f"t/{number % topics}", {"n": number}) for number in range(count)))
    return bench


@pytest.mark.parametrize("model", MODELS)
def test_what_was_sent_comes_back(model: str, tmp_path: Path) -> None:
    """Nested data, drifting types, nulls, levels and odd values, as they were sent; absent and null are the same."""
    bench = Workbench(tmp_path, {"topic": "home/{room}/climate", "model": model}, {"topic": "#", "model": model})
    bench.send(*HISTORY)
    records = list(amqtt_db.read(bench.url))
    assert [record.topic for record in records] == [topic for topic, _ in HISTORY]
    assert [repr(sorted(record.data().items())) for record in records] == [
        repr(sorted(expected(data).items())) for _, data in HISTORY
    ]
    levels = [{"room": topic.split("/")[1]} if "/" in topic else {} for topic, _ in HISTORY]
    assert [record.levels() for record in records] == levels


def expected(data: dict[str, Any]) -> dict[str, Any]:
    """Return the data that a payload reads back as: without nulls, numbers as doubles if these are exact."""
    parts = {key: expected(value) if isinstance(value, dict) else value for key, value in data.items()}
    return {key: _double(value) for key, value in sorted(parts.items()) if value is not None}


def _double(value: Any) -> Any:
    return float(value) if type(value) is int and abs(value) <= 2**53 else value


def test_all_models_give_equal_records(tmp_path: Path) -> None:
    """The records do not just mean the same but are equal, including their shapes."""
    found = []
    for model in MODELS:
        (tmp_path / model).mkdir()
        bench = Workbench(tmp_path / model, {"topic": "{where}/#", "model": model})
        bench.send(*HISTORY)
        found.append(list(amqtt_db.read(bench.url)))
    assert found[0] == found[1] == found[2] == found[3]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize(
    ("topic", "numbers"),
    [
        ("t/1", [1, 5, 9]),
        ("t/+", [*range(12)]),
        ("#", [*range(12)]),
        ("+/{n}", [*range(12)]),
        ("t/9", []),
        ("t", []),
        ("other/#", []),
    ],
)
def test_topics(model: str, topic: str, numbers: list[int], tmp_path: Path) -> None:
    """An MQTT filter covers what it covers in MQTT, from tables of many topics too."""
    assert tell(amqtt_db.read(filled(tmp_path, model, 12).url, topic)) == numbers


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_times_limits_and_both_directions(model: str, site: Site) -> None:
    """The earlier bound is inside, the later one is not; the newest are the last ones, turned round."""
    url = filled(site, model, 12).url
    assert tell(amqtt_db.read(url, since=second(4), until=second(7))) == [4, 5, 6]
    assert tell(amqtt_db.read(url, until=second(2))) == [0, 1]
    assert tell(amqtt_db.read(url, since=second(10), newest=True)) == [11, 10]
    assert tell(amqtt_db.read(url, "t/2", since=second(3), until=second(10))) == [6]
    assert tell(amqtt_db.read(url, "t/2", limit=2)) == [2, 6]
    assert tell(amqtt_db.read(url, "t/2", limit=2, newest=True)) == [10, 6]
    assert tell(amqtt_db.read(url, limit=3, newest=True)) == [11, 10, 9]
    assert tell(amqtt_db.read(url, limit=0)) == []
    elsewhere = second(4).astimezone(timezone(timedelta(hours=5, minutes=30)))
    assert tell(amqtt_db.read(url, since=elsewhere, limit=1)) == [4]


@pytest.mark.slow
@pytest.mark.parametrize("model", [*MODELS, {"wide": {"table": "one"}}])
@pytest.mark.parametrize("order", [BY_TIME, NEWEST])
def test_pages_join_without_a_seam(model: Any, order: Any, site: Site) -> None:
    """Whatever the size of a page: no record is lost or doubled where one ends, also among equal times and parts."""
    route = {"topic": "t/+", "model": model, "time": "at", "each": ""}
    bench = Workbench(site, route)
    times = [3, 3, 3, 1, 3, 3, 2, 3]
    bench.send(*((f"t/{number % 2}", [{"at": time, "n": number}, {"at": time}]) for number, time in enumerate(times)))
    wanted = [(time, number, part) for number, time in enumerate(times) for part in (0, 1)]
    wanted.sort(reverse=order.descending)
    for size in (1, 2, 3, 7, 16, 17):
        found = pages(bench.url, Selection.of("t/0"), size, order)
        assert found == [key for key in wanted if key[1] % 2 == 0]
    assert [(r.time_us // 1_000_000, r.id % 2**40 - 1, r.part) for r in amqtt_db.read(bench.url)] == sorted(wanted)


def pages(url: str, selection: Selection, size: int, order: Any) -> list[tuple[int, int, int]]:
    """Return the rows of one walk in pages of a size: (seconds, number of the message, part)."""
    wanted = attrs.evolve(selection, order=order)
    with open_snapshot(url) as snapshot:
        keys = LookupCache(snapshot)
        (path,) = plan_paths(snapshot, keys, find_sources(snapshot, wanted), scan=False)
        return [(r.time_us // 1_000_000, r.id % 2**40 - 1, r.part) for r in walk(snapshot, keys, path, wanted, size)]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
def test_late_data_is_in_its_place(model: str, tmp_path: Path) -> None:
    """The order is that of the events' times, over all tables; equal times are in order of arrival."""
    bench = Workbench(tmp_path, {"topic": "#", "model": model, "time": "at"})
    bench.send(*((topic, {"at": at}) for topic, at in zip("abcabc", (50, 20, 20, 10, 60, 20), strict=True)))
    assert tell(amqtt_db.read(bench.url)) == [3, 1, 2, 5, 0, 4]
    assert tell(amqtt_db.read(bench.url, newest=True)) == [4, 0, 5, 2, 1, 3]


@pytest.mark.slow
@pytest.mark.parametrize("before", MODELS)
@pytest.mark.parametrize("after", MODELS)
def test_a_topic_that_moved_is_read_from_both_places(before: str, after: str, tmp_path: Path) -> None:
    """Records from before and after a change of model, each once, though models share the table of envelopes."""
    bench = Workbench(tmp_path, {"topic": "#", "model": before})
    bench.send(("a", {"n": 0}), ("b", {"n": 1}), ("a", {}))
    bench.restart({"topic": "#", "model": after})
    bench.send(("a", {"n": 3}), ("a", {}), ("b", {"n": 5}))
    data = [{"n": 0.0}, {}, {"n": 3.0}, {}]
    assert [record.data() for record in amqtt_db.read(bench.url, "a")] == data
    assert tell(amqtt_db.read(bench.url)) == [*range(6)]
    assert tell(amqtt_db.read(bench.url, limit=3, newest=True)) == [5, 4, 3]


def test_many_topics_of_one_table(tmp_path: Path) -> None:
    """Some and most of a thousand topics in one table, found one by one or by looking at all."""
    bench = Workbench(tmp_path, {"topic": "#", "model": {"wide": {"table": "all"}}})
    bench.send(*((f"{number % 3}/{number}", {"n": number}) for number in range(1000)))
    bench.send(("0/0", {"n": 1000}))
    assert tell(amqtt_db.read(bench.url, "+/0")) == [0, 1000]
    assert tell(amqtt_db.read(bench.url, "1/#")) == [number for number in range(1000) if number % 3 == 1]


def test_tables_of_too_many_topics(tmp_path: Path) -> None:
    """Topics that share a table because their route has too many are distinguished."""
    bench = Workbench(tmp_path, {"topic": "#", "max_tables": 1})
    bench.send(*((topic, {"n": 1}) for topic in "abcabc"))
    assert tell(amqtt_db.read(bench.url, "b")) == [1, 4]
    assert tell(amqtt_db.read(bench.url, "+")) == [*range(6)]


@attrs.frozen
class Split(Model):
    """A model with two detail tables that have a column of the same name."""

    def tables(self, shape: Shape) -> Iterable[Table]:
        """The records, their numbers, and everything else."""
        yield Table("split")
        for name in ("split_number", "split_other"):
            yield Table(name, [Column("x", lookup="split_name"), Column("y", "tagged")], key=["x"])

    def write(self, record: Record) -> Iterator[tuple[TableName, Row]]:
        """A row for each property."""
        yield "split", {}
        for path, (kind, value) in record.properties().items():
            yield "split_number" if kind == "number" else "split_other", {"x": path, "y": tag(kind, value)}

    def read(self, envelope: Record, rows: Mapping[TableName, Sequence[Row]]) -> Record:
        """The properties of both."""
        return envelope.with_json({row["x"]: row["y"] for name in rows if name != "split" for row in rows[name]})


def test_several_detail_tables(site: Site) -> None:
    """Each record gets its own rows of each, whatever the page and the direction; some have none."""
    bench = Workbench(site, {"topic": "t/+", "model": "tests.reader.test_read.Split", "time": "at"})
    sent = [{"at": 10 - number, "b": "x", **({"c": "y"} if number % 3 else {})} for number in range(9)]
    bench.send(*((f"t/{number % 2}", data) for number, data in enumerate(sent)), ("t/2", {}))
    assert [record.data() for record in amqtt_db.read(bench.url)][:9] == [expected(data) for data in sent[::-1]]
    assert tell(amqtt_db.read(bench.url, "t/1", newest=True, limit=2)) == [1, 3]
    bounds = [EPOCH + timedelta(seconds=seconds) for seconds in (4, 7)]
    assert tell(amqtt_db.read(bench.url, since=bounds[0], until=bounds[1])) == [6, 5, 4]
    wanted = [(10 - number, number, 0) for number in range(8, -1, -1)]
    for size in (1, 2, 3, 4, 5, 100):
        assert pages(bench.url, Selection.of("t/+"), size, BY_TIME)[:9] == wanted
    assert not bench.dead()


@contextmanager
def statements() -> Iterator[list[tuple[str, Any]]]:
    """Yield every SELECT on tables of records that is executed inside, with its parameters."""
    seen: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, sql: str, parameters: Any, *_: object) -> None:
        if "LIMIT" in sql and re.search(r"ORDER BY .*\bid\b", sql, re.DOTALL):
            seen.append((sql, parameters))

    sa.event.listen(sa.Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        sa.event.remove(sa.Engine, "before_cursor_execute", note)


@pytest.mark.slow
@pytest.mark.parametrize("model", [*MODELS, {"wide": {"table": "one"}}])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"newest": True},
        {"topic": "t/3"},
        {"topic": "t/3", "newest": True, "limit": 5},
        {"topic": "t/3", "since": second(50), "until": second(90)},
        {"since": second(50), "until": second(90)},
    ],
    ids=str,
)
def test_every_page_is_found_through_an_index(model: Any, options: dict[str, Any], tmp_path: Path) -> None:
    """SQLite neither looks at rows that are not wanted nor sorts, first page or following one."""
    bench = filled(tmp_path, model, 100, topics=20)
    with statements() as seen:
        list(amqtt_db.read(bench.url, **options))
        for order in (BY_TIME, NEWEST):
            pages(bench.url, Selection.of(options.get("topic", "t/3")), 2, order)
    assert len(seen) > 2
    for sql, parameters in seen:
        plan = [row[3] for row in bench.sql(f"EXPLAIN QUERY PLAN {sql}", parameters)]
        joined = "LEFT OUTER JOIN" in sql  # its page is sorted once more, for no database promises its order
        assert [step for step in plan if "TEMP B-TREE" in step] in ([], ["USE TEMP B-TREE FOR ORDER BY"] * joined)
        scans = [step for step in plan if step.startswith("SCAN ") and " USING INDEX " not in step]
        assert scans in ([], ["SCAN message"])  # the page itself, once it is found
        if "topic = ?" in sql and model != "wide":
            assert any("(topic=?" in step for step in plan)


def test_one_topic_of_many_is_found_at_once(tmp_path: Path) -> None:
    """The number of statements that read one topic does not depend on how many topics there are."""
    counts = []
    for topics in (2, 300):
        directory = tmp_path / str(topics)
        directory.mkdir()
        bench = filled(directory, "narrow", 600, topics)
        with statements() as seen:
            assert len(list(amqtt_db.read(bench.url, "t/1", limit=2))) == 2
        counts.append(len(seen))
    assert counts == [1, 1]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_answer(tmp_path: Path) -> None:
    """Records are fetched a page at a time."""
    bench = filled(tmp_path, "wide", 20_000, topics=1)
    peaks = []
    for limit in (4000, 20_000):
        tracemalloc.start()
        assert sum(1 for _ in amqtt_db.read(bench.url, limit=limit)) == limit
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


def test_what_is_stored_meanwhile_is_not_read(site: Site) -> None:
    """A reader sees one state of the database, however long it takes."""
    bench = filled(site, "wide", 5000)
    records = amqtt_db.read(bench.url)
    next(records)
    bench.send(("t/1", {"n": -1}), ("t/77", {"n": -2}))
    assert len(list(records)) == 4999
    assert len(list(amqtt_db.read(bench.url))) == 5002


def test_a_reading_can_be_given_up(tmp_path: Path) -> None:
    """A closed iterator leaves nothing open."""
    records = amqtt_db.read(filled(tmp_path, "wide", 3000).url)
    next(records)
    records.close()
    assert list(records) == []


def test_settings_name_a_database(tmp_path: Path) -> None:
    """The database may be given as the YAML has it."""
    bench = filled(tmp_path, "wide", 3)
    assert tell(amqtt_db.read(load_section({"database": bench.url}))) == [0, 1, 2]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"topic": "a/#/b"}, "not a topic filter"),
        ({"since": datetime(2026, 1, 1)}, "since is 2026-01-01T00:00:00; it needs a time zone"),  # noqa: DTZ001
        ({"until": datetime(2026, 1, 1)}, "until is"),  # noqa: DTZ001
        ({"limit": -1}, "limit is -1"),
    ],
)
def test_wrong_arguments_are_refused_at_once(arguments: dict[str, Any], reason: str) -> None:
    """Not only when the first record is asked for, and whether or not there is a database."""
    with pytest.raises(ValueError, match=reason):
        amqtt_db.read("sqlite:///nowhere/mqtt.db", **arguments)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("m.db", "not a database URL; expected one such as sqlite:///mqtt.db"),
        ("postgresql://mqtt:p@ss:w0rd@127.0.0.1/mqtt", "write %40 for @"),
        ("mysql://127.0.0.1", "names no database"),
    ],
)
def test_what_is_no_url_is_refused_at_once(url: str, reason: str) -> None:
    """In the words of the configuration, and nothing of a password among them."""
    with pytest.raises(ValueError, match=reason) as caught:
        amqtt_db.read(url)
    assert "w0rd" not in str(caught.value)


def test_a_damaged_database_is_an_error_of_one_line(tmp_path: Path) -> None:
    """The same holds if the damage is found only while rows are fetched."""
    bench = Workbench(tmp_path, {"topic": "#", "model": {"wide": {"table": "all"}}})
    bench.send(*(("t", {"text": "x" * 2000}) for _ in range(1000)))
    bench.close()
    content = bench.path.read_bytes()
    whole = len(content) * 3 // 4
    bench.path.write_bytes(content[:whole].ljust(len(content), b"\x00"))
    with pytest.raises(DatabaseError, match="the database answers: DatabaseError: database disk image is malformed"):
        list(amqtt_db.read(bench.url))


@pytest.mark.parametrize(
    "written",
    [
        "2024-01-01 10:00:00+02:00",
        "2024-01-01T08:00:00Z",
        "2024-01-01 08:00:00",
        "2024-01-01 05:45:00.000000-02:15",
    ],
)
def test_times_that_somebody_edited_by_hand_are_those_that_were_meant(written: str, tmp_path: Path) -> None:
    """In the column `time` and in a property's, with or without a zone; without, they are UTC."""
    bench = Workbench(tmp_path, {"topic": "t", "entity": {"at": "datetime", "day": "datetime"}})
    bench.send(("t", {"at": "2026-01-01T00:00:00Z", "day": "2026-01-01T00:00:00Z"}))
    bench.sql("UPDATE t SET time = ?, at = ?, day = '2024-01-01'", (written, written))
    meant = datetime(2024, 1, 1, 8, tzinfo=timezone.utc)
    (record,) = amqtt_db.read(bench.url)
    assert record.time == meant
    assert record.data() == {"at": meant, "day": meant.replace(hour=0)}
    (topic,) = list_topics(bench.url)
    assert (topic.first, topic.last) == (meant, meant)


@pytest.mark.slow
@pytest.mark.parametrize("column", ["time", "at", "price"])
@pytest.mark.parametrize("written", ["yesterday", 17, b"2024"])
def test_a_value_edited_by_hand_that_is_none_is_an_error_of_one_line(
    column: str, written: object, tmp_path: Path
) -> None:
    """It says where the value is, without showing it."""
    bench = Workbench(tmp_path, {"topic": "t", "entity": {"at": "datetime", "price": "decimal"}})
    bench.send(("t", {"at": "2026-01-01T00:00:00Z", "price": "1.50"}))
    bench.sql(f"UPDATE t SET {column} = ?", (written,))
    if (column, written) == ("price", 17):
        assert next(amqtt_db.read(bench.url)).data()["price"] == 17
        return
    with pytest.raises(DatabaseError, match=f"column {column} of table t holds a value .*cannot be read: [A-Za-z]+; "):
        list(amqtt_db.read(bench.url))
    if column == "time":
        with pytest.raises(DatabaseError, match="column time of table t"):
            list_topics(bench.url)


def test_there_is_no_database(tmp_path: Path) -> None:
    """A missing file, and one without a single table, are errors of one line; the file is not made."""
    with pytest.raises(DatabaseError, match=r"database .*mqtt\.db does not exist yet"):
        list(amqtt_db.read(f"sqlite:///{tmp_path}/mqtt.db"))
    assert not (tmp_path / "mqtt.db").exists()
    (tmp_path / "mqtt.db").touch()
    with pytest.raises(DatabaseError, match="the database is empty"):
        list(amqtt_db.read(f"sqlite:///{tmp_path}/mqtt.db"))


def test_a_model_that_is_gone(tmp_path: Path) -> None:
    """Records of a model that cannot be loaded are not left out silently."""
    bench = filled(tmp_path, "eav", 2)
    bench.sql("UPDATE mqtt_assignment SET model = '{\"gone.Model\": {}}' WHERE topic = 't/1'")
    with pytest.raises(
        DatabaseError, match=r"the records of 't/1' are stored in a model that cannot be loaded: 'gone\.Model'"
    ):
        list(amqtt_db.read(bench.url))
    assert tell(amqtt_db.read(bench.url, "t/0")) == [0]


def test_a_topic_whose_messages_are_all_dead(tmp_path: Path) -> None:
    """It has a place but no table, and no records."""
    bench = Workbench(tmp_path, {"topic": "#"})
    bench.send(("a", b"{no json"), ("b", {"n": 1}))
    assert tell(amqtt_db.read(bench.url)) == [1]


CELLS: tuple[Cell, ...] = (
    *(column.name for column in ENVELOPE),
    "extra",
    ("b", "number"),
    ("b", "tagged"),
    ("a", "text"),
    ("a", "number"),
    ("{room}", "text"),
)


@given(
    st.lists(
        st.tuples(
            st.none() | st.just({"c": 1.5, "d": TaggedValue("int64", 5)}),
            *[st.none() | st.just(value) for value in (1.5, TaggedValue("int64", 7), "x", 2.5, "attic")],
        ),
        min_size=1,
        max_size=5,
    )
)
def test_the_quick_reader_of_wide_agrees_with_the_plain_one(rows: Sequence[tuple[Any, ...]]) -> None:
    """Whatever is absent in which row, the records are equal."""
    envelopes = [(number, 0, 5, "t", None, 1, False) for number in range(len(rows))]
    columns = [*zip(*(envelope + row for envelope, row in zip(envelopes, rows, strict=True)), strict=True)]
    model = bind(Wide(), Destination("t"), timed=False)
    cells, page = {"t": CELLS}, {"t": columns}
    assert [*model.reader(cells)(page)] == [*model.plain_reader(cells)(page)]


def test_following(tmp_path: Path) -> None:
    """First the newest, then each new record once: late ones, of new topics, from other journals."""
    bench = Workbench(tmp_path, {"topic": "#", "time": "at"})
    bench.send(*(("a", {"at": at}) for at in (30, 10, 20)))
    follower = Follower(bench.url)
    assert tell(follower.newest(2)) == [2, 0]
    assert tell(follower.news()) == []
    bench.send(("a", {"at": 5}), ("b", {"at": 40}))
    assert tell(follower.news()) == [3, 4]
    assert tell(follower.news()) == []
    other = Workbench(tmp_path, {"topic": "#"}, token="b")
    other.send(("a", {"at": 1}))
    bench.send(("c", {"at": 2}))
    found = [*follower.news()]
    assert {(record.topic, record.id >> 40) for record in found} == {("c", 1), ("a", 2)}
    assert len(found) == 2


def test_following_goes_on_behind_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the database becomes unavailable between two records, none is missed or repeated, whatever else was stored."""
    bench = Workbench(tmp_path, {"topic": "#"})
    follower = Follower(bench.url)
    bench.send(*(("a", {"n": n}) for n in range(3)))

    def broken(snapshot: Snapshot, selection: Selection) -> Iterator[Record]:
        yield from islice(read_records(snapshot, selection), 2)
        raise DatabaseError("away")

    with monkeypatch.context() as patch:
        patch.setattr(follow, "read_records", broken)
        news = follower.news()
        assert [next(news).data()["n"] for _ in range(2)] == [0, 1]
        with pytest.raises(DatabaseError):
            next(news)
    other = Workbench(tmp_path, {"topic": "#"}, token="b")
    other.send(("a", {"n": 4}))
    bench.send(("a", {"n": 3}))
    assert [record.data()["n"] for record in follower.news()] == [2, 3, 4]
    other.send(("a", {"n": 6}))
    bench.send(("a", {"n": 5}))
    assert [record.data()["n"] for record in follower.news()] == [5, 6]


def test_following_some_topics(tmp_path: Path) -> None:
    """Only what the filter covers, from models that share their tables too."""
    bench = Workbench(tmp_path, {"topic": "a/#", "model": "eav"}, {"topic": "#", "model": "narrow"})
    bench.send(("a/1", {"n": 0}), ("b", {"n": 1}))
    follower = Follower(bench.url, "a/#")
    assert tell(follower.newest(10)) == [0]
    bench.send(("b", {"n": 2}), ("a/1", {"n": 3}), ("a/2", {"n": 4}))
    assert [(record.topic, record.data()) for record in follower.news()] == [("a/1", {"n": 3.0}), ("a/2", {"n": 4.0})]


def test_following_looks_at_what_is_new_only(tmp_path: Path) -> None:
    """Each query uses the primary key, whatever the topics."""
    bench = filled(tmp_path, {"wide": {"table": "one"}}, 50)
    follower = Follower(bench.url, "t/1")
    follower.newest(0)
    bench.send(("t/1", {"n": 50}))
    with statements() as seen:
        assert tell(follower.news()) == [50]
    ((sql, parameters),) = seen
    (plan,) = bench.sql(f"EXPLAIN QUERY PLAN {sql}", parameters)
    assert "USING PRIMARY KEY (id>? AND id<?)" in plan[3]


@pytest.mark.parametrize(
    ("model", "table", "change"),
    [
        ("document", "mqtt_document", """data = '{"at":"yesterday"}'"""),
        ("document", "mqtt_document", "data = '[1]'"),
        ({"wide": {"table": "w"}}, "w", "extra = '[1]'"),
        ("narrow", "mqtt_point", """text = '{"$":1}'"""),
    ],
)
def test_what_no_model_writes_is_an_error_that_names_the_table(
    model: Any, table: str, change: str, tmp_path: Path
) -> None:
    """Rows that contradict each other are an error even if each column can be read."""
    bench = Workbench(tmp_path, {"topic": "#", "model": model, "entity": {"at": "datetime"}})
    bench.send(("t", {"at": "2024-01-01T00:00:00Z", "s": "x"}))
    bench.sql(f"UPDATE {table} SET {change}")
    with pytest.raises(DatabaseError, match=f"table .*{table} holds a (row|value) "):
        bench.data()


def test_following_yields_what_is_stored_meanwhile(tmp_path: Path) -> None:
    """The newest ones first, then each new one; earlier ones only on request."""
    bench = Workbench(tmp_path)
    bench.send(*(("t", {"n": number}) for number in range(3)))
    found = iter(amqtt_db.follow(bench.url, "t", last=2, interval=0.01))
    assert [next(found)["n"], next(found)["n"]] == [1, 2]
    bench.send(("t", {"n": 3}), ("other", {"n": 4}), ("t", {"n": 5}))
    assert [next(found)["n"], next(found)["n"]] == [3, 5]


@pytest.mark.slow
def test_following_in_an_event_loop(tmp_path: Path) -> None:
    """``async for`` yields the same, and other tasks run while it waits."""
    bench = Workbench(tmp_path)
    bench.send(*(("t", {"n": number}) for number in range(3)))

    async def send_more() -> None:
        for start in (3, 653):
            await asyncio.sleep(0.05)
            bench.send(*(("t", {"n": number}) for number in range(start, start + 650)))

    async def gather() -> list[float]:
        sending, found = None, []
        async for record in amqtt_db.follow(bench.url, "t", last=2, interval=0.01):
            sending = sending or asyncio.create_task(send_more())
            found.append(record["n"])
            if len(found) == 1302:
                break
        return found

    assert asyncio.run(asyncio.wait_for(gather(), 60)) == list(range(1, 1303))


def test_following_in_an_event_loop_ends_when_it_is_cancelled(tmp_path: Path) -> None:
    """In the middle of a page or of a pause; no thread and no connection stays behind."""
    bench = Workbench(tmp_path)
    bench.send(*(("t", {"n": number}) for number in range(100)))

    async def endless() -> None:
        async for _ in amqtt_db.follow(bench.url, last=100, interval=60):
            pass

    async def cancel(seconds: float) -> None:
        task = asyncio.create_task(endless())
        await asyncio.sleep(seconds)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    for seconds in (0, 0.001, 0.2):
        asyncio.run(asyncio.wait_for(cancel(seconds), 10))
    deadline = time.monotonic() + 10
    while any(thread.name.startswith("amqtt_db.follow") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("value", ["yesterday", "20231114", 1_700_000_000, datetime(2026, 1, 1)])  # noqa: DTZ001
def test_a_wrong_time_is_a_mistake_at_once(value: Any) -> None:
    """Before anything is read; the message says what would be right."""
    with pytest.raises(ValueError, match=r"ISO 8601|time zone"):
        amqtt_db.read("sqlite:///nowhere.db", since=value)


def test_times_as_text(tmp_path: Path) -> None:
    """ISO 8601, or how long ago."""
    bench = Workbench(tmp_path)
    bench.send(("t", {"n": 1}))
    assert len(list(amqtt_db.read(bench.url, since="2023-11-14T22:13:20Z", until="2023-11-14T22:13:21"))) == 1
    assert not list(amqtt_db.read(bench.url, since="2023-11-14 22:13:21"))
    assert not list(amqtt_db.read(bench.url, since="1h"))
