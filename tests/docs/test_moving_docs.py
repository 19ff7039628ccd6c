"""The page about backups and moving: its commands run one after the other, and print what the page shows."""

from __future__ import annotations

import shlex
import subprocess
from itertools import zip_longest
from pathlib import Path

import pytest
from typer.testing import CliRunner

from amqtt_db.cli import app
from amqtt_db.journal import Journal
from tests.docs.test_docs import ROOT, CodeBlock, blocks
from tests.docs.test_reading_docs import MESSAGES
from tests.workbench import Sent, Workbench

PAGE = ROOT / "docs" / "moving.md"


@pytest.mark.slow
def test_the_commands_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the messages of the page about reading are stored."""
    monkeypatch.chdir(tmp_path)
    bench = Workbench(tmp_path, {"topic": "home/{room}/climate", "latest": True}, {"topic": "#"})
    bench.send(*(Sent(topic, payload.encode()) for _, topic, payload in MESSAGES))
    bench.close()
    Journal.open(tmp_path / "mqtt.journal", max_size=2**20, sync="never").close()
    (tmp_path / "new.yaml").write_text("broker: mqtt://localhost\ndatabase: sqlite:///new.db\n", encoding="utf-8")
    wanted = [block for block in blocks(PAGE) if block.language in {"sh", "text"}]
    for example, answer in zip_longest(wanted, wanted[1:]):
        if example.language == "sh":
            _run(example, answer if answer is not None and answer.language == "text" else None)


def _run(example: CodeBlock, answer: CodeBlock | None) -> None:
    printed = "".join(map(_run_line, example.text.splitlines()))
    assert printed.splitlines() == ([] if answer is None else answer.text.splitlines()), example.name


def _run_line(line: str) -> str:
    program, *arguments = shlex.split(line)
    environment = {"COLUMNS": "200"}
    while "=" in program:
        name, _, value = program.partition("=")
        environment[name], (program, *arguments) = value, arguments
    if program != "amqtt-db":
        return subprocess.run([program, *arguments], check=True, capture_output=True, text=True).stdout
    result = CliRunner(env=environment).invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return result.stdout
