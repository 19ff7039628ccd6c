"""An editor with the YAML language server completes the YAML and finds mistakes, by the schema that we print."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from amqtt_db.config.json_schema import make_schema

SERVER: Final = "yaml-language-server"
PACKAGE: Final = f"{SERVER}@1"
YAML: Final = """\
# yaml-language-server: $schema=amqtt-db.schema.json
broker: mqtt://localhost
journal: {sync: sometimes}
routes:
  - topic: home/{room}/climate
    modle: wide
    model:
      wide:
        table: climate
    decode:
      csv:
        comma: maybe
"""


class Editor:
    """Speaks the language server protocol with a server; files are in ``directory``."""

    def __init__(self, command: Path, directory: Path) -> None:
        self._server = subprocess.Popen([command, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._number = 0
        self._notices: list[dict[str, Any]] = []
        self.directory = directory
        self.ask("initialize", processId=None, rootUri=directory.as_uri(), capabilities={})
        self.tell("initialized")

    def close(self) -> None:
        """End the server."""
        self._server.kill()
        self._server.communicate()

    def open(self, name: str, text: str) -> str:
        """Open a file; return its URI."""
        uri = (self.directory / name).as_uri()
        self.tell("textDocument/didOpen", textDocument={"uri": uri, "languageId": "yaml", "version": 1, "text": text})
        return uri

    def problems(self, uri: str) -> list[tuple[int, str]]:
        """Return the lines, from 1, and the messages of what the server reports about a file, once it does."""
        while True:
            for notice in self._notices:
                if notice.get("method") == "textDocument/publishDiagnostics" and notice["params"]["uri"] == uri:
                    found = notice["params"]["diagnostics"]
                    return sorted((one["range"]["start"]["line"] + 1, one["message"]) for one in found)
            self._notices.append(self._receive())

    def completions(self, uri: str, line: int, column: int) -> dict[str, str]:
        """Return what the server offers at a position, from 0: label → documentation."""
        found = self.ask("textDocument/completion", textDocument={"uri": uri}, position=position(line, column))
        return {one["label"]: str(one.get("documentation", "")) for one in found["items"]}

    def ask(self, method: str, **params: Any) -> Any:
        """Send a request; return the result."""
        self._number += 1
        self._send(id=self._number, method=method, params=params)
        while True:
            answer = self._receive()
            if answer.get("id") == self._number and "method" not in answer:
                return answer["result"]
            self._notices.append(answer)

    def tell(self, method: str, **params: Any) -> None:
        """Send a notice."""
        self._send(method=method, params=params)

    def _send(self, **message: Any) -> None:
        assert self._server.stdin
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        self._server.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._server.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        """Return the next message; a request of the server's own gets an empty answer."""
        assert self._server.stdout
        length = 0
        while line := self._server.stdout.readline().strip():
            name, _, value = line.partition(b":")
            length = int(value) if name == b"Content-Length" else length
        message: dict[str, Any] = json.loads(self._server.stdout.read(length))
        if "id" in message and "method" in message:
            items = message.get("params", {}).get("items", [])
            self._send(id=message["id"], result=[{} for _ in items])
        return message


def position(line: int, column: int) -> dict[str, int]:
    """Return a position, from 0, as the protocol has it."""
    return {"line": line, "character": column}


@pytest.fixture(scope="session")
def command(request: pytest.FixtureRequest) -> Path:
    """Return the server's command; it is installed once, into pytest's cache."""
    installed = shutil.which(SERVER)
    if installed:
        return Path(installed)
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("npm is not there to install yaml-language-server with")
    directory = Path(request.config.cache.mkdir(SERVER))
    found = directory / "node_modules" / ".bin" / SERVER
    if not found.exists():
        patience = ["--fetch-retries=1", "--fetch-timeout=20000"]
        done = subprocess.run([npm, "install", "--silent", *patience, "--prefix", directory, PACKAGE], check=False)
        if done.returncode:
            pytest.skip("npm cannot install yaml-language-server")
    return found


@pytest.fixture
def editor(command: Path, tmp_path: Path) -> Iterator[Editor]:
    """Yield an editor in a directory that has the schema."""
    (tmp_path / "amqtt-db.schema.json").write_text(json.dumps(make_schema()))
    made = Editor(command, tmp_path)
    yield made
    made.close()


@pytest.mark.slow
def test_an_editor_finds_mistakes_and_completes(editor: Editor) -> None:
    """Keys, values and options of models and decoders, each with what it means."""
    uri = editor.open("a.yaml", YAML)
    lines = dict(editor.problems(uri))
    assert {3: "sometimes" in lines[3] or "always" in lines[3], 6: "modle" in lines[6]} == {3: True, 6: True}
    assert set(lines) == {3, 6, 12}

    lines_of = YAML.splitlines()
    more = editor.open("b.yaml", YAML + "    \n")
    offered = editor.completions(more, len(lines_of), 4)
    assert {"unknown", "keep", "latest"} <= set(offered)
    assert "How long records are kept" in offered["keep"]
    value = editor.open("c.yaml", "\n".join(lines_of[:2]) + "\njournal:\n  sync: \n")
    assert {"always", "1s", "never"} <= set(editor.completions(value, 3, 8))
    option = editor.open("d.yaml", "\n".join(lines_of[:11]) + "\n        \n")
    assert {"delimiter", "comma", "names"} <= set(editor.completions(option, 11, 8))
