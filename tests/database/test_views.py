"""Views: the same SQL gives the same rows whatever the model, and nothing about them stands in a message's way."""

from __future__ import annotations

import json
import logging
import random
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import pytest
import sqlalchemy as sa

from amqtt_db.database.engines import engine_for
from amqtt_db.models.base import Column, Layout
from amqtt_db.models.eav import TOPIC_LOOKUP
from amqtt_db.models.wide import Wide
from amqtt_db.record import Record
from amqtt_db.testing.servers import Servers
from amqtt_db.writer import view_refresh as keeping
from tests.database.engines.servers import ENGINES, Site, make_site
from tests.workbench import Sent, Workbench

MODELS: list[Any] = [{"wide": {"table": "climate"}}, "eav", "narrow", "document"]
ROUTE: dict[str, Any] = {"topic": "home/{room}/climate"}
LINES = ["wide", "eav", "narrow", "document"]


@pytest.fixture(params=ENGINES)
def sites(request: pytest.FixtureRequest, servers: Servers, tmp_path: Path) -> Iterator[list[Site]]:
    """A database for each model, on each engine that has views."""
    made = []
    contexts = []
    for name in LINES:
        (tmp_path / name).mkdir()
        context = make_site(servers, request.param, tmp_path / name)
        contexts.append(context)
        made.append(context.__enter__())
    yield made
    for context in contexts:
        context.__exit__(None, None, None)


@pytest.fixture(autouse=True)
def _restless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not delay views because the machine is slow."""
    monkeypatch.setattr(keeping, "REST_FACTOR", 0.0)
    monkeypatch.setattr(keeping, "RETRY_PAUSE", 0.0)


def history(count: int) -> list[Sent]:
    """Nested objects, drifting types, nulls, integers of all sizes, odd names: from four rooms."""
    chance = random.Random(7)
    drift = [
        21.5,
        20,
        "warm",
        None,
        True,
        2**60,
        10**25,
        [1, "x"],
        {},
        {"deep": {"er": -1}},
        1e200,
        0.1 + 0.2,
        -0.0,
        float("nan"),
        "\ud800",
    ]
    messages = []
    for index in range(count):
        data: dict[str, Any] = {"temp": round(chance.uniform(-20, 40), 2), "count": index}
        if index % 3:
            data["state"] = {"on": bool(index % 2), "mode": chance.choice(["eco", "día", None]), "a.b": index}
        if index % 5 == 0:
            data["drift"] = drift[index // 5 % len(drift)]
        if index % 7 == 0:
            data |= {"Temp": "hot", 'q"uo\\te': index, "$d": {"$e": "x"}, "{b": 1, "list": [{"a": None}, 1.5, "ü"]}
        if index % 11 == 5:
            data["temp"] = "n/a"
        room = chance.choice(["kitchen", "attic", "bath 'n' bed", "家"])
        messages.append(Sent(f"home/{room}/climate", data, index % 3, index % 4 == 0))
    return messages


def benches(sites: list[Site], **route: Any) -> list[Workbench]:
    """A writer for each model, all with the same route."""
    return [Workbench(site, {**ROUTE, **route, "model": model}) for site, model in zip(sites, MODELS, strict=True)]


def view(bench: Workbench) -> str:
    """The name of the only view."""
    ((name,),) = bench.sql("SELECT name FROM mqtt_view")
    return str(name)


def ask(bench: Workbench, query: str) -> list[tuple[Any, ...]]:
    """The answer to a query in which the view is called ``{view}``."""
    return bench.sql(query.replace("{view}", view(bench)))


def whole(bench: Workbench) -> list[dict[str, Any]]:
    """All rows by column, without ``extra``, which depends on the model."""
    names = bench.columns(view(bench))
    rows = [dict(zip(names, row, strict=True)) for row in ask(bench, "SELECT * FROM {view} ORDER BY id, part")]
    same = [{name: "NaN" if value != value else value for name, value in row.items()} for row in rows]  # noqa: PLR0124
    return [{name: value for name, value in row.items() if name != "extra"} for row in same]


def extras(bench: Workbench) -> list[Any]:
    """The column ``extra`` as plain data, because the order of keys does not matter."""
    texts = [text for (text,) in ask(bench, "SELECT extra FROM {view} ORDER BY id, part")]
    return [text and json.loads(text) for text in texts]


QUERIES = [
    "SELECT time, room, temp FROM {view} WHERE temp > 30 ORDER BY time",
    "SELECT room, count(*), min(temp), sum(count) FROM {view} GROUP BY room ORDER BY room",
    "SELECT topic, qos, retain, session, part FROM {view} WHERE qos = 1 AND temp IS NOT NULL ORDER BY id DESC LIMIT 50",
    "SELECT state_mode, state_on, count(*) FROM {view} GROUP BY state_mode, state_on ORDER BY count(*), 1, 2",
    "SELECT id, temp__text, drift, drift__text FROM {view} WHERE temp IS NULL OR drift__text = 'warm' ORDER BY id",
    "SELECT count(*) FROM {view} WHERE room = '家' AND time >= '2023-11-14 22:15:00'",
    "SELECT a.id, b.temp FROM {view} a JOIN {view} b ON b.id = a.id WHERE a.state_mode = 'eco' ORDER BY a.id",
]


@pytest.mark.slow
def test_the_same_sql_gives_the_same_rows_for_every_model(sites: list[Site]) -> None:
    """500 messages in each model: the same columns, the same rows, the same answers, and those that are right."""
    made, messages = benches(sites), history(500)
    for bench in made:
        for start in range(0, 500, 60):
            bench.send(*messages[start : start + 60])
    wide, *others = made
    assert len(whole(wide)) == 500
    answers = [ask(wide, query) for query in QUERIES]
    assert all(answers)
    for bench in others:
        assert bench.columns(view(bench)) == wide.columns(view(wide))
        assert whole(bench) == whole(wide)
        assert [ask(bench, query) for query in QUERIES] == answers
    hot = [message.payload["temp"] for message in messages if isinstance(message.payload["temp"], float)]
    assert [row[2] for row in answers[0]] == [temp for temp in hot if temp > 30]


def test_extra_is_the_json_that_a_table_stores(sites: list[Site]) -> None:
    """Beyond `max_columns`: what `wide` put there, the whole document of `document`; NULL where rows have no JSON."""
    made, messages = benches(sites, max_columns=5), history(100)
    for bench in made:
        bench.send(*messages[:50])
        bench.send(*messages[50:])
    wide, eav, narrow, document = made
    for bench in (eav, narrow, document):
        assert whole(bench) == whole(wide)
    assert sum(extra is not None for extra in extras(wide)) > 50
    stored = [text and json.loads(text) for (text,) in wide.sql("SELECT extra FROM climate ORDER BY id")]
    assert extras(wide) == stored
    assert set(extras(eav)) == set(extras(narrow)) == {None}
    plain = [index for index, message in enumerate(messages) if set(message.payload) == {"temp", "count"}]
    assert len(plain) > 10
    found = extras(document)
    assert [found[index] for index in plain] == [messages[index].payload for index in plain]


def test_spaces_at_the_end_of_names_count(sites: list[Site]) -> None:
    """Two properties that differ in nothing else have their own values."""
    for bench in benches(sites):
        bench.send(("home/x/climate", {"ä": 1, "ä ": 2}), ("home/x/climate", {"ä": 3}), ("home/x/climate", {"ä ": 4}))
        assert [(row["ä"], row["ä_"]) for row in whole(bench)] == [(1, 2), (3, None), (None, 4)]


def test_spaces_at_the_end_of_topics_count(site: Site) -> None:
    """The view of a topic that moved to a table with others shows no other topic."""
    bench = Workbench(site, {"topic": "#", "model": "wide"})
    bench.send(("a", {"v": 1}), ("a ", {"v": 2}))
    bench.restart({"topic": "#", "model": MODELS[0]})
    bench.send(("a", {"v": 3}), ("a ", {"v": 4}))
    ((name,),) = bench.sql("SELECT name FROM mqtt_view WHERE name = 'a_view'")
    assert bench.sql(f"SELECT topic, v FROM {name} ORDER BY id") == [("a", 1.0), ("a", 3.0)]


ENTITY: dict[str, Any] = {
    "at": {"type": "datetime"},
    "day": "date",
    "clock": "time",
    "price": "decimal",
    "key": "uuid",
    "number": "int",
    "share": "float",
    "tags": "list",
    "more": "dict",
    "on": "bool",
    "any": "any",
}
DECLARED: list[dict[str, Any]] = [
    {
        "at": "2026-01-31T12:00:00.000001+02:00",
        "day": "2026-01-31",
        "clock": "12:30:00",
        "price": "1.50",
        "key": "12345678-1234-5678-1234-567812345678",
        "number": 5,
        "share": 1,
        "tags": [1, "a", None],
        "more": {"a": {"b": 1}},
        "on": False,
        "any": 0.1 + 0.2,
    },
    {
        "at": "2026-01-31T12:00:00.999999Z",
        "clock": "12:30:00.25",
        "number": 2**62,
        "tags": [],
        "more": {},
        "new": 1,
        "any": True,
    },
    {
        "at": "yesterday",
        "price": "cheap",
        "number": 1.5,
        "share": "none",
        "unknown": {"a": [1]},
        "other": "x",
        "any": {"a": 5},
    },
    {"price": "-12345678901234567890.123456789", "number": -(2**63), "share": 0.1, "any": "a"},
]


@pytest.mark.parametrize("unknown", ["extra", "add"])
def test_declared_types_are_the_same_from_every_model(unknown: str, sites: list[Site]) -> None:
    """Dates, decimals, UUIDs and integers look as in their own columns; undeclared properties follow the policy."""
    made = benches(sites, entity=ENTITY, unknown=unknown)
    for bench in made:
        bench.send(*(("home/x/climate", payload) for payload in DECLARED))
    wide, *others = map(whole, made)
    assert [row["number"] for row in wide] == [5, 2**62, None, -(2**63)]
    assert (extras(made[0])[1] is None) == (unknown == "add")
    for rows in others:
        assert rows == wide


def test_a_dashboard_survives_a_change_of_model(sites: list[Site]) -> None:
    """The view keeps its name and its columns, and unites what lies in both models."""
    site = sites[0]
    bench = Workbench(site, {**ROUTE, "model": MODELS[0]})
    bench.send(("home/a/climate", {"temp": 1}), ("home/b/climate", {"temp": "x", "v": True}))
    before = whole(bench)
    for count, model in enumerate([*MODELS[1:], MODELS[0]], start=1):
        bench.restart({**ROUTE, "model": model})
        bench.send(("home/a/climate", {"temp": count + 1}))
        bench.send(("home/b/climate", {"temp": "x", "later": count}))
        assert view(bench) == "climate_view"
        rows = whole(bench)
        assert [{name: row[name] for name in before[0]} for row in rows[:2]] == before
        assert ask(bench, "SELECT temp FROM {view} WHERE room = 'a' ORDER BY id") == [
            (float(n + 1),) for n in range(count + 1)
        ]
        assert len(rows) == 2 + 2 * count
    bench.close()


def test_each_topics_table_has_its_view(site: Site) -> None:
    """`wide` without `table:`; the views stay when the route's topics go to shared tables."""
    bench = Workbench(site)
    bench.send(("a/b", {"v": 1}), ("c", {"w": 2}))
    assert bench.sql("SELECT v.key, name FROM mqtt_view v ORDER BY v.key") == [("a/b", "a_b_view"), ("c", "c_view")]
    assert bench.sql("SELECT v, topic FROM a_b_view") == [(1.0, "a/b")]
    bench.restart({"topic": "#", "model": "eav"})
    bench.send(("a/b", {"v": 2, "new": "x"}))
    bench.send(("a/b", {"v": 3, "newer": "y"}))
    bench.send(("c", {"w": 4}))
    assert bench.sql("SELECT v, new, newer FROM a_b_view ORDER BY id") == [
        (1.0, None, None),
        (2.0, "x", None),
        (3.0, None, "y"),
    ]
    assert bench.sql("SELECT topic, v, w FROM all_view ORDER BY id") == [
        ("a/b", 1.0, None),
        ("c", None, 2.0),
        ("a/b", 2.0, None),
        ("a/b", 3.0, None),
        ("c", None, 4.0),
    ]
    bench.restart()
    bench.send(("a/b", {"v": 5}), ("d", {"v": 6}))
    assert bench.sql("SELECT v FROM a_b_view ORDER BY id") == [(1.0,), (2.0,), (3.0,), (5.0,)]
    assert bench.sql("SELECT count(*) FROM all_view") == [(7,)]


def test_two_routes_in_the_same_tables_have_their_own_views(tmp_path: Path) -> None:
    """Each shows its own topics, and new ones without being recreated; a topic that moves takes its records along."""
    bench = Workbench(tmp_path, {"topic": "a/+", "model": "eav"}, {"topic": "b/+", "model": "eav"})
    bench.send(("a/1", {"v": 1}), ("b/1", {"v": 2}))
    statements = bench.sql("SELECT sql FROM sqlite_master WHERE type = 'view' ORDER BY name")
    bench.send(("a/2", {"v": 3}))
    assert bench.sql("SELECT sql FROM sqlite_master WHERE type = 'view' ORDER BY name") == statements
    assert bench.sql("SELECT topic, v FROM a_view ORDER BY id") == [("a/1", 1.0), ("a/2", 3.0)]
    assert bench.sql("SELECT v FROM b_view") == [(2.0,)]
    bench.restart({"topic": "a/2", "model": "document"}, {"topic": "a/+", "model": "eav"})
    bench.send(("a/2", {"v": 4}))
    assert bench.sql("SELECT v FROM a_2_view ORDER BY id") == [(3.0,), (4.0,)]
    assert bench.sql("SELECT v FROM a_view") == [(1.0,)]


def test_two_routes_in_one_wide_table_have_one_view(site: Site) -> None:
    """It is called after the table, and shows all of it; a route that is added to the table joins the view."""
    shared = {"model": {"wide": {"table": "zigbee"}}}
    bench = Workbench(site, {"topic": "z/lamp/+", **shared}, {"topic": "z/door/+", **shared})
    bench.send(("z/lamp/1", {"v": 1}), ("z/door/1", {"v": 2}))
    bench.send(("z/door/2", {"v": 3, "open": True}))
    assert bench.sql("SELECT name FROM mqtt_view") == [("zigbee_view",)]
    assert bench.sql("SELECT topic, v FROM zigbee_view ORDER BY id") == [
        ("z/lamp/1", 1.0),
        ("z/door/1", 2.0),
        ("z/door/2", 3.0),
    ]
    bench.restart({"topic": "a/+", **shared}, {"topic": "z/door/+", **shared}, {"topic": "z/lamp/+", **shared})
    bench.send(("a/1", {"v": 4}))
    assert bench.sql("SELECT name FROM mqtt_view") == [("zigbee_view",)]
    assert bench.sql("SELECT v FROM zigbee_view ORDER BY id") == [(1.0,), (2.0,), (3.0,), (4.0,)]


def test_a_route_that_leaves_a_shared_table_takes_its_records_along(tmp_path: Path) -> None:
    """Then there are two views, each with the records of its route, old and new."""
    shared = {"model": {"wide": {"table": "zigbee"}}}
    bench = Workbench(tmp_path, {"topic": "z/lamp/+", **shared}, {"topic": "z/door/+", **shared})
    bench.send(("z/lamp/1", {"v": 1}), ("z/door/1", {"v": 2}))
    bench.restart({"topic": "z/lamp/+", **shared}, {"topic": "z/door/+", "model": "eav"})
    bench.send(("z/lamp/1", {"v": 3, "new": 1}), ("z/door/1", {"v": 4}))
    views = dict(bench.sql("SELECT key, name FROM mqtt_view"))
    values = {key: [v for (v,) in bench.sql(f"SELECT v FROM {name} ORDER BY id")] for key, name in views.items()}
    assert values == {"$route/z/door/+": [2.0, 4.0], "$route/z/lamp/+": [1.0, 3.0]}


def test_names_of_views_never_meet_those_of_tables(tmp_path: Path) -> None:
    """A topic `x/view` beside `x`, in both orders; the project's own tables; a table that a route names later."""
    bench = Workbench(tmp_path)
    bench.send(("x", {"v": 1}))
    bench.send(("x/view", {"v": 2}), ("y/view", {"v": 3}), ("mqtt", {"v": 4}))
    bench.send(("y", {"v": 5}))
    names = [name for (name,) in bench.sql("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
    assert len(names) == len({name.lower() for name in names})
    for topic, value in {"x": 1, "x/view": 2, "y/view": 3, "mqtt": 4, "y": 5}.items():
        ((name,),) = bench.sql("SELECT name FROM mqtt_view WHERE key = ?", [topic])
        assert bench.sql(f'SELECT v FROM "{name}"') == [(float(value),)]
    bench.restart({"topic": "z", "model": {"wide": {"table": "x_view"}}}, {"topic": "#"})
    bench.send(("z", {"v": 6}), ("x", {"v": 7}))
    ((name,),) = bench.sql("SELECT name FROM mqtt_view WHERE key = 'x'")
    assert bench.sql(f'SELECT v FROM "{name}" ORDER BY id') == [(1.0,), (7.0,)]
    assert bench.sql("SELECT v FROM x_view") == [(6.0,)]


def test_nothing_new_takes_no_statement(tmp_path: Path) -> None:
    """A batch of known properties leaves the views alone; one new property refreshes one view."""
    bench = Workbench(tmp_path, {**ROUTE, "model": "eav"})
    bench.send(("home/a/climate", {"temp": 1, "v": 1}))
    bench.send(("home/b/climate", {"v": 1}))
    assert not _about_views(bench, {"temp": 2})
    assert _about_views(bench, {"new": 2}) == 1
    assert not _about_views(bench, {"new": 3})


def _about_views(bench: Workbench, payload: dict[str, Any]) -> int:
    statements: list[str] = []

    def note(_: object, __: object, statement: str, *___: object) -> None:
        statements.append(statement)

    sa.event.listen(bench.writer._database, "before_cursor_execute", note)
    bench.send(("home/a/climate", payload))
    sa.event.remove(bench.writer._database, "before_cursor_execute", note)
    assert any("mqtt_view" in statement for statement in statements) == any("VIEW" in s for s in statements)
    return sum(statement.startswith("CREATE VIEW") for statement in statements)


def test_a_restart_changes_no_view(tmp_path: Path) -> None:
    """Correct views are not changed; a dropped one is created again."""
    bench = Workbench(tmp_path, {**ROUTE, "model": "document"})
    bench.send(("home/a/climate", {"temp": 1, "v": 1}))
    bench.restart()
    assert _made(bench, {"v": 2}) == 0
    bench.sql("DROP VIEW home_room_climate_view")
    bench.restart()
    assert _made(bench, {"v": 3}) == 1
    assert ask(bench, "SELECT temp, v FROM {view} ORDER BY id") == [(1.0, 1.0), (None, 2.0), (None, 3.0)]


def _made(bench: Workbench, payload: dict[str, Any]) -> int:
    before = bench.sql("PRAGMA schema_version")
    bench.send(("home/a/climate", payload))
    return int(bench.sql("PRAGMA schema_version")[0][0] - before[0][0])


def test_an_error_is_said_once_and_holds_up_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If an assignment's model no longer exists, messages are stored, one line is logged, and the view comes later."""
    bench = Workbench(tmp_path, {**ROUTE, "model": "eav"})
    bench.send(("home/a/climate", {"temp": 1}))
    ((model,),) = bench.sql("SELECT model FROM mqtt_assignment")
    bench.sql("UPDATE mqtt_assignment SET model = '{\"gone.Model\": {}}'")
    with caplog.at_level(logging.ERROR):
        for count in range(3):
            bench.send(("home/a/climate", {f"p{count}": 1}))
    assert len([record for record in caplog.records if record.levelno >= logging.ERROR]) == 1
    assert bench.sql("SELECT count(*) FROM mqtt_message") == [(4,)]
    bench.sql("UPDATE mqtt_assignment SET model = ?", [model])
    bench.send(("home/a/climate", {"temp": 2}))
    assert ask(bench, "SELECT temp, p0, p1, p2 FROM {view} ORDER BY id")[-2:] == [
        (None, None, None, 1.0),
        (2.0, None, None, None),
    ]


@pytest.mark.parametrize("engine", ["postgresql", "mysql"])
def test_a_reader_of_the_view_holds_up_nothing(engine: str, request: pytest.FixtureRequest) -> None:
    """A dashboard in the middle of a long transaction: messages are stored, the view's new column waits for it."""
    site: Site = request.getfixturevalue(engine)
    bench = Workbench(site, {**ROUTE, "model": "eav"})
    bench.send(("home/a/climate", {"temp": 1}))
    database = engine_for(site.url).open(write=False)
    with database.begin() as dashboard:
        dashboard.exec_driver_sql("SELECT * FROM home_room_climate_view").all()
        bench.send(("home/a/climate", {"temp": 2, "new": 1}))
        assert len(bench.records()) == 2
        assert "new" not in bench.columns(view(bench))
    database.dispose()
    bench.send(("home/a/climate", {"temp": 3}))
    assert ask(bench, "SELECT temp, new FROM {view} ORDER BY id") == [(1.0, None), (2.0, 1.0), (3.0, None)]


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS, ids=LINES)
def test_names_that_no_sql_can_say_hold_up_no_view(model: Any, site: Site, caplog: pytest.LogCaptureFixture) -> None:
    """A property whose name has U+0000 or a lone surrogate: the view is made, and has the others' values."""
    bench = Workbench(site, {**ROUTE, "model": model, "decode": "tests.database.test_views.odd"})
    bench.send(("home/kitchen/climate", b"1"), ("home/kitchen/climate", b"2"))
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
    view = "climate_view" if model == MODELS[0] else "home_room_climate_view"
    assert bench.sql(f"SELECT plain FROM {view} ORDER BY id") == [(1.0,), (2.0,)]


def odd(payload: bytes) -> dict[str, Any]:
    """A decoder that returns properties with difficult names."""
    number = float(payload)
    return {"plain": number, "odd": {"nul\x00": number, "half\ud800": number, "\x00": {"\udfff": number}}}


def test_grants_and_views_upon_a_view_stay(postgresql: Site) -> None:
    """On PostgreSQL a view is replaced, not dropped, so privileges and dependent views remain."""
    bench = Workbench(postgresql, {**ROUTE, "model": "document"})
    bench.send(("home/a/climate", {"temp": 1}))
    bench.sql("GRANT SELECT ON home_room_climate_view TO PUBLIC")
    bench.sql("CREATE VIEW mine AS SELECT max(temp) AS hottest FROM home_room_climate_view")
    bench.send(("home/a/climate", {"temp": 2, "another": 1}))
    assert ask(bench, "SELECT another FROM {view} ORDER BY id") == [(None,), (1.0,)]
    assert bench.sql("SELECT hottest FROM mine") == [(2.0,)]
    assert bench.sql("SELECT has_table_privilege('pg_monitor', 'home_room_climate_view', 'SELECT')") == [(True,)]


def test_four_writers_with_new_properties_end_with_one_view(tmp_path: Path) -> None:
    """Every property of every writer is a column, once."""
    made = [Workbench(tmp_path, {**ROUTE, "model": "narrow"}, token=token) for token in "abcd"]
    errors: list[BaseException] = []

    def work(index: int, bench: Workbench) -> None:
        try:
            for step in range(6):
                bench.send(("home/a/climate", {f"p{(step * (index + 3)) % 7}": step, f"own{index}": step}))
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=item) for item in enumerate(made)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for bench in made:
        bench.writer._views._not_before = 0.0
        bench.send(("home/a/climate", {"last": 1}))
    assert errors == []
    names = made[0].columns(view(made[0]))
    assert sorted(names[8:]) == sorted([*(f"p{n}" for n in range(7)), *(f"own{n}" for n in range(4)), "last", "room"])
    assert ask(made[0], "SELECT count(*) FROM {view}") == [(28,)]


class Plain(Wide):
    """A user's model that wants no views."""

    def layout(self) -> Layout | None:
        """None."""
        return None


def test_a_model_without_a_layout_has_no_view(tmp_path: Path) -> None:
    """Its records are still stored; a subclass of Wide without its own layout has a view."""
    bench = Workbench(
        tmp_path,
        {"topic": "a", "model": "tests.database.test_views.Plain"},
        {"topic": "b", "model": "tests.writer.test_writer.Clumsy"},
    )
    bench.send(("a", {"v": 1}), ("b", {"v": 1}))
    assert bench.sql("SELECT name FROM mqtt_view") == [("b_view",)]
    assert bench.sql("SELECT v FROM b_view") == [(1.0,)]


@attrs.frozen
class Computing(Wide):
    """A user's model with columns in addition to the envelope: a number, a time, and a topic by its id."""

    table: str | None = "climate"

    def extra_columns(self) -> Iterable[Column]:
        """Computed ones: nullable, not nullable, over a lookup."""
        yield Column("fahrenheit", "number")
        yield Column("seen", "timestamp", nullable=False)
        yield Column("origin", lookup=TOPIC_LOOKUP, nullable=False)

    def extra_values(self, record: Record) -> Mapping[str, Any]:
        """Computed of the record."""
        kind, celsius = record.properties().get("temp", ("", 0.0))
        fahrenheit = celsius * 1.8 + 32 if kind == "number" else None
        return {"fahrenheit": fahrenheit, "seen": record.time_us, "origin": record.topic}


def test_a_models_own_columns_are_in_its_view(site: Site) -> None:
    """Typed and under their names; NULL for records in another model; a property of the same name has its own."""
    bench = Workbench(site, {**ROUTE, "model": "eav"})
    bench.send(("home/a/climate", {"temp": 10}))
    bench.restart({**ROUTE, "model": "tests.database.test_views.Computing"})
    bench.send(("home/a/climate", {"temp": 20, "seen": "by nobody"}))
    assert ask(bench, "SELECT temp, fahrenheit, origin, seen = time, seen_ FROM {view} ORDER BY id") == [
        (10.0, None, None, None, None),
        (20.0, 68.0, "home/a/climate", True, "by nobody"),
    ]
    bench.restart({**ROUTE, "model": "document"})
    bench.send(("home/a/climate", {"temp": 30}))
    assert ask(bench, "SELECT temp, fahrenheit FROM {view} ORDER BY id") == [(10.0, None), (20.0, 68.0), (30.0, None)]


def test_the_last_hour_of_a_route_is_found_by_an_index(tmp_path: Path) -> None:
    """No model's view reads a whole table for a range of time."""
    for model in MODELS[1:]:
        (tmp_path / str(model)).mkdir()
        bench = Workbench(tmp_path / str(model), {**ROUTE, "model": model})
        bench.send(*history(50))
        query = f"EXPLAIN QUERY PLAN SELECT time, temp FROM {view(bench)} WHERE time > '2030-01-01' ORDER BY time"
        with sqlite3.connect(bench.path) as connection:
            steps = [row[3] for row in connection.execute(query)]
        connection.close()
        assert any("(time>?)" in step or "time>?" in step for step in steps), steps
        assert not [step for step in steps if step.startswith(("SCAN m", "SCAN v", "MATERIALIZE"))], steps


def test_many_new_views_are_made_bit_by_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch waits for only a few of them; the others follow when there is nothing else to do.

    If many views show one table, all of them are refreshed, a few in each transaction.
    """
    monkeypatch.setattr(keeping, "VIEWS_AT_ONCE", 2)
    bench = Workbench(tmp_path)
    bench.send(*((f"t/{index}", {"v": 1}) for index in range(5)))
    assert bench.sql("SELECT count(*) FROM mqtt_view") == [(2,)]
    for _ in range(2):
        bench.writer.do_idle_work()
    assert bench.sql("SELECT count(*) FROM mqtt_view") == [(5,)]
    monkeypatch.setattr(keeping, "MOST_VIEWS", 2)
    bench.restart({"topic": "#", "model": "eav"})
    bench.send(*((f"t/{index}", {"v": 2}) for index in range(5)))
    assert [bench.sql(f"SELECT v FROM t_{index}_view ORDER BY id") for index in range(5)] == [[(1.0,), (2.0,)]] * 5


def test_views_that_are_due_when_a_writer_is_killed_are_refreshed_by_the_next(site: Site) -> None:
    """What they are to show is noted with the records, and the notes go; another writer's notes do no harm."""
    bench = Workbench(site, {"topic": "d/#", "model": "document"}, {"topic": "#", "model": "wide"})
    bench.send(("d/a", {"old": 1}), ("w", {"old": 1}))
    bench.writer.do_idle_work()
    bench.writer._views._not_before = float("inf")  # as after a slow refresh
    bench.send(("d/a", {"new": 2, "größe": "x"}), ("w", {"new": 2}))
    bench.send(("d/a", {"newer": 3}), ("other", {"n": 1}))
    assert bench.sql("SELECT count(*) FROM mqtt_view_due") == [(3,)]
    bench.close()  # as if it was killed, for it does not finish
    bench.open()
    bench.writer.do_idle_work()
    assert bench.sql("SELECT old, new, newer, größe FROM d_view ORDER BY id") == [
        (1.0, None, None, None), (None, 2.0, None, "x"), (None, None, 3.0, None)
    ]  # fmt: skip
    assert bench.sql("SELECT old, new FROM w_view ORDER BY id") == [(1.0, None), (None, 2.0)]
    assert bench.sql("SELECT n FROM other_view") == [(1.0,)]
    assert bench.sql("SELECT count(*) FROM mqtt_view_due") == [(0,)]
