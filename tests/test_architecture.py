"""The package's rules: imports point one way, the broker's process stays light, and the docs name every package."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import amqtt_db

ROOT = Path(amqtt_db.__file__).parent
PICTURE = ROOT.parent / "docs" / "architecture.md"

ROOMS = [
    "errors",
    "message",
    "record",
    "tagged",
    "registry",
    "journal",
    "decode",
    "entity",
    "models",
    "routing",
    "database",
    "config",
    "ingest",
    "reader",
    "writer",
    "web",
    "draft",
    "cli",
    "__main__",
    "testing",
]
"""In the order of the way; each may import those before it."""


def _modules() -> Iterator[Path]:
    return ROOT.rglob("*.py")


def _room(module: str) -> str:
    return module.removeprefix("amqtt_db").lstrip(".").partition(".")[0]


def _imported(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "amqtt_db":
            room = _room(node.module or "")
            found.update([room] if room else [alias.name for alias in node.names if alias.name in ROOMS])
    return found


@pytest.mark.parametrize("path", sorted(_modules()), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    """A package imports only packages that come before it."""
    room = path.relative_to(ROOT).with_suffix("").parts[0]
    if room == "__init__":
        return
    assert room in ROOMS, f"{room} has no place in the house yet"
    later = {other for other in _imported(path) if other in ROOMS and ROOMS.index(other) > ROOMS.index(room)}
    assert not later


def test_every_room_is_in_the_picture() -> None:
    """docs/architecture.md names each of them."""
    picture = PICTURE.read_text()
    rooms = {path.relative_to(ROOT).with_suffix("").parts[0] for path in _modules()} - {"__init__", "__main__"}
    assert not [room for room in sorted(rooms) if f"{room}/" not in picture and f"{room}.py" not in picture]


def test_the_brokers_process_never_imports_sqlalchemy() -> None:
    """The plugin and everything it needs do without it."""
    code = "import sys, amqtt_db; amqtt_db.Plugin; sys.exit('sqlalchemy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
