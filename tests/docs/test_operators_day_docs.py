"""The operator's day works: the page runs from top to bottom, and shows what is seen."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.database.engines.servers import Site
from tests.docs.test_docs import ROOT, blocks
from tests.integration.bridge import until
from tests.ports import free_port

PAGE: Final = ROOT / "docs" / "operators-day.md"
OLD: Final = ROOT / "tests" / "fixtures" / "version_3"
PATIENCE: Final = 60.0
LOOKS: Final = re.compile(r"amqtt-db (query|status|check|dead list)\b")
"""Commands that only look, so they may be repeated until they show what the page shows."""


class Shell:
    """A bash that runs one block after the other; ``words`` of the page are replaced by what is so here."""

    def __init__(self, directory: Path, words: Mapping[str, str]) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        known = {**os.environ, "PATH": path, "COLUMNS": "200", "NO_COLOR": "1"}
        self._directory, self._words = directory, words
        self._process = subprocess.Popen(
            ["bash"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=directory, env=known, text=True,
        )  # fmt: skip

    def run(self, text: str) -> str:
        """Run a block; return what it prints."""
        text = self._adapted(text)
        assert self._process.stdin
        starts, log = "amqtt-db run" in text, self._directory / "run.log"
        if starts:
            log.unlink(missing_ok=True)
        self._process.stdin.write(f"{text}\necho =done=\n")
        self._process.stdin.flush()
        printed = "".join(self._lines())
        if starts:
            until(lambda: log.exists() and "listens on" in log.read_text(), "the broker listens", PATIENCE)
        return printed

    def adapt(self, name: str) -> None:
        """Replace the page's words in a file."""
        path = self._directory / name
        path.write_text(self._adapted(path.read_text()))

    def _adapted(self, text: str) -> str:
        for word, here in self._words.items():
            text = text.replace(word, here)
        return text

    def close(self) -> None:
        """End the shell; a broker that it has left is ended too."""
        assert self._process.stdin
        self._process.stdin.write("kill $broker 2> /dev/null; wait\n")
        self._process.communicate(timeout=PATIENCE)

    def _lines(self) -> Iterator[str]:
        assert self._process.stdout
        while (line := self._process.stdout.readline()) != "=done=\n":
            assert line, "the shell has ended"
            yield line


def differs(shown: str, printed: str) -> str:
    """Return the first line of the page that is not printed, in this order; nothing if all are."""
    lines = iter(printed.splitlines())
    for wanted in shown.splitlines():
        pattern = re.compile(re.escape(wanted).replace("…", ".*"))
        if not any(pattern.match(line) for line in lines):
            return wanted
    return ""


def see(shell: Shell, command: str, shown: str) -> None:
    """Run a block that must print what is shown; if it only looks, within a while."""
    end = time.monotonic() + PATIENCE
    while wanted := differs(shown, printed := shell.run(command)):
        may_wait = all(map(LOOKS.search, command.strip().splitlines()))
        assert may_wait and time.monotonic() < end, f"{wanted!r} is not in\n{printed}"  # noqa: PT018


@pytest.fixture
def shell(postgresql: Site, tmp_path: Path) -> Iterator[Shell]:
    """Yield a shell in a directory that has an older store."""
    for path in OLD.glob("old.*"):
        shutil.copy(path, tmp_path)
    words = {
        "127.0.0.1:1883": f"127.0.0.1:{free_port()}",
        "127.0.0.1:9641": f"127.0.0.1:{free_port()}",
        "postgresql://nobody:wrong@localhost/mqtt": "postgresql://nobody:wrong@127.0.0.1:9/mqtt",
        "postgresql://mqtt@localhost/mqtt": postgresql.url,
    }
    made = Shell(tmp_path, words)
    yield made
    made.close()


@pytest.mark.slow
def test_the_day(shell: Shell) -> None:
    """Each block is run once, or until it shows what the page shows."""
    page = [block for block in blocks(PAGE) if block.language in ("bash", "text")]
    for block, after in zip(page, [*page[1:], None], strict=True):
        if block.language == "bash":
            see(shell, block.text, after.text if after is not None and after.language == "text" else "")
        if "amqtt-db init" in block.text:  # other ports, so that nothing else on this machine is met
            shell.adapt("amqtt-db.yaml")
