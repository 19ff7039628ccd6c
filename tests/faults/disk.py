"""A disk that is too small, for tests that need a full one; and a substitute for users who cannot create one."""

from __future__ import annotations

import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

_ROOM: Final = 64 * 1024
"""Bytes that a file may have on a disk that only seems to be full; enough for a log, and for no load."""


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[Path]:
    """A directory at ``path``; if this user can create one, it is a separate file system of ``size`` bytes."""
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "faults", str(path)]
    if os.geteuid() != 0 or subprocess.run(mount, check=False).returncode != 0:
        yield path
        return
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


def require_own(disk: Path) -> None:
    """Skip a test that needs a separate file system."""
    if not disk.is_mount():
        pytest.skip("a small file system needs root: run this fault as root, in a container of its own")


@contextmanager
def full(disk: Path, process: int = 0) -> Iterator[str]:
    """Fill all space on a disk; yield SQLite's error message for it.

    If the disk is not a separate file system, no file that ``process`` writes may grow.
    """
    if disk.is_mount():
        ballast = _fill(disk)
        yield "database or disk is full"
        ballast.unlink()
    else:
        limits = resource.prlimit(process, resource.RLIMIT_FSIZE)
        resource.prlimit(process, resource.RLIMIT_FSIZE, (_ROOM, limits[1]))
        yield "disk I/O error"
        resource.prlimit(process, resource.RLIMIT_FSIZE, limits)


def made_read_only(disk: Path, database: Path) -> bool:
    """Make a database on a disk read-only for whoever opens it; return False while it is open elsewhere."""
    if disk.is_mount():
        return _remounted(disk, "ro")
    database.chmod(0o400)  # which means nothing to root
    return True


def make_writable(disk: Path, database: Path) -> None:
    """The end of that."""
    if disk.is_mount():
        assert _remounted(disk, "rw")
    else:
        database.chmod(0o600)


def _remounted(disk: Path, mode: str) -> bool:
    command = ["mount", "-o", f"remount,{mode}", str(disk)]
    return subprocess.run(command, check=False, capture_output=True).returncode == 0


def _fill(path: Path) -> Path:
    """Take all space that is left on a disk; returns the file to delete for it to come back."""
    ballast = path / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            return ballast
