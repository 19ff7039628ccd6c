"""The models of the documentation do what it says, and keep the contract by its two lines."""

from __future__ import annotations

import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import strategies as st

from amqtt_db.testing import ModelContract, strategies
from amqtt_db.testing.databases import SQLITE
from tests.docs.test_docs import ROOT, RecordBatch, blocks
from tests.effort import tried
from tests.workbench import Workbench

PAGE = ROOT / "docs" / "custom-models.md"
BLOCKS = list(blocks(PAGE))
LAWS = [name for name in vars(ModelContract) if name.startswith("test_")]
MODULES = ("my_climate", "my_lines", "test_my_models")


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory with the Python files of the page, which can be imported."""
    directory = tmp_path_factory.mktemp("page")
    for block in BLOCKS:
        if block.language == "python":
            (directory / f"{_name(block)}.py").write_text(block.text, encoding="utf-8")
    sys.path.insert(0, str(directory))
    yield directory
    sys.path.remove(str(directory))
    for name in MODULES:
        sys.modules.pop(name, None)


def _name(block: RecordBatch) -> str:
    return block.text.partition("\n")[0].removeprefix("# ").removesuffix(".py")


def routes(model: str) -> list[dict[str, Any]]:
    """The routes of the page that name a model."""
    (text,) = (block.text for block in BLOCKS if block.language == "yaml" and model in block.text)
    found: list[dict[str, Any]] = yaml.safe_load(text)["routes"]
    return found


def test_every_file_of_the_page_is_known() -> None:
    """The files are those that are executed here."""
    assert tuple(_name(block) for block in BLOCKS if block.language == "python") == MODULES


@pytest.mark.usefixtures("modules")
def test_ten_lines_add_a_computed_column(tmp_path: Path) -> None:
    """The SQL of the page finds what its table shows; odd temperatures have no Fahrenheit and are stored."""
    bench = Workbench(tmp_path, *routes("my_climate"))
    bench.send(("home/attic/climate", {"temp": 20}))
    (query,) = (block.text for block in BLOCKS if block.language == "sql")
    assert bench.sql(query) == [("attic", 20.0, 68.0)]
    assert "| attic | 20.0 | 68.0 |" in PAGE.read_text(encoding="utf-8")
    for odd in (b'{"temp": NaN}', b'{"temp": 1' + b"0" * 400 + b"}", b'{"temp": "hot"}', b'{"temp": null}', b"{}"):
        bench.send(("home/attic/climate", odd))
    assert bench.sql("SELECT count(*), count(fahrenheit) FROM climate") == [(6, 1)]
    assert bench.dead() == []
    bench.send(("garden/climate", {"temp": 0}))
    assert bench.sql("SELECT fahrenheit FROM garden") == [(32.0,)]


@pytest.mark.usefixtures("modules")
def test_a_model_from_scratch_stores_and_finds(tmp_path: Path) -> None:
    """One table under the name that the YAML gives it, JSON that a reader of the database understands."""
    bench = Workbench(tmp_path, *routes("my_lines"))
    bench.send(("a", {"v": 1.5, "o": {"p": "x"}}), ("b", {"v": None}))
    assert bench.sql("SELECT topic, body FROM everything ORDER BY id") == [("a", '{"v":1.5,"o.p":"x"}'), ("b", "{}")]
    assert bench.data() == [{"v": 1.5, "o": {"p": "x"}}, {}]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", ["TestClimate", "TestLines"])
def test_the_models_of_the_page_keep_the_contract(name: str, law: str, modules: Path) -> None:
    """Each law, by the two lines of the page; the built-in models are tried harder."""
    source = (modules / "test_my_models.py").read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "test_my_models"}
    exec(compile(source, "test_my_models.py", "exec"), namespace)  # noqa: S102 - that is the point
    test = getattr(namespace[name](), law)
    with tried(10):
        test(*([SQLITE] if "database" in inspect.signature(test).parameters else []))


def test_pytest_finds_the_laws_by_two_lines(modules: Path) -> None:
    """As a reader runs it: every law is collected for each model."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "test_my_models.py"]
    done = subprocess.run(command, cwd=modules, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("TestClimate", "TestLines"):
        assert {law for law in LAWS if re.search(rf"::{name}::{law}\b", done.stdout)} == set(LAWS)


def test_every_law_and_generator_is_documented() -> None:
    """The page lists what a contributor gets."""
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^\| `(test_\w+)`", text, re.MULTILINE) == LAWS
    (sentence,) = re.findall(r"`amqtt_db.testing.strategies`, for tests of your own: (.*)", text)
    assert all(isinstance(getattr(strategies, name)(), st.SearchStrategy) for name in _without_arguments(sentence))


def _without_arguments(sentence: str) -> list[str]:
    return [name for name in re.findall(r"`(\w+)`", sentence) if name != "messages"]
