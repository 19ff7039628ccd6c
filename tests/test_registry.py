"""Names in the configuration and what they mean."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from amqtt_db.registry import install_command, load, load_path, suggest


def test_a_built_in_comes_first() -> None:
    """A package cannot take over one of the project's names."""
    assert load("json", {"json": 1}, "amqtt_db.none") == 1


def test_a_dotted_path_leads_anywhere() -> None:
    """Modules, attributes of classes, and the form with a colon."""
    assert load("pathlib.Path", {}, "amqtt_db.none") is Path
    assert load_path("pathlib:Path.exists") is Path.exists
    assert load_path("importlib.metadata.version").__name__ == "version"


def test_an_entry_point_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package provides its own names, and a broken one is reported."""
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[amqtt_db.things]\nmine = pathlib:Path\nbroken = no_such_module:x\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert load("mine", {}, "amqtt_db.things") is Path
    with pytest.raises(ValueError, match=r"entry point 'broken' of amqtt_db\.things cannot be loaded.*no_such_module"):
        load("broken", {}, "amqtt_db.things")
    with pytest.raises(ValueError, match="did you mean 'mine'"):
        load("mien", {"json": 1}, "amqtt_db.things")


def test_an_allow_list_bounds_what_may_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only listed packages and the project's own; nothing else, not even through modules that they have imported."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "__init__.py").write_text("import subprocess\nThing = int\n")
    (tmp_path / "minerals.py").write_text("raise SystemExit('it was imported')\n")
    info = tmp_path / "plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[amqtt_db.things]\nmine = mine:Thing\nother = pathlib:Path\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("AMQTT_DB_IMPORTS", "mine, another")
    assert load("mine.Thing", {}, "amqtt_db.none") is load("mine", {}, "amqtt_db.things") is int
    assert load("wide", {"wide": "amqtt_db.models.wide.Wide"}, "amqtt_db.none").__name__ == "Wide"
    for path in ("minerals.x", "pathlib.Path", "mine.subprocess.run", "amqtt_db.registry.os.system"):
        with pytest.raises(ValueError, match="may not be imported: AMQTT_DB_IMPORTS does not list its package"):
            load_path(path)
    with pytest.raises(ValueError, match="'pathlib' may not be imported"):
        load("other", {}, "amqtt_db.things")


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("no_such_module.x", "the module 'no_such_module' does not exist"),
        ("pathlib.Pth", "pathlib has no 'Pth'; did you mean 'Path'"),
        ("importlib.metdata.version", "importlib has no 'metdata'"),
        ("pathlib..Path", "is not a dotted path"),
        ("a b.c", "is not a dotted path"),
    ],
)
def test_what_a_path_does_not_lead_to_is_explained(path: str, says: str) -> None:
    """The error names the part of the path that is missing."""
    with pytest.raises(ValueError, match=r"dotted path|cannot be found") as error:
        load_path(path)
    assert says in str(error.value)


@pytest.mark.parametrize("line", ["import no_such_library", "raise SystemExit(3)", "def :", "1 / 0"])
def test_a_module_that_does_not_import_is_explained(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says which module fails, and with what."""
    name = f"broken_{abs(hash(line))}"
    (tmp_path / f"{name}.py").write_text(line + "\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ValueError, match=f"cannot be imported: {name} fails with "):
        load_path(f"{name}.x")


def test_a_name_far_from_all_is_told_the_valid_ones() -> None:
    """If no name is similar, all valid ones are listed."""
    assert suggest("xyz", ["json", "bytes"]) == "valid: bytes, json"
    assert suggest("jsn", ["json", "bytes"]) == "did you mean 'json'?"


@pytest.mark.parametrize(
    ("file", "content", "begin"),
    [
        ("pipx_metadata.json", "{}", "pipx inject env 'msgpack>=1'"),
        ("pyvenv.cfg", "home = /usr/bin\nuv = 0.9.1\n", f"uv pip install --python {sys.executable} 'msgpack>=1'"),
        ("pyvenv.cfg", "home = /usr/bin\n", f"{sys.executable} -m pip install 'msgpack>=1'"),
    ],
)
def test_a_library_is_installed_as_this_program_was(
    file: str, content: str, begin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By pipx, by uv, or by the pip of its environment."""
    (tmp_path / "env").mkdir()
    (tmp_path / "env" / file).write_text(content)
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "env"))
    assert install_command("msgpack>=1") == begin
