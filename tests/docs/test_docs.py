"""The documentation is correct and complete: its YAML loads and its commands run."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import indent
from typing import Any

import attrs
import orjson
import pytest
import typer.main
import yaml

from amqtt_db import config
from amqtt_db.cli import app
from amqtt_db.config import JOURNAL_KEYS, WRITER_KEYS
from amqtt_db.config.broker_file import KEYS
from amqtt_db.config.json_schema import make_schema
from amqtt_db.config.operation import KEEP_KEYS, LOG_KEYS, METRICS_KEYS, WEB_KEYS
from amqtt_db.config.routes import ROUTE_KEYS
from amqtt_db.decode.formats import FORMATS
from amqtt_db.entity.inline import INLINE_TYPES
from amqtt_db.entity.strict import EPOCHS
from amqtt_db.models import BUILTIN
from tests.docs.codec_files import write_codec_files
from tests.integration.bridge import MOSQUITTO, Mosquitto

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LOCAL = "mqtt://localhost"
SAFE = ("check", "--version")  # commands that are run exactly as documented


@attrs.frozen
class CodeBlock:
    """A code block of a page."""

    page: Path
    line: int
    language: str
    text: str

    @property
    def name(self) -> str:
        """Page and line."""
        return f"{self.page.name}:{self.line}"


def blocks(page: Path) -> Iterator[CodeBlock]:
    """Yield the code blocks of a page in order."""
    text = page.read_text(encoding="utf-8")
    for found in re.finditer(r"^```(\w*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield CodeBlock(page, text.count("\n", 0, found.start()) + 1, found[1], found[2])


BLOCKS = [block for page in PAGES for block in blocks(page)]
YAML = [block for block in BLOCKS if block.language == "yaml"]
COMMANDS = [
    (block, shlex.split(line, comments=True))
    for block in BLOCKS
    if block.language == "sh"
    for line in block.text.splitlines()
    if line.startswith("amqtt-db")
]
REFERENCE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
EVERYTHING = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)


def documents(block: CodeBlock) -> dict[str, Any]:
    """Return a YAML block as a whole broker document, even if it is only this plugin's section."""
    data = yaml.safe_load(block.text)
    return data if "plugins" in data or config.is_bridge(data) else {"plugins": {"amqtt_db.Plugin": data}}


@pytest.fixture(autouse=True)
def _modules_of_the_docs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the named Python files importable and set the environment variables of the YAML."""
    for block in BLOCKS:
        found = re.match(r"# (\w+\.py)\n", block.text)
        if block.language == "python" and found:
            (tmp_path / found[1]).write_text(block.text, encoding="utf-8")
    for name in re.findall(r"\$\{(\w+)\}", EVERYTHING):
        monkeypatch.setenv(name, str(tmp_path))
    write_codec_files(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("block", YAML, ids=[block.name for block in YAML])
def test_every_yaml_block_loads(block: CodeBlock) -> None:
    """YAML examples have no mistakes and no useless routes."""
    assert config.load_document(documents(block), block.name).notes == ()


@pytest.mark.slow
def test_the_schema_accepts_every_yaml_block(tmp_path: Path) -> None:
    """As another tool reads it: editors mark no mistake in what the documentation shows, but one in what is wrong."""
    (tmp_path / "schema.json").write_bytes(orjson.dumps(make_schema()))
    for number, block in enumerate(YAML):
        is_whole = documents(block) == yaml.safe_load(block.text)
        text = block.text if is_whole else f"plugins:\n  amqtt_db.Plugin:\n{indent(block.text, '    ')}"
        (tmp_path / f"{number}.yaml").write_text(text, encoding="utf-8")
    (tmp_path / "wrong.yaml").write_text("broker: mqtt://localhost\nroute: []\n", encoding="utf-8")
    files = sorted(map(str, tmp_path.glob("*.yaml")))
    command = [sys.executable, "-m", "check_jsonschema", "--schemafile", "schema.json", "--output-format", "json"]
    done = subprocess.run([*command, *files], capture_output=True, text=True, check=False)
    errors = orjson.loads(done.stdout)["errors"]
    assert [(Path(error["filename"]).name, error["path"]) for error in errors] == [("wrong.yaml", "$")]


@pytest.mark.parametrize(
    "block", [block for block in BLOCKS if block.language == "python"], ids=lambda block: block.name
)
def test_every_python_block_compiles(block: CodeBlock) -> None:
    """Python examples compile."""
    compile(block.text, block.name, "exec")


@pytest.mark.slow
@pytest.mark.parametrize(("block", "command"), COMMANDS, ids=[f"{block.name} {' '.join(c)}" for block, c in COMMANDS])
def test_every_command_exists(block: CodeBlock, command: list[str]) -> None:
    """Commands in the documentation exist, with their options; the safe ones run."""
    parser: Any = typer.main.get_command(app)
    arguments = command[1:]
    while arguments and arguments[0] in getattr(parser, "commands", {}):
        parser = parser.commands[arguments.pop(0)]
    options = {option for parameter in parser.params for option in parameter.opts}
    assert {argument for argument in arguments if argument.startswith("--")} <= options
    if command[1] in SAFE and LOCAL in command:
        _run_beside_mosquitto(block.page, command[1:])
    elif command[1] in SAFE:
        _run(block.page, command[1:])


def _run_beside_mosquitto(page: Path, arguments: list[str]) -> None:
    """Run a documented command that needs a broker on this machine."""
    if MOSQUITTO is not None:
        with Mosquitto(Path.cwd()) as broker:
            _run(page, [broker.url if argument == LOCAL else argument for argument in arguments])


def _run(page: Path, arguments: list[str]) -> None:
    whole = [block.text for block in YAML if block.page == page and "listeners" in block.text]
    if whole:
        Path("broker.yaml").write_text(whole[0], encoding="utf-8")
    done = subprocess.run([sys.executable, "-m", "amqtt_db", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "key", [*KEYS, *JOURNAL_KEYS, *WRITER_KEYS, *METRICS_KEYS, *WEB_KEYS, *LOG_KEYS, *KEEP_KEYS, *ROUTE_KEYS]
)
def test_every_setting_is_documented(key: str) -> None:
    """The reference explains each configuration key."""
    assert f"`{key}`" in REFERENCE


@pytest.mark.parametrize("name", [*FORMATS, *INLINE_TYPES, *BUILTIN, *EPOCHS, "iso8601"])
def test_every_name_is_documented(name: str) -> None:
    """The reference has each decoder, type, format and model."""
    assert f"`{name}`" in REFERENCE


def commands(parser: Any, path: str = "amqtt-db") -> Iterator[tuple[str, Any]]:
    """Yield every command with its full name."""
    if hasattr(parser, "commands"):
        for name, command in parser.commands.items():
            yield from commands(command, f"{path} {name}")
    else:
        yield path, parser


_COMMANDS = dict(commands(typer.main.get_command(app)))


@pytest.mark.parametrize("name", _COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    """The documentation has each command with its options, and each command has a help text."""
    assert re.search(rf"`{name}\b", EVERYTHING)
    assert _COMMANDS[name].help
    options = {option for parameter in _COMMANDS[name].params for option in parameter.opts if option.startswith("--")}
    assert [option for option in sorted(options - {"--help"}) if f"`{option}" not in EVERYTHING] == []


def test_links_between_pages_lead_somewhere() -> None:
    """Relative links point to existing files and headings."""
    for page in PAGES:
        for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page.read_text(encoding="utf-8")):
            file = (page.parent / target).resolve() if target else page
            assert file.exists(), f"{page.name}: {target}"
            text = file.read_text(encoding="utf-8") if file.suffix == ".md" else ""
            headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
            slugs = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert not anchor or anchor in slugs, f"{page.name}: {target}#{anchor}"


def test_every_sentence_has_a_line_of_its_own() -> None:
    """One sentence per line keeps diffs small."""
    for page in PAGES:
        prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
        crowded = [line for line in prose.splitlines() if "|" not in line and re.search(r"[a-z`)]\. [A-Z]", line)]
        assert crowded == [], page.name
