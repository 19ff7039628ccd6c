"""The package builds, and works where nothing else of the repository is."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[1]


def run(*command: object, cwd: Path = ROOT) -> str:
    """Run a command; return what it prints."""
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, cwd=cwd)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with the sdist, and the wheel that is made of its contents."""
    place = tmp_path_factory.mktemp("built")
    run(sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", place)
    (sdist,) = place.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(place / "source", filter="data")
    (source,) = (place / "source").iterdir()
    run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", place, cwd=source)
    return place


@pytest.mark.slow
def test_the_wheel_has_the_package_and_nothing_else(built: Path) -> None:
    """Every file of it, those that are not Python too."""
    (wheel,) = built.glob("*.whl")
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    files = (path for path in (ROOT / "amqtt_db").rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert names == {str(path.relative_to(ROOT)) for path in files}


@pytest.mark.slow
def test_it_works_in_an_empty_environment(built: Path, tmp_path: Path) -> None:
    """With its libraries, and without the repository: the command runs and reads a configuration."""
    (wheel,) = built.glob("*.whl")
    place = tmp_path / "env"
    venv.create(place, with_pip=False)
    run(sys.executable, "-m", "pip", "--python", place / "bin" / "python", "install", "--no-deps", "--quiet", wheel)
    (packages,) = (place / "lib").glob("python*/site-packages")
    (packages / "libraries.pth").write_text(sysconfig.get_path("purelib"))
    code = "import amqtt_db; print(amqtt_db.__file__, amqtt_db.__version__)"
    where, version = run(place / "bin" / "python", "-c", code, cwd=tmp_path).split()
    assert where.startswith(str(packages))
    assert wheel.name.startswith(f"amqtt_db-{version}-")
    assert "listeners:" in run(place / "bin" / "amqtt-db", "init", "--output", "-", cwd=tmp_path)
