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
from hypothesis import example, given
from hypothesis import strategies as st

from amqtt_db.errors import AmqttDbError
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
WITHOUT_SHAPE = {"tables": "Moody", "extra_columns": "Moody", "extra_indexes": "Moody"}
CLASSES = {**METHODS, **WITHOUT_SHAPE, "read": "Moody"}
MOODY = f"ValueError: no (in Moody.tables, user_code.py, line {inspect.getsourcelines(user_code.fail)[1] + 2})"
HARMLESS = ("a function that fails", "a function that returns nonsense")


def moody(method: str, mood: str, when: str = "") -> dict[str, Any]:
    """A route whose model misbehaves."""
    options = {"method": method, "mood": mood, "always": when == "always"}
    return {"topic": "moody/#", "model": {f"{USER}.{CLASSES[method]}": options}, "decode": f"{USER}.decode"}


def require_neighbours(bench: Workbench, sent: list[tuple[str, Any]]) -> None:
    """Everything good is stored, and everything else is stored or a dead letter that says why."""
    good = [payload for topic, payload in sent if topic.startswith("good/")]
    assert bench.data("good/#") == good
    others = [counts for text, counts in bench.counts().items() if text.startswith("moody/")]
    stored, dead = (sum(counts.get(name, 0) for counts in others) for name in ("stored", "dead"))
    assert stored + dead == len(sent) - len(good)
    letters = bench.dead()
    assert len(letters) == dead
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
@pytest.mark.parametrize("method", METHODS)
def test_a_method_of_a_model_that_misbehaves_costs_only_its_messages(method: str, tmp_path: Path) -> None:
    """In any way, each in a route of its own; after a restart, too; and the views of other routes are created."""
    moods = [*TANTRUMS, *NONSENSE, *HARMLESS]
    own = [{**moody(method, mood), "topic": f"moody/{number}/#"} for number, mood in enumerate(moods)]
    bench = Workbench(tmp_path, *own, GOOD)
    sent: list[tuple[str, Any]] = [("good/a", {"v": 1.0})]
    for number in range(len(moods)):
        sent += [(f"moody/{number}/a", {"bad": 1.0}), (f"moody/{number}/b", {"fine": 1.0}), ("good/a", {"v": 2.0})]
    bench.send(*sent)
    bench.restart()
    sent.append(("good/b", {"w": 1.0}))
    bench.send(sent[-1])
    bench.writer._views.finish()
    require_neighbours(bench, sent)
    assert {letter.topic.split(b"/")[1] for letter in bench.dead()} >= {b"%d" % at for at in range(len(TANTRUMS))}
    assert {"good_a_view", "good_b_view"} <= {name for (name,) in bench.sql("SELECT name FROM mqtt_view")}


ENTITY = {"topic": "moody/e/#", "entity": f"{USER}.MoodyEntity"}
MEMORY = {"topic": "moody/r/#", "decode": f"{USER}.MoodyMemory"}


@pytest.mark.slow
def test_entities_and_memories_that_misbehave_cost_only_their_messages(tmp_path: Path) -> None:
    """What runs when an entity is made, and what a decoder remembers, and under which names."""
    bench = Workbench(tmp_path, ENTITY, MEMORY, GOOD)
    sent: list[tuple[str, Any]] = []
    for mood in (*TANTRUMS, *NONSENSE):
        sent += [("moody/e/a", {name: mood}) for name in ("converted", "validated", "begun")]
        sent += [(f"moody/r/{mood}", {"fine": 1.0}), ("moody/r/a", {"memory": mood}), ("good/a", {"v": 1.0})]
    for some in (sent[:40], sent[40:]):
        bench.send(*some, ("moody/e/a", {"begun": "well"}), ("moody/r/a", {"fine": 2.0}))
    require_neighbours(bench, [*sent, *4 * [("moody/", {})]])
    dead = {(letter.topic.decode(), letter.payload) for letter in bench.dead()}
    assert all((f"moody/r/{mood}", b'{"fine": 1.0}') in dead for mood in TANTRUMS)
    assert all(("moody/e/a", json.dumps({"begun": mood}).encode()) in dead for mood in TANTRUMS)
    assert [entity["begun"] for entity in bench.data("moody/e/#")].count("well") == 2
    assert bench.data("moody/r/a").count({"fine": 2.0}) == 2


PAYLOADS: st.SearchStrategy[Any] = st.sampled_from(
    [name.encode() for name in (*TANTRUMS, *ODD_DATA, *LOOKALIKES)]
) | st.builds(dict, bad=st.floats(0, 1))
MESSAGES = st.lists(
    st.tuples(st.sampled_from(["moody/a", "moody/b"]), PAYLOADS)
    | st.tuples(st.sampled_from(["good/a", "good/b"]), st.fixed_dictionaries({"v": st.floats(0, 1)})),
    max_size=12,
)


@pytest.mark.slow
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
import json, os, sys
from pathlib import Path
from amqtt_db.writer.crash_guard import CrashGuard
from tests import workbench
from tests.writer import user_code
def guard(path):
    user_code.awake = True  # the routes have been read
    return CrashGuard(path, limit=0.3)
workbench.CrashGuard = guard
def attempt(directory, routes, topic, payload):
    bench = workbench.Workbench(Path(directory), *routes)
    bench.position = bench.checkpoint
    while bench.position < 5:
        suspicious = bench.guard.is_suspicious(bench.token, bench.position)
        last = bench.position + 1 if suspicious else 5
        numbers = range(bench.position, last)
        bench.send(*((topic, payload) if n == 2 else ("good/a", {"v": float(n)}) for n in numbers))
codes = {}
for name, *case in json.load(sys.stdin):
    codes[name] = []
    while len(codes[name]) < 12 and codes[name][-1:] != [0]:
        child = os.fork()
        if not child:
            attempt(*case)
            os._exit(0)
        codes[name].append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
print(json.dumps(codes))
"""
ENDS = [
    *((code, "exit", "") for code in (*METHODS, "converted", "remembers", "memory")),
    *((code, "hang", "") for code in ("tables", "converted", "remembers")),
    ("tables", "polite exit", ""),
    *(("tables", mood, "always") for mood in ("hang", "exit")),
]
"""User code that hangs, or ends its process: the method, how, and whether it does so whatever it is asked."""


def deadly_case(method: str, mood: str, when: str) -> tuple[dict[str, Any], str, dict[str, Any]]:
    """Return a route, and a message to it that ends the writer."""
    if method == "converted":
        return ENTITY, "moody/e/a", {method: mood}
    if method == "memory":
        return MEMORY, "moody/r/a", {method: mood}
    if method == "remembers":
        return MEMORY, f"moody/r/{mood}", {}
    return moody(method, mood, when), "moody/a", {"bad": 1.0}


@pytest.fixture(scope="module")
def deaths(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, list[int]]]:
    """The directory of each case, and how each of its writers has ended: the last one well."""
    cases = {"-".join(end): (tmp_path_factory.mktemp("deaths"), deadly_case(*end)) for end in ENDS}
    work = [(name, str(path), [route, GOOD], *message) for name, (path, (route, *message)) in cases.items()]
    done = subprocess.run(
        [sys.executable, "-c", DEADLY], check=True, timeout=120, capture_output=True, input=json.dumps(work).encode()
    )
    return {name: (cases[name][0], codes) for name, codes in json.loads(done.stdout.splitlines()[-1]).items()}


@pytest.mark.slow
@pytest.mark.parametrize("end", ENDS, ids="-".join)
def test_user_code_that_hangs_or_exits_costs_only_its_message(
    end: tuple[str, str, str], deaths: dict[str, tuple[Path, list[int]]]
) -> None:
    """The writer is ended, and its supervisor restarts it; neighbours are stored."""
    path, codes = deaths["-".join(end)]
    assert codes[-1] == 0
    assert 1 < len(codes) <= (12 if "always" in end else 5)
    bench = Workbench(path)
    assert bench.data("good/#") == [{"v": 1.0}, {"v": 3.0}, {"v": 4.0}]
    (letter,) = bench.dead()
    assert letter.topic.startswith(b"moody/")
    assert "it ended the writer twice" in letter.reason or "always" in end


@pytest.mark.slow
@pytest.mark.parametrize("method", WITHOUT_SHAPE)
def test_a_model_that_never_says_its_tables_costs_only_its_messages(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writer starts, other routes and their views work, records of others are deleted in time."""
    moods = [*TANTRUMS, *NONSENSE]
    own = [{**moody(method, mood, "always"), "topic": f"moody/{number}/#"} for number, mood in enumerate(moods)]
    bench = Workbench(tmp_path, *own, {**GOOD, "keep": "1 h"})
    monkeypatch.setattr(user_code, "awake", True)
    bench.restart()
    sent: list[tuple[str, Any]] = [("good/a", {"v": 1.0})]
    sent += [(f"moody/{number}/a", {"fine": 1.0}) for number in range(len(moods))]
    bench.send(*sent)
    bench.writer.do_idle_work()
    require_neighbours(bench, sent)
    assert len(bench.dead()) == len(moods)
    assert ("good_a_view",) in bench.sql("SELECT name FROM mqtt_view")
    bench.restart()
    bench.now += 7200
    with suppress(Exception):  # it says that a model cannot be asked
        bench.writer.retention.finish()
    assert bench.data("good/#") == []


@pytest.mark.slow
def test_a_model_that_cannot_read_stops_only_who_asks_for_its_records(tmp_path: Path) -> None:
    """One line names the table and the place in the user's code; topics of other routes can still be read."""
    moods = [*TANTRUMS, *NONSENSE]
    own = [{**moody("read", mood), "topic": f"moody/{number}/#"} for number, mood in enumerate(moods)]
    bench = Workbench(tmp_path, *own, GOOD)
    bench.send(("good/a", {"v": 1.0}), *((f"moody/{number}/a", {"bad": 1.0}) for number in range(len(moods))))
    assert bench.dead() == []
    assert bench.data("good/#") == [{"v": 1.0}]
    raised = r"holds a row that Moody cannot read: \w+; correct Moody\.read \(user_code\.py, line \d+\), or the row"
    returned = r"cannot be read: Moody\.read returned a \w+, not a Record; correct Moody\.read"
    for number, mood in enumerate(moods):
        with pytest.raises(AmqttDbError, match=f"table moody_{number}_a {raised if mood in TANTRUMS else returned}"):
            bench.data(f"moody/{number}/#")


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
