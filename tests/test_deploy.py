"""What is in ``deploy/``: checked without systemd; the image only with ``--image``."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from importlib.metadata import metadata
from pathlib import Path
from typing import Final

import pytest
import yaml

from amqtt_db import config
from tests.integration.bridge import until

DEPLOY: Final = Path(__file__).parents[1] / "deploy"


def run(*command: object) -> str:
    """Run a checker, which must be content; return what it prints."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_image_follows_the_rules() -> None:
    """Hadolint, from PyPI, knows those for a Containerfile."""
    hadolint = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("there is no hadolint")
    run(hadolint, DEPLOY / "Containerfile")


def test_the_image_has_every_extra() -> None:
    """All that a user of the image could name in the YAML."""
    extras = {*(metadata("amqtt_db").get_all("Provides-Extra") or ())}
    installed = re.search(r"'\.\[([\w,]+)\]'", (DEPLOY / "Containerfile").read_text())
    assert installed
    assert set(installed[1].split(",")) == extras - {"docs", "test", "testing"}


@pytest.mark.slow
def test_the_image_runs(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """As in the compose file, with SQLite: healthy, ends with SIGTERM, and the volume keeps what came."""
    image = request.config.getoption("--image")
    if image is None:
        pytest.skip("no --image")
    (tmp_path / "amqtt-db.yaml").write_text(
        re.sub("postgresql://.*", "sqlite:////data/mqtt.db", (DEPLOY / "amqtt-db.yaml").read_text())
    )
    where = ["--volume", f"{tmp_path}/amqtt-db.yaml:/etc/amqtt-db.yaml:ro", "--volume", f"{tmp_path.name}:/data"]
    strict = ["--network", "none", "--read-only", "--cap-drop", "all", "--security-opt", "no-new-privileges"]
    container = run("podman", "run", "--detach", *strict, "--tmpfs", "/tmp", *where, image).strip()  # noqa: S108
    try:
        is_healthy = ["podman", "healthcheck", "run", container]
        until(lambda: not subprocess.run(is_healthy, check=False).returncode, "the container is healthy")
        run("podman", "exec", container, "amqtt_pub", "-q", "1", "-t", "a/b", "-m", '{"n": 1}')
        run("podman", "stop", "--time", "30", container)
        assert run("podman", "inspect", "--format", "{{.State.ExitCode}}", container).strip() == "0"
        told = json.loads(run("podman", "run", "--rm", *strict, *where, image, "export"))
        assert (told["topic"], told["data"]) == ("a/b", {"n": 1})
    finally:
        run("podman", "rm", "--force", "--volumes", container)
        run("podman", "volume", "rm", "--force", tmp_path.name)


@pytest.mark.slow
def test_the_services_are_what_compose_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    """By its own schema; the configuration has no mistake."""
    run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", DEPLOY / "compose.yaml")
    monkeypatch.setenv("POSTGRES_PASSWORD", "secret")
    assert config.load_settings(DEPLOY / "amqtt-db.yaml").notes == ()
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    assert "./amqtt-db.yaml:/etc/amqtt-db.yaml:ro" in services["amqtt-db"]["volumes"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd-analyze")
def test_the_unit_is_hardened() -> None:
    """systemd rates what an attacker could reach through the service, from 0 to 10."""
    said = run("systemd-analyze", "security", "--offline=yes", DEPLOY / "amqtt-db.service")
    found = re.search(r"exposure level for amqtt-db\.service: ([\d.]+)", said)
    assert found
    assert float(found[1]) < 3
