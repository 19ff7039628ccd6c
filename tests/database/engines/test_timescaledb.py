"""Hypertables of a real TimescaleDB: chunks, compression, late messages, new columns, retention, remodelling."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
import sqlalchemy as sa

from amqtt_db.config import load_section
from amqtt_db.database.engines import engine_for
from amqtt_db.errors import DatabaseError
from amqtt_db.journal import Journal, read_progress
from amqtt_db.message import PUBLISH, flags
from amqtt_db.reader.topics import list_topics
from amqtt_db.testing.starting import execute
from amqtt_db.writer.crash_guard import CrashGuard
from amqtt_db.writer.loop import Stop, WriterLoop
from amqtt_db.writer.preview import preview
from amqtt_db.writer.remodel import Remodel
from amqtt_db.writer.retention import DELAY
from amqtt_db.writer.writer import Writer
from tests.database.engines.servers import Site
from tests.workbench import ARRIVAL, Workbench, routes

MODELS = ("wide", {"wide": {"table": "x"}}, "eav", "narrow", "document")
TABLES = {
    "wide": {"plant_a": "", "plant_b": ""},
    "{'wide': {'table': 'x'}}": {"x": "topic"},
    "eav": {"plant_line_message": "topic", "plant_line_value": "property"},
    "narrow": {"plant_line_message": "topic", "plant_line_point": "series"},
    "document": {"plant_line_document": "topic"},
}
"""Model → its hypertables, and what segments of their compressed chunks have in common."""

CHUNKS = {"chunk": "1 h", "compress_after": "1 day"}
UNPACKED = "timescaledb.max_tuples_decompressed_per_dml_transaction"
START = ARRIVAL / 1_000_000
HOUR = 3600.0
PATIENCE = 30.0


def _route(model: Any = "wide", **more: Any) -> dict[str, Any]:
    return {"topic": "plant/{line}", "model": model, "time": "at", "hypertable": CHUNKS, **more}


def _hours(first: int, last: int, **more: Any) -> list[tuple[str, dict[str, Any]]]:
    """Twenty messages an hour on two topics."""
    return [
        (f"plant/{'ab'[n % 2]}", {"at": START + hour * HOUR + n, "v": float(n), **more})
        for hour in range(first, last)
        for n in range(20)
    ]


def _compress(bench: Workbench) -> int:
    """Compress all chunks that are not yet; returns how many are then."""
    chunk = "format('%I.%I', chunk_schema, chunk_name)::regclass"
    bench.sql(f"SELECT compress_chunk({chunk}) FROM timescaledb_information.chunks WHERE NOT is_compressed")
    return _compressed(bench)


def _compressed(bench: Workbench) -> int:
    return int(bench.sql("SELECT count(*) FROM timescaledb_information.chunks WHERE is_compressed")[0][0])


def _data(bench: Workbench) -> list[dict[str, Any]]:
    return [{name: value for name, value in data.items() if name != "{line}"} for data in bench.data()]


def _policies(bench: Workbench, kind: str = "retention", setting: str = "drop_after") -> dict[str, timedelta]:
    rows = bench.sql(
        f"SELECT hypertable_name::text, CAST(config->>'{setting}' AS interval) "
        f"FROM timescaledb_information.jobs WHERE proc_name = 'policy_{kind}' AND hypertable_name IS NOT NULL"
    )
    return {row[0]: row[1] for row in rows}


def _run_retention(bench: Workbench) -> None:
    """Make the server run its hourly jobs now."""
    jobs = bench.sql("SELECT job_id FROM timescaledb_information.jobs WHERE proc_name = 'policy_retention'")
    execute(bench.url, *(f"CALL run_job({job})" for (job,) in jobs if job >= 1000))


@pytest.fixture
def site(timescaledb: Site) -> Site:
    """A new database whose jobs run when a test says so."""
    execute(timescaledb.url, "SELECT _timescaledb_functions.stop_background_workers()")
    return timescaledb


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_all_tables_of_a_route_are_hypertables(model: Any, site: Site) -> None:
    """With their policies, and segments and order that suit the model."""
    bench = Workbench(site, _route(model))
    bench.send(*_hours(0, 1))
    settings = bench.sql(
        "SELECT hypertable::text, segmentby, orderby FROM timescaledb_information.hypertable_columnstore_settings"
    )
    assert {table: segment or "" for table, segment, _ in settings} == TABLES[str(model)]
    assert {order for _, _, order in settings} <= {'"time" DESC,id,part', '"time" DESC,id,part,property'}
    assert _policies(bench, "compression", "compress_after") == dict.fromkeys(TABLES[str(model)], timedelta(days=1))
    lengths = bench.sql("SELECT DISTINCT time_interval FROM timescaledb_information.dimensions")
    assert lengths == [(timedelta(hours=1),)]


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_compressed_chunks_are_read_like_any_other(model: Any, site: Site) -> None:
    """By `read`, by views, by topic and by time; and `topics` counts them."""
    bench = Workbench(site, _route(model))
    sent = _hours(0, 3)
    bench.send(*sent)
    view = bench.sql("SELECT table_name::text FROM information_schema.views WHERE table_schema = 'public' ORDER BY 1")[
        0
    ][0]
    before = bench.sql(f"SELECT * FROM {view} ORDER BY id")
    assert _compress(bench) >= 3
    assert _data(bench) == [data for _, data in sent]
    assert len(bench.records("plant/a")) == 30
    assert bench.sql(f"SELECT * FROM {view} ORDER BY id") == before
    assert [topic.rows for topic in list_topics(bench.url)] == [30, 30]


@pytest.mark.parametrize("at_once", [61, 3])
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_late_messages_go_into_compressed_chunks(model: Any, at_once: int, site: Site) -> None:
    """Many or few at a time, without decompressing anything, so the server's limit on that does not matter."""
    bench = Workbench(site, _route(model))
    bench.send(*_hours(0, 3))
    chunks = _compress(bench)
    name = sa.make_url(bench.url).database
    execute(bench.url, f"ALTER DATABASE {name} SET {UNPACKED} = 1")
    bench.restart()
    late = _hours(0, 3, late=True)
    more = [*late, ("plant/a", {"at": START + 99 * HOUR, "v": 1.0})]
    for first in range(0, len(more), at_once):
        bench.send(*more[first : first + at_once])
    assert len(bench.records()) == 121
    assert _data(bench)[60:120] == [data for _, data in late]
    assert _compressed(bench) == chunks
    assert bench.dead() == []


@pytest.mark.parametrize("model", ["wide", "narrow"])
def test_late_messages_for_a_frozen_chunk_are_dead_letters(model: str, site: Site) -> None:
    """A chunk that the administrator has frozen accepts no rows; the letter says so, and the neighbours are stored."""
    bench = Workbench(site, _route(model))
    bench.send(*_hours(0, 2))
    bench.sql(
        "SELECT _timescaledb_functions.freeze_chunk(format('%I.%I', chunk_schema, chunk_name)::regclass) "
        "FROM timescaledb_information.chunks WHERE range_start <= to_timestamp(1700000000)"
    )
    bench.send(
        ("plant/a", {"at": START + 5 * HOUR, "v": 1}),
        ("plant/a", {"at": START, "v": 2}),
        ("plant/a", {"at": START + HOUR, "v": 3}),
    )
    (letter,) = bench.dead()
    assert (letter.step, letter.payload) == ("store", b'{"at": 1700000000.0, "v": 2}')
    assert "frozen" in letter.reason
    assert len(bench.records()) == 42


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_new_properties_beside_compressed_chunks(model: Any, site: Site) -> None:
    """Columns are added, and a property named in `segment_by` is used as soon as it has one."""
    chunks = {**CHUNKS, "segment_by": ["topic", "machine"]} if model in MODELS[:2] else CHUNKS
    bench = Workbench(site, _route(model, hypertable=chunks))
    bench.send(*_hours(0, 2))
    _compress(bench)
    more = _hours(0, 3, machine="m", extra=[1], other=True)
    bench.send(*more)
    assert _data(bench)[40:] == [data for _, data in more]
    if model in MODELS[:2]:
        settings = bench.sql("SELECT segmentby FROM timescaledb_information.hypertable_columnstore_settings")
        assert set(settings) == {("topic,machine",)}
    _compress(bench)
    assert _data(bench)[40:] == [data for _, data in more]


def test_changed_settings_take_effect_at_the_next_start(site: Site) -> None:
    """For chunks created or compressed from then on."""
    bench = Workbench(site, _route("eav"))
    bench.send(*_hours(0, 1))
    changed = {"chunk": "1 day", "compress_after": "5 days", "order_by": "time"}
    bench.restart(_route("eav", hypertable=changed))
    bench.send(*_hours(1, 2))
    assert set(_policies(bench, "compression", "compress_after").values()) == {timedelta(days=5)}
    orders = bench.sql("SELECT DISTINCT orderby FROM timescaledb_information.hypertable_columnstore_settings")
    assert orders == [('"time"',)]
    lengths = bench.sql("SELECT DISTINCT time_interval FROM timescaledb_information.dimensions")
    assert lengths == [(timedelta(days=1),)]
    bench.restart(_route("eav", hypertable=True))
    bench.send(*_hours(2, 3))
    assert _policies(bench, "compression", "compress_after") == {}


@pytest.mark.parametrize("model", MODELS, ids=str)
def test_keep_is_a_policy_of_the_server(model: Any, site: Site) -> None:
    """Whole chunks are deleted; values after their messages, so nobody sees a message without its values."""
    bench = Workbench(site, _route(model, keep="90 days"))
    bench.send(*_hours(0, 2))
    bench.writer.retention.finish()
    main = {"plant_line_value", "plant_line_point"}
    kept = {table: timedelta(days=90) + (DELAY if table in main else timedelta()) for table in TABLES[str(model)]}
    assert _policies(bench) == kept
    now = ("plant/a", {"at": _now(bench), "v": 1.0})
    bench.send(now)
    _compress(bench)
    _run_retention(bench)
    assert _data(bench) == [now[1]]
    assert [topic.rows for topic in list_topics(bench.url)] == [1, 0]


def _now(bench: Workbench) -> float:
    return float(bench.sql("SELECT floor(extract(epoch FROM now()))")[0][0])


def test_the_policy_is_kept_in_step(site: Site) -> None:
    """Changed and removed in the YAML, or by hand in the database; new tables get theirs without a restart."""
    bench = Workbench(site, _route(keep="90 days"))
    bench.send(*_hours(0, 1))
    assert set(_policies(bench).values()) == {timedelta(days=90)}
    bench.send(("plant/c", {"at": START, "v": 1}))
    bench.writer.do_idle_work()
    assert len(_policies(bench)) == 3
    bench.restart(_route(keep="30 days"))
    bench.writer.do_idle_work()
    assert set(_policies(bench).values()) == {timedelta(days=30)}
    bench.sql("SELECT remove_retention_policy('plant_a')")
    bench.writer.retention.finish()
    assert len(_policies(bench)) == 3
    bench.restart(_route())
    bench.writer.do_idle_work()
    assert _policies(bench) == {}


def test_the_policy_of_another_writers_hypertable_stays(site: Site) -> None:
    """The writer that has the route decides."""
    other = Workbench(site, _route(keep="90 days"), token="b")
    other.send(*_hours(0, 1))
    other.writer.retention.finish()
    bench = Workbench(site, {"topic": "#", "model": "eav", "keep": "1 h"})
    bench.now = START + 9 * HOUR
    bench.writer.retention.finish()
    assert set(_policies(bench).values()) == {timedelta(days=90)}
    assert len(bench.records()) == 20


def test_topics_of_a_hypertable_that_are_kept_less_long(site: Site) -> None:
    """The policy is for those that are kept longest; of the others the writer deletes rows, packed or not."""
    chunks = {"chunk": "1 h", "compress_after": "1 h"}
    bench = Workbench(site, _route("narrow", keep="90 days", hypertable=chunks))
    bench.send(*_hours(0, 3))
    _compress(bench)
    short = {**_route("narrow", keep="2 h", hypertable=chunks), "topic": "plant/a"}
    bench.restart(short, _route("narrow", keep="90 days", hypertable=chunks))
    bench.now = START + 3 * HOUR + 5
    bench.send(("plant/a", {"at": START + 9 * HOUR, "v": 1}))
    bench.writer.retention.finish()
    assert len(bench.records("plant/b")) == 30
    assert [record.time_us for record in bench.records("plant/a")][:-1] == [
        int((START + hour * HOUR + n) * 1_000_000) for hour, first in ((1, 6), (2, 0)) for n in range(first, 20, 2)
    ]


@contextmanager
def _remodelled(bench: Workbench, entry: dict[str, Any]) -> Iterator[Remodel]:
    remodel = Remodel(bench.url, routes(entry, url=bench.url), lambda: bench.now)
    try:
        yield remodel
    finally:
        remodel.close()


@pytest.mark.parametrize("model", ["wide", {"wide": {"table": "x"}}, "narrow"], ids=str)
def test_from_plain_tables_to_hypertables_and_back(model: Any, site: Site) -> None:
    """Records stay the same, also those that arrive in between; old rows are deleted from compressed chunks."""
    plain, chunked = _route(model, hypertable=None), _route(model)
    bench = Workbench(site, plain)
    bench.send(*_hours(0, 3))
    sent = [data for _, data in _hours(0, 3)]
    for number, entry in enumerate((chunked, plain, chunked)):
        with _remodelled(bench, entry) as remodel:
            moves = remodel.moves()
            assert len(moves) >= 2
            for move in moves:
                list(remodel.move(move))
        if number:
            _compress(bench)
        bench.restart(entry)
        bench.send(*_hours(3 + number, 4 + number))
        sent += [data for _, data in _hours(3 + number, 4 + number)]
        assert _data(bench) == sent
        with _remodelled(bench, entry) as remodel:
            for move in remodel.moves():
                list(remodel.drop(move))
        assert _data(bench) == sent
        with _remodelled(bench, entry) as remodel:
            assert remodel.moves() == []


def test_records_that_the_server_deletes_while_they_move(site: Site) -> None:
    """A comparison does not miss what is too old to be kept."""
    bench = Workbench(site, _route("eav", hypertable=None, keep="90 days"))
    now = _now(bench)
    bench.send(*_hours(0, 3), ("plant/a", {"at": now, "v": 1.0}))
    bench.now = now
    wanted = _route("wide", keep="90 days")
    with _remodelled(bench, wanted) as remodel:
        for move in remodel.moves():
            steps = remodel.move(move)
            next(steps)
            bench.restart(wanted)
            bench.writer.retention.finish()
            _run_retention(bench)
            list(steps)
    assert [data["at"] for data in _data(bench) if data["at"] >= now] == [now]


def test_without_the_extension_the_writer_waits(postgresql: Site) -> None:
    """It says at which path of the YAML, and what to do."""
    with pytest.raises(DatabaseError) as caught:
        Workbench(postgresql, {"topic": "#"}, _route())
    assert str(caught.value) == (
        "plugins.amqtt_db.Plugin.routes[1].hypertable: the database has no TimescaleDB: run CREATE EXTENSION "
        "timescaledb; in it as a superuser (the server needs shared_preload_libraries = 'timescaledb'), or leave "
        "`hypertable` out"
    )


def test_messages_wait_until_the_extension_is_there(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """The loop logs once what is missing, and stores everything as soon as it is available."""
    execute(site.url, "DROP EXTENSION timescaledb CASCADE")
    journal = Journal.open(site.path / "journal", max_size=2**30, sync="never")
    journal.append(flags(PUBLISH, 1), ARRIVAL, 0, b"plant/a", b'{"v": 1}')
    journal.commit()
    stop, guard = Stop(), CrashGuard(site.path / "attempt")
    make_writer = partial(Writer, engine_for(site.url), routes(_route(), url=site.url), guard)
    loop = threading.Thread(target=WriterLoop(journal.path, make_writer, guard, stop).run)
    loop.start()
    try:
        _await(lambda: any("CREATE EXTENSION timescaledb" in record.getMessage() for record in caplog.records))
        execute(site.url, "CREATE EXTENSION timescaledb")
        _await(lambda: read_progress(journal.path) is not None)
    finally:
        stop.request(PATIENCE)
        loop.join(PATIENCE)
        guard.close()
        journal.close()
    assert [data["v"] for data in Workbench(site, _route(), token="b").data()] == [1.0]
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1


def _await(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_sample_shows_the_hypertable_that_it_would_make(site: Site) -> None:
    """The sample shows the hypertable and creates nothing."""
    settings = load_section({"database": site.url, "routes": [_route()]})
    ddl = preview(settings, "plant/a", b'{"v": 1}').ddl
    assert any("create_hypertable" in statement for statement in ddl)
    assert any("add_compression_policy" in statement for statement in ddl)
    assert Workbench(site, _route()).sql("SELECT count(*) FROM timescaledb_information.hypertables") == [(0,)]


def test_a_limit_on_unpacking_makes_dead_letters(site: Site) -> None:
    """Older versions decompress a chunk for a late message; here a trigger raises their error."""
    bench = Workbench(site, _route({"wide": {"table": "x"}}))
    bench.send(*_hours(0, 1))
    bench.sql(
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION "
        "'tuple decompression limit exceeded by operation' USING ERRCODE = '53400'; END $$"
    )
    bench.sql("CREATE TRIGGER late BEFORE INSERT ON x FOR EACH ROW WHEN (NEW.v = 42) EXECUTE FUNCTION no()")
    bench.send(*(("plant/a", {"at": START, "v": value}) for value in (41, 42, 43)))
    (letter,) = bench.dead()
    assert "timescaledb.max_tuples_decompressed_per_dml_transaction" in letter.reason
    assert len(bench.records()) == 22


def test_remodel_while_the_jobs_of_the_server_run(timescaledb: Site) -> None:
    """Chunks that are compressed in the middle of a move lose nothing, and leave nothing behind."""
    bench = Workbench(timescaledb, _route("eav"))
    sent = _hours(0, 3)
    bench.send(*sent)
    for entry in (_route("eav", hypertable=None), _route("eav"), _route("eav", hypertable=None)):
        with _remodelled(bench, entry) as remodel:
            for move in remodel.moves():
                list(remodel.move(move))
                list(remodel.drop(move))
        bench.restart(entry)
        assert _data(bench) == [data for _, data in sent]
    assert bench.sql("SELECT count(*) FROM plant_line_value") == [(0,)]


def test_functions_are_found_in_whatever_schema_they_are(site: Site) -> None:
    """The extension may be created in a schema that is on no search path."""
    execute(site.url, "DROP EXTENSION timescaledb CASCADE")
    execute(site.url, 'CREATE SCHEMA "Time"')
    execute(site.url, 'CREATE EXTENSION timescaledb SCHEMA "Time"')
    bench = Workbench(site, _route(keep="90 days"))
    bench.send(*_hours(0, 1))
    bench.writer.retention.finish()
    assert len(_policies(bench)) == len(_policies(bench, "compression", "compress_after")) == 2


@pytest.mark.parametrize("count", [9, 90])
def test_a_column_that_nobody_fills_is_told_with_the_hypertable(count: int, site: Site) -> None:
    """Not with its chunk, whose name no user knows, however many rows there are; other topics do not hide it."""
    bench = Workbench(site, _route(time="at"))
    topics = [f"plant/t{number % 9}" for number in range(count)]
    bench.send(*((topic, {"at": START, "v": 1}) for topic in topics), ("plant/x", {"at": START, "owner": "me"}))
    bench.sql("ALTER TABLE plant_t5 ADD COLUMN owner TEXT NOT NULL DEFAULT 'nobody'")
    bench.sql("ALTER TABLE plant_t5 ALTER COLUMN owner DROP DEFAULT")
    with pytest.raises(DatabaseError, match="column owner of table plant_t5 was added by hand"):
        bench.send(*((topic, {"at": START, "v": 1}) for topic in topics), ("plant/x", {"at": START, "owner": "me"}))
