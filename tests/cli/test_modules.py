"""A user's own modules are found, and none of them replaces one of Python's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from amqtt_db.ingest.supervisor import MISCONFIGURED, WORKER

SHADOWS = ("queue", "json", "random", "orjson", "attrs", "signal")
CONFIG = """
listeners: {default: {type: tcp, bind: "127.0.0.1:1883"}}
plugins:
  amqtt.plugins.authentication.AnonymousAuthPlugin: {allow_anonymous: true}
  amqtt_db.Plugin:
    routes: [{topic: "#", decode: my_decoder.decode}]
"""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory with modules that are called like Python's and like libraries, and one of the user's own."""
    for name in SHADOWS:
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('{name}.py of the user')")
    (tmp_path / "my_decoder.py").write_text("def decode(payload):\n    return {'n': 1}\n")
    (tmp_path / "broker.yaml").write_text(CONFIG)
    return tmp_path


@pytest.mark.slow
@pytest.mark.parametrize("start", [("-m", "amqtt_db"), ("-c", "from amqtt_db.cli import main; main()")])
def test_the_command_line_finds_own_modules_last(start: tuple[str, str], directory: Path) -> None:
    """`check` loads a decoder from the current directory, but Python's own modules come first."""
    if start[0] == "-c":
        start = ("-c", f"import sys; sys.path.pop(0); {start[1]}")  # a console script has its own directory there
    command = [sys.executable, *start, "check", "broker.yaml"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "of the user" not in done.stdout + done.stderr


@pytest.mark.slow
def test_the_writer_finds_own_modules_last(directory: Path) -> None:
    """It starts in the same directory; without a job it says so, and nothing else."""
    done = subprocess.run(WORKER, cwd=directory, input="", capture_output=True, text=True, check=False)
    assert done.returncode == MISCONFIGURED
    assert "of the user" not in done.stderr
