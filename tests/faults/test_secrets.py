"""Passwords stay where they were written, files are private, and nothing that is stored can run."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from typer.testing import CliRunner

import amqtt_db
from amqtt_db.cli import app
from tests.faults.conftest import Count
from tests.faults.load import Load
from tests.faults.postgres import Cluster
from tests.faults.scene import Scene

SECRET = "s3cr3t-p4ssw0rd"  # noqa: S105 - it is looked for
PACKAGE = Path(amqtt_db.__file__).parent


@pytest.mark.fault("errors of a database whose URL has a password")
def test_a_password_is_nowhere(tmp_path: Path, cluster: Cluster, postgres: str, count: Count, round_: int) -> None:
    """Not in the log, whatever goes wrong; not in `status`, `check` or `dead list`; not in the list of processes."""
    url = postgres.replace("postgres@", f"postgres:{SECRET}@")
    with Scene(tmp_path, url) as scene:
        assert scene.process is not None
        for process in (scene.process.pid, scene.writer()):
            assert SECRET.encode() not in Path(f"/proc/{process}/cmdline").read_bytes()
        load = Load(scene.port, 3)
        load.wait(100)
        cluster.crash()
        scene.until_logged("retrying until it works")
        said = [_said(scene, *command) for command in (["status"], ["check"], ["dead", "list"])]
        cluster.start()
        ledger = load.end()
        verdict = scene.judge(ledger)
        said += [_said(scene, "status"), _said(scene, "journal", "info"), scene.log.read_text()]
        assert [text for text in said if SECRET in text] == []
        count(verdict)


def _said(scene: Scene, *command: str) -> str:
    done = CliRunner().invoke(app, [*command, str(scene.config)])
    return done.stdout + done.stderr


def test_files_are_private(tmp_path: Path) -> None:
    """Whatever the broker and its writer make is for their user alone, also with a generous umask."""
    with Scene(tmp_path / "scene") as scene:
        Load(scene.port, 3, most=10).finished()
        scene.settle()
        made = [path for path in scene.directory.iterdir() if path.name.startswith("mqtt.")]
        assert {path.name for path in made} >= {"mqtt.db", "mqtt.journal", "mqtt.journal.attempt"}
        assert {path.name: oct(path.stat().st_mode & 0o777) for path in made} == dict.fromkeys(
            (path.name for path in made), "0o600"
        )


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_stored_can_run(path: Path) -> None:
    """No pickle, marshal, shelve, eval, exec or unsafe YAML in the package, apart from `testing`."""
    if "testing" in path.relative_to(PACKAGE).parts:
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert not imported & {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"eval", "exec", "compile"}
    attributes = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    assert not attributes & {"unsafe_load", "full_load", "UnsafeLoader", "FullLoader"}
