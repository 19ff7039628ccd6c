"""The page beside real processes: it shows what arrives, ends with them, and costs them nothing when it dies."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from amqtt_db.ingest.supervisor import PAGE_SERVER
from tests.cli.test_cli import configuration, invoke
from tests.integration.bridge import MOSQUITTO, BridgeProcess, Mosquitto, until
from tests.integration.broker import BrokerProcess, RawClient, _children
from tests.ports import free_port

pytestmark = pytest.mark.slow

TIMEOUT = 60  # seconds that anything here may take at most


def look(port: int, address: str = "/") -> str:
    """The text of a page, empty if it does not answer."""
    try:
        return httpx.get(f"http://127.0.0.1:{port}{address}", timeout=TIMEOUT, trust_env=False).text
    except httpx.TransportError:
        return ""


@contextmanager
def started(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that ends with the block."""
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def page_of(broker: BrokerProcess) -> int:
    """The id of the process that serves a broker's page."""
    marks = {pid: Path(f"/proc/{pid}/cmdline").read_bytes() for pid in _children(broker.process)}
    (found,) = (pid for pid, mark in marks.items() if PAGE_SERVER[-1].encode() in mark)
    return found


def test_a_broker_has_a_page(tmp_path: Path) -> None:
    """It shows what was published; if it is killed, it comes back, and no message waits for it."""
    port = free_port()
    with BrokerProcess(tmp_path, web=f"127.0.0.1:{port}") as broker:
        with RawClient(broker.port, "tester") as client:
            client.publish("home/kitchen", [{"temp": 21.5}], 1)
            broker.until_stored(1)
            broker.until(lambda: "Messages are stored as they arrive" in look(port), "the page says that all is well")
            assert "21.5" in look(port, "/topic?name=home/kitchen")
            assert broker.process is not None
            page = page_of(broker)
            assert os.getpriority(os.PRIO_PROCESS, page) > os.getpriority(os.PRIO_PROCESS, broker.process.pid)
            os.kill(page, signal.SIGKILL)
            client.publish("home/kitchen", [{"temp": 22.5}], 1)
            broker.until_stored(2)
            broker.until(lambda: "22.5" in look(port, "/topics"), "the page is back")
        assert "the page was killed by signal 9; it is being restarted, and nothing else depends on it" in (
            broker.log.read_text()
        )
    assert look(port) == ""


@pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed")
def test_a_bridge_has_a_page(tmp_path: Path) -> None:
    """Which says that the broker is connected."""
    port = free_port()
    with (
        Mosquitto(tmp_path) as mosquitto,
        BridgeProcess(tmp_path, f"mqtt://127.0.0.1:{mosquitto.port}", web=f"127.0.0.1:{port}"),
    ):
        until(lambda: '<span class="tag on">connected' in look(port), "the page shows the connection")
    assert look(port) == ""


def test_the_page_alone(tmp_path: Path) -> None:
    """It is served until SIGTERM, even while somebody looks at it; a second one says what is in its way."""
    port = free_port()
    path = configuration(tmp_path, web=f"127.0.0.1:{port}")
    command = [sys.executable, "-m", "amqtt_db", "web", str(path)]
    with started(command) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == f"the page is on http://127.0.0.1:{port}/; Ctrl-C stops it\n"
        until(lambda: "Something needs attention" in look(port), "the page answers")
        result = invoke("web", path)
        assert result.exit_code == 1
        assert result.stderr.startswith(f"127.0.0.1:{port} is already in use")
        with httpx.stream("GET", f"http://127.0.0.1:{port}/live/overview", timeout=TIMEOUT, trust_env=False) as page:
            next(page.iter_lines())
            process.terminate()
            _, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (0, "")


def test_a_demo_that_stays(tmp_path: Path) -> None:
    """It says where to look, goes on until Ctrl-C, and then shows its tables and how to look again."""
    command = [sys.executable, "-m", "amqtt_db", "demo", "--keep-running", "--directory", str(tmp_path)]
    with started(command) as process:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:(\d+)/", process.stdout.readline())
        assert found
        until(lambda: "kitchen" in look(int(found[1]), "/devices"), "the page shows a device")
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=TIMEOUT)
    assert (process.returncode, errors) == (0, "")
    assert "messages acknowledged" in output
    assert f"web {tmp_path / 'broker.yaml'}" in output
    assert invoke("check", tmp_path / "broker.yaml", "--offline").exit_code == 0
