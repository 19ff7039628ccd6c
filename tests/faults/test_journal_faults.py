"""Faults of journals: what cannot be kept is not acknowledged, and what was acknowledged comes back."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.faults.conftest import Count
from tests.faults.disk import full, small_disk
from tests.faults.frame import judged
from tests.faults.load import Ledger, Load
from tests.faults.scene import Scene


@pytest.mark.fault("journal disk full")
def test_disk_full(tmp_path: Path, count: Count, round_: int) -> None:
    """No room: nothing is acknowledged, QoS 0 is counted as refused, said once; with room everything goes on."""
    with small_disk(tmp_path / "disk", 32 * 2**20) as disk:
        journal = {"path": str(disk / "mqtt.journal")}
        with Scene(tmp_path / "scene", journal=journal) as scene:
            assert scene.process is not None
            with judged(scene, count) as load:
                with full(disk, scene.process.pid) as complaint:
                    scene.until_logged(f"journal {scene.journal}: {complaint}; ")
                    refused = _at_qos_0(scene, 10**6)
                    before = len(load.ledger.acknowledged)
                    refused.add(_at_qos_0(scene, 10**7))
                    assert len(load.ledger.acknowledged) == before
                load.more(500)
                load.end().add(refused)
            assert (scene.status().refused or 0) >= 100
            assert len(scene.lines(complaint)) == 1
            assert scene.logged("can be written again")
            assert scene.stop() == 0


def _at_qos_0(scene: Scene, first: int) -> Ledger:
    """A hundred QoS 0 messages, which have no acknowledgement; when they are read, earlier ones are acknowledged."""
    return Load(scene.port, 1, most=100, first=first, qos=(0,)).finished()


@pytest.mark.fault("journal permission lost and given back")
def test_permission_lost(count: Count, round_: int) -> None:
    """A broker that may not write its journal says so and does not start; with permission it stores what waits."""
    with tempfile.TemporaryDirectory(prefix="amqtt_db_") as name:
        scene = Scene(Path(name)).start()
        with scene.held():
            ledger = Load(scene.port, 3, most=200).finished()
            scene.kill_both()
        scene.journal.chmod(0o000)
        try:
            assert scene.journal.exists()
            told = _as_somebody(scene)
        finally:
            scene.journal.chmod(0o600)
        assert told.returncode == 1
        assert f"journal {scene.journal}: it cannot be read and written; change its permissions" in told.stderr
        with scene:
            count(scene.judge(ledger))


AS_SOMEBODY = """
import encodings.idna, os, sys, zoneinfo
import amqtt.plugins.authentication, amqtt_db.ingest.broker.plugin, amqtt_db.cli.serve  # Python may be root's alone
os.setuid(int(sys.argv.pop(1)))
amqtt_db.cli.main()
"""


def _as_somebody(scene: Scene) -> subprocess.CompletedProcess[str]:
    """Start a broker as an ordinary user, because permissions do not apply to root."""
    command = [sys.executable, "-m", "amqtt_db", "run", str(scene.config)]
    if os.geteuid() != 0:
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=scene.directory)
    for path in (scene.directory, *scene.directory.iterdir()):
        shutil.chown(path, "nobody")
    command = [sys.executable, "-c", AS_SOMEBODY, str(scene.directory.stat().st_uid), "run", str(scene.config)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=scene.directory)


@pytest.mark.fault("journal removed under the broker")
def test_removed(tmp_path: Path, count: Count, round_: int) -> None:
    """`mv mqtt.journal` under load: this is noticed and logged, and nothing is acknowledged until it is put back."""
    with Scene(tmp_path) as scene, judged(scene, count) as load, scene.held():
        load.more(500)
        elsewhere = scene.journal.with_name("elsewhere")
        scene.journal.rename(elsewhere)
        scene.until_logged("the file was removed or replaced while this process owned it")
        scene.until(lambda: not load.goes_on(1), "nothing more is acknowledged")
        elsewhere.rename(scene.journal)
        load.more(500)
        assert scene.logged("can be written again")


@pytest.mark.fault("journal in use by another broker")
def test_in_use(tmp_path: Path, count: Count, round_: int) -> None:
    """The second broker is refused with a message; the first one does not notice."""
    with Scene(tmp_path) as scene, judged(scene, count):
        second = Scene(tmp_path / "second", journal={"path": str(scene.journal)})
        command = [sys.executable, "-m", "amqtt_db", "run", str(second.config)]
        told = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert told.returncode == 1
        assert f"journal {scene.journal}: another process owns it" in told.stderr
        assert "Traceback" not in told.stderr


@pytest.mark.fault("journal max_size reached and drained")
def test_max_size(tmp_path: Path, count: Count, round_: int) -> None:
    """Full: nothing more is acknowledged, QoS 0 is refused and counted; drained: everything goes on."""
    journal = {"path": str(tmp_path / "mqtt.journal"), "max_size": "64 KiB"}
    with Scene(tmp_path, journal=journal) as scene:
        with scene.held():
            load = Load(scene.port)
            scene.until_logged("is full: ")
            refused = _at_qos_0(scene, 10**6)
            full = len(load.ledger.acknowledged)
            refused.add(_at_qos_0(scene, 10**7))
            assert len(load.ledger.acknowledged) == full
            told = "QoS 1 and 2 are not acknowledged and wait"
            scene.until(lambda: any(told in text for text in scene.status().warnings), "the status says so")
        scene.until_logged("has room again")
        load.wait(full + 500)
        ledger = load.end()
        ledger.add(refused)
        verdict = scene.judge(ledger)
        assert (scene.status().refused or 0) >= 100
        count(verdict)
