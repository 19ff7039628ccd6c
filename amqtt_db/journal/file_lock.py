"""Locked files: only one process can hold a lock, and it ends with that process, however that ends."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path


def try_lock(path: str | Path) -> int | None:
    """Lock a file, creating it with mode 0600 if it is missing; return its descriptor, or None if it is locked.

    Closing the descriptor unlocks the file.  Raises OSError if the file cannot be opened.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BaseException as error:
        os.close(file)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return file


def is_locked(file: int) -> bool:
    """Return True if another process has locked an open file; try a shared lock and release it at once."""
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_UN)
    return False
