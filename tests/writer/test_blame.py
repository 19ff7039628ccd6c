"""Whose fault it is: user code and user data cost their own messages, never a neighbour's."""

from __future__ import annotations

import inspect
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from amqtt_db.message import CONNECT, Batch, flags
from amqtt_db.models import BUILTIN
from amqtt_db.testing.starting import connected
from tests.database.engines.servers import Site
from tests.workbench import Sent, Workbench
from tests.writer import user_code
from tests.writer.user_code import LOOKALIKES, NONSENSE, ODD_DATA, TANTRUMS

GOOD = {"topic": "good/#"}
USER = "tests.writer.user_code"
METHODS = {
    "tables": "Moody",
    "layout": "Moody",
    "maker": "Moody",
    "write": "MoodyWriter",
    "extra_values": "MoodyWriter",
}
MOODY = f"ValueError: no (in Moody.tables, user_code.py, line {inspect.getsourcelines(user_code.fail)[1] + 2})"
HARMLESS = ("a function that fails", "a function that returns nonsense")
EXAMPLES = 3 * settings().max_examples


def moody(method: str, mood: str, when: str = "") -> dict[str, Any]:
    """A route whose model misbehaves."""
    options = {"method": method, "mood": mood, "always": when == "always"}
    return {"topic": "moody/#", "model": {f"{USER}.{METHODS[method]}": options}, "decode": f"{USER}.decode"}


def require_neighbours(bench: Workbench, sent: list[tuple[str, Any]]) -> None:
    """Everything good is stored, and everything else is stored or a dead letter that says why."""
    good = [payload for topic, payload in sent if topic.startswith("good/")]
    assert bench.data("good/#") == good
    counts = bench.counts()
    others = counts.get("moody/#", {})
    assert others.get("stored", 0) + others.get("dead", 0) == len(sent) - len(good)
    letters = bench.dead()
    assert len(letters) == others.get("dead", 0)
    assert all(letter.step in {"decode", "deserialize", "structure", "store"} and letter.reason for letter in letters)


@pytest.mark.slow
@pytest.mark.parametrize("head", ["a,b", "a"])
def test_a_surplus_field_of_csv_is_its_messages_fault(head: str, tmp_path: Path) -> None:
    """A key that is not text makes the message a dead letter; good ones with the same keys are stored."""
    bench = Workbench(tmp_path, {"topic": "csv/#", "decode": f"{USER}.read_csv"}, GOOD)
    rows = [("csv/x", f"{head}\n1,2\n".encode()), ("good/x", {"v": 1.0}), ("csv/y", f"{head}\n1\n".encode())]
    bench.send(*rows)
    assert bench.data("good/#") == [{"v": 1.0}]
    surplus = 0 if head == "a,b" else 1
    assert [letter.topic for letter in bench.dead()] == [b"csv/x"][:surplus]
    assert len(bench.data("csv/#")) == 2 - surplus


@pytest.mark.slow
@pytest.mark.parametrize("model", BUILTIN)
@pytest.mark.parametrize("name", LOOKALIKES)
def test_what_looks_like_a_known_type_is_taken_as_what_it_is(name: str, model: str, tmp_path: Path) -> None:
    """Decoders return an OrderedDict, an IntEnum or a numpy number, alone and next to plain values."""
    bench = Workbench(tmp_path, {"topic": "moody/#", "decode": f"{USER}.decode", "model": model})
    bench.send(("moody/a", name.encode()), ("moody/a", {"a": 1}), ("moody/a", name.encode()))
    assert bench.dead() == []
    expected = LOOKALIKES[name][1]
    assert bench.data() == [expected, {"a": 1.0}, expected]


@pytest.mark.slow
@pytest.mark.parametrize("mood", [*TANTRUMS, *NONSENSE, *HARMLESS])
@pytest.mark.parametrize("method", METHODS)
def test_a_method_of_a_model_that_misbehaves_costs_only_its_messages(method: str, mood: str, tmp_path: Path) -> None:
    """After a restart, too; and the views of other routes are created."""
    bench = Workbench(tmp_path, moody(method, mood), GOOD)
    sent: list[tuple[str, Any]] = [
        ("good/a", {"v": 1.0}), ("moody/a", {"bad": 1.0}), ("moody/b", {"fine": 1.0}), ("good/a", {"v": 2.0})
    ]  # fmt: skip
    bench.send(*sent)
    bench.restart()
    sent.append(("good/b", {"w": 1.0}))
    bench.send(sent[-1])
    bench.writer.do_idle_work()
    require_neighbours(bench, sent)
    assert bench.dead() or mood not in TANTRUMS
    assert {"good_a_view", "good_b_view"} <= {name for (name,) in bench.sql("SELECT name FROM mqtt_view")}


PAYLOADS: st.SearchStrategy[Any] = st.sampled_from(
    [name.encode() for name in (*TANTRUMS, *ODD_DATA, *LOOKALIKES)]
) | st.builds(dict, bad=st.floats(0, 1))
MESSAGES = st.lists(
    st.tuples(st.sampled_from(["moody/a", "moody/b"]), PAYLOADS)
    | st.tuples(st.sampled_from(["good/a", "good/b"]), st.fixed_dictionaries({"v": st.floats(0, 1)})),
    max_size=12,
)


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    st.sampled_from(list(METHODS)), st.sampled_from([*TANTRUMS, *NONSENSE, *HARMLESS]), st.lists(MESSAGES, max_size=4)
)
@example("tables", "number", [[("good/a", {"v": 0.0}), ("moody/a", b"itself"), ("moody/a", {"bad": 0.0})]])
def test_neighbours_of_whatever_user_code_does_are_stored(
    method: str, mood: str, batches: list[list[tuple[str, Any]]]
) -> None:
    """Any decoder's data and any model's mood, in any order, in one batch or several."""
    with TemporaryDirectory() as directory:
        bench = Workbench(Path(directory), moody(method, mood), GOOD)
        for messages in batches:
            if messages:
                bench.send(*messages)
            bench.writer.do_idle_work()
        require_neighbours(bench, [message for messages in batches for message in messages])
        bench.close()


DEADLY = """
import sys
from pathlib import Path
from amqtt_db.writer.crash_guard import CrashGuard
from tests import workbench
from tests.writer import user_code
from tests.writer.test_blame import GOOD, moody
def guard(path):
    user_code.awake = True  # the routes have been read
    return CrashGuard(path, limit=0.3)
workbench.CrashGuard = guard
bench = workbench.Workbench(Path(sys.argv[1]), moody(*sys.argv[2:]), GOOD)
bench.position = bench.checkpoint
while bench.position < 5:
    suspicious = bench.guard.is_suspicious(bench.token, bench.position)
    last = bench.position + 1 if suspicious else 5
    sent = [("moody/a", {"bad": 1.0}) if n == 2 else ("good/a", {"v": float(n)}) for n in range(bench.position, last)]
    bench.send(*sent)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "mood"),
    [*((method, mood) for method in METHODS for mood in ("hang", "exit")), (next(iter(METHODS)), "polite exit")],
)
def test_a_method_that_hangs_or_exits_costs_only_its_message(method: str, mood: str, tmp_path: Path) -> None:
    """The writer is ended, and its supervisor restarts it; neighbours are stored."""
    command = [sys.executable, "-c", DEADLY, str(tmp_path), method, mood]
    codes: list[int] = []
    while not codes or (codes[-1] and len(codes) < 8):
        codes.append(subprocess.run(command, check=False, timeout=60, capture_output=True).returncode)
    assert codes[-1] == 0
    assert 1 < len(codes) <= 5
    bench = Workbench(tmp_path)
    assert bench.data("good/#") == [{"v": 1.0}, {"v": 3.0}, {"v": 4.0}]
    (letter,) = bench.dead()
    assert letter.topic == b"moody/a"
    assert "it ended the writer twice" in letter.reason


@pytest.mark.slow
@pytest.mark.parametrize("mood", [*TANTRUMS, *NONSENSE])
def test_a_model_that_never_says_its_tables_costs_only_its_messages(
    mood: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer starts, other routes and their views work, records of others are deleted in time."""
    bench = Workbench(tmp_path, moody("tables", mood, "always"), {**GOOD, "keep": "1 h"})
    monkeypatch.setattr(user_code, "awake", True)
    bench.restart()
    sent: list[tuple[str, Any]] = [("good/a", {"v": 1.0}), ("moody/a", {"fine": 1.0})]
    bench.send(*sent)
    bench.writer.do_idle_work()
    require_neighbours(bench, sent)
    assert len(bench.dead()) == 1
    assert ("good_a_view",) in bench.sql("SELECT name FROM mqtt_view")
    bench.restart()
    bench.now += 7200
    with suppress(Exception):  # it says that a model cannot be asked
        bench.writer.retention.finish()
    assert bench.data("good/#") == []


def test_a_model_that_fails_later_stops_only_its_own_views(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if its route keeps newest values, whose view it has nothing to do with."""
    route = {**moody("tables", next(iter(TANTRUMS)), "always"), "latest": True}
    bench = Workbench(tmp_path, route, GOOD)
    bench.writer._views._not_before = float("inf")  # as after a slow refresh
    bench.send(("moody/a", {"fine": 1.0}), ("good/a", {"v": 1.0}))
    monkeypatch.setattr(user_code, "awake", True)
    bench.writer.finish_views(lambda: False)
    assert {"good_a_view", "moody_latest"} <= {name for (name,) in bench.sql("SELECT name FROM mqtt_view")}


def test_a_model_that_is_gone_stops_only_its_own_view(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """If an assignment's class can no longer be imported, that is logged once, and other views are created."""
    bench = Workbench(tmp_path, {"topic": "lab/#", "model": "eav"}, GOOD)
    bench.send(("lab/a", {"v": 1.0}))
    past = "'gone', 'lab/#', '{\"gone_package.Model\": {}}'"
    columns = "hash, sequence, state, topic, key, route, model"
    bench.sql(f"INSERT INTO mqtt_assignment ({columns}) SELECT hash, 0, 'past', topic, {past} FROM mqtt_assignment")
    with caplog.at_level(logging.ERROR):
        for name in ("v", "w"):
            bench.send(("lab/a", {name: 1.0}), ("good/a", {name: 1.0}))
            bench.writer._views.finish()  # at once, also on a slow machine
    errors = [record.message for record in caplog.records if record.levelno == logging.ERROR]
    assert [error.partition(":")[0] for error in errors] == ["cannot refresh a view, because its model fails"]
    assert bench.sql("SELECT v, w FROM good_a_view ORDER BY id") == [(1.0, None), (None, 1.0)]
    assert len(bench.data("good/#")) == 2


@pytest.mark.slow
@pytest.mark.parametrize("mood", ["hang", "exit", "polite exit"])
def test_a_model_that_hangs_or_exits_when_it_is_asked_anything_is_left_alone(mood: str, tmp_path: Path) -> None:
    """If no message is to blame, at start, in views and in retention, other routes go on."""
    command = [sys.executable, "-c", DEADLY, str(tmp_path), "tables", mood, "always"]
    codes: list[int] = []
    while not codes or (codes[-1] and len(codes) < 12):
        codes.append(subprocess.run(command, check=False, timeout=60, capture_output=True).returncode)
    assert codes[-1] == 0
    bench = Workbench(tmp_path)
    assert bench.data("good/#") == [{"v": 1.0}, {"v": 3.0}, {"v": 4.0}]
    assert [letter.topic for letter in bench.dead()] == [b"moody/a"]


def test_a_dead_letter_of_a_model_says_where(tmp_path: Path) -> None:
    """The class, the method, the error, and where in the user's file it is."""
    bench = Workbench(tmp_path, moody("tables", "value error"))
    bench.send(("moody/a", {"bad": 1}))
    assert [letter.reason for letter in bench.dead()] == [MOODY]


def test_replay_tells_what_user_code_raises(tmp_path: Path) -> None:
    """A dead letter that still cannot be stored stays one."""
    bench = Workbench(tmp_path, moody("tables", "value error"))
    bench.send(("moody/a", {"bad": 1}), Sent("moody/a", b"recursion"))
    first, second = (letter.id for letter in bench.dead())
    assert bench.writer.replay_one(first) == MOODY
    assert "RecursionError" in str(bench.writer.replay_one(second))


@pytest.fixture
def latin(postgresql: Site) -> Iterator[Site]:
    """A database that cannot hold every character."""
    name = f"{sa.make_url(postgresql.url).database}_latin"
    with connected(postgresql.url) as administrator:
        administrator.execution_options(isolation_level="AUTOCOMMIT")
        administrator.exec_driver_sql(
            f"CREATE DATABASE {name} ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
        )
        try:
            yield Site(postgresql.path, sa.make_url(postgresql.url).set(database=name).render_as_string(False))
        finally:
            administrator.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("model", ["wide", {"wide": {"table": "all_of_them"}}, "eav", "narrow", "document"])
@pytest.mark.parametrize("message", [
    ("größe/你好", {"v": 1.0}),
    ("你好/größe", {"v": 1.0}),
    ("größe/kälte", {"你好": 1.0}),
    ("größe/kälte", {"v": "你好"}),
    ("größe/kälte", {"v": {"你好": ["你好"]}}),
])  # fmt: skip
def test_a_character_that_the_database_lacks_is_its_messages_fault(
    message: tuple[str, Any], model: Any, latin: Site
) -> None:
    """In a topic, a level, a property's name or a value: a dead letter, and what comes before and after is stored."""
    bench = Workbench(latin, {"topic": "good/#", "model": model}, {"topic": "{place}/+", "model": model})
    for _ in range(2):
        bench.send(("good/a", {"v": 1.0}), message, ("good/b", {"ü": 2.0}))
    assert bench.data("good/#") == 2 * [{"v": 1.0}, {"ü": 2.0}]
    letters = bench.dead()
    assert len(letters) + len(bench.records()) == 6
    assert all(letter.topic == message[0].encode() for letter in letters)
    assert letters or model == "document" or "你好" in repr(bench.data())
    bench.close()


def test_a_reason_or_a_client_with_such_a_character_is_noted_in_ascii(latin: Site) -> None:
    """A dead letter and a connection are still recorded."""
    route = {"topic": "t", "entity": {"你好": "int"}, "mismatch": "reject"}
    bench = Workbench(latin, route)
    details = json.dumps({"client_id": "你好", "username": "ü"}).encode()
    bench.store(Batch("a", [1], [0], [flags(CONNECT)], [0], [b""], [details], 2))
    bench.position = 2
    bench.send(("t", {"你好": "x"}))
    assert bench.sql("SELECT client_id, username FROM mqtt_session") == [("\\u4f60\\u597d", "\\xfc")]
    (letter,) = bench.dead()
    assert "'\\u4f60\\u597d'" in letter.reason
    bench.close()
