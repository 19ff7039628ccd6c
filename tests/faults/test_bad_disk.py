"""A bad disk: writes and syncs fail at random, or are short, and what was not synced is gone; with kills in between."""

from __future__ import annotations

import random
import time
from pathlib import Path

import pytest

from tests.faults.bad_disk import BadDisk, bad_disk
from tests.faults.conftest import Count
from tests.faults.load import Load
from tests.faults.scene import Scene

__all__ = ["bad_disk"]


class FragileScene(Scene):
    """A broker that may fail to start, because its disk is bad."""

    def revive(self) -> None:
        """Start it, until it listens or has ended and said why."""
        read = self.log.stat().st_size
        try:
            self.start()
        except AssertionError:
            assert self.process is not None
            assert self.process.poll() == 1
            assert f"\njournal {self.journal}: " in self.log.read_text()[read - 1 :]

    @property
    def runs(self) -> bool:
        """True unless it has ended."""
        return self.process is not None and self.process.poll() is None


@pytest.fixture
def scene(tmp_path: Path, bad_disk: BadDisk, monkeypatch: pytest.MonkeyPatch) -> FragileScene:
    """A broker whose journal and database are on the bad disk."""
    for name, value in bad_disk.environment("/disk/mqtt.").items():
        monkeypatch.setenv(name, value)
    disk = tmp_path / "disk"
    disk.mkdir()
    return FragileScene(disk)


@pytest.mark.slow
@pytest.mark.fault("bad disk: writes and syncs fail or are short, with kills in between")
def test_a_bad_disk(
    scene: FragileScene, bad_disk: BadDisk, rng: random.Random, count: Count, round_: int, scale: int
) -> None:
    """Journal and database fail now and then, or nearly always: nothing is acknowledged falsely, and it recovers.

    Positions of the journal are skipped by messages that were never committed, and so never acknowledged.
    """
    with scene:
        load = Load(scene.port)
        try:
            load.wait(300)
            for per_thousand in (10, 100, 900) if scale > 1 else (rng.choice([100, 400]),):
                with bad_disk.failing(per_thousand):
                    time.sleep(rng.uniform(0.1, 0.5))
                    rng.choice([scene.kill, scene.kill_both, scene.kill_writer])()
                    if not scene.runs:
                        scene.revive()
                    time.sleep(rng.uniform(0.1, 0.5))
                if not scene.runs:
                    scene.start()
                load.more(300)
            with bad_disk.failing(900):  # by chance, all before may have gone well
                scene.until_logged("until it works")
        finally:
            load.stop()
        verdict = scene.judge(load.end(), is_whole=False)
        assert verdict.dead == 0
        assert not scene.logged("Traceback")
        count(verdict)
