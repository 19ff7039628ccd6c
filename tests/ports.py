"""Ports on the loopback interface, for servers that a test starts."""

from __future__ import annotations

import random
import socket
import subprocess
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

_PORTS = range(10_000, 32_000)  # below those that Linux and others give to outgoing connections
_RANDOM = random.SystemRandom()  # Hypothesis seeds the other one


def free_port() -> int:
    """Return a port that nothing uses, and that no connection takes while its server is away."""
    while True:
        port = _RANDOM.choice(_PORTS)
        with socket.socket() as trial, suppress(OSError):
            trial.bind(("127.0.0.1", port))
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
