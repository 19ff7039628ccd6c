"""A host of its own on this machine, whose network can be cut off or slowed down."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import pytest

_numbers = count(os.getpid() % 200)


class Host:
    """A network namespace with an address of its own, which can be cut off or connected slowly."""

    def __init__(self, name: str, link: str, address: str) -> None:
        self.name = name
        self.address = address
        self._link = link

    def run(self, user: str, *command: str | Path) -> subprocess.Popen[bytes]:
        """Start a program on the host."""
        switch = ["ip", "netns", "exec", self.name, "setpriv", f"--reuid={user}", "--clear-groups", "--"]
        return subprocess.Popen([*switch, *map(str, command)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def execute(self, *command: str | Path) -> subprocess.Popen[bytes]:
        """Start a program on the host as this user."""
        return subprocess.Popen(["ip", "netns", "exec", self.name, *map(str, command)])

    @contextmanager
    def unplugged(self) -> Iterator[None]:
        """Lose every packet, in both directions, inside the ``with`` block."""
        run("ip", "link", "set", self._link, "down")
        try:
            yield
        finally:
            run("ip", "link", "set", self._link, "up")

    def slow_down(self, rate: str) -> None:
        """Let only so much through in each direction, such as ``1mbit``; what exceeds the short queue is dropped."""
        bucket = ("root", "tbf", "rate", rate, "burst", "16kb", "latency", "50ms")
        run("tc", "qdisc", "add", "dev", self._link, *bucket)
        run("tc", "-n", self.name, "qdisc", "add", "dev", self._link.replace("amqh", "amqt"), *bucket)

    def vanish(self, seconds: float) -> subprocess.Popen[bytes]:
        """Lose every packet, in both directions, when some seconds have passed."""
        return subprocess.Popen(["sh", "-c", f"sleep {seconds}; ip link set {self._link} down"])


def run(*command: str) -> None:
    """Run a program to its end."""
    subprocess.run(command, check=True, capture_output=True)


@pytest.fixture
def host() -> Iterator[Host]:
    """A host that answers at first."""
    if shutil.which("ip") is None or shutil.which("setpriv") is None:
        pytest.skip("no network namespaces: install iproute2 and util-linux")
    number = next(_numbers)
    name, here, there = f"amqtt_db{number}", f"amqh{number}", f"amqt{number}"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True)
    if made.returncode:
        pytest.skip("no network namespaces here: the kernel or the sandbox refuses them")
    try:
        run("ip", "link", "add", here, "type", "veth", "peer", "name", there, "netns", name)
        run("ip", "addr", "add", f"10.211.{number}.1/24", "dev", here)
        run("ip", "link", "set", here, "up")
        run("ip", "-n", name, "addr", "add", f"10.211.{number}.2/24", "dev", there)
        run("ip", "-n", name, "link", "set", there, "up")
        run("ip", "-n", name, "link", "set", "lo", "up")
        yield Host(name, here, f"10.211.{number}.2")
    finally:
        subprocess.run(["ip", "netns", "del", name], check=False)
