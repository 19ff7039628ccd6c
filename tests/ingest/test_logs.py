"""The log: what one event becomes, and where it goes."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from amqtt_db.ingest.logs import JsonFormatter

SCRIPT = """
import logging, os, sys
from pathlib import Path
from amqtt_db.config.operation import LogSettings
from amqtt_db.ingest.logs import start_logging
start_logging(LogSettings(None, sys.argv[1], Path(sys.argv[2]) if sys.argv[2] else None), logging.INFO)
mine, other = logging.getLogger("amqtt_db.mine"), logging.getLogger("other")
for log in (mine, other):
    log.debug("a"), log.info("b"), log.warning("c")
if sys.argv[2]:
    os.rename(sys.argv[2], sys.argv[2] + ".1")
mine.error("d")
"""


def run(form: str, file: str = "") -> str:
    """Log some events in a process of its own; return its stderr."""
    command = [sys.executable, "-c", SCRIPT, form, file]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def event(message: str, *arguments: object, fault: Exception | None = None) -> logging.LogRecord:
    """Return an event of second 1."""
    info = None if fault is None else (type(fault), fault, None)
    record = logging.LogRecord("amqtt_db.some", logging.WARNING, "some.py", 1, message, arguments, info)
    record.created = 1.25
    return record


def test_an_event_as_json() -> None:
    """One line of ASCII, whatever the message has in it."""
    line = JsonFormatter().format(event("client %s\n\x1b[2J\x9b \ud800", "ä"))
    assert line.isascii()
    assert line.isprintable()
    assert json.loads(line) == {
        "time": "1970-01-01T00:00:01.250+00:00",
        "level": "warning",
        "logger": "amqtt_db.some",
        "message": "client ä\n\x1b[2J\x9b \ud800",
    }


def test_an_exception_as_json() -> None:
    """Its traceback stays in the line; the writer's process has a name of its own."""
    line = JsonFormatter("amqtt_db writer").format(event("no", fault=ValueError("x")))
    found = json.loads(line)
    assert (found["logger"], found["exception"]) == ("amqtt_db writer", "ValueError: x")
    assert "\n" not in line


@pytest.mark.slow
def test_the_levels() -> None:
    """This project's events from the level on, and warnings of others."""
    lines = run("text").splitlines()
    assert [line.split(" ", 2)[2] for line in lines] == [
        "INFO amqtt_db.mine: b", "WARNING amqtt_db.mine: c", "WARNING other: c", "ERROR amqtt_db.mine: d",
    ]  # fmt: skip
    assert [json.loads(line)["message"] for line in run("json").splitlines()] == ["b", "c", "c", "d"]


def test_a_file_that_is_moved_away_is_made_again(tmp_path: Path) -> None:
    """So that it can be rotated without telling anybody."""
    file = tmp_path / "log"
    assert run("text", str(file)) == ""
    assert len((tmp_path / "log.1").read_text().splitlines()) == 3
    assert len(file.read_text().splitlines()) == 1
