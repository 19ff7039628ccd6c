"""Arguments, outputs and encodings that go wrong end in one line and an honest exit code, never in a traceback."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import pytest

import amqtt_db
from amqtt_db.errors import DatabaseError, NoDatabaseYet
from tests.cli.test_cli import configuration, feed, invoke, left_behind

HUGE = "99999999999999999999"


def run(*arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
    """Run ``amqtt-db`` in a separate process."""
    options = {"stdout": subprocess.PIPE, **options}
    command = [sys.executable, "-m", "amqtt_db", *map(str, arguments)]
    return subprocess.run(command, stderr=subprocess.PIPE, timeout=60, check=False, **options)


@pytest.mark.parametrize(
    "arguments",
    [
        ("export", "--limit", HUGE),
        ("tail", "--last", HUGE),
        ("tail", "--interval", "1e300"),
        ("tail", "--interval", "nan"),
        ("dead", "list", "--limit", HUGE),
        ("dead", "show", HUGE),
        ("dead", "show", "--", "-1"),
        ("dead", "purge", "--yes", "--id", HUGE),
        ("export", "--topic", "a/\udcff"),
    ],
    ids=lambda arguments: " ".join(arguments).encode(errors="replace").decode(),
)
def test_numbers_and_texts_that_nothing_can_hold(arguments: tuple[str, ...], tmp_path: Path) -> None:
    """They are mistakes on the command line: exit code 2, no traceback."""
    command = arguments[: 2 if arguments[0] == "dead" else 1]
    options = arguments[len(command) :]
    path = configuration(tmp_path)
    result = invoke(*command, *options, path) if command == ("dead", "show") else invoke(*command, path, *options)
    assert (result.exit_code, type(result.exception)) == (2, SystemExit)
    assert "Error" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "time", ["0001-01-01T00:00+14:00", "9999-12-31T23:59-14:00", "0001-01-01", "9999-12-31T23:59:59"]
)
def test_times_at_the_ends_of_the_calendar(time: str, tmp_path: Path) -> None:
    """They bound an export, or are mistakes of the command line."""
    path = feed(tmp_path, ("a", {"n": 1}))
    result = invoke("export", path, "--since", time, "--until", time)
    assert result.exit_code in (0, 2)
    assert result.stdout == ""


def test_a_sample_that_is_not_text(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 arrive as they were typed."""
    routes = [{"topic": "#", "decode": "bytes"}]
    result = invoke("check", configuration(tmp_path, routes=routes), "--topic", "a", "--payload", "\udcff")
    assert (result.exit_code, r"\xff" in result.stdout) == (0, True)


@pytest.mark.slow
@pytest.mark.parametrize("command", ["export", "topics", "status", "--help"])
def test_standard_output_is_closed_or_full(command: str, tmp_path: Path) -> None:
    """One line on stderr, and exit code 1; and no file of the process gets the number of a closed descriptor."""
    path = feed(tmp_path, ("a", {"n": 1}))
    before = (tmp_path / "mqtt.db").read_bytes()
    left_behind(tmp_path)
    arguments = (command,) if command == "--help" else (command, path)
    closed = run(*arguments, stdout=None, preexec_fn=lambda: os.close(1))
    with open("/dev/full", "wb") as full:
        blocked = run(*arguments, stdout=full)
    for result in (closed, blocked):
        assert result.returncode == 1
        assert len(result.stderr.splitlines()) == 1, result.stderr
        assert b"Bad file descriptor" in result.stderr or b"No space left" in result.stderr
    assert (tmp_path / "mqtt.db").read_bytes() == before


@pytest.mark.slow
def test_everything_is_closed(tmp_path: Path) -> None:
    """Without standard input, output and error there is still an exit code."""
    path = feed(tmp_path, ("a", {"n": 1}))

    def close() -> None:
        os.closerange(0, 3)

    command = [sys.executable, "-m", "amqtt_db", "export", str(path), "--output", str(tmp_path / "out")]
    assert subprocess.run(command, preexec_fn=close, timeout=60, check=False).returncode == 0
    assert json.loads((tmp_path / "out").read_text())["data"] == {"n": 1}
    command = [sys.executable, "-m", "amqtt_db", "export", str(path)]
    assert subprocess.run(command, preexec_fn=close, timeout=60, check=False).returncode == 1


@pytest.mark.slow
def test_a_terminal_that_is_not_utf_8(tmp_path: Path) -> None:
    """Characters that its encoding lacks are replaced; data stays UTF-8."""
    path = feed(tmp_path, ("haus/küche/温度", {"text": "温"}))
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    for command in ("topics", "tail", "check", "status"):
        with subprocess.Popen(
            [sys.executable, "-m", "amqtt_db", command, str(path)],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            if command == "tail":
                process.send_signal(signal.SIGINT)
            rest, errors = process.communicate(timeout=60)
        assert b"Traceback" not in errors, (command, errors)
        if command in ("topics", "tail"):
            assert "küche/??".encode("latin-1") in line + rest
    exported = run("export", path, env=environment)
    assert json.loads(exported.stdout)["topic"] == "haus/küche/温度"
    assert b"Traceback" not in run("demo", "--seconds", "0.3", "--directory", tmp_path / "demo", env=environment).stderr


@pytest.mark.slow
def test_output_is_written_into_what_is_not_a_plain_file(tmp_path: Path) -> None:
    """A pipe, a device, a file with two names; ``-`` is standard output."""
    path = feed(tmp_path, ("a", {"n": 1}))
    pipe, found = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: found.append(pipe.read_text()))
    reader.start()
    assert invoke("export", path, "--output", pipe).exit_code == 0
    reader.join(60)
    assert json.loads(found[0])["data"] == {"n": 1}
    assert stat.S_ISFIFO(pipe.stat().st_mode)

    assert invoke("export", path, "--output", "/dev/null").exit_code == 0
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)

    (tmp_path / "one").write_text("long ago")
    os.link(tmp_path / "one", tmp_path / "other")
    assert invoke("export", path, "--output", tmp_path / "one").exit_code == 0
    assert json.loads((tmp_path / "other").read_text())["data"] == {"n": 1}

    result = invoke("export", path, "--output", "-")
    assert (json.loads(result.stdout)["data"], result.stderr) == ({"n": 1}, "")
    assert run("export", path, "--output", "/dev/stdout").stdout == result.stdout_bytes
    assert invoke("export", path, "--output", "/dev/full").exit_code == 1


def test_output_keeps_mode_and_link_of_a_file(tmp_path: Path) -> None:
    """A symbolic link stays one, and its target is replaced when the output is complete, with the same mode."""
    path = feed(tmp_path, ("a", {"n": 1}))
    (tmp_path / "far").mkdir()
    file, link, fresh = tmp_path / "far" / "file", tmp_path / "link", tmp_path / "fresh"
    file.write_text("long ago")
    file.chmod(0o604)
    link.symlink_to(file)
    fresh.symlink_to(tmp_path / "far" / "new")
    for output in (link, fresh):
        assert invoke("export", path, "--output", output).exit_code == 0
        assert output.is_symlink()
        assert json.loads(output.read_text())["data"] == {"n": 1}
    assert stat.S_IMODE(file.stat().st_mode) == 0o604
    assert {one.name for one in (tmp_path / "far").iterdir()} == {"file", "new"}


def test_status_says_first_what_it_cannot_read(tmp_path: Path) -> None:
    """An unreadable database is the first line, what is unknown is null in JSON, and the exit code is 1."""
    path = left_behind(tmp_path)
    (tmp_path / "mqtt.db").write_bytes(b"SQLite format 3\x00" + b"\xff" * 5000)
    shown, found = invoke("status", path), invoke("status", path, "--json")
    assert (shown.exit_code, found.exit_code) == (1, 1)
    assert shown.stdout.startswith("error: the database answers: ")
    assert "refused: 0   pending: unknown" in shown.stdout
    status = json.loads(found.stdout)
    assert (status["counters"], status["journals"], status["pending"], status["refused"]) == (None, None, None, 0)
    assert len(status["errors"]) == 1


def test_status_without_a_journal(tmp_path: Path) -> None:
    """The counters of the database are shown; what the journal would say is unknown."""
    path = feed(tmp_path, ("a", {"n": 1}))
    found = invoke("status", path, "--json")
    status = json.loads(found.stdout)
    assert (found.exit_code, status["refused"], status["pending"], status["journals"]) == (1, None, None, None)
    assert [counts["stored"] for counts in status["counters"]] == [1]
    assert "it does not exist yet" in status["errors"][0]


READ_ONLY_USER = """
import os, sys
from amqtt_db.cli import app, data, dead, journal, output, shell, show, tail
from amqtt_db.database.engines import sqlite
from amqtt_db import decode, entity, models, reader
from amqtt_db.models import document, eav, narrow, wide
from amqtt_db.reader import export, status, topics
from amqtt_db.journal import inspection
import encodings.idna, zoneinfo, rich.cells, rich._unicode_data, sqlite3.dbapi2
import sqlalchemy.dialects.sqlite.pysqlite, yaml
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
app(sys.argv[1:])
"""


@pytest.mark.slow
def test_a_user_who_may_not_write_reads_what_a_stopped_broker_left() -> None:
    """All commands that read work, and nothing is created; the whole directory may be read-only."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        path = feed(directory, *(("a", {"n": number}) for number in range(3)), ("bad", b"{"))
        left_behind(directory)
        before = {file.name for file in directory.iterdir()}
        assert not [one for one in before if one.endswith(("-wal", "-shm"))]
        for file in directory.iterdir():
            file.chmod(0o444)
        directory.chmod(0o555)
        try:
            results = {
                command: subprocess.run(
                    [sys.executable, "-c", READ_ONLY_USER, *command.split(), str(path)],
                    capture_output=True,
                    timeout=60,
                    check=False,
                    cwd="/",
                )
                for command in ("status --json", "export", "topics", "dead list", "journal info")
            }
            assert {file.name for file in directory.iterdir()} == before
            (directory / "mqtt.db").chmod(0o000)
            command = [sys.executable, "-c", READ_ONLY_USER, "topics", str(path)]
            unreadable = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd="/")
        finally:
            directory.chmod(0o755)
    assert [one.stderr for one in results.values()] == [b""] * len(results)
    assert [one.returncode for one in results.values()] == [0] * len(results)
    status = json.loads(results["status --json"].stdout)
    assert (status["pending"], status["errors"], status["counters"][0]["stored"]) == (1, [], 3)
    assert len(results["export"].stdout.splitlines()) == 3
    assert (unreadable.returncode, len(unreadable.stderr.splitlines())) == (1, 1)
    assert "mqtt.db: it cannot be read; change its permissions" in unreadable.stderr


def test_a_database_that_changes_while_it_is_read_as_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who may not write cannot lock the file either, so reading a changed file is an error."""
    monkeypatch.setattr("amqtt_db.database.engines.sqlite.must_read_as_is", lambda _: True)
    feed(tmp_path, *(("a", {"n": number}) for number in range(3)))
    found = amqtt_db.read(f"sqlite:///{tmp_path}/mqtt.db")
    next(found)
    os.utime(tmp_path / "mqtt.db")
    with pytest.raises(DatabaseError, match="was written to while it was being read"):
        list(found)


def test_a_database_that_goes_while_it_is_opened_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So a follower waits for it."""
    database = tmp_path / "mqtt.db"
    feed(tmp_path, ("a", {"n": 0}))

    def take_away(path: Path) -> bool:
        path.unlink()
        return True

    monkeypatch.setattr("amqtt_db.database.engines.sqlite.must_read_as_is", take_away)
    with pytest.raises(NoDatabaseYet):
        next(amqtt_db.read(f"sqlite:///{database}"))
