"""The command line, as a user meets it: real processes, a real broker, a real client."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion
from typer.testing import CliRunner, Result

from amqtt_db import config
from amqtt_db.cli import app, show
from amqtt_db.cli.demo import DEVICES
from amqtt_db.cli.serve import NotReady, addresses, preflight
from amqtt_db.journal import Journal
from amqtt_db.message import PUBLISH, flags
from amqtt_db.reader.status import read_status
from amqtt_db.writer.lock import acquire_lock
from tests.ports import free_port
from tests.workbench import Workbench

TIMEOUT = 30  # seconds that anything here may take at most


def invoke(*arguments: object) -> Result:
    """One command, in this process, with a terminal that is wide enough for its tables."""
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [*map(str, arguments)])


def configuration(directory: Path, port: int = 0, **section: Any) -> Path:
    """A broker's YAML file in ``directory``, with all its files there too."""
    defaults = {
        "database": f"sqlite:///{directory}/mqtt.db",
        "journal": {"path": f"{directory}/mqtt.journal"},
        "routes": [{"topic": "home/{room}/climate", "model": {"wide": {"table": "climate"}}}, {"topic": "#"}],
    }
    document = {
        "listeners": {"default": {"type": "tcp", "bind": f"127.0.0.1:{port or free_port()}"}},
        "plugins": {
            "amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True},
            "amqtt_db.Plugin": {**defaults, **section},
        },
    }
    path = directory / "broker.yaml"
    path.write_text(yaml.safe_dump(document), encoding="utf-8")
    return path


@contextmanager
def running(path: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A listening ``amqtt-db run`` in a separate process, and its port."""
    command = [sys.executable, "-m", "amqtt_db", "run", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"mqtt://127\.0\.0\.1:(\d+)", line)
            assert found, line + process.communicate(timeout=TIMEOUT)[1]
            yield process, int(found[1])
        finally:
            process.kill()


def publish(port: int, *messages: tuple[str, bytes]) -> None:
    """Publish at QoS 1 and wait for every acknowledgement."""
    client = Client(CallbackAPIVersion.VERSION2, client_id="tester")
    client.connect("127.0.0.1", port)
    client.loop_start()
    for topic, payload in messages:
        client.publish(topic, payload, qos=1).wait_for_publish(TIMEOUT)
    client.disconnect()
    client.loop_stop()


def rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    """Return the rows that an SQLite file answers with."""
    with closing(sqlite3.connect(path)) as database:
        return database.execute(query).fetchall()


def stored(path: Path) -> int:
    """Return how many messages ``status`` says are stored."""
    return sum(counts.stored for counts in read_status(config.load_settings(path)).counters or ())


def until(condition: Callable[[], bool]) -> None:
    """Wait for another process to make a condition true."""
    deadline = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
def test_the_version() -> None:
    """``--version`` says what is installed, also as ``python -m amqtt_db``."""
    result = invoke("--version")
    assert (result.exit_code, result.stdout.count(".") >= 2) == (0, True)
    done = subprocess.run([sys.executable, "-m", "amqtt_db", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == result.stdout


def test_importing_the_package_is_cheap() -> None:
    """``import amqtt_db`` brings neither amqtt nor SQLAlchemy; ``Plugin`` is there when it is asked for."""
    code = "import sys, amqtt_db; assert not {'amqtt', 'sqlalchemy'} & set(sys.modules); amqtt_db.Plugin"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_an_attribute_that_is_none() -> None:
    """The package has only what it says it has."""
    code = "import amqtt_db; amqtt_db.Plugni"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "module 'amqtt_db' has no attribute 'Plugni'" in done.stderr


def test_check_names_every_mistake(tmp_path: Path) -> None:
    """Each mistake is a line on stderr, the exit code is 2."""
    result = invoke("check", configuration(tmp_path, databse="x", routes=[{"topic": "a", "unknwon": "add"}]))
    assert (result.exit_code, result.stdout) == (2, "")
    assert [line.partition(": ")[2] for line in result.stderr.splitlines()] == [
        "plugins.amqtt_db.Plugin.databse: unknown key; did you mean 'database'?",
        "plugins.amqtt_db.Plugin.routes[0].unknwon: unknown key; did you mean 'unknown'?",
    ]


def test_check_shows_the_routes(tmp_path: Path) -> None:
    """A configuration without mistakes is shown as its routes; what has no effect is remarked on."""
    routes = [{"topic": "#"}, {"topic": "home/{room}", "model": {"wide": {"table": "climate"}}}]
    result = invoke("check", configuration(tmp_path, routes=routes))
    assert result.exit_code == 0
    assert "home/{room}" in result.stdout
    assert "Wide(table='climate')" in result.stdout
    assert "routes[1].topic: never matches" in result.stderr


def test_check_and_remodel_after_a_property_is_declared(tmp_path: Path) -> None:
    """`check` names the column and what `remodel` would do; `remodel` counts, and has nothing more to do."""
    old = {"topic": "home/{room}/climate", "model": {"wide": {"table": "climate"}}}
    bench = Workbench(tmp_path, old)
    bench.send(("home/attic/climate", {"n": 5}), ("home/hall/climate", {"n": 1.5}))
    bench.close()
    path = configuration(tmp_path, routes=[{**old, "entity": {"n": "int"}}])
    said = "home/{room}/climate, 2 stored topics: column climate.n holds number, and int64 is declared"
    assert said in invoke("check", path).stdout
    assert said not in invoke("check", "--offline", path).stdout
    told = invoke("remodel", path).stdout
    assert "1 record rewritten as declared; 1 value converted\n1 value kept as before" in told
    again = invoke("remodel", path).stdout.strip()
    assert again == "1 value kept as before: the declared type does not fit exactly"


def test_remodel_says_what_it_moved_and_what_had_been_moved_before(tmp_path: Path) -> None:
    """With `--drop` afterwards, only the old rows are left to be deleted."""
    bench = Workbench(tmp_path, {"topic": "#"})
    bench.send(("a", {"n": 5}), ("b", {"n": 1}))
    bench.close()
    path = configuration(tmp_path, routes=[{"topic": "#", "model": "narrow"}])
    moved = "2 records of 2 topics rewritten and compared; old rows kept; --drop deletes them"
    assert invoke("remodel", path).stdout.strip() == moved
    assert invoke("remodel", path, "--drop").stdout.strip() == "2 topics had been moved before; old rows deleted"


def test_an_empty_sample_makes_no_record(tmp_path: Path) -> None:
    """The exit code is that of a sample that would not be stored."""
    path = tmp_path / "bridge.yaml"
    path.write_text(f"broker: mqtt://localhost\ndatabase: sqlite:///{tmp_path / 'x.db'}\n")
    result = invoke("check", path, "--offline", "--topic", "a", "--payload", "")
    assert result.exit_code == 1
    assert "an empty payload makes no record" in result.stdout


def test_delete_counts_asks_and_deletes(tmp_path: Path) -> None:
    """`--dry-run` changes nothing, a question that is not answered with yes neither."""
    bench = Workbench(tmp_path, {"topic": "#"})
    bench.send(("home/attic", {"n": 5}), ("home/hall", {"n": 6}), ("home/hall", {"n": 7}))
    bench.close()
    path = configuration(tmp_path)
    assert (
        "home/hall: 2 records\n2 records of 1 topic would be deleted"
        in invoke("delete", path, "--topic", "home/hall", "--dry-run").stdout
    )
    assert invoke("delete", "home/hall", path).exit_code == 1
    assert invoke("delete", path).exit_code == 2
    assert len(bench.records()) == 3
    told = json.loads(invoke("delete", path, "--topic", "home/+", "--before", "1s", "--yes", "--json").stdout)
    assert told == {"records": 3, "topics": ["home/attic", "home/hall"], "deleted": 3}
    assert bench.records() == []
    assert "0 records deleted" in invoke("delete", path, "--topic", "none", "--before", "1s", "--yes").stdout
    result = invoke("delete", path, "--topic", "none", "--yes")
    assert (result.exit_code, "no stored topic matches none" in result.stderr) == (1, True)


def test_a_url_in_place_of_a_file_is_explained(tmp_path: Path) -> None:
    """Without a slash lost."""
    for arguments, told in (
        (("web", "mqtt://localhost"), "mqtt://localhost: is not a file"),
        (("backup", "--to", f"sqlite:///{tmp_path}/b.db"), "the path of a file, not a URL"),
    ):
        result = invoke(*arguments)
        assert (result.exit_code, told in result.stderr) == (2, True), result.stderr


def test_rename_says_what_it_did_or_why_it_did_not(tmp_path: Path) -> None:
    """In one line."""
    bench = Workbench(tmp_path, {"topic": "#"})
    bench.send(("home/attic", {"n": 5}), ("home/hall", {"n": 6}))
    bench.close()
    path = configuration(tmp_path)
    told = "1 record of home/attic would be renamed to home/loft\n"
    assert invoke("rename", "home/attic", "home/loft", path, "--dry-run").stdout == told
    assert invoke("rename", "home/attic", "home/loft", path).stdout == "1 record of home/attic renamed to home/loft\n"
    asked = invoke("rename", "home/hall", "home/loft", path)
    assert (asked.exit_code, "nothing was renamed, because" in asked.stderr) == (1, True)
    told = "1 record of home/hall renamed to home/loft, beside 1 record that home/loft has already\n"
    assert invoke("rename", "home/hall", "home/loft", path, "--yes").stdout == told
    assert [record.topic for record in bench.records()] == ["home/loft", "home/loft"]
    again = invoke("rename", "home/attic", "home/loft", path)
    assert (again.exit_code, again.stderr.startswith("nothing is stored of topic home/attic")) == (1, True)


def test_redecode_counts_and_names_what_is_refused(tmp_path: Path) -> None:
    """The exit code says if any was."""
    old = {"topic": "#", "decode": "text", "raw": True}
    bench = Workbench(tmp_path, old)
    bench.send(("x", b'{"n": 1}'), ("y", b"broken"))
    bench.close()
    path = configuration(tmp_path, routes=[{**old, "decode": "json"}])
    before = bench.records()
    assert invoke("redecode", "x", path, "--dry-run").stdout == "1 message would be stored again as 1 record\n"
    assert bench.records() == before
    assert invoke("redecode", "x", path).stdout == "1 message stored again as 1 record\n"
    nothing = invoke("redecode", "z", path)
    assert (nothing.exit_code, "no payload of topic z is kept" in nothing.stderr) == (1, True)
    result = invoke("redecode", "#", path, "--since", "2020-01-01")
    assert (result.exit_code, "y: 1 refused, and kept as before: " in result.stdout) == (1, True)


def test_check_notes_a_database_that_cannot_be_read(tmp_path: Path) -> None:
    """The configuration is as good as it was."""
    bench = Workbench(tmp_path, {"topic": "#"})
    bench.sql("UPDATE mqtt_meta SET value = '99' WHERE name = 'version'")
    result = invoke("check", configuration(tmp_path))
    assert (result.exit_code, "what is stored was not compared with the routes" in result.stderr) == (0, True)


def test_check_shows_what_a_sample_becomes(tmp_path: Path) -> None:
    """With a sample: its route, its properties with their kinds, and the DDL; nothing is changed."""
    path = configuration(tmp_path)
    result = invoke("check", path, "--topic", "home/kitchen/climate", "--payload", '{"temp": 21.5, "on": true}')
    assert result.exit_code == 0
    for part in ("route home/{room}/climate", "21.5", "number", "bool", "kitchen", "CREATE TABLE climate"):
        assert part in result.stdout
    assert not (tmp_path / "mqtt.db").exists()


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        ('{"t": 1700000000}', "2023-11-14 22:13:20.000000 UTC by t"),
        ('{"t": "soon"}', "t is missing or not a time, so the arrival time is used"),
    ],
)
def test_check_shows_a_samples_time(payload: str, says: str, tmp_path: Path) -> None:
    """With the property that it was found in, or why the arrival counts."""
    path = configuration(tmp_path, routes=[{"topic": "a", "time": "t"}])
    result = invoke("check", path, "--topic", "a", "--payload", payload)
    assert says in " ".join(result.stdout.split())


def test_check_shows_that_a_sample_is_not_stored(tmp_path: Path) -> None:
    """A route with `store: false` says so."""
    path = configuration(tmp_path, routes=[{"topic": "a", "store": False}])
    result = invoke("check", path, "--topic", "a", "--payload", "1")
    assert result.exit_code == 1
    assert "`store: false`: the message would be counted as ignored" in " ".join(result.stdout.split())


def test_check_shows_why_a_sample_would_be_dead(tmp_path: Path) -> None:
    """A sample from a file that cannot be decoded says why."""
    sample = tmp_path / "sample"
    sample.write_bytes(b"{nonsense")
    result = invoke("check", configuration(tmp_path), "--topic", "a", "--sample", sample)
    assert result.exit_code == 1
    assert "would become a dead letter" in result.stdout


def test_check_shows_that_no_route_covers_a_sample(tmp_path: Path) -> None:
    """A topic that no route covers would be ignored."""
    path = configuration(tmp_path, routes=[{"topic": "a"}])
    result = invoke("check", path, "--topic", "b", "--payload", "1")
    assert result.exit_code == 1
    assert "no route covers this topic" in result.stdout


@pytest.mark.parametrize(
    ("plugins", "is_said"),
    [
        ({}, True),
        ({"amqtt.plugins.logging_amqtt.EventLoggerPlugin": {}}, True),
        ({"amqtt.plugins.authentication.FileAuthPlugin": {}}, False),
        ({"tests.ingest.broker.test_plugin.Doorman": {}}, False),
    ],
)
def test_check_says_that_nobody_is_let_in(tmp_path: Path, plugins: dict[str, Any], is_said: bool) -> None:
    """amqtt refuses every client if no plugin authenticates."""
    path = configuration(tmp_path)
    document = yaml.safe_load(path.read_text())
    mine = {"amqtt_db.Plugin": document["plugins"]["amqtt_db.Plugin"]}
    path.write_text(yaml.safe_dump({**document, "plugins": {**plugins, **mine}}))
    result = invoke("check", path)
    assert result.exit_code == 0
    assert ("refuses every client" in result.stderr) == is_said


@pytest.mark.parametrize(
    "options",
    [["--topic", "a"], ["--payload", "1"], ["--topic", "a", "--payload", "1", "--sample", "x"], ["--sample", "x"]],
)
def test_check_needs_a_whole_sample(tmp_path: Path, options: list[str]) -> None:
    """A sample is a topic and one payload; anything else is a mistake of the command line."""
    result = invoke("check", configuration(tmp_path), *options)
    assert result.exit_code == 2
    assert "a sample needs --topic, and either --payload or --sample" in result.stderr


def test_a_missing_configuration(tmp_path: Path) -> None:
    """Every command that takes a configuration says in one line that it is not there."""
    for command in (["run"], ["check"], ["write"], ["status"], ["dead", "list"], ["dead", "show", "1"]):
        result = invoke(*command, tmp_path / "none.yaml")
        assert result.exit_code == 2
        assert result.stderr == f"{tmp_path}/none.yaml: does not exist\n"


def test_run_needs_its_port(tmp_path: Path) -> None:
    """A port in use is one line that says what to do, and exit code 1."""
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        result = invoke("run", configuration(tmp_path, port))
    assert result.exit_code == 1
    assert result.stderr == (
        f"127.0.0.1:{port} is already in use: stop the other broker or change listeners.default.bind\n"
    )
    assert not (tmp_path / "mqtt.journal").exists()


@pytest.mark.slow
def test_run_needs_a_journal_of_its_own(tmp_path: Path) -> None:
    """A journal that another broker uses is one line, and exit code 1."""
    path = configuration(tmp_path)
    with running(path):
        result = invoke("run", configuration(tmp_path))
    assert result.exit_code == 1
    assert result.stderr.startswith(f"journal {tmp_path}/mqtt.journal: another process owns it")
    assert len(result.stderr.splitlines()) == 1


def test_run_needs_its_other_plugins(tmp_path: Path) -> None:
    """A plugin that amqtt cannot import is named, without a traceback."""
    path = configuration(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace("AnonymousAuthPlugin", "NoSuchPlugin"), encoding="utf-8")
    result = invoke("run", path)
    assert result.exit_code == 1
    assert "amqtt.plugins.authentication.NoSuchPlugin" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_run_needs_its_directories(tmp_path: Path) -> None:
    """Files that cannot be made are named together, before anything starts."""
    database, journal = f"sqlite:///{tmp_path}/no/mqtt.db", {"path": f"{tmp_path}"}
    result = invoke("run", configuration(tmp_path, database=database, journal=journal))
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        f"database {tmp_path}/no/mqtt.db: the directory {tmp_path}/no does not exist; create it or choose another"
        " database",
        f"journal {tmp_path}: it is a directory; name a file",
    ]


@pytest.mark.parametrize("command", ["run", "check", "write"])
def test_a_database_that_can_never_work_is_refused(command: str, tmp_path: Path) -> None:
    """One line, instead of a writer that waits forever."""
    (tmp_path / "mqtt.db").write_text("a shopping list")
    result = invoke(command, configuration(tmp_path))
    assert result.exit_code == 1
    assert result.stderr == f"database {tmp_path}/mqtt.db: it is not an SQLite database; choose another file\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is read-only for root")
def test_run_needs_writable_files(tmp_path: Path) -> None:
    """A file that may not be written is named."""
    (tmp_path / "mqtt.db").touch(0o400)
    result = invoke("run", configuration(tmp_path))
    assert (result.exit_code, "mqtt.db: it cannot be read and written" in result.stderr) == (1, True)


@pytest.mark.parametrize(
    ("listener", "expected"),
    [
        ({"bind": "127.0.0.1:1884"}, ("mqtt", "127.0.0.1", 1884)),
        ({"bind": "127.0.0.1"}, ("mqtt", "127.0.0.1", 1883)),
        ({"bind": "localhost:1"}, ("mqtt", "localhost", 1)),
        ({"bind": ":1884"}, ("mqtt", "0.0.0.0", 1884)),  # noqa: S104
        ({"bind": "1884"}, ("mqtt", "0.0.0.0", 1884)),  # noqa: S104
        ({"bind": "[::1]:1884"}, ("mqtt", "::1", 1884)),
        ({"bind": "[::1]"}, ("mqtt", "::1", 1883)),
        ({"bind": "127.0.0.1", "type": "ws"}, ("ws", "127.0.0.1", 8883)),
        ({}, ("mqtt", "0.0.0.0", 1883)),  # noqa: S104
    ],
)
def test_addresses(listener: dict[str, Any], expected: tuple[str, str, int]) -> None:
    """Addresses are read as amqtt reads them."""
    assert addresses({"listeners": {"default": listener}}) == {"default": expected}


@pytest.mark.parametrize("bind", ["127.0.0.1:mqtt", "127.0.0.1:99999"])
def test_an_address_that_is_none(bind: str) -> None:
    """A port that is none is named with its place in the YAML."""
    with pytest.raises(NotReady, match=r"listeners\.default\.bind: expected an address"):
        addresses({"listeners": {"default": {"bind": bind}}})


@pytest.mark.parametrize("host", ["203.0.113.1", "half-\ud800", "a" * 64])
def test_an_address_that_this_machine_does_not_have(tmp_path: Path, host: str) -> None:
    """It is refused before the broker starts, as is a name that no host can have."""
    path = configuration(tmp_path)
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    document["listeners"]["default"]["bind"] = f"{host}:1883"
    with pytest.raises(NotReady, match=f"cannot listen on {host}:1883: .*; change listeners.default.bind"):
        preflight(document, config.load_document(document))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_stores_and_stops_cleanly(tmp_path: Path, number: int) -> None:
    """After Ctrl-C or SIGTERM acknowledged messages are stored once, the exit code is 0, and nothing is left."""
    path = configuration(tmp_path)
    with running(path) as (process, port):
        publish(port, *(("home/kitchen/climate", json.dumps({"temp": n + 0.5}).encode()) for n in range(50)))
        process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
    assert errors.endswith(f"stopped; journal {tmp_path / 'mqtt.journal'} is empty\n")
    found = rows(tmp_path / "mqtt.db", "SELECT room, temp FROM climate ORDER BY id")
    assert found == [("kitchen", n + 0.5) for n in range(50)]


@pytest.mark.slow
def test_dead_letters_and_status(tmp_path: Path) -> None:
    """Dead letters are listed and shown with control characters escaped; status counts every message."""
    path = configuration(tmp_path)
    with running(path) as (process, port):
        publish(port, ("evil/\x1b[31m", b"{\x1b[2Jno json"), ("fine", b'{"a": 1}'))
        process.terminate()
        process.wait(TIMEOUT)

    listed = invoke("dead", "list", path)
    assert listed.exit_code == 0
    assert r"evil/\x1b[31m" in listed.stdout
    assert "\x1b" not in listed.stdout
    (id_,) = re.findall(r"\d{12,}", listed.stdout)
    shown = invoke("dead", "show", id_, path)
    assert r"\x1b[2Jno json" in shown.stdout
    assert "decode" in shown.stdout
    assert "tester" in shown.stdout
    assert "\x1b" not in shown.stdout

    counts = json.loads(invoke("status", path, "--json").stdout)
    assert sum(counter["stored"] for counter in counts["counters"]) == 1
    assert sum(counter["dead"] for counter in counts["counters"]) == 1
    assert (counts["pending"], counts["refused"]) == (0, 0)
    table = invoke("status", path)
    assert (table.exit_code, "refused: 0   pending: 0" in table.stdout) == (0, True)


def test_a_dead_letter_that_is_none(tmp_path: Path) -> None:
    """An id without a dead letter, or no database at all, is one line and exit code 1."""
    path = configuration(tmp_path)
    result = invoke("dead", "show", 7, path)
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1


def left_behind(directory: Path) -> Path:
    """A configuration whose journal has a message that is not stored."""
    path = configuration(directory)
    journal = Journal.open(directory / "mqtt.journal", max_size=2**20, sync="always")
    journal.append(flags(PUBLISH, 1), 1_700_000_000_000_000, 0, b"home/attic/climate", b'{"temp": 1.5}')
    journal.commit()
    journal.close()
    return path


def test_status_says_where_to_look_when_nothing_is_stored(tmp_path: Path) -> None:
    """Waiting messages are not reported while a writer is storing; the log says why one cannot store."""
    told = invoke("status", left_behind(tmp_path)).stdout
    assert "warning: 1 message pending: if that lasts, the log of the broker, or of `amqtt-db write`, says" in " ".join(
        told.split()
    )
    (tmp_path / "fresh").mkdir()
    assert "if that lasts" not in invoke("status", configuration(tmp_path / "fresh")).stdout


def test_a_missing_database_is_named_in_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is in another directory than the broker sees it."""
    monkeypatch.chdir(tmp_path)
    assert f"database {tmp_path}/mqtt.db does not exist yet" in invoke("export").stderr


@pytest.mark.slow
def test_write_stores_what_is_in_the_journal(tmp_path: Path) -> None:
    """``write`` brings what a broker left in its journal to the database, and SIGTERM stops it cleanly."""
    path = left_behind(tmp_path)
    command = [sys.executable, "-m", "amqtt_db", "write", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as writer:
        until(lambda: stored(path) == 1)
        writer.terminate()
        _, errors = writer.communicate(timeout=TIMEOUT)
    assert (writer.returncode, "Traceback" in errors) == (0, False)
    assert rows(tmp_path / "mqtt.db", "SELECT room, temp FROM climate") == [("attic", 1.5)]


def test_write_is_refused_beside_another_writer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for the other one to end, then gives up with one line."""
    path = configuration(tmp_path)
    monkeypatch.setattr("amqtt_db.cli.write.OTHER_WRITER_SECONDS", 0.3)
    lock = acquire_lock(tmp_path / "mqtt.journal", config.load_settings(path).routes)
    result = invoke("write", path)
    os.close(lock)
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"another writer is using {tmp_path}/mqtt.journal; stop it first"


@pytest.mark.slow
def test_write_waits_for_a_writer_that_has_lost_its_parent(tmp_path: Path) -> None:
    """After `kill -9` and a restart at once, the old writer may still store what it can, and the next one goes on."""
    path = left_behind(tmp_path)
    command = [sys.executable, "-m", "amqtt_db", "write", str(path)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as first:
        until(lambda: stored(path) == 1)
        (child,) = Path(f"/proc/{first.pid}/task/{first.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGSTOP)  # as if it had much to store
        first.kill()
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as second:
        assert second.stderr is not None
        assert "another writer is using" in second.stderr.readline()
        os.kill(int(child), signal.SIGCONT)
        until(lambda: bool(Path(f"/proc/{second.pid}/task/{second.pid}/children").read_text().split()))
        second.terminate()
        _, errors = second.communicate(timeout=TIMEOUT)
    assert second.returncode == 0
    assert all(" INFO " in line for line in errors.splitlines())  # on a slow machine it says that it waits


@pytest.mark.slow
def test_write_can_be_stopped_while_it_waits(tmp_path: Path) -> None:
    """SIGTERM ends it at once, with nothing done."""
    path = configuration(tmp_path)
    lock = acquire_lock(tmp_path / "mqtt.journal", config.load_settings(path).routes)
    command = [sys.executable, "-m", "amqtt_db", "write", str(path)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as second:
        assert second.stderr is not None
        assert "another writer is using" in second.stderr.readline()
        second.terminate()
        _, errors = second.communicate(timeout=TIMEOUT)
    os.close(lock)
    assert (second.returncode, len(errors.splitlines()), "stopping" in errors) == (0, 1, True)


@pytest.mark.slow
def test_the_demo(tmp_path: Path) -> None:
    """The demo ends by itself and shows its tables, where they are, and a query that works."""
    command = [sys.executable, "-m", "amqtt_db", "demo", "--directory", str(tmp_path), "--seconds", "1"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    for device in DEVICES:
        assert device.topic in result.stdout
    for part in ("climate · ", "meters_main · ", "garage_door · ", str(tmp_path / "mqtt.db")):
        assert part in result.stdout
    acknowledged, stored = map(int, re.findall(r"^(\d+) messages acknowledged, (\d+) rows", result.stdout, re.M)[0])
    assert acknowledged == stored > 4
    (query,) = re.findall(r"'(SELECT .*)'$", result.stdout, re.M)
    assert rows(tmp_path / "mqtt.db", query)


def feed(directory: Path, *messages: tuple[str, Any], **section: Any) -> Path:
    """A configuration whose database has messages."""
    path = configuration(directory, **section)
    with closing(
        Workbench(directory, *yaml.safe_load(path.read_text(encoding="utf-8"))["plugins"]["amqtt_db.Plugin"]["routes"])
    ) as bench:
        bench.send(*messages)
    return path


@pytest.mark.parametrize("command", ["topics", "export", "tail", "dead list", "dead replay", "remodel"])
def test_there_is_nothing_to_read_yet(command: str, tmp_path: Path) -> None:
    """Without a database, or with an empty one, there is one line on stderr, and exit code 1; and none is made."""
    path = configuration(tmp_path)
    for reason in (f"database {tmp_path}/mqtt.db does not exist yet", "the database is empty"):
        result = invoke(*command.split(), path)
        assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (1, "", 1)
        assert result.stderr.startswith(reason)
        assert sum(file.stat().st_size for file in tmp_path.glob("mqtt.db*")) == 0
        (tmp_path / "mqtt.db").touch()


def test_topics(tmp_path: Path) -> None:
    """Topics are shown in two lines each, and as JSON; their names cannot command a terminal."""
    path = feed(tmp_path, ("home/hall/climate", {"temp": 1}), ("evil/\x1b[31m", {}), ("evil/\x1b[31m", {}))
    shown = invoke("topics", path)
    assert (shown.exit_code, "\x1b" in shown.stdout) == (0, False)
    assert shown.stdout.splitlines() == [
        r"evil/\x1b[31m  2 rows, 2023-11-14 22:13:21 to 2023-11-14 22:13:22 UTC",
        "    route #, wide: evil_31m; read from evil_31m_view",
        "home/hall/climate  1 row, 2023-11-14 22:13:20 to 2023-11-14 22:13:20 UTC",
        "    route home/{room}/climate, wide: climate; read from climate_view",
    ]
    found = json.loads(invoke("topics", path, "--json", "--topic", "home/#").stdout)
    assert found == [
        {
            "topic": "home/hall/climate",
            "route": "home/{room}/climate",
            "models": ["wide"],
            "tables": ["climate"],
            "rows": 1,
            "first": "2023-11-14T22:13:20+00:00",
            "last": "2023-11-14T22:13:20+00:00",
            "read_from": ["climate_view"],
        }
    ]
    assert invoke("topics", path, "--topic", "none").stdout == "No stored topic matches none.\n"


def test_export(tmp_path: Path) -> None:
    """Records go to standard output or to a file, which is there only when it is complete."""
    path = feed(tmp_path, *(("a", {"n": n}) for n in range(3)), ("b\x9b", {"n": 9}))
    lines = invoke("export", path).stdout.splitlines()
    assert [json.loads(line)["data"] for line in lines] == [{"n": 0}, {"n": 1}, {"n": 2}, {"n": 9}]
    assert all(line.isprintable() for line in lines)
    output = tmp_path / "out.csv"
    result = invoke("export", path, "--topic", "a", "--format", "csv", "--output", output, "--limit", 2, "--newest")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"2 records written to {output}\n")
    assert [row["n"] for row in csv.DictReader(output.read_text(encoding="utf-8").splitlines())] == ["2.0", "1.0"]
    bounds = ("--since", "2023-11-14T22:13:21Z", "--until", "2023-11-15T00:13:22+02:00")
    assert json.loads(invoke("export", path, *bounds).stdout)["data"] == {"n": 1}
    assert invoke("export", path, "--since", "1h").stdout == ""
    (tmp_path / "broken.yaml").write_text(path.read_text(encoding="utf-8").replace("mqtt.db", "none.db"), "utf-8")
    assert invoke("export", tmp_path / "broken.yaml", "--output", tmp_path / "no.jsonl").exit_code == 1
    assert {file.name for file in tmp_path.iterdir()}.isdisjoint({"no.jsonl", "no.jsonl.part", "out.csv.part"})
    told = invoke("export", path, "--output", tmp_path).stderr
    assert told == f"output {tmp_path}: it is a directory; name a file\n"
    told = invoke("export", path, "--output", tmp_path / "no" / "x.csv").stderr
    assert told == (
        f"output {tmp_path}/no/x.csv: the directory {tmp_path}/no does not exist; create it or choose another output\n"
    )


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (("--since", "yesterday"), "is not a time"),
        (("--until", "99999999999w"), "is not a time"),
        (("--topic", "a/#/b"), "is not a topic filter"),
        (("--limit", "-1"), "--limit"),
        (("--format", "xml"), "xml"),
    ],
)
def test_export_with_wrong_options(option: tuple[str, str], reason: str, tmp_path: Path) -> None:
    """A wrong option gets a message that says what is wrong, and exit code 2."""
    result = invoke("export", configuration(tmp_path), *option)
    assert result.exit_code == 2
    assert reason in result.stderr


def test_check_takes_no_filter_for_a_topic(tmp_path: Path) -> None:
    """Nobody can publish to it."""
    result = invoke("check", configuration(tmp_path), "--topic", "home/+/climate", "--payload", "1")
    assert result.exit_code == 2
    assert "is a filter" in result.stderr


@pytest.mark.parametrize("command", [("dead", "replay"), ("remodel",), ("tail",), ("topics",)], ids=" ".join)
def test_what_is_no_topic_filter_is_said(command: tuple[str, ...], tmp_path: Path) -> None:
    """By every command that takes one, with the exit code for a mistake in the command line."""
    result = invoke(*command, configuration(tmp_path), "--topic", "a/#/b")
    assert result.exit_code == 2
    assert "is not a topic filter" in result.stderr


@pytest.mark.slow
def test_export_to_somebody_who_has_seen_enough(tmp_path: Path) -> None:
    """``amqtt-db export | head`` ends without an error."""
    path = feed(tmp_path, *(("a", {"n": n, "text": "x" * 1000}) for n in range(2000)))
    command = [sys.executable, "-m", "amqtt_db", "export", str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.readline()
        process.stdout.close()
        errors = process.stderr.read()
    assert (process.returncode, errors) == (0, b"")


@pytest.mark.slow
def test_tail(tmp_path: Path) -> None:
    """The last records, then each new one as it is stored, until Ctrl-C; then the exit code is 0."""
    path = feed(tmp_path, *(("home/hall/climate", {"n": n}) for n in range(3)))
    options = ["--topic", "home/#", "--last", "2", "--interval", "0.05"]
    command = [sys.executable, "-m", "amqtt_db", "tail", str(path), *options]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process,
        closing(Workbench(tmp_path, {"topic": "#"}, token="b")) as bench,
    ):
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        bench.send(("garden", {"n": 7}), ("home/\x1b[2J", {"n": 8}))
        lines.append(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, rest, errors) == (0, "", "")
    assert [line.split(maxsplit=2)[2] for line in lines] == [
        'home/hall/climate  {"n":1.0}\n',
        'home/hall/climate  {"n":2.0}\n',
        'home/\\x1b[2J  {"n":8.0}\n',
    ]


@pytest.mark.slow
def test_tail_waits_for_a_database_that_is_away(tmp_path: Path) -> None:
    """It prints each cause once, then goes on with what was stored in the meantime."""
    path = feed(tmp_path, ("garden", {"n": 0}))
    command = [sys.executable, "-m", "amqtt_db", "tail", str(path), "--interval", "0.05"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        lines = [process.stdout.readline()]
        (tmp_path / "mqtt.db").rename(tmp_path / "elsewhere.db")
        said = process.stderr.readline()
        assert not (tmp_path / "mqtt.db").exists()
        (tmp_path / "elsewhere.db").rename(tmp_path / "mqtt.db")
        with closing(Workbench(tmp_path, {"topic": "#"}, token="b")) as bench:
            bench.send(("garden", {"n": 1}))
        lines.append(process.stdout.readline())
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, rest) == (0, ""), errors
    assert [line.rpartition("  ")[2] for line in lines] == ['{"n":0.0}\n', '{"n":1.0}\n']
    causes = [said.strip(), *errors.splitlines()]  # a look in the moment of the move finds another one
    assert [cause for cause in causes if not cause.endswith("; trying again until it works")] == []
    assert len(set(causes)) == len(causes)


@given(st.text() | st.binary())
def test_visible_is_printable(text: str | bytes) -> None:
    """Nothing that could command a terminal survives."""
    assert show.escape_text(text).isprintable()


@given(st.text(st.characters(categories=["L", "N", "P"])))
def test_visible_leaves_plain_text_alone(text: str) -> None:
    """Letters of every script stay as they are."""
    assert show.escape_text(text) == text
