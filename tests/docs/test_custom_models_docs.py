"""The models in the documentation do what it says and pass the contract."""

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
from tests.docs.test_docs import ROOT, CodeBlock, blocks
from tests.effort import tried
from tests.workbench import Workbench

PAGE = ROOT / "docs" / "custom-models.md"
BLOCKS = [*blocks(PAGE), *blocks(ROOT / "docs" / "fast-models.md")]
LAWS = [name for name in vars(ModelContract) if name.startswith("test_")]
MODULES = (
    *("my_climate", "my_devices", "my_lines", "my_latest", "my_star", "my_samples", "my_orders"),
    *("test_my_models", "my_fast_lines"),
)
MODELS = (
    *("TestClimate", "TestByDevice", "TestLines", "TestWithLatest", "TestStar", "TestSamples", "TestOrders"),
    "TestFastLines",
)
FAST = """
import my_fast_lines

class TestFastLines(ModelContract):
    model = my_fast_lines.FastLines()
"""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Write the page's Python files to an importable directory."""
    directory = tmp_path_factory.mktemp("page")
    for block in BLOCKS:
        if block.language == "python":
            (directory / f"{_name(block)}.py").write_text(block.text, encoding="utf-8")
    sys.path.insert(0, str(directory))
    yield directory
    sys.path.remove(str(directory))
    for name in MODULES:
        sys.modules.pop(name, None)


def _name(block: CodeBlock) -> str:
    return block.text.partition("\n")[0].removeprefix("# ").removesuffix(".py")


def routes(model: str) -> list[dict[str, Any]]:
    """Return the routes of the page that name a model."""
    (text,) = (block.text for block in BLOCKS if block.language == "yaml" and model in block.text)
    found: list[dict[str, Any]] = yaml.safe_load(text)["routes"]
    return found


def test_every_file_of_the_page_is_known() -> None:
    """This module runs every Python file of the page."""
    assert tuple(_name(block) for block in BLOCKS if block.language == "python") == MODULES


@pytest.mark.usefixtures("modules")
def test_two_methods_add_a_computed_column(tmp_path: Path) -> None:
    """The page's SQL returns what its table shows; odd temperatures are stored without Fahrenheit."""
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
    """It fills one table with the name from the YAML, and its JSON is readable in SQL."""
    bench = Workbench(tmp_path, *routes("my_lines"))
    bench.send(("a", {"v": 1.5, "o": {"p": "x"}}), ("b", {"v": None}))
    assert bench.sql("SELECT topic, body FROM everything ORDER BY id") == [("a", '{"v":1.5,"o.p":"x"}'), ("b", "{}")]
    assert bench.data() == [{"v": 1.5, "o": {"p": "x"}}, {}]


@pytest.mark.usefixtures("modules")
def test_a_lookup_gives_ids_to_devices(tmp_path: Path) -> None:
    """Each text is in the lookup's table once, and the index exists."""
    bench = Workbench(tmp_path, *routes("my_devices"))
    bench.send(*((f"home/{room}/{device}", {"v": 1}) for room in "ab" for device in ("lamp", "door")))
    query = "SELECT d.device, count(*) FROM readings r JOIN device d ON d.id = r.device GROUP BY 1 ORDER BY 1"
    assert bench.sql(query) == [("door", 2), ("lamp", 2)]
    assert bench.sql("SELECT count(*) FROM device") == [(2,)]
    (index,) = bench.sql("SELECT sql FROM sqlite_master WHERE name LIKE 'ix_readings_device_time%'")
    assert "(device, time)" in index[0]


@pytest.mark.usefixtures("modules")
def test_the_newest_value_of_each_topic(tmp_path: Path) -> None:
    """A row per topic; a late message does not replace it, and history has everything."""
    bench = Workbench(tmp_path, {"topic": "#", "model": "my_latest.WithLatest", "time": "at"})
    bench.send(("a", {"at": 10, "v": 1}), ("b", {"at": 10, "v": 2}))
    bench.send(("a", {"at": 30, "v": 3}), ("a", {"at": 20, "v": 4}))
    bench.send(("a", {"at": 5, "v": 5}), ("b", {"at": 11, "v": 6}))
    query = "SELECT s.sender, l.data->>'v', l.id FROM history_latest l JOIN sender s ON s.id = l.topic ORDER BY 1"
    assert [(topic, float(value), id_ % 2**40) for topic, value, id_ in bench.sql(query)] == [("a", 3, 3), ("b", 6, 6)]
    assert len(bench.records()) == 6


@pytest.mark.usefixtures("modules")
def test_facts_over_two_dimensions(tmp_path: Path) -> None:
    """A join by two ids finds the readings of a room."""
    bench = Workbench(tmp_path, {"topic": "#", "model": "my_star.Star"})
    bench.send(("plant/hall/t1", {"temp": 20}), ("plant/yard/t1", {"temp": "cold"}), ("alone", {"temp": 3, "v": 1}))
    query = (
        "SELECT p.site, p.room, s.sensor, f.celsius FROM fact f JOIN place p ON p.id = f.place "
        "JOIN sensor s ON s.id = f.sensor ORDER BY f.id"
    )
    assert bench.sql(query) == [("plant", "hall", "t1", 20.0), ("plant", "yard", "t1", None), ("alone", "", "", 3.0)]
    assert bench.data() == [{"temp": 20.0}, {"temp": "cold"}, {"temp": 3.0, "v": 1.0}]


@pytest.mark.usefixtures("modules")
def test_samples_are_packed(tmp_path: Path) -> None:
    """Eight bytes for each number."""
    bench = Workbench(tmp_path, {"topic": "#", "model": "my_samples.Samples"})
    bench.send(("a", {"samples": [0.5, 1.5, -2.5], "rate": 10}), ("a", {"samples": ["x"]}))
    assert bench.sql("SELECT count, length(samples) FROM waveform ORDER BY id") == [(3, 24), (None, None)]
    assert bench.data() == [{"samples": [0.5, 1.5, -2.5], "rate": 10.0}, {"samples": ["x"]}]


@pytest.mark.usefixtures("modules")
def test_lines_of_orders_have_rows_of_their_own(tmp_path: Path) -> None:
    """As many as there are, in their order."""
    bench = Workbench(tmp_path, {"topic": "#", "model": "my_orders.Orders"})
    orders: list[dict[str, Any]] = [{"n": 7.0, "lines": [{"sku": "a"}, {"sku": "b"}]}, {"n": 8.0}, {"lines": []}]
    bench.send(*(("o", order) for order in orders))
    assert bench.sql("SELECT number, body FROM order_line ORDER BY id, number") == [
        (0, '{"sku":"a"}'), (1, '{"sku":"b"}'),
    ]  # fmt: skip
    assert bench.data() == orders


def test_the_models_of_the_page_are_short() -> None:
    """At most 25 lines each, and three methods and as many hooks."""
    for block in BLOCKS:
        if block.language == "python" and _name(block) in MODULES[:-2]:
            code = block.text[block.text.index("@attrs.frozen") :]
            assert len(code.splitlines()) <= 25, block.name


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("name", MODELS)
def test_the_models_of_the_page_keep_the_contract(name: str, law: str, modules: Path) -> None:
    """Each law, by the two lines that the page has for each of its models; the built-in models are tried harder."""
    source = (modules / "test_my_models.py").read_text(encoding="utf-8")
    namespace: dict[str, Any] = {"__name__": "test_my_models"}
    exec(compile(source + FAST, "test_my_models.py", "exec"), namespace)  # noqa: S102 - that is the point
    test = getattr(namespace[name](), law)
    with tried(5):
        test(*([SQLITE] if "database" in inspect.signature(test).parameters else []))


@pytest.mark.slow
def test_pytest_finds_the_laws_by_two_lines(modules: Path) -> None:
    """Every law is collected for each model, as when a reader runs it."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "test_my_models.py"]
    done = subprocess.run(command, cwd=modules, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in MODELS[:-1]:
        assert {law for law in LAWS if re.search(rf"::{name}::{law}\b", done.stdout)} == set(LAWS)


def test_every_law_and_generator_is_documented() -> None:
    """The page lists every law and generator."""
    text = PAGE.read_text(encoding="utf-8")
    assert re.findall(r"^\| `(test_\w+)`", text, re.MULTILINE) == LAWS
    (sentence,) = re.findall(r"`amqtt_db.testing.strategies`, for your own tests: (.*)", text)
    assert all(isinstance(getattr(strategies, name)(), st.SearchStrategy) for name in _without_arguments(sentence))


def _without_arguments(sentence: str) -> list[str]:
    return [name for name in re.findall(r"`(\w+)`", sentence) if name != "messages"]
