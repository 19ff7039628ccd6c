"""The examples about reading run and print what the page shows."""

from __future__ import annotations

import io
import re
import shlex
import signal
import subprocess
import sys
from contextlib import redirect_stdout
from datetime import timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner

from amqtt_db.cli import app
from amqtt_db.record import EPOCH
from tests.docs.test_docs import ROOT, CodeBlock, blocks
from tests.workbench import ARRIVAL, Sent, Workbench

PAGE = ROOT / "docs" / "reading.md"
BLOCKS = list(blocks(PAGE))
EXAMPLES = list(zip(BLOCKS[::2], BLOCKS[1::2], strict=True))
MESSAGES = re.findall(r"^\| (20[\d :-]+) \| `(.*)` \| `(.*)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture
def _stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Store the page's messages in a new directory."""
    monkeypatch.chdir(tmp_path)
    route = {"topic": "home/{room}/climate", "latest": True, "rollup": [{"every": "5 min"}]}
    bench = Workbench(tmp_path, route, {"topic": "#"})
    bench.send(*(Sent(topic, payload.encode()) for _, topic, payload in MESSAGES))
    bench.writer.retention.finish()
    bench.close()


def test_the_messages_of_the_page() -> None:
    """The page's messages have the times that a workbench assigns."""
    times = [EPOCH + timedelta(seconds=ARRIVAL // 1_000_000 + number) for number in range(4)]
    assert [time for time, _, _ in MESSAGES] == [f"{time:%Y-%m-%d %H:%M:%S}" for time in times]


@pytest.mark.slow
@pytest.mark.usefixtures("_stored")
@pytest.mark.parametrize(("example", "answer"), EXAMPLES, ids=[example.name for example, _ in EXAMPLES])
def test_every_example_prints_what_the_page_says(example: CodeBlock, answer: CodeBlock) -> None:
    """Each example is followed by its output."""
    assert (example.language in {"sh", "python"}, answer.language) == (True, "text")
    printed = _python(example.text) if example.language == "python" else _command(example.text, answer.text)
    assert [line.rstrip() for line in printed.splitlines()] == answer.text.splitlines()


def _python(text: str) -> str:
    with redirect_stdout(io.StringIO()) as printed:
        exec(compile(text, str(PAGE), "exec"), {})  # noqa: S102 - the project's own documentation
    return printed.getvalue()


def _command(text: str, answer: str) -> str:
    program, *arguments = shlex.split(text)
    assert program == "amqtt-db"
    if arguments[0] == "tail":
        return _tail(arguments, len(answer.splitlines()))
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, arguments)
    assert result.exit_code == 0
    assert all(line.startswith("configuration: ") for line in result.stderr.splitlines())
    return result.stdout


def _tail(arguments: list[str], lines: int) -> str:
    """Return what it prints until it waits; Ctrl-C ends it cleanly."""
    command = [sys.executable, "-m", "amqtt_db", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = [process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=30)
    assert (process.returncode, rest) == (0, "")
    return "".join(printed)
