"""Ports on the loopback interface, for servers that a test starts."""

from __future__ import annotations

import socket
import subprocess
from time import monotonic, sleep
from typing import Any


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def wait_for_port(port: int, process: subprocess.Popen[Any], seconds: float = 20.0) -> None:
    """Return when a process listens on the port.  Raises RuntimeError if it ends, or does not in time."""
    deadline = monotonic() + seconds
    while True:
        with socket.socket() as attempt:
            if attempt.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or monotonic() > deadline:
            raise RuntimeError(f"nothing listens on port {port}")
        sleep(0.05)
