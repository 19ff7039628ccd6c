"""A disk on which writing and syncing fail at random: a library around the system's calls, made by the C compiler."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Final

import attrs
import pytest

_SOURCE: Final = Path(__file__).with_suffix(".c")


@attrs.frozen
class BadDisk:
    """What a process needs in its environment so that some of its files are on a bad disk, and when it is bad."""

    library: Path
    switch: Path
    power: Path

    def environment(self, files: str) -> dict[str, str]:
        """The environment in which files whose path contains ``files`` are on the bad disk."""
        return {
            "LD_PRELOAD": str(self.library), "BAD_DISK_SWITCH": str(self.switch), "BAD_DISK_POWER": str(self.power),
            "BAD_DISK_FILES": files,
        }  # fmt: skip

    def failing(self, per_thousand: int) -> AbstractContextManager[None]:
        """So many of a thousand calls fail."""
        return _switched(self.switch, per_thousand)

    def losing_power(self, per_thousand: int) -> AbstractContextManager[None]:
        """The power goes off at so many of a thousand calls: what was not synced is gone, and the process ends."""
        return _switched(self.power, per_thousand)


@contextmanager
def _switched(switch: Path, per_thousand: int) -> Iterator[None]:
    new = switch.with_suffix(".new")
    new.write_text(str(per_thousand))
    new.replace(switch)
    try:
        yield
    finally:
        switch.unlink()


@pytest.fixture(scope="session")
def bad_disk(tmp_path_factory: pytest.TempPathFactory) -> BadDisk:
    """Compile the library."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: install gcc")
    directory = tmp_path_factory.mktemp("disk")
    library = directory / "bad_disk.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", library, _SOURCE, "-ldl", "-lpthread"], check=True)
    return BadDisk(library, directory / "switch", directory / "power")
