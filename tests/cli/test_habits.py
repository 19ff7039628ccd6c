"""What one expects of a command line: help, JSON, the configuration that lies here, and plain text on demand."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml
from typer.testing import CliRunner

from amqtt_db.cli import app
from amqtt_db.journal import Journal
from tests.cli.test_cli import configuration, feed, invoke, left_behind
from tests.docs.test_docs import commands
from tests.workbench import Sent, Workbench

MAIN = [sys.executable, "-m", "amqtt_db"]


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """No variable of the user's own has a say."""
    for name in ("AMQTT_DB_CONFIG", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


def run(*arguments: object, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a directory."""
    return subprocess.run(
        [*MAIN, *map(str, arguments)], cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("name", dict(commands(typer.main.get_command(app))))
def test_every_command_has_a_short_help(name: str) -> None:
    """``-h`` is ``--help``."""
    words = name.split()[1:]
    assert (short := invoke(*words, "-h")).exit_code == 0
    assert short.stdout == invoke(*words, "--help").stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "found"), [("amqtt-db jour", "journal"), ("amqtt-db dead re", "replay"), ("amqtt-db tail --j", "--json")]
)
def test_a_shell_completes_commands_and_options(words: str, found: str) -> None:
    """It asks like the script that ``--show-completion`` prints."""
    code = "import sys; sys.argv[0] = 'amqtt-db'; from amqtt_db.cli import main; main()"
    asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" ")), "_AMQTT_DB_COMPLETE": "complete_bash"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env={**os.environ, **asked}, capture_output=True, text=True, check=False)
    assert (done.stdout.split(), done.stderr) == ([found], "")


def test_the_configuration_that_lies_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable comes first, then the two names; which file was taken is said on stderr."""
    monkeypatch.chdir(tmp_path)
    assert invoke("check").stderr == "configuration: built-in (there is no amqtt-db.yaml and no broker.yaml here)\n"
    configuration(tmp_path)
    assert invoke("check").stderr == "configuration: broker.yaml (found here)\n"
    Path("broker.yaml").rename("amqtt-db.yaml")
    configuration(tmp_path)
    assert invoke("check").stderr == "configuration: amqtt-db.yaml (found here)\n"
    assert invoke("check", "broker.yaml").stderr == ""
    monkeypatch.setenv("AMQTT_DB_CONFIG", str(tmp_path / "none.yaml"))
    told = invoke("status")
    assert told.exit_code == 2
    assert told.stderr.splitlines() == [
        f"configuration: {tmp_path}/none.yaml (from AMQTT_DB_CONFIG)",
        f"{tmp_path}/none.yaml: does not exist; did you mean {tmp_path}/broker.yaml?",
    ]


@pytest.mark.slow
@pytest.mark.parametrize("command", ["check", "status"])
def test_modules_beside_the_yaml_are_found(command: str, tmp_path: Path) -> None:
    """Also from another directory."""
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    place.mkdir()
    elsewhere.mkdir()
    (place / "my_own_decoder.py").write_text("def decode(payload):\n    return {'n': 1}\n")
    feed(place, ("a", {"n": 1}))
    Journal.open(place / "mqtt.journal", max_size=2**20, sync="never").close()
    path = configuration(place, routes=[{"topic": "#", "decode": "my_own_decoder.decode"}])
    done = run(command, path, cwd=elsewhere)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_table_that_is_too_wide_becomes_lines(tmp_path: Path) -> None:
    """At 60 columns each value has a line; nothing is folded."""
    command = ["check", "--offline", str(configuration(tmp_path))]
    wide, slim = (CliRunner(env={"COLUMNS": columns}).invoke(app, command).stdout for columns in ("200", "60"))
    assert "┃ topic" in wide
    assert "topic: home/{room}/climate\n  model: Wide(table='climate')\n" in slim
    assert max(map(len, slim.splitlines())) <= 60


def test_a_sample_from_standard_input(tmp_path: Path) -> None:
    """As bytes."""
    arguments = ["check", str(configuration(tmp_path)), "--topic", "a", "--sample", "-"]
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments, input=b'{"temp": 1.5}')
    assert (result.exit_code, "temp" in result.stdout) == (0, True)


@pytest.mark.slow
def test_a_terminal_without_colour_gets_no_escapes(tmp_path: Path) -> None:
    """Neither from a table nor from an error nor from --help; with colours there are some."""
    path = left_behind(tmp_path)
    for arguments in (("status", path), ("check", path), ("-h",), ("export", "--nonsense"), ("remodel", path)):
        assert b"\x1b" not in on_terminal(*arguments, NO_COLOR="1")
    assert b"\x1b" in on_terminal("check", path)


def on_terminal(*arguments: object, **environment: str) -> bytes:
    """Return what a command writes to a terminal."""
    main, other = os.openpty()
    variables = {**os.environ, "TERM": "xterm-256color", **environment}
    with subprocess.Popen([*MAIN, *map(str, arguments)], stdout=other, stderr=other, stdin=other, env=variables):
        os.close(other)
        written = b""
        while piece := _read_piece(main):
            written += piece
    os.close(main)
    assert written
    return written


def _read_piece(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # what Linux says when nobody has the terminal open any more
        return b""


def test_dead_letters_are_never_left_out_in_silence(tmp_path: Path) -> None:
    """JSON has them all; the list for readers says that there are more."""
    path = _with_dead_letters(tmp_path, 25)
    assert len(json.loads(invoke("dead", "list", path, "--json").stdout)) == 25
    assert len(json.loads(invoke("dead", "list", path, "--json", "--limit", 5).stdout)) == 5
    lines = invoke("dead", "list", path).stdout.splitlines()
    assert len(lines) == 41
    assert lines[-1] == "There are more: --limit 200 shows up to 200, --json all."
    assert len(invoke("dead", "list", path, "--limit", 25).stdout.splitlines()) == 50


def test_one_dead_letter_as_json(tmp_path: Path) -> None:
    """With its payload; replaying tells which are left, and why."""
    path = _with_dead_letters(tmp_path, 2)
    newest, oldest = json.loads(invoke("dead", "list", path, "--json").stdout)
    found = json.loads(invoke("dead", "show", oldest["id"], path, "--json").stdout)
    assert found == oldest | {"payload": "{nonsense"}
    replayed = json.loads(invoke("dead", "replay", path, "--json").stdout)
    assert replayed["stored"] == 0
    assert [(letter["id"], bool(letter["reason"])) for letter in replayed["kept"]] == [
        (oldest["id"], True),
        (newest["id"], True),
    ]
    assert json.loads(invoke("status", left_behind_journal(tmp_path, path), "--json").stdout)["dead_letters"] == 2


def left_behind_journal(directory: Path, path: Path) -> Path:
    """Make an empty journal for a configuration, which is returned."""
    Journal.open(directory / "mqtt.journal", max_size=2**20, sync="never").close()
    return path


def _with_dead_letters(directory: Path, count: int) -> Path:
    routes = [{"topic": "#", "decode": "json"}]
    with closing(Workbench(directory, *routes, token="dead")) as bench:
        bench.send(*(Sent("a", b"{nonsense") for _ in range(count)))
    return configuration(directory, routes=routes)


def test_check_as_json(tmp_path: Path) -> None:
    """Mistakes, remarks, routes and what a sample becomes."""
    result = invoke("check", configuration(tmp_path, databse="x"), "--json")
    (mistake,) = json.loads(result.stdout)["problems"]
    assert (result.exit_code, mistake["path"]) == (2, "plugins.amqtt_db.Plugin.databse")
    routes: list[dict[str, Any]] = [{"topic": "a", "entity": {"n": "int"}, "keep": "1 h"}, {"topic": "a"}]
    path = configuration(tmp_path, routes=routes)
    found = json.loads(invoke("check", path, "--json").stdout)
    assert (found["problems"], found["brokers"], found["sample"]) == ([], [], None)
    assert [note["path"] for note in found["notes"]] == ["plugins.amqtt_db.Plugin.routes[1].topic"]
    first = found["routes"][0]
    assert (first["topic"], first["entity"], first["keep"], list(first["model"])) == ("a", ["n"], 3600, ["wide"])
    result = invoke("check", path, "--json", "--topic", "a", "--payload", '{"n": 7}')
    sample = json.loads(result.stdout)["sample"]
    assert (result.exit_code, sample["route"], sample["stored"]) == (0, "a", True)
    assert [record["data"] for record in sample["records"]] == [{"n": 7}]
    assert "CREATE TABLE" in sample["ddl"][0]
    result = invoke("check", path, "--json", "--topic", "b", "--payload", "1")
    sample = json.loads(result.stdout)["sample"]
    assert (result.exit_code, sample["route"], sample["stored"]) == (1, None, False)


def test_verify_as_json(tmp_path: Path) -> None:
    """The number of messages, or what is wrong; then the exit code is 1."""
    left_behind(tmp_path)
    journal = tmp_path / "mqtt.journal"
    assert json.loads(invoke("journal", "verify", "--journal", journal, "--json").stdout) == {
        "path": str(journal), "problems": [], "messages": 1,
    }  # fmt: skip
    with closing(sqlite3.connect(journal, isolation_level=None)) as database:
        database.execute("UPDATE entries SET blob = x'00' WHERE first = (SELECT max(first) FROM entries)")
    result = invoke("journal", "verify", "--journal", journal, "--json")
    found = json.loads(result.stdout)
    assert (result.exit_code, found["messages"], len(found["problems"])) == (1, None, 1)


@pytest.mark.slow
@pytest.mark.parametrize(("command", "key"), [("status --watch", "pending"), ("tail", "data")])
def test_what_goes_on_is_json_line_by_line(command: str, key: str, tmp_path: Path) -> None:
    """Until Ctrl-C, after which the exit code is 0."""
    feed(tmp_path, ("a", {"n": 1}), ("a", {"n": 2}))
    path = left_behind_journal(tmp_path, configuration(tmp_path))
    arguments = [*MAIN, *command.split(), str(path), "--json", "--interval", "0.05"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        lines = [process.stdout.readline() for _ in range(2)]
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")
    assert all(key in json.loads(line) for line in lines)


@pytest.mark.slow
def test_a_command_that_is_stopped(tmp_path: Path) -> None:
    """Ctrl-C in the middle of an export is no success, and no traceback."""
    path = feed(tmp_path, *(("a", {"n": n, "text": "x" * 1000}) for n in range(2000)))
    with subprocess.Popen([*MAIN, "export", str(path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, b"Traceback" in errors) == (130, False)


@pytest.mark.slow
def test_the_search_is_for_yaml_files_only(tmp_path: Path) -> None:
    """What is found must be right, like a file that was given."""
    (tmp_path / "amqtt-db.yaml").write_text(yaml.safe_dump({"broker": "nonsense"}))
    done = run("status", cwd=tmp_path)
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "configuration: amqtt-db.yaml (found here)")
    assert "broker" in done.stderr.splitlines()[1]
