"""An engine from elsewhere, as the documentation has it: registered by entry points, it stores and reads."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from amqtt_db import config
from amqtt_db.cli import app
from amqtt_db.database.engines import engine_for
from amqtt_db.database.engines.base import Engine
from amqtt_db.errors import ConfigError
from tests.database.engines.servers import Site
from tests.docs.test_docs import ROOT, blocks
from tests.workbench import Workbench

PAGE = ROOT / "docs" / "custom-engines.md"


def _install(directory: Path) -> None:
    """The package of the page, as pip would lay it down."""
    for block in blocks(PAGE):
        if block.language == "python":
            name = block.text.partition("\n")[0].removeprefix("# ")
            (directory / name).write_text(block.text, encoding="utf-8")
        elif block.language == "toml":
            points = block.text.partition("\n\n")[2]
            entries = re.sub(r'\[project\.entry-points\."(.*)"\]', r"[\1]", points).replace('"', "")
            metadata = directory / "shelf-1.0.dist-info"
            metadata.mkdir()
            (metadata / "entry_points.txt").write_text(entries, encoding="utf-8")
            (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: shelf\nVersion: 1.0\n", encoding="utf-8")


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory on the path that has the package."""
    directory = tmp_path / "site"
    directory.mkdir()
    _install(directory)
    monkeypatch.syspath_prepend(str(directory))
    importlib.invalidate_caches()
    yield directory
    sys.modules.pop("shelf", None)


@pytest.mark.usefixtures("installed")
def test_it_stores_and_reads(tmp_path: Path) -> None:
    """The methods of its class are called, views come from the third entry point, and commands know the database."""
    url = f"shelf:///{tmp_path / 'mqtt.db'}"
    with ExitStack() as stack:
        bench = Workbench(Site(tmp_path, url, stack), {"topic": "#"})
        payload = {"a": 1.0, "b": "x", "c": True, "d": 2.0, "e": [1]}
        bench.send(("t", payload))
        bench.writer.do_idle_work()
        assert type(engine_for(url)).__name__ == "Shelf"
        assert bench.data() == [payload]
        assert len([name for name in bench.columns("t") if name in payload]) == 3
        assert bench.sql("SELECT a FROM t_view") == [(1.0,)]
        with bench.writer._database.connect() as connection:
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar_one() == 3
    document = tmp_path / "broker.yaml"
    document.write_text(yaml.safe_dump({"plugins": {"amqtt_db.Plugin": {"database": url}}}), encoding="utf-8")
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["topics", str(document)])
    assert (result.exit_code, result.output.startswith("t  1 row,")) == (0, True)


def test_without_the_package_the_url_is_a_mistake() -> None:
    """It is reported when the configuration is read."""
    with pytest.raises(ConfigError, match="unknown database 'shelf'"):
        config.load_section({"database": "shelf:///mqtt.db"})


def test_the_page_lists_the_whole_interface() -> None:
    """Every name that the project asks for, and whether it must be there."""
    rows = re.findall(r"^\| `(\w+)` \| (yes)? ?\|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    public = {name for name in {*vars(Engine), *Engine.__annotations__} if not name.startswith("_")}
    needed = {name for name in public if name in Engine.__abstractmethods__ or name not in vars(Engine)}
    assert {name for name, _ in rows} == public
    assert {name for name, must in rows if must} == needed


@pytest.mark.slow
def test_the_contract_proves_it(installed: Path) -> None:
    """The laws hold on it, by the lines of the page."""
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-k",
        "replayed",
        "test_shelf.py",
    ]
    done = subprocess.run(command, cwd=installed, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed" in done.stdout
